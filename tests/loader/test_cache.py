"""ld.so.cache: the order of its keys, its two formats, and this system's own against ldconfig."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from itertools import zip_longest
from struct import pack

import pytest

from dlwhy.loader.cache import NEW_MAGIC, OLD_MAGIC, Cache, compare

X86_64 = 0x303


def new_format(entries):
    """A cache in the new format: (key, path, flags, hwcap) each, in the order given."""
    strings, rows = b"", b""
    start = 48 + 24 * len(entries)
    for key, path, flags, hwcap in entries:
        rows += pack("<iIIIQ", flags, start + len(strings), start + len(strings) + len(key) + 1, 0, hwcap)
        strings += key + b"\0" + path + b"\0"
    header = NEW_MAGIC + pack("<II", len(entries), len(strings)) + bytes([2, 0, 0, 0]) + pack("<I", 0) + bytes(12)
    return header + rows + strings


def look_up(cache, name, flags=X86_64):
    """The path that a cache gives for a name, nothing special active."""
    hit = cache.look_up(name, frozenset((1, flags)), lambda _: None, lambda word: not word)
    return hit.path if hit else None


@pytest.mark.parametrize(
    ("one", "two", "sign"),
    [
        (b"libx.so.2", b"libx.so.10", -1),
        (b"libx.so.10", b"libx.so.10", 0),
        (b"libb", b"liba", 1),
        (b"lib1", b"liba", 1),
        (b"a", b"ab", -1),
    ],
)
def test_digits_compare_as_numbers(one, two, sign):
    """Runs of digits count as numbers, a digit sorts above any other character."""
    result = compare(one, two)
    assert (result > 0) - (result < 0) == sign
    back = compare(two, one)
    assert (back > 0) - (back < 0) == -sign


def by_bytes(one, two, signed):
    """The order of two names, byte by byte and number by number."""

    def pieces(name):
        found = re.findall(rb"[0-9]+|[^0-9]", name)
        return [(1, as_int(piece)) if piece.isdigit() else (0, signed_byte(piece[0], signed)) for piece in found]

    rows = pieces(one), pieces(two)
    for a, b in zip_longest(*rows, fillvalue=(0, 0)):
        if a != b:
            return 1 if a > b else -1
    return 0


def as_int(digits):
    """A number that wraps round as an int of C does."""
    return (int(digits) + (1 << 31)) % (1 << 32) - (1 << 31)


def signed_byte(byte, signed):
    """A char of C."""
    return byte - 256 if signed and byte > 127 else byte


@pytest.mark.parametrize("signed", [True, False])
def test_what_names_have_in_common_does_not_matter(signed):
    """The order of names that begin alike is that of a comparison from the first byte on, also amid numbers."""
    made = random.Random(20261124)
    for _ in range(20_000):
        head, one, two = (bytes(made.choices(b"01929ab.\xff\x80-", k=made.randrange(7))) for _ in range(3))
        result = compare(head + one, head + two, signed)
        assert (result > 0) - (result < 0) == by_bytes(head + one, head + two, signed), (head, one, two)


def test_new_format_is_searched_by_halves():
    """Every key of a descending table is found, and no other."""
    names = sorted(
        {f"lib{n}.so.{n % 13}".encode() for n in range(200)},
        key=lambda n: [int(p) if p.isdigit() else p for p in n.decode().replace("lib", "").split(".so.")],
        reverse=True,
    )
    cache = Cache(new_format([(name, b"/lib/" + name, X86_64, 0) for name in names]))
    for name in names:
        assert look_up(cache, name.decode()) == "/lib/" + name.decode()
    assert look_up(cache, "libmissing.so.1") is None


def test_entries_for_another_machine_are_passed_over():
    """Of two entries with one key the one with the right flags is taken."""
    cache = Cache(new_format([(b"liba.so.1", b"/lib32/liba.so.1", 3, 0), (b"liba.so.1", b"/lib/liba.so.1", X86_64, 0)]))
    assert look_up(cache, "liba.so.1") == "/lib/liba.so.1"
    assert look_up(cache, "liba.so.1", 0xA03) is None


def test_old_format_and_embedded_new_one():
    """The old format is read by itself; where the new one follows it, the new one wins."""
    key, path = b"liba.so.1", b"/old/liba.so.1"
    old = OLD_MAGIC + pack("<I", 1) + pack("<iII", X86_64, 0, len(key) + 1)
    assert look_up(Cache(old + key + b"\0" + path + b"\0"), "liba.so.1") == "/old/liba.so.1"
    padded = old + bytes(-len(old) % 8)
    both = padded + new_format([(key, b"/new/liba.so.1", X86_64, 0)])
    assert look_up(Cache(both), "liba.so.1") == "/new/liba.so.1"


@pytest.mark.parametrize("cut", range(0, 160, 7))
def test_truncated_caches_give_nothing_or_less(cut):
    """A cache cut anywhere is unusable or finds nothing wrong; it never raises."""
    data = new_format([(b"liba.so.1", b"/lib/liba.so.1", X86_64, 0)])[:cut]
    assert look_up(Cache(data), "liba.so.1") in (None, "/lib/liba.so.1", "")


@pytest.mark.oracle
def test_this_systems_cache_equals_ldconfig():
    """Every library that `ldconfig -p` lists for this machine is found at the path it lists first."""
    ldconfig = shutil.which("ldconfig", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    assert ldconfig, "ldconfig belongs to every Debian and Ubuntu"
    with open("/etc/ld.so.cache", "rb") as file:
        cache = Cache(file.read())
    listed: dict[str, str] = {}
    for line in subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout.splitlines():
        name, _, path = line.strip().partition(" => ")
        soname, _, kind = name.partition(" (")
        if path and kind == "libc6,x86-64)":
            listed.setdefault(soname, path)
    assert len(listed) > 20
    assert {name: look_up(cache, name) for name in listed} == listed
