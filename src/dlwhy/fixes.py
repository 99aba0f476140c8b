"""Failure -> changes, each proven by loading again in the model with the change made."""

from __future__ import annotations

import shlex

from dlwhy.loader import tls
from dlwhy.question import Question
from dlwhy.record import Record
from dlwhy.report import COMPUTED, DIES, FAILS, LOADS, Cure, NotCure
from dlwhy.verdict import Run, model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.report import Step

_TUNABLE = "glibc.rtld.optional_static_tls"
_ROUNDS = 24
_PAGE = 4096
_GUARD = 4096
"""Bytes of the guard page of a thread's stack (pthread_attr_init(3))."""
_REST = 2048
"""Bytes of stack that glibc insists on beside guard and static TLS (sysdeps/x86_64/nptl/pthreaddef.h, MINIMAL_REST_STACK)."""
_REGISTER = ("napi_register_module_v1", "node_register_module_v")


class Fixes(Record):
    """What helps and what does not."""

    cures: tuple[Cure, ...]
    not_cures: tuple[NotCure, ...]


def fixes(question: Question, run: Run) -> Fixes:
    """Return the changes that make every static TLS failure of a run go away, and the ones that people try in vain."""
    failed = [step for step in run.steps if step.outcome == FAILS and (step.kind or "").startswith("static-tls-")]
    if not failed or run.process is None:
        return Fixes((), ())
    cures: list[Cure] = []
    vain: list[NotCure] = []
    if failed[0].kind == "static-tls-exhausted":
        _tunable(question, run, cures, vain)
    elif failed[0].kind == "static-tls-alignment":
        assert run.process.static is not None
        vain.append(NotCure(
            f"GLIBC_TUNABLES={_TUNABLE}=N",
            f"no N helps: the tunable adds bytes, but the block stays aligned to {run.process.static.align}",
        ))  # fmt: skip
    else:
        vain.append(NotCure(f"GLIBC_TUNABLES={_TUNABLE}=N", "no N helps: the segment is in use as dynamic TLS already"))
    _preload(question, failed[0], cures, vain)
    return Fixes(tuple(cures), tuple(vain))


def _static_failures(run: Run) -> list[Step]:
    return [step for step in run.steps if step.outcome in (FAILS, DIES) and (step.kind or "").startswith("static-tls-")]


def smallest_tunable(question: Question, run: Run) -> int | None:
    """Return the smallest value of glibc.rtld.optional_static_tls with which no step fails for space; None without one.

    Each round takes what the first failing step lacks and runs the model again, because a larger optional part also lets
    descriptors take more.
    """
    process = run.process
    if process is None or process.static is None or not process.libc.tls_tunables:
        return None
    current = process.tunables.optional_static_tls
    value = current
    for _ in range(_ROUNDS):
        short = _shortfall(question, value)
        if short is None:
            return None
        if short == 0:
            break
        value += short
    else:
        return None
    while value > current and _shortfall(question, value - 1) == 0:
        value -= 1
    return value if value > current else None


def _with(question: Question, value: int) -> dict[str, str]:
    env = dict(question.settings.env)
    kept = [item for item in env.get("GLIBC_TUNABLES", "").split(":") if item and not item.startswith(_TUNABLE + "=")]
    env["GLIBC_TUNABLES"] = ":".join([*kept, f"{_TUNABLE}={value}"])
    return env


def _shortfall(question: Question, value: int) -> int | None:
    """Bytes by which the optional part is too small for the first step that fails for space; 0 when none does.

    None when a step fails for another reason that the value cannot change.
    """
    run = model(question, _with(question, value))
    if run.process is None or run.process.static is None:
        return None
    failed = _static_failures(run)
    if not failed:
        return 0
    if failed[0].kind != "static-tls-exhausted":
        return None
    process, static = run.process, run.process.static
    need = process.lacking
    if need is None:
        return None
    used, segment = need
    wanted = used + segment.memsz + segment.first_byte
    unit = static.align if static.variant == 2 else 1
    # the smallest surplus whose rounded-up size holds `wanted` bytes
    least_end = tls.round_up(wanted, unit) - unit + 1
    have_end = process.start_used + process.surplus
    return max(least_end - have_end, 1)


