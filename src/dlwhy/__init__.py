"""dlwhy, the dynamic-linker detective: will a native library load in a given process, and if not, why.

>>> import dlwhy
>>> report = dlwhy.check(["./index.node"], host=dlwhy.Host.executable("/usr/bin/node"))
>>> report.steps[0].outcome, report.steps[0].message

Public names are loaded on first use, so that `import dlwhy` (and `dlwhy --version`) costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.api import Host as Host
    from dlwhy.api import capture as capture
    from dlwhy.api import check as check
    from dlwhy.api import diff as diff
    from dlwhy.api import each as each
    from dlwhy.api import floor as floor
    from dlwhy.api import on as on
    from dlwhy.api import tls as tls
    from dlwhy.api import tree as tree
    from dlwhy.api import unresolved as unresolved
    from dlwhy.errors import DlwhyError as DlwhyError
    from dlwhy.errors import ElfError as ElfError
    from dlwhy.errors import FilesError as FilesError
    from dlwhy.errors import ProfileError as ProfileError
    from dlwhy.errors import UnsupportedError as UnsupportedError
    from dlwhy.errors import UsageError as UsageError
    from dlwhy.hosts.profile import Profile as Profile
    from dlwhy.report import CheckReport as CheckReport
    from dlwhy.report import FailedReport as FailedReport
    from dlwhy.report import TreeReport as TreeReport
    from dlwhy.report import UnresolvedReport as UnresolvedReport
    from dlwhy.report_diff import DiffReport as DiffReport
    from dlwhy.report_systems import FloorReport as FloorReport
    from dlwhy.report_systems import MatrixReport as MatrixReport
    from dlwhy.report_tls import TlsReport as TlsReport

__version__ = "0.1.0"

_HOME = {
    "Host": "api", "capture": "api", "check": "api", "diff": "api", "each": "api", "floor": "api", "on": "api",
    "tls": "api", "tree": "api", "unresolved": "api",
    "DlwhyError": "errors", "ElfError": "errors", "FilesError": "errors", "UnsupportedError": "errors",
    "ProfileError": "errors", "UsageError": "errors", "Profile": "hosts.profile",
    "CheckReport": "report", "DiffReport": "report_diff", "FailedReport": "report", "FloorReport": "report_systems",
    "MatrixReport": "report_systems", "TlsReport": "report_tls", "TreeReport": "report",
    "UnresolvedReport": "report",
}  # fmt: skip

__all__ = [
    "CheckReport", "DiffReport", "DlwhyError", "ElfError", "FailedReport", "FilesError", "FloorReport", "Host",
    "MatrixReport", "Profile", "ProfileError", "TlsReport", "TreeReport", "UnresolvedReport", "UnsupportedError",
    "UsageError", "__version__", "capture", "check", "diff", "each", "floor", "on", "tls", "tree", "unresolved",
]  # fmt: skip


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'dlwhy' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module("dlwhy." + home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
