"""Examine: all crash states of one execution, each recovered once and judged at its own cut."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fuzzer.campaign.execute import Execution
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.recover import FULL, SHALLOW, Look, depth_of, recover
from fuzzer.state.recovery import Recovery
from fuzzer.state.view import View
from fuzzer.triage.bucket import label
from fuzzer.triage.facts import Crash, Evidence, Facts
from fuzzer.triage.known import Known, load_known
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format as format_workload
from fuzzer.writelog.canary import Scene, plan_faults
from fuzzer.writelog.crash import (
    LIVE,
    NO_FAULTS,
    CrashState,
    Cut,
    Faults,
    Kept,
    Points,
    StateBuilder,
    crash_points,
    cut_at,
    states_at,
)
from fuzzer.writelog.dirtylog import needs_replay
from fuzzer.writelog.image import Image
from fuzzer.writelog.superblock import btrfs_commits
from oracles import PROFILES, Judgement, Violation, build_versions, judge, judge_reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """Which states of an execution are looked at, and how closely.

    `last_only`: power is cut at the last crash point only. `full_every`: only one workload in this many
    gets more than a mount and a walk, and a look at the device after its clean unmount.
    """

    last_only: bool = False
    full_every: int = 1


THOROUGH = Care()


@dataclass(frozen=True, slots=True)
class Forbidden:
    """A state that broke a promise. `state` is None for the live mount (no crash at all), seen through
    `view`.

    The first violation of `judgement` gives it its title; `facts` are about that one, `known` is the id
    of the known bug behind it (empty: none), and `bucket` the group it is filed under.
    """

    state: CrashState | None
    judgement: Judgement
    recovery: Recovery
    view: View = View.CACHE
    bucket: str = ""
    known: str = ""
    facts: Facts = field(default_factory=dict)

    @property
    def rule_and_kind(self) -> tuple[str, str]:
        first = self.judgement.violations[0]
        return first.rule, first.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What came of one execution: counts, and the first forbidden state of each bucket."""

    states: int
    unique: int
    judged: int
    no_promise: int
    forbidden: tuple[Forbidden, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """What is judged: a crash state with its times and image, or the live mount through a view."""

    state: CrashState | None
    cut: Cut
    image: Image | None = None
    view: View = View.CACHE


@dataclass(slots=True)
class _Examiner:
    lane: Lane
    execution: Execution
    evidence: Evidence
    look: Look
    known: Sequence[Known]
    seen: dict[int, Recovery]
    found: dict[str, Forbidden]
    states: int = 0
    judged: int = 0
    no_promise: int = 0

    def judge(self, place: _Place, recovery: Recovery) -> None:
        """Judge one state."""
        with self.lane.times.phase("judge"):
            profile = PROFILES[self.execution.workload.fs]
            judgement = judge(profile, recovery, self.evidence.versions, place.cut)
        self.states += 1
        self.take(place, judgement, recovery)

    def judge_reads(self) -> None:
        """Judge what reads returned while the workload ran."""
        with self.lane.times.phase("judge"):
            judgement = judge_reads(self.evidence.versions)
        self.take(_Place(None, LIVE), judgement, self.execution.live)

    def take(self, place: _Place, judgement: Judgement, recovery: Recovery) -> None:
        """Count a judgement, and keep it if it is the first of its bucket."""
        self.judged += judgement.judged
        self.no_promise += judgement.no_promise
        if judgement.violations:
            filed = label(judgement.violations, self.evidence, self._crash(place, recovery), self.known)
            judgement = replace(judgement, violations=_titled(judgement.violations, filed.violation))
            forbidden = Forbidden(
                place.state, judgement, recovery, place.view, filed.bucket, filed.known, filed.facts
            )
            self.found.setdefault(filed.bucket, forbidden)

    def _crash(self, place: _Place, recovery: Recovery) -> Crash:
        fs, image = self.execution.workload.fs, place.image
        view = "" if place.view is View.CACHE else str(place.view)
        return Crash(place.cut, needs_replay(image, fs) if image else False, recovery.kernel_log, view)

    def recovery_of(self, image: Image) -> Recovery:
        """Recover an image, or remember what an equal one gave."""
        if image.digest not in self.seen:
            depth = depth_of(image) if self.look.check else SHALLOW
            self.seen[image.digest] = recover(self.lane, image, self.look, depth)
        return self.seen[image.digest]


def examine(
    lane: Lane,
    execution: Execution,
    mode: Points,
    canary: str = "",
    *,
    stop: Callable[[], bool] = lambda: False,
    care: Care = THOROUGH,
) -> Examination:
    """Look at every crash state of `execution`; `stop` is asked between states."""
    points = crash_points(execution.log, execution.history, mode, execution.log.start)
    faults = faults_for(execution, points, canary)
    examiner = _examiner(lane, execution, faults, _is_turn(execution.workload, care.full_every))
    examiner.judge_reads()
    live = _Place(None, LIVE)
    examiner.judge(live, execution.live)
    for view, recovery in execution.views:
        examiner.judge(replace(live, view=view), recovery)
    builder = StateBuilder(execution.base, execution.log, execution.log.start, faults)
    for state in states_at(points[-1:] if care.last_only else points):
        if stop():
            break
        with lane.times.phase("build"):
            image = builder.at(state)
        place = _Place(state, _cut(execution, state), image)
        examiner.judge(place, examiner.recovery_of(image))
    else:
        if examiner.look.check:
            _examine_end(examiner, builder)
    return Examination(
        states=examiner.states,
        unique=len(examiner.seen),
        judged=examiner.judged,
        no_promise=examiner.no_promise,
        forbidden=tuple(examiner.found.values()),
    )


def _is_turn(workload: Workload, every: int) -> bool:
    """True for one workload in `every`, whichever they are: a matter of its text."""
    return zlib.crc32(format_workload(workload).encode()) % every == 0


def _examiner(lane: Lane, execution: Execution, faults: Faults, check: bool = True) -> _Examiner:
    workload, known = execution.workload, execution.history.known_ids()
    look = Look(
        fs=workload.fs,
        mount_options=workload.mount,
        known=known,
        fresh=execution.base,
        check=check,
        truncate_seed=faults.truncate_seed,
    )
    versions = build_versions(execution.history, btrfs_commits(execution.log))
    evidence = Evidence(workload.fs, versions, execution.log)
    return _Examiner(lane, execution, evidence, look, load_known(), {}, {})


def _titled(violations: tuple[Violation, ...], title: Violation) -> tuple[Violation, ...]:
    """The violations with `title` first."""
    return (title, *(violation for violation in violations if violation is not title))


def _cut(execution: Execution, state: CrashState) -> Cut:
    return cut_at(execution.log.entries, state.point, execution.history)


def _examine_end(examiner: _Examiner, builder: StateBuilder) -> None:
    """After the clean unmount nothing may be missing, whatever was synced."""
    state = CrashState(len(examiner.execution.log.entries), Kept.EVERYTHING)
    image = builder.at(state)
    examiner.judge(_Place(state, LIVE, image), examiner.recovery_of(image))


def examine_one(lane: Lane, execution: Execution, state: CrashState, faults: Faults) -> Forbidden | None:
    """Build and judge a single state again; None if it is allowed.

    The full look comes second: what it does changes what the checker sees.
    """
    examiner = _examiner(lane, execution, faults)
    end = state.point == len(execution.log.entries)
    builder = StateBuilder(execution.base, execution.log, execution.log.start, faults)
    image = builder.at(state)
    place = _Place(state, LIVE if end else _cut(execution, state), image)
    examiner.judge(place, recover(lane, image, examiner.look))
    if not examiner.found:
        examiner.judge(place, recover(lane, image, examiner.look, FULL))
    return next(iter(examiner.found.values()), None)


def faults_for(execution: Execution, points: tuple[int, ...], canary: str) -> Faults:
    """The damage of `canary` on this log (none for ""), the same each time for the same log."""
    if not canary:
        return NO_FAULTS
    workload = execution.workload
    rng = random.Random(f"{canary}/{workload.seed}")
    scene = Scene(execution.log, points, workload.fs, execution.history.known_ids(), rng)
    return plan_faults(canary, scene)
