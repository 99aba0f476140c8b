"""What a type checker makes of the library: checked by mypy with the rest of the tests, and never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import dlwhy
from dlwhy.report import Cure, StaticTls, Step, TreeNode
from dlwhy.report_tls import TlsObject

host = dlwhy.Host.executable(Path("/usr/bin/node"), env={"LD_LIBRARY_PATH": "/opt/lib"})
assert_type(host, dlwhy.Host)
assert_type(dlwhy.Host.plain(), dlwhy.Host)

report = dlwhy.check(["./index.node", Path("x.so")], host=host, sysroot="/srv", libc="glibc-2.31", secure=True)
assert_type(report, dlwhy.CheckReport)
assert_type(report.steps, tuple[Step, ...])
assert_type(report.steps[0].outcome, str)
assert_type(report.steps[0].message, str | None)
assert_type(report.static_tls, StaticTls | None)
assert_type(report.static_tls.free if report.static_tls else 0, int)
assert_type(report.tls, tuple[TlsObject, ...])
assert_type(report.cures, tuple[Cure, ...])
assert_type(report.exit_status, int)
assert_type(report.but(steps=()), dlwhy.CheckReport)

assert_type(dlwhy.each([Path("dist")]), Iterator[dlwhy.CheckReport | dlwhy.FailedReport])
assert_type(dlwhy.tls(["x.so"]).files[0].tls, TlsObject | None)
assert_type(dlwhy.tree("x.so", host).root, TreeNode)
assert_type(dlwhy.diff("a.so", Path("b.so"), host, lock="Cargo.lock"), dlwhy.DiffReport)
assert_type(dlwhy.unresolved(["x.so"], env={}), Iterator[dlwhy.UnresolvedReport])
assert_type(dlwhy.__version__, str)

host.target = "other"  # type: ignore[misc]  # records are immutable
dlwhy.check("x.so", hots=host)  # type: ignore[call-arg]
dlwhy.check([1])  # type: ignore[list-item]
print(report.steps[0].outcom)  # type: ignore[attr-defined]
