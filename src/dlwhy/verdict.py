"""A modelled process and what each step came to: from the loader's faults to outcomes with their reasons."""

from __future__ import annotations

from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.host import RTLD_LAZY, RTLD_NOLOAD, RTLD_NOW
from dlwhy.loader.process import LACKING, Process
from dlwhy.loader.startup import StartFailed
from dlwhy.question import Question, Request, mode_words
from dlwhy.record import Record
from dlwhy.report import ASSUMED, COMPUTED, DIES, FAILS, LOADS, UNDECIDED, Search, Startup, Step, Try, Unresolved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dlwhy.hosts.executable import Standalone
    from dlwhy.loader.host import ProcessSettings
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.objects import Objects
    from dlwhy.loader.unresolved import Gap


class Run(Record):
    """A model run: the process as it ended and what every step came to."""

    process: Process | None
    startup: Startup
    startup_kind: str | None
    startup_because: str | None
    startup_object: str | None
    steps: tuple[Step, ...]
    start_searches: tuple[Search, ...]


def model(question: Question, env: dict[str, str] | None = None, map_only: bool = False) -> Run:
    """Run the question through the model, with another environment when one is given.

    With `map_only` everything that the program starts with is mapped and no more: the start is undecided then, with no
    `startup_kind` unless it failed before, and there can be no steps.
    """
    settings = question.settings if env is None else question.settings.but(env=env)
    if question.unstartable is not None:
        refused = question.unstartable
        steps = tuple(_never(one, "the program itself does not start", FAILS) for one in question.requests)
        startup = Startup(FAILS, None, refused.status, ())
        return Run(None, startup, "no-interpreter", refused.because, question.settings.program, steps, ())
    if question.missing is not None:
        startup = Startup(UNDECIDED, None, None, ())
        gap = f"a fact is missing: {question.missing}"
        steps = tuple(_undecided(one, gap) for one in question.requests)
        return Run(None, startup, "unknown", gap, None, steps, ())
    if question.standalone is not None:
        return _alone(question, question.standalone)
    process, start = begin(settings, question.objects)
    outcome = LOADS
    kind: str | None = None
    because: str | None = None
    object_: str | None = None
    message: str | None = None
    status: int | None = None
    assumptions: tuple[str, ...] = ()
    try:
        start(process, question.program, map_only)
        if not map_only and process.program is not None:
            from dlwhy.lazy import constructors

            assumptions = constructors(process, list(reversed(process.program.initfini)))
    except StartFailed as failed:
        outcome, kind, because, object_, message, status = (
            FAILS,
            failed.kind,
            str(failed),
            failed.object,
            failed.message,
            failed.status,
        )
    except Death as death:
        outcome, kind, because, object_, message, status = (
            DIES,
            death.kind,
            death.because,
            death.object,
            death.message,
            death.status,
        )
    except Unknown as unknown:
        outcome, kind, because = UNDECIDED, "unknown", f"a fact is missing: {unknown}"
    loaded = (
        tuple(one.name or settings.program or settings.argv0 for one in process.base.maps) if outcome == LOADS else ()
    )
    if kind in LACKING:
        process.list_gaps([one for one in process.base.maps if not one.relocated], True)
    elif process.open_calls and process.program is not None:
        process.list_gaps([one for one in process.program.searchlist.maps if one.lazy], True)
    startup = Startup(
        UNDECIDED if map_only and outcome == LOADS else outcome, message, status, loaded, assumptions=assumptions,
        unresolved=_unresolved(process.gaps),
    )  # fmt: skip
    searches = _searches(process)
    if outcome != LOADS:
        why = "the program itself does not start" if outcome != UNDECIDED else because or ""
        steps = tuple(_never(one, why, outcome) for one in question.requests)
        return Run(process, startup, kind, because, object_, steps, searches)
    return Run(process, startup, None, None, None, _steps(process, question), searches)


def begin(settings: ProcessSettings, objects: Objects) -> tuple[Process, Callable[..., None]]:
    """Return a process of the settings' C library, and the function that starts it."""
    if settings.libc.name == "musl":
        from dlwhy.loader.musl.process import MuslProcess
        from dlwhy.loader.musl.startup import start as start_musl

        return MuslProcess(settings, objects), start_musl  # type: ignore[return-value]  # of the same shape
    from dlwhy.loader.startup import start

    return Process(settings, objects), start


def _alone(question: Question, alone: Standalone) -> Run:
    """A statically linked program: nothing can go wrong at its start, and it opens what its own dlopen lets it."""
    startup = Startup(LOADS, None, None, (question.settings.program or "",))
    steps = []
    for one in question.requests:
        step = _undecided(one, f"a fact is missing: {alone.because}")
        if alone.dlopen != "own":
            step = step.but(outcome=FAILS, kind="no-dlopen", because=alone.because, basis=COMPUTED)
            if one.action == "open":
                step = step.but(message=alone.message)
            else:
                step = step.but(kind="not-open", because=f"step {one.step} gave no handle")
        steps.append(step)
    return Run(None, startup, None, None, None, tuple(steps), ())


def _unresolved(gaps: list[Gap]) -> tuple[Unresolved, ...]:
    return tuple(dict.fromkeys(Unresolved(*one) for one in gaps))


def _searches(process: Process) -> tuple[Search, ...]:
    """Take the searches made since the last call."""
    made, process.searches = process.searches, []
    return tuple(
        Search(one.name, one.needed_by, one.path, one.how, tuple(Try(a.path, a.where, a.result) for a in one.attempts))
        for one in made
    )


def _undecided(request: Request, because: str) -> Step:
    return Step(request.text, "", UNDECIDED, None, "unknown", "none", None, None, (), (), because, ASSUMED, (), ())


