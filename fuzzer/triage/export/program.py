"""Program: a finding as what a stand-alone reproducer has to do, in no language yet.

Ops that failed in the recorded run are left out; so is what comes behind the power cut. Crash states that
no script can make again without a recorder are refused: one that cannot show the bug is worth nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from fuzzer.errors import InputError
from fuzzer.state.history import Event
from fuzzer.state.view import View
from fuzzer.triage.dossier import Dossier
from fuzzer.triage.export.check import Check, Note, make_check
from fuzzer.triage.export.place import Place, place_of
from fuzzer.triage.report import sentence
from fuzzer.workload.model import SETUP, Op, Workload, in_iteration
from fuzzer.writelog.crash import LIVE
from fuzzer.writelog.fate import Fate

_REPLAY = "powercut triage repro recovers the recorded state itself"


class Method(Enum):
    """How power is cut."""

    COPY = "copy"
    """Everything the device had completed is on disk; nothing was lost, so an ordinary device will do."""
    LOG_WRITES = "log-writes"
    """Only what a completed flush or FUA made durable is on disk."""
    REMOUNT = "remount"
    """Not at all: the file system is unmounted in good order, and mounted again."""
    NONE = "none"
    """Not at all: the running file system is looked at."""
    DROPPED = "dropped"
    """Not at all: it is looked at past its cache."""


@dataclass(frozen=True, slots=True)
class Step:
    """One op. `row` is its number in the workload's text, `notes` what to remember after it, `cut` the
    iteration after which power is cut here (None: not here)."""

    op: Op
    row: int
    notes: tuple[Note, ...] = ()
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """The setup or an actor. `loop` is how often its steps run; None: until the others have ended."""

    name: str
    steps: tuple[Step, ...]
    loop: int | None = 1


@dataclass(frozen=True, slots=True)
class Program:
    """All of it. `about` are sentences for the head of the file; `check` tells the bug."""

    id: str
    workload: Workload
    about: tuple[str, ...]
    method: Method
    setup: Block
    actors: tuple[Block, ...]
    check: Check

    @property
    def fs(self) -> str:
        return self.workload.fs

    @property
    def balances(self) -> bool:
        """True if a balance may be under way when power is cut; it must not go on in recovery."""
        return any(op.name == "balance" for op in self.workload.iter_ops())

    def users(self, barrier: str) -> int:
        """How many actors wait at the barrier."""
        return sum(
            any(s.op.name == "barrier" and s.op.text("name") == barrier for s in b.steps) for b in self.actors
        )


def make_program(dossier: Dossier) -> Program:
    """What to do to see the finding again. InputError if it takes more than a script has."""
    saved = dossier.saved
    cut = _cut(dossier)
    check = make_check(dossier)
    notes: dict[tuple[int, int], list[Note]] = {}
    for note in check.notes:
        notes.setdefault((note.place.actor, note.place.index), []).append(note)
    blocks = tuple(_block(dossier, number, cut, notes) for number in range(len(saved.workload.actors) + 1))
    return Program(
        saved.finding.id,
        saved.workload,
        tuple(_about(dossier)),
        _method(dossier),
        blocks[SETUP],
        blocks[SETUP + 1 :],
        check,
    )


def _about(dossier: Dossier) -> Iterator[str]:
    finding = dossier.saved.finding
    k, n = finding.reproduced
    yield sentence(dossier)
    if finding.violations:
        yield f"Source of the promise: {finding.violations[0]['source']}"
    release = finding.kernel.partition("-")[0]
    yield f"Found by powercut on Linux {release}, seen in {k} of {n} runs of its workload."


def _method(dossier: Dossier) -> Method:
    state = dossier.saved.state
    if dossier.saved.finding.canary:
        raise InputError("this finding was planted: no kernel shows it", hint="export a real one")
    if state is None:
        views = {View.CACHE: Method.NONE, View.MIXED: Method.NONE, View.REMOUNT: Method.REMOUNT}
        return views.get(dossier.saved.view, Method.DROPPED)
    if dossier.log is None:
        raise InputError("the device log was not kept, so what was lost is not known", hint=_REPLAY)
    if dossier.cut is LIVE:
        return Method.REMOUNT
    if state.again is not None:
        raise InputError("power was cut a second time during recovery: no script does that", hint=_REPLAY)
    fates = {request.fate for request in dossier.requests}
    if Fate.LOST not in fates and Fate.TORN not in fates:
        return Method.COPY
    if Fate.TORN in fates or Fate.SURVIVED in fates:
        raise InputError("only some of the unflushed writes survived: no script does that", hint=_REPLAY)
    return Method.LOG_WRITES


def _cut(dossier: Dossier) -> Place | None:
    """The op after which power is cut, or the broken look at the mount happens; None: after all of them.

    That is the last sync call begun before the cut. A cut inside of it (findings are kept in the earliest
    that shows them) becomes one right after it: scripts cannot cut inside a call.
    """
    workload = dossier.saved.workload
    if dossier.saved.state is None:
        return place_of(dossier.sync, workload) if dossier.sync else None
    if dossier.cut is None or dossier.cut is LIVE:
        return None
    before_ns = dossier.cut.invoked_before_ns
    begun = [e for e in dossier.saved.history.events if e.succeeded and e.begin_ns < before_ns]
    syncs = [e for e in begun if e.op.is_durability_point]
    last = max(syncs or begun, key=lambda e: e.end_ns, default=None)
    return place_of(last, workload) if last else None


def _block(
    dossier: Dossier, number: int, cut: Place | None, notes: dict[tuple[int, int], list[Note]]
) -> Block:
    workload, events = dossier.saved.workload, dossier.saved.history.events
    actor = workload.actors[number - 1] if number != SETUP else None
    loop = actor.loop if actor else 1
    here = cut if cut is not None and cut.actor == number else None
    steps = []
    for index, op in enumerate(workload.block(number)):
        if loop == 1 and here is not None and index > here.index:
            break
        if not _ever_worked(events, workload, number, index):
            continue
        row = sum(len(workload.block(one)) for one in range(number)) + index
        iteration = here.iteration if here is not None and here.index == index else None
        op = in_iteration(op, 0) if loop == 1 else op
        steps.append(Step(op, row, tuple(notes.get((number, index), ())), iteration))
    if here is not None and loop is not None:
        loop = min(loop, here.iteration + 1)
    return Block(actor.name if actor else "setup", tuple(steps), loop)


def _ever_worked(events: tuple[Event, ...], workload: Workload, number: int, index: int) -> bool:
    """False if the op failed whenever it was tried. One that was never reached may be needed by others."""
    length = len(workload.block(number))
    tried = [e for e in events if e.actor == number and e.sequence % length == index]
    return not tried or any(not event.failed for event in tried)
