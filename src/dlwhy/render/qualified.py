"""Names of functions in a line: the qualified name without what the reader of a line does not need.

    v8::internal::Heap::Allocate(unsigned long)      v8::internal::Heap::Allocate
    void sort<int*, Less>(int*, int*, Less)          sort<int*, Less>, or sort<...> where that is too long
    <a::b::C as d::E<f::G>>::run::<h::I>             <C as E>::run

What is still too long loses the outer namespaces, for the name itself stands at the end. Nothing is left out with -v.
"""

from __future__ import annotations

from dlwhy.render.style import columns, shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.render.style import Style

_PAIRS = {"(": ")", "<": ">", "[": "]", "{": "}"}
_BEHIND = (" const", " volatile", " &", " &&")
_MOST = 4096
"""Characters that are looked at; what is longer is cut in its middle."""


def qualified(name: str) -> str:
    """Return a demangled name without parameters, and without the return type of a template."""
    if len(name) > _MOST or name.startswith("function at "):
        return name
    text = name
    while text.endswith(_BEHIND):
        text = text[: max(text.rfind(one) for one in _BEHIND)]
    start = _parameters(text)
    if not start:
        return name
    text = text[:start]
    if text.endswith(">") and "operator" not in text:  # only a template's name has its return type before it
        text = _parts(text, " ")[-1]
    return text


def fitting(name: str, width: int, style: Style) -> str:
    """Return a function's name for a line: the qualified one, the part of it that tells most, or with -v the whole."""
    if style.verbose:
        return name
    text = qualified(name)
    if columns(text) <= width or len(text) > _MOST:
        return shortened(text, width, style)
    text = _plain(text, style.dash)
    parts = _parts(text, "::")
    while len(parts) > 1 and columns("::".join(parts)) + len(style.dash) > width:
        del parts[0]
    text = "::".join(parts) if len(parts) == len(_parts(text, "::")) else f"{style.dash}{'::'.join(parts)}"
    return shortened(text, width, style)


def _parameters(text: str) -> int:
    """Return where the list of parameters at the end begins; 0 when there is none."""
    if not text.endswith(")") or text.endswith(("operator()", "(anonymous namespace)")):
        return 0
    depth = 0
    for place in range(len(text) - 1, -1, -1):
        depth += (text[place] == ")") - (text[place] == "(")
        if not depth:
            return place
    return 0


def _plain(text: str, dash: str) -> str:
    """Return a name whose arguments of templates are a dash; of `<A as B>::f` the last parts of A and B."""
    if text.startswith("<") and " as " in text:
        end = _end(text, 0)
        kind, _, trait = text[1 : end - 1].partition(" as ")
        if end < len(text) and trait:
            return f"<{_last(kind)} as {_last(trait)}>{_plain(text[end:], dash)}"
    result, place = "", 0
    while place < len(text):
        if text[place] == "<" and "operator" not in result[-9:] and place:
            end = _end(text, place)
            if end < len(text) or not result.endswith("::"):  # ::<T> at the end of a Rust name says little
                result += f"<{dash}>"
            else:
                result = result[:-2]
            place = end
        else:
            result += text[place]
            place += 1
    return result


def _last(text: str) -> str:
    """Return the last part of a path, without arguments: of `&a::b::C<D>` it is `C`."""
    return _parts(text.partition("<")[0] or text, "::")[-1].lstrip("&*")


def _end(text: str, start: int) -> int:
    """Return the place behind the bracket that closes the one at `start`; the end when none does."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] == "<":
            depth += 1
        elif text[place] == ">" and text[place - 1] != "-":
            depth -= 1
            if not depth:
                return place + 1
    return len(text)


def _parts(text: str, between: str) -> list[str]:
    """Return the parts of a name that `between` parts, outside of all brackets."""
    result = [""]
    depth = place = 0
    while place < len(text):
        if not depth and text.startswith(between, place) and result[-1]:
            result.append("")
            place += len(between)
            continue
        depth += (text[place] in _PAIRS) - (text[place] in _PAIRS.values() and text[place - 1 : place + 1] != "->")
        depth = max(depth, 0)
        result[-1] += text[place]
        place += 1
    return [part for part in result if part] or [text]
