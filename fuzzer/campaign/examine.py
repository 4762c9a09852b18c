"""Examine: the crash states of one execution, each judged at its own cut."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fuzzer.campaign.again import build_state, crash_again, sampler
from fuzzer.campaign.examiner import Examination, Examiner, Forbidden, Place
from fuzzer.campaign.execute import Execution
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.recover import FULL, SHALLOW, Depth, Look
from fuzzer.state.recovery import Recovery
from fuzzer.state.view import View
from fuzzer.triage.bucket import label
from fuzzer.triage.facts import Crash, Evidence
from fuzzer.triage.known import load_known
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format as format_workload
from fuzzer.writelog.canary import Scene, plan_faults
from fuzzer.writelog.crash import LIVE, NO_FAULTS, CrashState, Cut, Faults, Kept, StateBuilder, cut_of
from fuzzer.writelog.dirtylog import needs_replay
from fuzzer.writelog.format import Log
from fuzzer.writelog.points import Plan, Points, crash_points
from fuzzer.writelog.sample import choose_states
from fuzzer.writelog.superblock import btrfs_commits
from oracles import OWN, Judgement, Profile, Violation, build_versions, judge, judge_reads, profile_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """Which states of an execution are looked at, and how closely.

    `last_only`: power is cut at the last crash point only. `full_every`: only one workload in this many
    gets more than a mount and a walk, and a look at the device after its clean unmount.
    """

    last_only: bool = False
    full_every: int = 1


THOROUGH = Care()
QUICK = Care(last_only=True, full_every=4)
"""For sweeps: a shorter one has cut at the earlier sync calls. Checkers cost more than all the rest of a
state, and neighbours in a sweep give them almost the same image."""


def examine(
    lane: Lane,
    execution: Execution,
    plan: Plan,
    canary: str = "",
    *,
    contract: str = OWN,
    stop: Callable[[], bool] = lambda: False,
    care: Care = THOROUGH,
    announce: Callable[[Place], None] = lambda _: None,
) -> Examination:
    """Look at the live mount, the crash states of `plan` and the end.

    `contract` is what to judge by, see `oracles.profile_for`. `stop` is asked between states, `announce`
    is told of each before the kernel sees it.
    What is drawn depends on the workload's seed and the log.
    """
    log, workload = execution.log, execution.workload
    faults = faults_for(execution, plan, canary)
    evidence = _evidence(execution)
    profile = profile_for(workload.fs, workload.mount, contract)
    examiner = _examiner(lane, execution, profile, evidence, faults, _is_turn(workload, care.full_every))
    examiner.announce = announce
    _examine_live(examiner, execution, profile, evidence)
    builder = StateBuilder(execution.base, log, log.start, faults)
    rng = random.Random(f"states/{workload.seed}")
    states = choose_states(log, execution.history, plan, rng, fs=workload.fs, start=log.start)
    outer = sampler(plan.recovery_states(len(states)), rng)
    if care.last_only and states:
        states = tuple(state for state in states if state.point == states[-1].point)
    if examiner.look.check:
        states = (*states, end_state(execution))
    for state in states:
        if stop():
            break
        with lane.times.phase("build"):
            place = Place(state, cut_of(execution.log.entries, state, execution.history), builder.at(state))
        if examiner.look_at(place):
            outer.offer(place)
    crash_again(lane, examiner, outer.kept, rng, stop)
    return examiner.result()


def _examine_live(examiner: Examiner, execution: Execution, profile: Profile, evidence: Evidence) -> None:
    """What reads returned while the workload ran, and what the mount showed at its end."""
    live = Place(None, LIVE)
    with examiner.lane.times.phase("judge"):
        judgement = judge_reads(profile, evidence.versions)
    examiner.take(live, judgement, execution.live)
    examiner.judge_at(live, execution.live)
    for view, recovery in execution.views:
        examiner.judge_at(replace(live, view=view), recovery)


def _evidence(execution: Execution) -> Evidence:
    versions = build_versions(execution.history, btrfs_commits(execution.log))
    return Evidence(execution.workload.fs, versions, execution.log, execution.without)


def _is_turn(workload: Workload, every: int) -> bool:
    """True for one workload in `every`, whichever they are: a matter of its text."""
    return zlib.crc32(format_workload(workload).encode()) % every == 0


def _examiner(
    lane: Lane,
    execution: Execution,
    profile: Profile,
    evidence: Evidence,
    faults: Faults,
    check: bool = True,
) -> Examiner:
    """An examiner that knows what this execution was promised, and the bugs that are known."""
    workload, known = execution.workload, load_known()
    look = Look(
        fs=workload.fs,
        mount_options=workload.mount,
        known=execution.history.known_ids(),
        fresh=execution.base,
        check=check,
        truncate_seed=faults.truncate_seed,
    )

    def judge_state(recovery: Recovery, cut: Cut) -> Judgement:
        return judge(profile, recovery, evidence.versions, cut)

    def file(place: Place, judgement: Judgement, recovery: Recovery) -> Forbidden:
        filed = label(judgement.violations, evidence, _crash(place, recovery, workload.fs), known)
        titled = replace(judgement, violations=_titled(judgement.violations, filed.violation))
        forbidden = Forbidden(
            place.state, titled, recovery, place.view, filed.bucket, filed.known, filed.facts
        )
        return replace(forbidden, recoveries=place.recoveries)

    return Examiner(lane, look, judge_state, file)


def _crash(place: Place, recovery: Recovery, fs: str) -> Crash:
    """What is known about a crash besides its history. A log may have been replayed before a second one."""
    view = "" if place.view is View.CACHE else str(place.view)
    images = (*place.before, place.image) if place.image is not None else ()
    replay = any(needs_replay(image, fs) for image in images)
    return Crash(place.cut, replay, recovery.kernel_log, view)


def _titled(violations: tuple[Violation, ...], title: Violation) -> tuple[Violation, ...]:
    """The violations with `title` first."""
    return (title, *(violation for violation in violations if violation is not title))


def end_state(execution: Execution) -> CrashState:
    """After the clean unmount nothing may be missing, whatever was synced."""
    return CrashState(len(execution.log.entries), Kept.EVERYTHING)


@dataclass(slots=True)
class Reexamination:
    """Single crash states of an execution, built and judged again by `contract`. `faults` are those of
    its canary."""

    lane: Lane
    execution: Execution
    faults: Faults
    contract: str
    _evidence: Evidence = field(init=False)

    def __post_init__(self) -> None:
        self._evidence = _evidence(self.execution)

    def look(
        self, state: CrashState, recoveries: tuple[Log, ...], depths: Sequence[Depth]
    ) -> Forbidden | None:
        """The first thing wrong with a state, looked at in each depth until there is one.

        InputError if the log, or the `recoveries` it goes through, cannot leave this state behind.
        """
        execution, log = self.execution, self.execution.log
        profile = profile_for(execution.workload.fs, execution.workload.mount, self.contract)
        examiner = _examiner(self.lane, execution, profile, self._evidence, self.faults)
        *before, image = build_state(execution.base, log, log.start, state, self.faults, recoveries)
        cut = cut_of(execution.log.entries, state, execution.history)
        place = Place(state, cut, image, recoveries=recoveries, before=tuple(before))
        for depth in depths:
            examiner.look_again(place, depth)
            if examiner.found:
                return next(iter(examiner.found.values()))
        return None


def examine_one(
    lane: Lane,
    execution: Execution,
    state: CrashState,
    faults: Faults,
    recoveries: tuple[Log, ...] = (),
    contract: str = OWN,
) -> Forbidden | None:
    """Build and judge a single state again; None if it is allowed. InputError: no state of this log.

    The full look comes second: what it does changes what the checker sees.
    """
    return Reexamination(lane, execution, faults, contract).look(state, recoveries, (SHALLOW, FULL))


def faults_for(execution: Execution, plan: Plan, canary: str) -> Faults:
    """The damage of `canary` on this log (none for ""), the same each time for the same log."""
    if not canary:
        return NO_FAULTS
    workload, log = execution.workload, execution.log
    modes = plan.simple or (Points.FSYNC,)
    points = {point for mode in modes for point in crash_points(log, execution.history, mode, log.start)}
    rng = random.Random(f"{canary}/{workload.seed}")
    scene = Scene(log, sorted(points), workload.fs, execution.history.known_ids(), rng)
    return plan_faults(canary, scene)
