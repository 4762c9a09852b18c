"""Examine: all crash states of one execution, each recovered once and judged at its own cut."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from fuzzer.campaign.execute import Execution
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.recover import FULL, Look, depth_of, recover
from fuzzer.state.recovery import Recovery
from fuzzer.state.view import View
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
from fuzzer.writelog.image import Image
from fuzzer.writelog.superblock import btrfs_commits
from oracles import PROFILES, Judgement, build_versions, judge, judge_reads
from oracles.versions import Versions


@dataclass(frozen=True, slots=True)
class Forbidden:
    """A state that broke a promise. `state` is None for the live mount (no crash at all), seen through
    `view`."""

    state: CrashState | None
    judgement: Judgement
    recovery: Recovery
    view: View = View.CACHE

    @property
    def rule_and_kind(self) -> tuple[str, str]:
        """What is one bug, as far as one can tell: with the view, where a program sees it otherwise."""
        first = self.judgement.violations[0]
        through = "" if self.view is View.CACHE else f"@{self.view}"
        return first.rule, first.kind + through


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What came of one execution: counts, and the first forbidden state of each (rule, kind)."""

    states: int
    unique: int
    judged: int
    no_promise: int
    forbidden: tuple[Forbidden, ...]


@dataclass(slots=True)
class _Examiner:
    lane: Lane
    execution: Execution
    versions: Versions
    look: Look
    seen: dict[int, Recovery]
    found: dict[tuple[str, str], Forbidden]
    states: int = 0
    judged: int = 0
    no_promise: int = 0

    def judge(self, state: CrashState | None, recovery: Recovery, cut: Cut, view: View = View.CACHE) -> None:
        """Judge one state."""
        with self.lane.times.phase("judge"):
            profile = PROFILES[self.execution.workload.fs]
            judgement = judge(profile, recovery, self.versions, cut)
        self.states += 1
        self.take(state, judgement, recovery, view)

    def judge_reads(self) -> None:
        """Judge what reads returned while the workload ran."""
        with self.lane.times.phase("judge"):
            judgement = judge_reads(self.versions)
        self.take(None, judgement, self.execution.live)

    def take(
        self, state: CrashState | None, judgement: Judgement, recovery: Recovery, view: View = View.CACHE
    ) -> None:
        """Count a judgement, and keep it if it is the first of its kind."""
        self.judged += judgement.judged
        self.no_promise += judgement.no_promise
        if judgement.violations:
            forbidden = Forbidden(state, judgement, recovery, view)
            self.found.setdefault(forbidden.rule_and_kind, forbidden)

    def recovery_of(self, image: Image) -> Recovery:
        """Recover an image, or remember what an equal one gave."""
        if image.digest not in self.seen:
            self.seen[image.digest] = recover(self.lane, image, self.look, depth_of(image))
        return self.seen[image.digest]


def examine(
    lane: Lane,
    execution: Execution,
    mode: Points,
    canary: str = "",
    stop: Callable[[], bool] = lambda: False,
) -> Examination:
    """Look at every crash state of `execution`; `stop` is asked between states."""
    points = crash_points(execution.log, execution.history, mode, execution.log.start)
    faults = faults_for(execution, points, canary)
    examiner = _examiner(lane, execution, faults)
    examiner.judge_reads()
    examiner.judge(None, execution.live, LIVE)
    for view, recovery in execution.views:
        examiner.judge(None, recovery, LIVE, view)
    builder = StateBuilder(execution.base, execution.log, execution.log.start, faults)
    for state in states_at(points):
        if stop():
            break
        with lane.times.phase("build"):
            image = builder.at(state)
        examiner.judge(state, examiner.recovery_of(image), _cut(execution, state))
    else:
        _examine_end(examiner, builder)
    return Examination(
        states=examiner.states,
        unique=len(examiner.seen),
        judged=examiner.judged,
        no_promise=examiner.no_promise,
        forbidden=tuple(examiner.found.values()),
    )


def _examiner(lane: Lane, execution: Execution, faults: Faults) -> _Examiner:
    workload, known = execution.workload, execution.history.known_ids()
    look = Look(
        fs=workload.fs,
        mount_options=workload.mount,
        known=known,
        fresh=execution.base,
        truncate_seed=faults.truncate_seed,
    )
    versions = build_versions(execution.history, btrfs_commits(execution.log))
    return _Examiner(lane, execution, versions, look, {}, {})


def _cut(execution: Execution, state: CrashState) -> Cut:
    return cut_at(execution.log.entries, state.point, execution.history)


def _examine_end(examiner: _Examiner, builder: StateBuilder) -> None:
    """After the clean unmount nothing may be missing, whatever was synced."""
    state = CrashState(len(examiner.execution.log.entries), Kept.EVERYTHING)
    examiner.judge(state, examiner.recovery_of(builder.at(state)), LIVE)


def examine_one(lane: Lane, execution: Execution, state: CrashState, faults: Faults) -> Forbidden | None:
    """Build and judge a single state again; None if it is allowed.

    The full look comes second: what it does changes what the checker sees.
    """
    examiner = _examiner(lane, execution, faults)
    end = state.point == len(execution.log.entries)
    builder = StateBuilder(execution.base, execution.log, execution.log.start, faults)
    image, cut = builder.at(state), LIVE if end else _cut(execution, state)
    examiner.judge(state, recover(lane, image, examiner.look), cut)
    if not examiner.found:
        examiner.judge(state, recover(lane, image, examiner.look, FULL), cut)
    return next(iter(examiner.found.values()), None)


def faults_for(execution: Execution, points: tuple[int, ...], canary: str) -> Faults:
    """The damage of `canary` on this log (none for ""), the same each time for the same log."""
    if not canary:
        return NO_FAULTS
    workload = execution.workload
    rng = random.Random(f"{canary}/{workload.seed}")
    scene = Scene(execution.log, points, workload.fs, execution.history.known_ids(), rng)
    return plan_faults(canary, scene)
