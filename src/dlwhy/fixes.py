"""Failure -> changes, each proven by loading again in the model with the change made."""

from __future__ import annotations

from dlwhy.errors import ElfError
from dlwhy.hosts.known import attempt
from dlwhy.loader import tls
from dlwhy.question import LOADER_VARIABLES, Question
from dlwhy.record import Record
from dlwhy.report import ASSUMED, COMPUTED, FAILS, LOADS, Cure, NotCure
from dlwhy.verdict import Run, model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.question import Request
    from dlwhy.report import Step

_TUNABLE = "glibc.rtld.optional_static_tls"
_EXECSTACK = "glibc.rtld.execstack"
_ROUNDS = 64
_PAGE = 4096
_GUARD = 4096
"""Bytes of the guard page of a thread's stack (pthread_attr_init(3))."""
_REGISTER = ("napi_register_module_v1", "node_register_module_v")
_SELF_REGISTER = ("napi_module_register", "node_module_register")


class Fixes(Record):
    """What helps and what does not."""

    cures: tuple[Cure, ...]
    not_cures: tuple[NotCure, ...]


class _Trial(Record):
    """A question with one change made, and what the model makes of it."""

    title: str
    change: dict[str, object]
    question: Question
    run: Run


def fixes(question: Question, run: Run) -> Fixes:
    """Return the changes that make failures of a run go away, and the ones that people try in vain.

    Of failures for want of static TLS, and of an executable stack.
    """
    cures: list[Cure] = []
    vain: list[NotCure] = []
    failed = [step for step in run.steps if _for_static_tls(step)]
    if failed and run.process is not None and run.process.static is not None:
        _tunable(question, run, cures, vain)
        _order(question, run, cures)
        _preload(question, run, failed[0], cures, vain)
    _executable_stack(question, run, cures, vain)
    cures.sort(key=lambda cure: cure.disposition != "safe")
    return Fixes(tuple(cures), tuple(vain))


def _for_static_tls(step: Step) -> bool:
    return step.outcome == FAILS and (step.kind or "").startswith("static-tls-")


# -- the tunable -------------------------------------------------------------------------------------------------------


def _tunable(question: Question, run: Run, cures: list[Cure], vain: list[NotCure]) -> None:
    process = run.process
    assert process is not None
    assert process.static is not None
    if process.libc.no_tunables is not None:
        vain.append(NotCure("GLIBC_TUNABLES", process.libc.no_tunables))
        return
    kinds = {step.kind for step in run.steps if _for_static_tls(step)}
    why = None
    if "static-tls-exhausted" not in kinds:
        why = "no N helps: the segment is in use as dynamic TLS already"
        if "static-tls-alignment" in kinds:
            why = f"no N helps: the tunable adds bytes, but the block stays aligned to {process.static.align}"
    elif not process.libc.tls_tunables:
        why = f"glibc {process.libc.text} has no such tunable (2.32 and later have)"
    elif question.settings.secure:
        why = "a program in secure mode ignores tunables"
    if why is not None:
        vain.append(NotCure(f"GLIBC_TUNABLES={_TUNABLE}=N", why))
        return
    value = smallest_tunable(question, run)
    if value is None:
        return
    env = _with(question, value)
    trial = _trial(question, {"GLIBC_TUNABLES": env["GLIBC_TUNABLES"]})
    cures.append(_cure(question, run, trial, risky=False, remark=None))


def smallest_tunable(question: Question, run: Run) -> int | None:
    """Return the smallest value of glibc.rtld.optional_static_tls with which no step fails for space; None without one.

    Each round takes what the first step that fails lacks and runs the model again, because a larger optional part also
    lets descriptors take more. What they take never shrinks when the part grows, so no value between two rounds is
    enough. It starts from nothing, because a smaller part than now may leave more to those who must have it.
    """
    process = run.process
    if process is None or process.static is None or not process.libc.tls_tunables:
        return None
    for start in (0, process.tunables.optional_static_tls):
        value = start
        for _ in range(_ROUNDS):
            short = _shortfall(question, run, value)
            if not short:
                break
            value += short
        else:
            return None
        if short == 0:
            break
    else:
        return None
    while value > 0 and _shortfall(question, run, value - 1) == 0:
        value -= 1
    return value


