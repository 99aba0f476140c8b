"""Debug files from servers, by build-id: only when asked to, for nothing else of dlwhy uses the network.

Servers and cache are those of every debuginfod client (debuginfod(8), debuginfod-client-config(7)): DEBUGINFOD_URLS,
DEBUGINFOD_CACHE_PATH, DEBUGINFOD_TIMEOUT; what was fetched once is read from CACHE/BUILDID/debuginfo.
"""

from __future__ import annotations

import os

from dlwhy.attribute.companions import Remark, opened
from dlwhy.attribute.evidence import concerned, lacks_names
from dlwhy.elf.notes import build_id
from dlwhy.errors import DlwhyError
from dlwhy.files import Files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

    from dlwhy.attribute.evidence import Evidence
    from dlwhy.elf.file import Elf

LARGEST = 4 << 30
"""Bytes of a debug file that are taken from a server at most."""
_TIMEOUT = 90.0
"""Seconds in which a server must send something (debuginfod-client-config(7))."""
_CHUNK = 1 << 20
_SCHEMES = ("http://", "https://", "file://")


def with_download(elf: Elf, evidence: Evidence, env: Mapping[str, str] | None = None) -> Evidence:
    """Return the evidence with the debug file of an object that has none here, or with a remark why not.

    `env` is where the servers are named, this process's environment by default. Raises `ElfError` when headers or
    relocations leave the file.
    """
    env = os.environ if env is None else env
    identity = build_id(elf)
    if not concerned(elf) or not lacks_names(elf) or any(one.label != ".gnu_debugdata" for one in evidence.companions):
        return evidence
    if identity is None:
        return _without(evidence, "the object has no build-id to ask for")
    try:
        path = _cached(identity, env) or _fetched(identity, env)
        found = opened(path, None, identity, elf, Files())
    except (_NothingError, DlwhyError) as error:
        return _without(evidence, str(error))
    return evidence if found is None else evidence.but(companions=(found, *evidence.companions))


def _without(evidence: Evidence, why: str) -> Evidence:
    return evidence.but(remarks=(*evidence.remarks, Remark("unread-evidence", f"--debuginfod: {why}")))


class _NothingError(Exception):
    """Why there is no debug file."""


def _folder(env: Mapping[str, str]) -> str:
    own = env.get("DEBUGINFOD_CACHE_PATH")
    base = env.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return own or os.path.join(base, "debuginfod_client")


def _cached(identity: str, env: Mapping[str, str]) -> str | None:
    path = os.path.join(_folder(env), identity, "debuginfo")
    try:
        return path if os.path.getsize(path) else None  # the clients keep an empty file for what no server has
    except OSError:
        return None


def _fetched(identity: str, env: Mapping[str, str]) -> str:
    """Ask one server after the other. Raises `_NothingError`."""
    servers = [one for one in env.get("DEBUGINFOD_URLS", "").split() if one.startswith(_SCHEMES)]
    if not servers:
        raise _NothingError("DEBUGINFOD_URLS names no server")
    told = []
    for server in servers:
        try:
            return _from(f"{server.rstrip('/')}/buildid/{identity}/debuginfo", identity, env)
        except (OSError, ValueError) as error:
            told.append(f"{server}: {error}")
    raise _NothingError(f"no server has a debug file of build-id {identity} ({'; '.join(told)})")


def _from(url: str, identity: str, env: Mapping[str, str]) -> str:
    """Fetch a file into the cache, whole or not at all; its path. Raises `OSError`, `ValueError`."""
    import tempfile
    from http.client import HTTPException
    from urllib.request import Request, urlopen

    try:
        seconds = float(env.get("DEBUGINFOD_TIMEOUT") or _TIMEOUT)
    except ValueError:
        seconds = _TIMEOUT
    folder = os.path.join(_folder(env), identity)
    os.makedirs(folder, exist_ok=True)
    try:
        with (
            urlopen(Request(url, headers={"User-Agent": "dlwhy"}), timeout=seconds) as answer,  # noqa: S310 - checked
            tempfile.NamedTemporaryFile(dir=folder, delete=False) as target,
        ):
            try:
                _copy(answer, target)
            except BaseException:
                os.unlink(target.name)
                raise
    except HTTPException as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    path = os.path.join(folder, "debuginfo")
    os.replace(target.name, path)
    return path


def _copy(answer: IO[bytes], target: IO[bytes]) -> None:
    size = 0
    while data := answer.read(_CHUNK):
        size += len(data)
        if size > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        target.write(data)
