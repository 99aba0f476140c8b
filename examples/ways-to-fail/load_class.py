"""Writes Load.class: `class Load { public static void main(String[] a) { System.load(a[0]); } }`.

So a JRE will do, which has no compiler (The Java Virtual Machine Specification, chapter 4).
"""

from __future__ import annotations

import struct
from pathlib import Path

ACC_PUBLIC, ACC_STATIC, ACC_SUPER = 0x1, 0x8, 0x20
UTF8, CLASS, METHOD, NAME_AND_TYPE = 1, 7, 10, 12
VERSION = 52  # Java 8
ALOAD_0, ICONST_0, AALOAD, INVOKESTATIC, RETURN = b"\x2a", b"\x03", b"\x32", b"\xb8", b"\xb1"


def u2(*numbers: int) -> bytes:
    """Numbers of two bytes each."""
    return struct.pack(f">{len(numbers)}H", *numbers)


class Pool:
    """The constants of a class; each method returns the index of one."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    def add(self, tag: int, data: bytes) -> int:
        """Any constant."""
        self.entries.append(bytes([tag]) + data)
        return len(self.entries)

    def text(self, text: str) -> int:
        """A string."""
        return self.add(UTF8, u2(len(text)) + text.encode())

    def named(self, name: str) -> int:
        """A class."""
        return self.add(CLASS, u2(self.text(name)))

    def method(self, of: str, name: str, kind: str) -> int:
        """A method of a class."""
        at = self.named(of)
        return self.add(METHOD, u2(at, self.add(NAME_AND_TYPE, u2(self.text(name), self.text(kind)))))


def load_class() -> bytes:
    """The class file."""
    pool = Pool()
    load = pool.method("java/lang/System", "load", "(Ljava/lang/String;)V")
    code = ALOAD_0 + ICONST_0 + AALOAD + INVOKESTATIC + u2(load) + RETURN
    body = u2(2, 1) + struct.pack(">I", len(code)) + code + u2(0, 0)  # stack, locals, ...; no handlers, no attributes
    main = u2(ACC_PUBLIC | ACC_STATIC, pool.text("main"), pool.text("([Ljava/lang/String;)V"), 1, pool.text("Code"))
    names = u2(ACC_PUBLIC | ACC_SUPER, pool.named("Load"), pool.named("java/lang/Object"))
    head = struct.pack(">I", 0xCAFEBABE) + u2(0, VERSION, len(pool.entries) + 1) + b"".join(pool.entries)
    rest = u2(0, 0, 1) + main + struct.pack(">I", len(body)) + body + u2(0)  # no interfaces, no fields, one method
    return head + names + rest


if __name__ == "__main__":
    Path("Load.class").write_bytes(load_class())
