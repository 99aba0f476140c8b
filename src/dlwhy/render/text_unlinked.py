"""Object files and archives -> text: what `tls` says of them beside what it says of every file."""

from __future__ import annotations

from dlwhy.render.style import LABEL, columns, count, label, pad, parts, room, shortened, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.render.style import Piece, Style
    from dlwhy.report_tls import TlsFile

_MANY = 6
"""Members shown without -v; the rest is one line."""
_NAME = 40
_MODELS = ("initial-exec", "TLSDESC", "general-dynamic", "local-dynamic", "local-exec")


def heading(one: TlsFile) -> str:
    """Return the first line of an object file or archive."""
    size = f"{count(one.tls.size, 'byte')} of TLS" if one.tls is not None else "no TLS of its own"
    models = _models(one)
    told = f"{size}, {', '.join(models)}" if models else size
    if one.members_total is None:
        return f"{one.path}: an object file, not linked yet: {told}"
    return f"{one.path}: an archive of {count(one.members_total, 'member')}, not linked yet: {told}"


def verdict(one: TlsFile) -> str | None:
    """Return what the accesses mean for a library that this is linked into; None where there is none."""
    models = _models(one)
    if "initial-exec" in models:
        return "in a shared library its initial-exec accesses force TLS into the static block"
    if "local-exec" in models:
        return "for programs only: local-exec cannot be linked into a shared library"
    return "dynamic: nothing here forces static TLS" if models else None


def _models(one: TlsFile) -> list[str]:
    return [model for model in _MODELS if any(access.model == model for access in one.accesses)]


def members(one: TlsFile, style: Style) -> list[str]:
    """Return the members that have to do with TLS, those that force it into the static block first."""
    if one.members_total is None:
        return []
    found = sorted((member for member in one.members if member.error is None), key=_rank)
    shown = found if style.verbose else found[:_MANY]
    names = [member.path[len(one.path) + 1 : -1] for member in shown]
    width = min(max(map(columns, names), default=0), _NAME, room(style) - 8)
    sizes = [str(member.tls.size if member.tls is not None else 0) for member in shown]
    digits = max(map(len, sizes), default=0)
    lines: list[str] = []
    for name, size, member in zip(names, sizes, shown, strict=True):
        told = ", ".join(f"{number} {model}" for model, number in _counts(member).items())
        left = f"{pad(shortened(name, width, style), width)}  {size.rjust(digits)}"
        pieces: list[Piece] = [(left, ()), *([(told, ("dim",))] if told else [])]
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, label(style, "" if lines else "members"))
    broken = [member.error for member in one.members if member.error is not None]
    rest = [f"{len(found) - len(shown)} more with TLS (-v)"] if len(found) > len(shown) else []
    without = one.members_total - len(found) - len(broken) - one.members_foreign
    rest += [f"{without} without TLS"] if without else []
    rest += [f"{one.members_foreign} no ELF"] if one.members_foreign else []
    if rest:
        lines.append(label(style, "" if lines else "members") + style.paint(", ".join(rest), "dim"))
    for error in broken:
        lines += [" " * LABEL + style.paint(line, "yellow") for line in wrapped(error or "", room(style))]
    return lines


def _rank(member: TlsFile) -> tuple[int, int, str]:
    size = member.tls.size if member.tls is not None else 0
    return (-_counts(member).get("initial-exec", 0), -size, member.path)


def _counts(member: TlsFile) -> dict[str, int]:
    """Return model -> accesses."""
    counts: dict[str, int] = {}
    for access in member.accesses:
        if access.model in _MODELS:
            counts[access.model] = counts.get(access.model, 0) + access.sites
    return counts
