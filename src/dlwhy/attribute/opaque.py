"""Opaque files: a small loader in front of a large payload that nothing but the loader can read.

What such a file brings into the process is in none of its tables, so whoever reads them must know that they do not
tell all. A file is called opaque when three facts come together, each of which honest libraries have alone:

    payload   one stretch of its loaded bytes, 256 KiB at the least, looks like random bytes: compressed or encrypted
    little    there are four times as many of these as of code, and they are half of all that is loaded, or more
    opens     the code imports what brings code into a process (dlopen, mprotect...), or the stretch is itself in a
              segment that may be executed, which no machine code looks like

Fat binaries of GPUs are such stretches, too, but no code of this process: a list of sections leaves them out.
"""

from __future__ import annotations

from dlwhy.attribute.opened import imported
from dlwhy.elf.constants import PF_X
from dlwhy.errors import DlwhyError
from dlwhy.loader.faults import Unknown
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.elf.file import Elf

_LEAST = 256 << 10
"""Bytes of a stretch that is worth a word."""
_TIMES = 4
_SHARE = 0.5
"""How much more than code, and which part of all loaded bytes, the stretch must be."""
_STEP = 64 << 10
_SAMPLE = 4096
"""Of every 64 KiB the first 4 KiB are looked at."""
_FEW, _ENOUGH = 6, 2
"""Samples from all of a segment, and how many of them make it worth a look at all: half of it would be three."""
_VALUES = 250
"""Different values in a sample; what has fewer is not worth a logarithm."""
_SOON = 225
"""Different values in the first quarter of a sample: 251 in random bytes, and hardly ever as few as 240."""
_ZEROS = _SAMPLE // 10
"""Bytes of one value that leave no room for `_BITS`: a tenth of one and all others alike are 7.66 bits."""
_MISSED = 3
"""Samples with more structure, one after the other, that do not end a stretch: a compressor has weak spots."""
_BITS = 7.7
"""Bits of entropy a byte: 4096 random bytes have 7.955, compressed ones 7.75 and more, machine code 5 to 6.8."""
_BRINGERS = (b"dlopen", b"dlmopen", b"mprotect", b"memfd_create", b"fexecve")
_OF_GPUS = frozenset((".nv_fatbin", ".nvFatBinSegment", "__nv_relfatbin", ".hip_fatbin"))


class Payload(Record):
    """The stretch that makes a file opaque."""

    offset: int
    """Where in the file it begins, to 64 KiB."""
    size: int
    """Bytes, to 64 KiB."""
    code: int
    """Bytes of executable segments beside it."""
    loaded: int
    """Bytes of all loaded segments."""
    opens: str | None
    """What the code imports; None where the stretch itself may be executed."""


def payload(elf: Elf) -> Payload | None:
    """Return the payload of an opaque file, None for any other. Never raises: what cannot be read hides nothing."""
    try:
        return _payload(elf)
    except (DlwhyError, Unknown):  # a captured system holds no more of a file than the loader reads
        return None


def told(found: Payload, name: str) -> str:
    """Return what is said of an opaque file that is called `name`, in one sentence."""
    part = f"{_size(found.size)} of {_size(found.loaded)} are one stretch that looks compressed or encrypted"
    how = f", which imports {found.opens}" if found.opens else ", and it may be executed itself"
    return (
        f"{name} hides its code: {part}; beside it stand {_size(found.code)} of code{how}; "
        "what this brings into the process is in no table of the file"
    )


def _size(number: int) -> str:
    if number < 10 << 10:
        return f"{number} bytes"
    return f"{number / (1 << 20):.1f} MiB" if number >= 1 << 20 else f"{number >> 10} KiB"


def _payload(elf: Elf) -> Payload | None:
    loads = [(row[2], min(row[5], max(elf.view.size - row[2], 0)), bool(row[1] & PF_X)) for row in elf.loads]
    loaded = sum(size for _, size, _ in loads)
    executable = sum(size for _, size, may in loads if may)
    best: tuple[int, int, bool] | None = None
    for offset, size, may in loads:
        code = executable - size if may else executable
        if size < _LEAST or size < _SHARE * loaded or size < _TIMES * code:  # as nearly every library
            continue
        if not (may or imported(elf, _BRINGERS)) or not _worth(elf, offset, size):
            continue
        for start, length in _stretches(elf, offset, size):
            if best is None or length > best[1]:
                best = start, length, may
    if best is None or best[1] < _LEAST or best[1] < _SHARE * loaded:
        return None
    start, length, may = best
    code = max(executable - length, 0) if may else executable
    if length < _TIMES * code or _of_gpu(elf, start, length):
        return None
    found = imported(elf, _BRINGERS)
    opens = next((name.decode() for name in _BRINGERS if name in found), None)
    return Payload(start, length, code, loaded, None if may else opens) if opens or may else None


def _worth(elf: Elf, offset: int, size: int) -> bool:
    """Whether a few samples from all of a segment leave open that a stretch is half of it."""
    places = range(offset, offset + size, max(size // _FEW, _SAMPLE))
    wanted, left = _ENOUGH, len(places)
    for at in places:
        wanted, left = wanted - _random(elf.view.some(at, min(_SAMPLE, offset + size - at))), left - 1
        if not 0 < wanted <= left:
            break
    return wanted <= 0


def _stretches(elf: Elf, offset: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of each run of samples without structure; a few others do not end it."""
    start, end, missed = -1, -1, 0
    for at in range(offset, offset + size, _STEP):
        if _random(elf.view.some(at, min(_SAMPLE, offset + size - at))):
            start = at if start < 0 else start
            end, missed = min(at + _STEP, offset + size), 0
        elif start >= 0:
            missed += 1
            if missed > _MISSED:
                yield start, end - start
                start = -1
    if start >= 0:
        yield start, end - start


def _random(sample: bytes) -> bool:
    """Whether bytes look like compressed or encrypted ones: each value is there, about as often as any other."""
    if len(sample) < _SAMPLE or sample.count(0) > _ZEROS or len(set(sample[: _SAMPLE // 4])) < _SOON:
        return False
    if len(set(sample)) < _VALUES:
        return False
    from math import log2  # a module of its own, which nearly no file needs

    shares = [sample.count(value) / len(sample) for value in range(256)]
    return -sum(share * log2(share) for share in shares if share) >= _BITS


def _of_gpu(elf: Elf, start: int, length: int) -> bool:
    """Whether most of a stretch lies in sections with code for another processor."""
    inside = 0
    for section in elf.sections:
        if section.name in _OF_GPUS:
            inside += max(0, min(start + length, section.offset + section.size) - max(start, section.offset))
    return 2 * inside > length
