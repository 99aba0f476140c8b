"""The golden cases: questions about the small system of tests/fixtures/system.py, one for each thing worth seeing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import dlwhy

if TYPE_CHECKING:
    from dlwhy.report import CheckReport, TreeReport, UnresolvedReport
    from dlwhy.report_diff import DiffReport
    from dlwhy.report_tls import TlsReport
    from tests.fixtures.system import System


class Case(NamedTuple):
    """One question."""

    command: str
    words: tuple[str, ...]
    host: str = "plain"
    env: tuple[tuple[str, str], ...] = ()
    libc: str | None = None
    verbose: bool = False
    cpu: str | None = None
    map: str | None = None

    def ask(self, system: System) -> CheckReport | DiffReport | TlsReport | TreeReport | UnresolvedReport:
        """Return the report."""
        root = str(system.root)
        if self.command == "tls":
            return dlwhy.tls(self.words, sysroot=root, map=self.map)
        env = dict(self.env)
        host = (
            dlwhy.Host.plain(env) if self.host == "plain"
            else dlwhy.Host.inferred(env) if self.host == "inferred"
            else dlwhy.Host.executable(self.host, env)
        )  # fmt: skip
        if self.command == "unresolved":
            return next(dlwhy.unresolved(self.words, env=dict(self.env), sysroot=root, libc=self.libc))
        if self.command == "diff":
            return dlwhy.diff(self.words[0], self.words[1], host, sysroot=root, libc=self.libc)
        if self.command == "tree":
            return dlwhy.tree(self.words[0], host, sysroot=root, libc=self.libc)
        return dlwhy.check(self.words, host, sysroot=root, libc=self.libc, cpu=self.cpu)


def _check(*words: str, **more: object) -> Case:
    return Case("check", words, **more)  # type: ignore[arg-type]


CASES: dict[str, Case] = {
    "loads": _check("/app/libgood.so"),
    "loads-verbose": _check("/app/libgood.so", verbose=True),
    "host-starts": _check("/bin/host", host="inferred"),
    "host-does-not-start": _check("/app/libgood.so", host="/bin/broken"),
    "host-alone-does-not-start": _check("/bin/broken", host="inferred"),
    "protected-symbol": _check("/bin/copies", host="inferred", libc="glibc-2.36"),
    "protected-symbol-told": _check("/app/libguarded.so", host="/bin/copies", libc="glibc-2.35"),
    "ifunc-in-program": _check("/bin/chooser", host="inferred", libc="glibc-2.36"),
    "steps": _check(
        "libdep.so.1", "global-lazy:/app/libgood.so", "sym:2:good", "sym:2:nothing", "close:2",
        "noload:/app/libgood.so", "call:1:dep",
    ),
    "not-open": _check("/app/libgood.so", "/app/notes.txt", "close:1", "close:2"),
    "namespace": _check("newns:/app/libgood.so"),
    "invalid-mode": _check("global-newns:/app/libgood.so"),
    "not-found": _check("libnowhere.so"),
    "not-found-dependency": _check("/app/libneeds.so", env=(("LD_LIBRARY_PATH", "/opt/one:/opt/two"),)),
    "wrong-class": _check("/app/libclass32.so"),
    "wrong-machine": _check("/app/libarm.so"),
    "unreadable": _check("/app/folder.so"),
    "bad-header": _check("/app/notes.txt"),
    "bad-header-short": _check("/app/short.so"),
    "bad-segments": _check("/app/libalign.so"),
    "not-a-library": _check("now:/bin/host"),
    "isa-level": _check("/app/libfuture.so", cpu="x86-64-v2"),
    "execstack": _check("/app/libexecstack.so", libc="glibc-2.41"),
    "missing-version": _check("/app/libclient.so"),
    "bad-version-table": _check("/app/libverneed.so"),
    "undefined-symbol": _check("/app/libundefined.so"),
    "bad-relocation": _check("/app/libreloc.so"),
    "static-tls-exhausted": _check("/app/index.node"),
    "static-tls-exhausted-verbose": _check("/app/index.node", verbose=True),
    "static-tls-exhausted-by-others": _check("/app/libsmall.so", "/app/libbig.so"),
    "static-tls-innocent": _check("/app/libuser.so"),
    "static-tls-alignment": _check("/app/libaligned.so"),
    "static-tls-late": _check("/app/libsmall.so", host="/bin/musl"),
    "musl-host-does-not-start": _check("/bin/musl-broken", host="inferred"),
    "musl-relr": _check("/app/librelr.so", host="/bin/musl"),
    "musl-built-for-glibc": _check("/app/libmixed.so", host="/bin/musl"),
    "musl-tree": Case("tree", ("/app/tree/top.so",), host="/bin/musl"),
    "static-tls-before-2.32": _check("/app/libbig.so", host="/bin/host", libc="glibc-2.31"),
    "assertion": _check("/app/libpltrel.so"),
    "signal": _check("/app/libalign0.so"),
    "audit": _check("/app/libgood.so", env=(("LD_AUDIT", "/app/libaudit.so"),)),
    "opaque": _check("lazy:/plug/libpacked.so"),
    "tls-opaque": Case("tls", ("/plug/libpacked.so",)),
    "library-twice": _check("/site/one/core.so", "/site/two/core.so"),
    "unknown": _check("/app/libgood.so", libc="glibc-2.99"),
    "loader-notice": _check("/app/libgood.so", env=(("LD_PRELOAD", "/app/nothing.so"),)),
    "tls": Case("tls", ("/app/index.node", "/app/libmixed.so", "/app/libgood.so", "/app/libuser.so", "/app/notes.txt")),
    "tls-latent": Case("tls", ("/app/libowner.so", "/app/libsmall.so", "/app/libbig.so")),
    "static-tls-latent": _check("/app/libsmall.so", "/app/libowner.so"),
    "tls-archive": Case("tls", ("/app/libstory.a", "/app/go.o")),
    "tls-no-map": Case("tls", ("/app/libmixed.so",), map="/app/notes.txt"),
    "tls-other-map": Case("tls", ("/app/libmixed.so",), map="/app/other.map"),
    "tls-verbose": Case("tls", ("/app/libmixed.so",), verbose=True),
    "tree": Case("tree", ("/app/tree/top.so",)),
    "tree-opens": Case("tree", ("/plug/libopener.so",)),
    "tree-opens-verbose": Case("tree", ("/plug/libopener.so",), verbose=True),
    "tree-verbose": Case("tree", ("/app/tree/top.so",), verbose=True),
    "tree-host": Case("tree", ("/app/libgood.so",), host="/bin/host"),
    "tree-program": Case("tree", ("/bin/host",), host="inferred"),
    "unresolved": Case("unresolved", ("/app/libclient.so",)),
    "unresolved-missing": Case("unresolved", ("/app/tree/top.so",)),
    "unresolved-none": Case("unresolved", ("/app/libgood.so",)),
    "unresolved-refused": Case("unresolved", ("/app/libalign.so",)),
    "diff-worse": Case("diff", ("/app/libmixed.so", "/app/index.node"), host="plain"),
    "diff-better": Case("diff", ("/app/index.node", "/app/libmixed.so"), host="plain", verbose=True),
    "diff-otherwise": Case("diff", ("/app/libundefined.so", "/app/libclient.so")),
    "diff-undecided": Case("diff", ("/app/index.node", "/app/libgood.so"), host="inferred"),
    "diff-one-file": Case("diff", ("/app/libgood.so", "/app/libgood.so")),
    "diff-directories": Case("diff", ("/app/tree", "/app")),
    "diff-not-examined": Case("diff", ("/app/libgood.so", "/app/notes.txt")),
    "tree-missing-root": Case("tree", ("/app/nothing.so",)),
}  # fmt: skip