def _with(question: Question, value: int, name: str = _TUNABLE) -> dict[str, str]:
    """The environment with that value; what glibc cannot read in GLIBC_TUNABLES is left out (elf/dl-tunables.c)."""
    env = dict(question.settings.env)
    kept = [
        item
        for item in env.get("GLIBC_TUNABLES", "").split(":")
        if item.count("=") == 1 and not item.startswith(f"{name}=")
    ]
    env["GLIBC_TUNABLES"] = ":".join([*kept, f"{name}={value}"])
    return env


def _shortfall(question: Question, before: Run, value: int) -> int | None:
    """Bytes by which the optional part is too small for the first step that fails for space; 0 when it is enough.

    None when a step fails for another reason that the value cannot change.
    """
    run = model(question, _with(question, value))
    process = run.process
    if process is None or process.static is None or run.startup.outcome != LOADS:
        return None
    if _cured(before, run, "static-tls-exhausted"):
        return 0
    if process.lacking is None:
        return None
    used, segment = process.lacking
    wanted = used + segment.memsz + segment.first_byte
    unit = process.static.align if process.static.variant == 2 else 1
    # the smallest surplus whose rounded-up size holds `wanted` bytes
    least_end = tls.round_up(wanted, unit) - unit + 1
    return max(least_end - (process.start_used + process.surplus), 1)


def _cured(before: Run, after: Run, kind: str = "") -> bool:
    """Whether all steps that failed for static TLS (of that kind) load now, and none fails that did not."""
    return after.startup.outcome == LOADS and all(
        new.outcome == LOADS
        for old, new in zip(before.steps, after.steps, strict=True)
        if old.outcome == LOADS or (_for_static_tls(old) and (old.kind or "").startswith(kind))
    )


# -- an executable stack -----------------------------------------------------------------------------------------------


def _executable_stack(question: Question, run: Run, cures: list[Cure], vain: list[NotCure]) -> None:
    """The tunable that makes all stacks executable from the start, and the flag taken from the file (execstack(8))."""
    process = run.process
    refused = [step.object for step in run.steps if step.outcome == FAILS and step.kind == "execstack"]
    if process is None or not refused:
        return
    title = f"GLIBC_TUNABLES={_EXECSTACK}=2"
    if process.libc.no_tunables is not None:
        vain.append(NotCure("GLIBC_TUNABLES", process.libc.no_tunables))
    elif not process.libc.execstack_forced:
        vain.append(NotCure(title, f"glibc {process.libc.text} knows no such value (2.42 and later do)"))
    elif question.settings.secure:
        vain.append(NotCure(title, "a program in secure mode ignores tunables"))
    else:
        trial = _trial(question, {"GLIBC_TUNABLES": _with(question, 2, _EXECSTACK)["GLIBC_TUNABLES"]})
        if not any(step.kind == "execstack" for step in trial.run.steps):
            remark = "every stack of the process is executable, which is what attackers want"
            cures.append(_cure(question, run, trial, risky=True, remark=remark))
    for name in dict.fromkeys(refused):
        told = f"{name} linked with -Wl,-z,noexecstack, or patchelf --clear-execstack {name}"
        proof = {"outcome": LOADS, "basis": ASSUMED}
        cost = "its code must not need an executable stack, as that of nested functions in C does"
        cures.append(Cure(told, {"rebuild": told}, "rebuild", proof, cost, None))


# -- order and preloading ----------------------------------------------------------------------------------------------


def _order(question: Question, run: Run, cures: list[Cure]) -> None:
    """The first failing load made before all others: what is left is then still whole."""
    requests = question.requests
    at = next(i for i, step in enumerate(run.steps) if _for_static_tls(step))
    if at == 0 or requests[at].action != "open":
        return
    order = [at, *(i for i in range(len(requests)) if i != at)]
    place = {old + 1: new for new, old in enumerate(order, 1)}
    moved = tuple(_renumbered(requests[i], place) for i in order)
    asked = question.but(requests=moved)
    after = model(asked)
    if after.startup.outcome == LOADS and all(step.outcome == LOADS for step in after.steps):
        change: dict[str, object] = {"steps": [one.text for one in moved]}
        trial = _Trial(f"load {requests[at].name} first", change, asked, after)
        cures.append(_cure(question, run, trial, risky=False, remark=None))


