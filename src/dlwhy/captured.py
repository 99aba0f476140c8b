"""From a host in a captured system to the parts of a question: its files, and what of the process is as it was."""

from __future__ import annotations

import os

from dlwhy.errors import UsageError
from dlwhy.hosts.kept import KeptFiles
from dlwhy.hosts.profile import Profile, load
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dlwhy.api import Host, Options
    from dlwhy.hosts.executable import Program


class Captured(Record):
    """A question's host, moved into the captured system."""

    profile: Profile
    host: Host
    options: Options
    files: KeptFiles
    program: Program | None
    """The program of the captured process; None for `plain`, and for any other process of that system."""


def captured(host: Host, options: Options, names: list[str]) -> Captured:
    """Return what a host in a captured system means; `names` are what the steps open.

    Raises `UsageError`, `ProfileError`.
    """
    if options.sysroot is not None:
        raise UsageError("--sysroot and a profile: each is a whole system, so only one can be meant")
    profile = host.captured if isinstance(host.captured, Profile) else load(host.captured or "")
    program = profile.program if host.kind == "profile" else None
    host, options = _entered(host, options, profile)
    named = [*names, host.target] if host.kind == "executable" else names
    cwd = (options.cwd or os.getcwd()).rstrip("/")
    ours = tuple(name if name.startswith("/") else f"{cwd}/{name}" for name in named if "/" in name)
    return Captured(profile, host, options, KeptFiles(profile, ours, host.ours), program)


def _entered(host: Host, options: Options, profile: Profile) -> tuple[Host, Options]:
    """The captured process keeps what is not given; any other process of that system has nothing of it."""
    if host.kind != "profile":
        return host.but(env={} if host.env is None else host.env), options
    env = profile.environment if host.env is None else host.env
    kind = "plain" if profile.program is None else "profile"
    changes: dict[str, Any] = {
        key: profile.word(key)
        for key in ("loader", "library_path", "libc", "cwd", "caller", "cpu")
        if getattr(options, key) is None
    }
    options = options.but(secure=options.secure or profile.secure, **changes)
    return host.but(kind=kind, target=profile.host, env=env), options
