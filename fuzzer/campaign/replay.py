"""Replay: every crash state of a recorded log, judged by the rules that need no history.

The log may come from anywhere (dm-log-writes of xfstests, our recorders); of the workload behind it
nothing is known, so only what holds for every state is asked: it mounts, can be read, is a tree, can
be used, the kernel does not complain and neither does the checker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzzer.campaign.examine import Examination, Forbidden
from fuzzer.campaign.lane import CrashLane
from fuzzer.campaign.recover import Look, depth_of, recover
from fuzzer.errors import InputError
from fuzzer.state.history import History
from fuzzer.writelog.crash import CrashState, Kept, Points, StateBuilder, crash_points, states_at
from fuzzer.writelog.format import MAX_DEVICE_BYTES, read_log
from fuzzer.writelog.image import BLOCK_BYTES, Image
from fuzzer.writelog.joined import RunLog, base_image, device_bytes, split_log
from fuzzer.writelog.model import MARK_MKFS, SYNC_MARK_PREFIX
from fuzzer.writelog.superblock import find_superblock
from oracles import PROFILES, judge

_NOTHING_KNOWN = History(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A log that can be replayed: the file system it starts from, and where to cut it.

    `complete` says that the recorder ended it in good order.
    """

    fs: str
    base: Image
    log: RunLog
    points: tuple[int, ...]
    complete: bool


def load_recorded(path: Path, mode: Points, fs: str = "", size_bytes: int = 0) -> Recorded:
    """Read the log at `path`. `fs` and `size_bytes` (of the device) are found out if not given.

    InputError if it is no log, has no mark `mkfs` or no file system before it, or no point to cut at.
    """
    whole = read_log(path, mapped=False)
    log = split_log(whole)
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
    return Recorded(
        fs=fs or (found.fs if found else ""),
        base=base,
        log=log,
        points=_points(log, mode, path),
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


def _points(log: RunLog, mode: Points, path: Path) -> tuple[int, ...]:
    """Where to cut. What a sync call made durable is only known here from marks."""
    if mode is not Points.FSYNC:
        return crash_points(log, _NOTHING_KNOWN, mode, log.start)
    marks = [e.index + 1 for e in log.entries[log.start :] if e.mark.startswith(SYNC_MARK_PREFIX)]
    if not marks:
        raise InputError(
            f"the log has no `{SYNC_MARK_PREFIX}…` marks, so it does not say where sync calls returned",
            place=str(path),
            hint="use --points flush, which cuts after every flush",
        )
    return tuple(marks)


@dataclass(slots=True)
class _Replay:
    lane: CrashLane
    recorded: Recorded
    look: Look
    report: Callable[[Forbidden], None]
    seen: set[int]
    found: dict[tuple[str, str], Forbidden]
    states: int = 0
    judged: int = 0
    no_promise: int = 0

    def look_at(self, state: CrashState, image: Image) -> None:
        """Recover and judge; what is wrong is reported the first time a rule is broken this way."""
        self.states += 1
        if image.digest in self.seen:
            return
        self.seen.add(image.digest)
        recovery = recover(self.lane, image, self.look, depth_of(image))
        with self.lane.times.phase("judge"):
            judgement = judge(PROFILES[self.recorded.fs], recovery)
        self.judged += judgement.judged
        self.no_promise += judgement.no_promise
        if judgement.violations:
            forbidden = Forbidden(state, judgement, recovery)
            if forbidden.rule_and_kind not in self.found:
                self.found[forbidden.rule_and_kind] = forbidden
                self.report(forbidden)


def replay(
    lane: CrashLane,
    recorded: Recorded,
    report: Callable[[Forbidden], None],
    stop: Callable[[], bool] = lambda: False,
) -> Examination:
    """Look at every crash state, and at the end of the log; equal images once.

    `report` gets the first forbidden state of each (rule, kind) as it is found; `stop` is asked
    between states.
    """
    look = Look(fs=recorded.fs, mount_options="", known=_NOTHING_KNOWN.known_ids(), fresh=recorded.base)
    run = _Replay(lane, recorded, look, report, set(), {})
    builder = StateBuilder(recorded.base, recorded.log, recorded.log.start)
    end = CrashState(len(recorded.log.entries), Kept.EVERYTHING)
    for state in (*states_at(recorded.points), end):
        if stop():
            break
        with lane.times.phase("build"):
            image = builder.at(state)
        run.look_at(state, image)
    return Examination(
        states=run.states,
        unique=len(run.seen),
        judged=run.judged,
        no_promise=run.no_promise,
        forbidden=tuple(run.found.values()),
    )