def _tunable(question: Question, run: Run, cures: list[Cure], vain: list[NotCure]) -> None:
    process = run.process
    assert process is not None
    if not process.libc.tls_tunables:
        vain.append(NotCure(
            f"GLIBC_TUNABLES={_TUNABLE}=N", f"glibc {process.libc.text} has no such tunable (2.32 and later have)"
        ))  # fmt: skip
        return
    if question.settings.secure:
        vain.append(NotCure(f"GLIBC_TUNABLES={_TUNABLE}=N", "a program in secure mode ignores tunables"))
        return
    value = smallest_tunable(question, run)
    if value is None:
        return
    more = value - process.tunables.optional_static_tls
    proof = model(question, _with(question, value))
    static = proof.process.static if proof.process is not None else None
    if static is None or proof.process is None:
        return
    tcb = process.libc.tcb_size.get(process.machine.e_machine, 0)
    block = static.size + tcb
    stack = -(-(_GUARD + block + _REST) // _PAGE) * _PAGE
    smallest = question.known.smallest_stack
    risky = stack > smallest
    cost = f"{more} bytes more per thread"
    if risky:
        cost += (
            f"; risky: {question.host_name} makes threads with stacks of {smallest} bytes, and with a static TLS block of {block} "
            "bytes the C library cannot create them any more"
        )
    env = f"GLIBC_TUNABLES={_with(question, value)['GLIBC_TUNABLES']}"
    outcome = _outcome(proof)
    cures.append(Cure(
        env, {"env": {"GLIBC_TUNABLES": _with(question, value)["GLIBC_TUNABLES"]}}, "risky" if risky else "safe",
        {"outcome": outcome, "basis": COMPUTED}, cost, f"{env} {_command(question)}",
    ))  # fmt: skip


def _outcome(run: Run) -> str:
    if run.startup.outcome != LOADS:
        return run.startup.outcome
    return next((step.outcome for step in run.steps if step.outcome != LOADS), LOADS)


def _command(question: Question) -> str:
    """A command line in which the host loads the files: how to try it."""
    opens = [request.name for request in question.requests if request.action == "open"]
    base = (question.settings.program or "").rpartition("/")[2]
    if base.startswith("node") and opens:
        return (
            f"{question.host_name} -e {shlex.quote('; '.join(f'require({chr(34)}{name}{chr(34)})' for name in opens))}"
        )
    if base.startswith("python") and opens:
        loads = "; ".join(f"ctypes.CDLL({name!r})" for name in opens)
        return f"{question.host_name} -c {shlex.quote(f'import ctypes; {loads}')}"
    return question.host_name if question.settings.program else "PROGRAM"


def _preload(question: Question, step: Step, cures: list[Cure], vain: list[NotCure]) -> None:
    """LD_PRELOAD of what was asked for: laid out at start-up, where any size and alignment fits."""
    if question.settings.secure:
        return
    request = next((one for one in question.requests if one.text == step.request and one.action == "open"), None)
    if request is None or " " in request.name or ":" in request.name:
        return
    env = dict(question.settings.env)
    env["LD_PRELOAD"] = ":".join(part for part in (env.get("LD_PRELOAD", ""), request.name) if part)
    proof = model(question, env)
    title = f"LD_PRELOAD={env['LD_PRELOAD']}"
    why = None
    if proof.process is not None and proof.startup.outcome != LOADS:
        first = (proof.startup.message or proof.startup_because or "").splitlines()
        why = f"the program would not start: {first[0] if first else proof.startup.outcome}"
    elif any(one.request == step.request and one.outcome != LOADS for one in proof.steps):
        why = "the load would still fail"
    if why is None and proof.process is not None:
        why = _registers_itself(question, proof, request.name)
    if why is not None:
        vain.append(NotCure(title, why))
        return
    cures.append(Cure(
        title, {"env": {"LD_PRELOAD": env["LD_PRELOAD"]}}, "risky", {"outcome": _outcome(proof), "basis": COMPUTED},
        "every program that this process starts gets it too", f"{title} {_command(question)}",
    ))  # fmt: skip


def _registers_itself(question: Question, proof: Run, name: str) -> str | None:
    """Why a preloaded Node addon ends in "Module did not self-register": it registers in a constructor, too early."""
    base = (question.settings.program or "").rpartition("/")[2]
    if not base.startswith(("node", "electron")) or proof.process is None:
        return None
    loaded = next((one for one in proof.process.base.maps if one.has_name(name)), None)
    if loaded is None or loaded.elf is None:
        return None
    symbols = loaded.elf.symbols
    exported: set[str] = set()
    imported: set[str] = set()
    for index in range(1, symbols.count):
        symbol = symbols.symbol(index)
        if symbol.name.startswith((b"napi_", b"node_")):
            (exported if symbol.shndx else imported).add(symbol.name.decode("utf-8", "surrogateescape"))
    if any(one.startswith(_REGISTER) for one in exported):
        return None
    if imported & {"napi_module_register", "node_module_register"}:
        return f'it registers itself in a constructor, which then runs too early; {base} would say "Module did not self-register"'
    return None
