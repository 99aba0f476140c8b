"""$ORIGIN, $LIB and $PLATFORM in paths (ld.so(8), Dynamic string tokens; glibc elf/dl-load.c, _dl_dst_substitute).

From 2.28 on a token's name ends where no letter, digit or underscore follows; earlier releases wanted the unbraced form
to be followed by '/' or the end. Both readings agree on every path in use.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

_DST = r"\$(?:(ORIGIN|LIB|PLATFORM)(?![A-Za-z0-9_])|\{(ORIGIN|LIB|PLATFORM)\})"


def expand(text: str, values: Mapping[str, str | None]) -> str | None:
    """Return `text` with its tokens replaced, or None when one of them has no value here."""
    if "$" not in text:
        return text
    import re  # tokens are rare, and its import is not cheap

    unresolved = False

    def value(match: re.Match[str]) -> str:
        nonlocal unresolved
        found = values.get(match[1] or match[2])
        if found is None:
            unresolved = True
            return ""
        return found

    result = re.sub(_DST, value, text)
    return None if unresolved else result


def has_token(text: str) -> bool:
    """Whether a token stands in `text`."""
    if "$" not in text:
        return False
    import re

    return re.search(_DST, text) is not None


def names_origin(text: str) -> bool:
    """Whether $ORIGIN stands in `text`."""
    import re

    return any("ORIGIN" in found for found in re.findall(_DST, text))


def origin_leads(text: str) -> bool:
    """Whether $ORIGIN stands in `text` only as its first component."""
    for form in ("$ORIGIN", "${ORIGIN}"):
        if text.startswith(form):
            rest = text[len(form) :]
            return rest[:1] in ("", "/") and not names_origin(rest)
    return False


def plain_path(path: str) -> str:
    """Return an absolute path without "." and "..", with a slash at its end (is_trusted_path_normalize)."""
    done: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del done[-1:]
        elif part not in ("", "."):
            done.append(part)
    return "/" + "/".join([*done, ""])