def _renumbered(request: Request, place: dict[int, int]) -> Request:
    if request.action == "open":
        return request
    number = place[request.step]
    tail = f":{request.name}" if request.name else ""
    return request.but(step=number, text=f"{request.action}:{number}{tail}")


def _preload(question: Question, run: Run, step: Step, cures: list[Cure], vain: list[NotCure]) -> None:
    """LD_PRELOAD of what was asked for: laid out at start-up, where any size and alignment fits."""
    at = next(i for i, one in enumerate(run.steps) if one is step)
    request = question.requests[at]
    if question.settings.secure or request.action != "open" or " " in request.name or ":" in request.name:
        return
    value = ":".join(part for part in (question.settings.env.get("LD_PRELOAD", ""), request.name) if part)
    trial = _trial(question, {"LD_PRELOAD": value})
    proof = trial.run
    why = None
    if proof.process is not None and proof.startup.outcome != LOADS:
        first = (proof.startup.message or proof.startup_because or "").splitlines()
        why = f"the program would not start: {first[0] if first else proof.startup.outcome}"
    elif proof.steps[at].outcome != LOADS:
        why = "the load would still fail"
    if why is None and proof.process is not None:
        why = _registers_itself(question, proof, request.name)
    if why is not None:
        vain.append(NotCure(trial.title, why))
        return
    cures.append(_cure(question, run, trial, risky=True, remark=_children(trial.question)))


def _children(question: Question) -> str:
    """What the variable does to other programs that this process starts, in the person of one that needs only libc."""
    every = "every program that this process starts gets it too"
    settings = question.settings
    run = model(question.but(program=None, requests=(), settings=settings.but(program=None, argv0="PROGRAM")))
    if run.process is None or run.startup.outcome == LOADS:
        return every
    first = (run.startup.message or run.startup_because or "").splitlines()
    return f"{every}, and one that needs only libc would not start: {first[0] if first else run.startup.outcome}"


def _registers_itself(question: Question, proof: Run, name: str) -> str | None:
    """Why a preloaded Node addon ends in "Module did not self-register": it registers in a constructor, too early."""
    if question.known.kind != "node" or proof.process is None:
        return None
    loaded = next((one for one in proof.process.base.maps if one.has_name(name)), None)
    exported, imported = _registration(loaded)
    if exported or not imported:
        return None
    return (
        "it registers itself in a constructor, which then runs too early; "
        f'{question.host_name} would say "Module did not self-register"'
    )


def _registration(loaded: LinkMap | None) -> tuple[bool, bool]:
    """Whether an object exports a function by which Node registers it, and whether it imports one to do so itself.

    Neither where its symbols cannot be read: then nothing is said of it.
    """
    if loaded is None or loaded.elf is None:
        return False, False
    symbols = loaded.elf.symbols
    exported = imported = False
    try:
        found = [symbols.symbol(index) for index in range(1, symbols.count)]
    except ElfError:
        return False, False
    for symbol in found:
        if symbol.name.startswith((b"napi_", b"node_")):
            name = symbol.name.decode("utf-8", "surrogateescape")
            exported |= bool(symbol.shndx) and name.startswith(_REGISTER)
            imported |= not symbol.shndx and name in _SELF_REGISTER
    return exported, imported


# -- what a change costs, and how to try it ----------------------------------------------------------------------------


def _trial(question: Question, variables: dict[str, str]) -> _Trial:
    """The question with these variables set."""
    env = {**question.settings.env, **variables}
    changed = question.but(settings=question.settings.but(env=env))
    title = " ".join(f"{name}={value}" for name, value in variables.items())
    return _Trial(title, {"env": dict(variables)}, changed, model(changed))