def _never(request: Request, because: str, outcome: str) -> Step:
    ended = UNDECIDED if outcome == UNDECIDED else FAILS
    return Step(
        request.text,
        "",
        ended,
        None,
        "host" if ended == FAILS else "unknown",
        "none",
        None,
        None,
        (),
        (),
        because,
        COMPUTED,
        (),
        (),
    )


def _steps(process: Process, question: Question) -> tuple[Step, ...]:
    steps: list[Step] = []
    handles: dict[int, LinkMap | None] = {}
    caller = _caller(process, question.caller)
    about_caller, process.assumptions = process.assumptions, []
    dead = False
    for number, request in enumerate(question.requests, 1):
        if dead:
            steps.append(
                Step(
                    request.text,
                    "",
                    FAILS,
                    None,
                    "host",
                    "none",
                    None,
                    None,
                    (),
                    (),
                    "the process died in an earlier step",
                    COMPUTED,
                    (),
                    (),
                )
            )
            continue
        process.when = f"step {number}"
        before = {id(one): one for space in process.namespaces for one in space.maps}
        process.assumptions, process.gaps, process.open_calls = [], [], False
        step = _one(process, request, number, handles, caller)
        now = [one for space in process.namespaces for one in space.maps]
        alive = {id(one) for one in now}
        gone = tuple(one.name for key, one in before.items() if key not in alive)
        step = step.but(
            loaded=tuple(one.name for one in now if id(one) not in before),
            unloaded=step.unloaded if request.action == "close" else gone,
            assumptions=(*step.assumptions, *(about_caller if request.action == "open" else ()), *process.assumptions),
            searches=_searches(process), unresolved=_unresolved(process.gaps),
        )  # fmt: skip
        if step.assumptions and step.outcome == LOADS:
            step = step.but(basis=ASSUMED)
        dead = step.outcome == DIES
        if step.loaded and step.outcome == LOADS and number < len(question.requests):  # else nobody comes to mind it
            from dlwhy.first_use import use_dynamically

            use_dynamically(process, [one for one in now if id(one) not in before])
        steps.append(step)
    return tuple(steps)


def _caller(process: Process, path: str | None) -> LinkMap | None:
    if path is None:
        return None
    found = next((one for one in process.base.maps if one.name == path or path in one.names), None)
    if found is None:
        process.assumptions.append(f"{path} is not loaded at the start; the program is taken as the caller")
    return found


def _one(
    process: Process, request: Request, number: int, handles: dict[int, LinkMap | None], caller: LinkMap | None
) -> Step:
    mode = request.mode
    if request.action == "open":
        if not mode & (RTLD_LAZY | RTLD_NOW):
            mode |= process.settings.default_binding
        words = mode_words(mode, request.new_namespace)
    else:
        words = ""
    base = Step(request.text, words, LOADS, None, None, "none", None, None, (), (), "", COMPUTED, (), ())
    try:
        if request.action == "open":
            return _open(process, request, mode, number, handles, caller, base)
        handle = handles.get(request.step)
        if handle is None:
            return base.but(outcome=FAILS, kind="not-open", because=f"step {request.step} gave no handle", message=None)
        _still_there(process, handle, request)
        if request.action == "close":
            gone = process.dlclose(handle)
            return base.but(
                unloaded=tuple(one.name for one in gone),
                because="unloaded" if gone else "still in use, or never unloaded",
            )
        found = process.dlsym(handle, request.name)
        if request.action == "sym":
            return base.but(object=found.map.shown, because=f"{request.name} is defined by {found.map.shown}")
        from dlwhy.lazy import call

        return base.but(object=found.map.shown, because=call(process, handle, found, request.name))
    except Fault as fault:
        return base.but(
            outcome=FAILS, message=fault.message, kind=fault.kind, stage=fault.stage,
            object=fault.subject or fault.object or None, needed_by=fault.needed_by,
            because=fault.because or fault.text,
        )  # fmt: skip
    except Death as death:
        return base.but(
            outcome=DIES,
            message=death.message,
            kind=death.kind,
            stage=death.stage,
            object=death.object,
            because=death.because,
        )
    except Unknown as unknown:
        return base.but(outcome=UNDECIDED, kind="unknown", stage=unknown.stage, because=f"a fact is missing: {unknown}")


def _still_there(process: Process, handle: LinkMap, request: Request) -> None:
    """Raise `Unknown` for a handle whose object is gone: dlclose and dlsym would read freed memory."""
    if not any(one is handle for space in process.namespaces for one in space.maps):
        raise Unknown(f"what becomes of a handle after its object was unloaded, as that of step {request.step} was")


def _open(
    process: Process,
    request: Request,
    mode: int,
    number: int,
    handles: dict[int, LinkMap | None],
    caller: LinkMap | None,
    base: Step,
) -> Step:
    space = process.new_namespace(request.name) if request.new_namespace else None
    before = {id(one) for each in process.namespaces for one in each.maps}
    handle = process.dlopen(request.name, mode, caller, number, space)
    handles[number] = handle
    if handle is None:
        assert mode & RTLD_NOLOAD
        return base.but(
            outcome=FAILS,
            kind="not-found",
            stage="map",
            because="the file is there but not loaded, and RTLD_NOLOAD loads nothing",
        )
    new = [one for one in reversed(handle.initfini) if id(one) not in before]  # in the order of their constructors
    from dlwhy.lazy import constructors

    assumed = constructors(process, new)
    if process.open_calls:
        process.list_gaps([one for one in handle.searchlist.maps if one.lazy], True)
    return base.but(object=handle.shown, because="all checks pass", assumptions=assumed)
