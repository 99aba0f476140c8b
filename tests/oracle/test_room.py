"""How much static TLS others may take before a load: the real loader agrees to the byte."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from dlwhy.elf.constants import PT_TLS
from dlwhy.elf.file import read
from dlwhy.files import Files
from tests.fixtures.libraries import descriptor, gcc, initial_exec, thread_local
from tests.fixtures.real_hosts import open_in, predicted

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle


def patched(library: Path, target: Path, memsz: int, align: int, first: int = 0) -> str:
    """Return `library` written to `target` with another size, alignment and place in it of its TLS segment."""
    data = bytearray(library.read_bytes())
    elf = read(Files().open(str(library)))
    number = next(index for index, row in enumerate(elf.phdrs) if row[0] == PT_TLS)
    at = elf.phoff + number * elf.phentsize
    vaddr = elf.phdrs[number][3] & -align | first
    for place, value in ((16, vaddr), (24, vaddr), (32, 0), (40, memsz), (48, align)):
        data[at + place : at + place + 8] = value.to_bytes(8, "little")
    target.write_bytes(data)
    return str(target)


def spare(libraries: list[str], of: str) -> int:
    """Return how many bytes others may take before `of`, as the report of these loads has it."""
    report = predicted("plain", libraries)
    assert report.static_tls is not None and all(step.outcome == "loads" for step in report.steps)
    (found,) = [one.others_may_take for one in report.static_tls.blocks if one.object == of]
    assert found is not None
    told = [one.message for one in report.findings if one.rule == "static-tls-taker" and one.object == of]
    assert len(told) == 1 and f"no more than {found} before it" in told[0]
    return found


def test_to_the_byte(tmp_path: Path) -> None:
    """Of 40 random segments each loads behind as many bytes of others as told, and not behind one byte more."""
    generator = random.Random(9)
    victim, taker = initial_exec(tmp_path, "victim", 16), initial_exec(tmp_path, "taker", 16)
    for number in range(40):
        align = 1 << generator.randrange(7)
        first = generator.randrange(align)
        memsz = generator.randrange(1, 1500)
        name = patched(victim, tmp_path / f"victim{number}.so", memsz, align, first)
        most = spare([name], name)
        before = patched(taker, tmp_path / "taker0.so", most, 1) if most else None
        behind = patched(taker, tmp_path / "taker1.so", most + 1, 1)
        enough = open_in("plain", [*([before] if before else []), name])
        assert [one.outcome for one in enough.opened][-1] == "loads", (memsz, align, first, most)
        more = open_in("plain", [behind, name])
        assert [one.outcome for one in more.opened] == ["loads", "fails"], (memsz, align, first, most)
        assert b"static TLS block" in (more.opened[1].message or b"")


def test_a_step_with_two_and_one_behind_another(tmp_path: Path) -> None:
    """Of a step that places two segments both count, descriptors do not fail, and earlier steps stay where they are."""
    initial_exec(tmp_path, "dep", 200, 32)
    source = tmp_path / "top.c"
    text = "extern char *dep_address(void); __thread char t[300]; char *f(void) { dep_address(); return t; }\n"
    source.write_text(text)
    flags = ("-O1", "-shared", "-fPIC", "-ftls-model=initial-exec", f"-Wl,-rpath,{tmp_path}", f"-L{tmp_path}")
    top = str(gcc(tmp_path / "libtop.so", *flags, source, "-ldep"))
    earlier = str(initial_exec(tmp_path, "earlier", 100))
    content = str(descriptor(tmp_path, "content", 60))
    taker = initial_exec(tmp_path, "taker", 16)
    for libraries in ([top], [earlier, top], [content, top], [earlier, content, top]):
        most = spare(libraries, top)
        for extra, outcome in ((0, "loads"), (1, "fails")):
            name = patched(taker, tmp_path / f"taker{extra}.so", most + extra, 1)
            seen = open_in("plain", [*libraries[:-1], name, top])
            assert [one.outcome for one in seen.opened][-2:] == ["loads", outcome], (libraries, most)
    report = predicted("plain", [content])
    assert report.static_tls is not None
    late = [one for one in report.static_tls.blocks if one.when != "startup"]
    assert [one.others_may_take for one in late] == [None]
    assert "are content with less" in report.findings[0].message


def test_dynamic_segments_that_could_not_move(tmp_path: Path) -> None:
    """A dynamic segment is said to be too big exactly where the loader refuses it to an initial-exec access."""
    user = tmp_path / "user.c"
    user.write_text("extern __thread char big_variable[]; char *f(void) { return big_variable; }\n")
    for size in (1600, 1700, 1704, 1712, 1713, 1720, 1760, 4000):
        big = str(thread_local(tmp_path, "big", size, 8))
        flags = ("-O1", "-shared", "-fPIC", "-ftls-model=initial-exec", f"-Wl,-rpath,{tmp_path}", f"-L{tmp_path}")
        name = str(gcc(tmp_path / "libuser.so", *flags, user, "-lbig"))
        told = [one.rule for one in predicted("plain", [big]).findings]
        refused = open_in("plain", [name]).opened[0].outcome == "fails"
        assert (told == ["big-dynamic-tls"]) == refused, size