def _cure(question: Question, before: Run, trial: _Trial, risky: bool, remark: str | None) -> Cure:
    costs = [*_stack(question, before, trial.run)]
    shortage = _shortage(question, trial.run)
    costs += [shortage] if shortage else []
    costs += [remark] if remark else []
    stranger = _not_an_addon(question, trial)
    costs += [stranger] if stranger else []
    disposition = "risky" if risky or shortage else "safe"
    proof = {"outcome": _outcome(trial.run), "basis": COMPUTED}
    return Cure(trial.title, trial.change, disposition, proof, "; ".join(costs) or None, _command(trial))


def _outcome(run: Run) -> str:
    if run.startup.outcome != LOADS:
        return run.startup.outcome
    return next((step.outcome for step in run.steps if step.outcome != LOADS), LOADS)


def _stack(question: Question, before: Run, after: Run) -> list[str]:
    """What the change costs in every thread: the static TLS block is carved from its stack."""
    more = _block(question, after) - _block(question, before)
    return [f"{abs(more)} bytes {'more' if more > 0 else 'less'} per thread"] if more else []


def _block(question: Question, run: Run) -> int:
    """Bytes that glibc takes from a thread's stack: the static TLS block with the thread control block."""
    if run.process is None or run.process.static is None:
        return 0
    machine = question.settings.machine
    tcb = run.process.libc.tcb_size.get(machine.e_machine, 0) if machine.variant == 2 else 0
    return tls.round_up(run.process.static.size + tcb, run.process.static.align)


def _shortage(question: Question, after: Run) -> str | None:
    """Why the host could not make its threads any more; None if it can (glibc nptl/allocatestack.c, EINVAL)."""
    known, block = question.known, _block(question, after)
    least = tls.round_up(_GUARD + block + known.stack_need, _PAGE)
    guard = _GUARD if question.settings.libc.guard_beside_stack else 0
    if not block or least <= known.smallest_stack + guard:
        return None
    return (
        f"{question.host_name} makes threads with stacks of {known.smallest_stack} bytes, "
        f"of which the static TLS block would take {block}: {known.shortage}"
    )


def _not_an_addon(question: Question, trial: _Trial) -> str | None:
    """Node complains of a library that is no addon after it has loaded it."""
    process = trial.run.process
    if question.known.kind != "node" or process is None:
        return None
    for request in trial.question.requests:
        loaded = next((one for one in process.base.maps if one.has_name(request.name)), None)
        if request.action == "open" and loaded is not None and not any(_registration(loaded)):
            return 'it is no addon, so that node says "Module did not self-register" once it is loaded'
    return None


def _command(trial: _Trial) -> str | None:
    """A command line in which the host does it, for a shell in this process's own environment; None for `plain`."""
    from shlex import quote

    question = trial.question
    settings = question.settings
    program = _invocation(question)
    if program is None:
        return None
    given = settings.env
    gone = [name for name in question.shell if name not in given]
    words = [word for name in gone for word in ("-u", name)]
    changed = [name for name in LOADER_VARIABLES if name in given and given[name] != question.shell.get(name)]
    parts = (["env", *words] if words else []) + [f"{name}={quote(given[name])}" for name in changed]
    parts.append(program)
    opens = [request for request in question.requests if request.action == "open"]
    if opens and len(opens) == len(question.requests) and not any(one.mode or one.new_namespace for one in opens):
        arguments = attempt(question.known.kind, [one.name for one in opens])
        if arguments is not None and not _is_script(question):
            parts.append(arguments)
    go = f"cd {quote(settings.cwd)} && " if question.elsewhere else ""
    return go + " ".join(parts)


def _is_script(question: Question) -> bool:
    return bool(question.remarks) and "/" in question.host_name


def _invocation(question: Question) -> str | None:
    """How a shell starts the host; by its path where the name alone means something else to the shell."""
    from shlex import quote

    settings = question.settings
    if settings.program is None:
        return None
    name = settings.program if question.remarks and not _is_script(question) else question.host_name
    if not settings.explicit:
        return quote(name)
    library_path = ["--library-path", quote(settings.library_path)] if settings.library_path is not None else []
    return " ".join([quote(settings.interpreter), *library_path, quote(settings.program)])


__all__ = ["Fixes", "Run", "fixes", "smallest_tunable"]
