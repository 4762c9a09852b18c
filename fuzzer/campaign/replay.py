"""Replay: every crash state of a recorded log, judged by the rules that need no history.

The log may come from anywhere (dm-log-writes of xfstests, our recorders); of the workload behind it
nothing is known, so only what holds for every state is asked: it mounts, can be read, is a tree, can
be used, the kernel does not complain and neither does fsck. What the program's own files should say only
a checker knows (`check`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzer.campaign.again import crash_again, sampler
from fuzzer.campaign.check import Checker, Checks
from fuzzer.campaign.examiner import Examination, Examiner, Forbidden, Place
from fuzzer.campaign.lane import CrashLane, Lane
from fuzzer.campaign.recover import Look
from fuzzer.errors import InputError
from fuzzer.state.history import History
from fuzzer.state.recovery import Recovery
from fuzzer.writelog.crash import LIVE, CrashState, Kept, StateBuilder
from fuzzer.writelog.forced import is_discard, settle
from fuzzer.writelog.format import MAX_DEVICE_BYTES, read_log
from fuzzer.writelog.image import BLOCK_BYTES, Image
from fuzzer.writelog.joined import RunLog, base_image, device_bytes, split_log
from fuzzer.writelog.model import MARK_MKFS, SYNC_MARK_PREFIX
from fuzzer.writelog.points import Plan, Points
from fuzzer.writelog.sample import choose_states
from fuzzer.writelog.superblock import find_superblock
from oracles import Judgement, judge, profile_for

_SEED = "replay"
"""One log and one plan always give the same states."""

_NOTHING_KNOWN = History(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A log that can be replayed: the file system it starts from, and where to cut it.

    `states` are those of `plan`, in building order. `complete` says that the recorder ended the log in good
    order.
    """

    fs: str
    base: Image
    log: RunLog
    plan: Plan
    states: tuple[CrashState, ...]
    complete: bool


def load_recorded(path: Path, plan: Plan, fs: str = "", size_bytes: int = 0) -> Recorded:
    """Read the log at `path`. `fs` and `size_bytes` (of the device) are found out if not given.

    InputError if it is no log, has no mark `mkfs` or no file system before it, or no point to cut at.
    """
    whole = read_log(path, mapped=False)
    log = settle(split_log(whole), is_discard)
    needed = device_bytes(log)
    if not log.start:
        raise InputError(
            f"the log has no mark `{MARK_MKFS}`, so nobody can tell a crash from an unfinished mkfs",
            place=str(path),
            hint=f"record mkfs too and mark its end: dmsetup message DEVICE 0 mark {MARK_MKFS}",
        )
    base = base_image(log, _checked_size(size_bytes, needed, path))
    found = find_superblock(base)
    if found is None and not fs:
        raise InputError(f"no btrfs or xfs before the mark `{MARK_MKFS}`", place=str(path), hint="give --fs")
    if found is not None and not size_bytes and needed < found.size_bytes <= MAX_DEVICE_BYTES:
        base = base_image(log, -(-found.size_bytes // BLOCK_BYTES) * BLOCK_BYTES)
    fs = fs or (found.fs if found else "")
    return Recorded(
        fs=fs,
        base=base,
        log=log,
        plan=plan,
        states=_states(log, plan, fs, path),
        complete=whole.is_complete,
    )


def _checked_size(given: int, needed: int, path: Path) -> int:
    if given and (given < needed or given % BLOCK_BYTES or given > MAX_DEVICE_BYTES):
        raise InputError(
            f"a device of {given} bytes does not fit: the log writes up to byte {needed}",
            place=str(path),
            hint=f"--size takes a multiple of {BLOCK_BYTES}, at most {MAX_DEVICE_BYTES}",
        )
    return given or needed


def _states(log: RunLog, plan: Plan, fs: str, path: Path) -> tuple[CrashState, ...]:
    """The states to look at, the end of the log last.

    What a sync call made durable is only known here from marks. Where there are none, recovery alone
    crashes again what every flush left.
    """
    entries = log.entries
    if Points.FSYNC in plan.simple and not any(e.mark.startswith(SYNC_MARK_PREFIX) for e in entries):
        if Points.FSYNC in plan.modes:
            raise InputError(
                f"the log has no `{SYNC_MARK_PREFIX}…` marks, so it does not say where sync calls returned",
                place=str(path),
                hint="use --points flush, which cuts after every flush",
            )
        plan = replace(plan, modes=(Points.FLUSH, *plan.modes))
    states = choose_states(log, _NOTHING_KNOWN, plan, random.Random(_SEED), fs=fs, start=log.start)
    return tuple(dict.fromkeys((*states, CrashState(len(entries), Kept.EVERYTHING))))


def _file(place: Place, judgement: Judgement, recovery: Recovery) -> Forbidden:
    """Without a history, what is wrong is all there is to tell findings apart."""
    first = judgement.violations[0]
    bucket = f"{first.rule}/{first.kind}"
    return Forbidden(place.state, judgement, recovery, bucket=bucket, recoveries=place.recoveries)


def replay(
    lane: CrashLane,
    recorded: Recorded,
    report: Callable[[Forbidden], None],
    checker: Checker | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Examination:
    """Look at the crash states of the plan, and at the end of the log; equal images once.

    `report` gets the first forbidden state of each (rule, kind) as it is found; `stop` is asked
    between states. Recoveries are crashed only in a lane that can record. With a `checker` its word counts
    too: InfrastructureError if it gives none.
    """
    log, plan, profile = recorded.log, recorded.plan, profile_for(recorded.fs)
    look = Look(fs=recorded.fs, mount_options="", known=_NOTHING_KNOWN.known_ids(), fresh=recorded.base)
    examiner = Examiner(lane, look, lambda recovery, _: judge(profile, recovery), _file, report)
    if checker is not None:
        examiner.check = Checks(lane, look, log, checker)
    builder, rng = StateBuilder(recorded.base, log, log.start), random.Random(_SEED)
    outer = sampler(plan.recovery_states(len(recorded.states)), rng)
    for state in recorded.states:
        if stop():
            break
        with lane.times.phase("build"):
            place = Place(state, LIVE, builder.at(state))
        if examiner.look_at(place):
            outer.offer(place)
    if isinstance(lane, Lane):
        crash_again(lane, examiner, outer.kept, rng, stop)
    return examiner.result()
