"""Execute: run one workload on a recorded device. Workload -> History, WriteLog and the live Tree."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzer.campaign.lane import Lane, mount_options
from fuzzer.campaign.recover import recovery_options
from fuzzer.errors import HangError, InputError
from fuzzer.kernel.actors import reap_stuck, run_workload
from fuzzer.kernel.control import lost_writes
from fuzzer.kernel.imagefile import store_image
from fuzzer.kernel.memcg import memory_cgroup
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.recorder.base import DelayedIO, RecordedDevice
from fuzzer.kernel.throttle import throttle
from fuzzer.kernel.walk import walk
from fuzzer.state.history import History
from fuzzer.state.recovery import Recovery
from fuzzer.state.view import MORE_VIEWS, View
from fuzzer.target.guest import switched_on
from fuzzer.workload.model import Workload
from fuzzer.writelog.forced import settle, told_by_stamps
from fuzzer.writelog.format import read_log
from fuzzer.writelog.image import Image
from fuzzer.writelog.joined import RunLog, join_logs
from fuzzer.writelog.model import SYNC_MARK_PREFIX

DEADLINE_S = 60.0
"""How long actors may run before they are killed."""

_FREED_S = 10.0
"""How long processes may take to die once the device they hang on has been failed."""

NO_LIMIT = 1 << 40
"""Limit of the memory cgroup of a workload that sets none."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a workload: what happened, what was written, and what the mount showed at its end.

    `live` is what programs see then, with the kernel's lines of the whole run; `views` are other looks
    at the same file system. `without` names the known bugs that were switched on (`switched_on`).
    """

    workload: Workload
    history: History
    base: Image
    log: RunLog
    live: Recovery
    views: tuple[tuple[View, Recovery], ...] = ()
    without: str = ""


def execute(
    lane: Lane, workload: Workload, deadline_s: float = DEADLINE_S, views: tuple[View, ...] = MORE_VIEWS
) -> Execution:
    """Run `workload` (bound to a file system) once, then look at it through the cache and `views`.

    Raises InputError for options the kernel or mkfs refuses, HangError if killed actors stay,
    MissingCapabilityError if the recorder cannot do what its `delay` asks, other PowercutErrors if the
    machinery fails.
    """
    fresh = lane.fresh(workload)
    times = lane.times
    with times.phase("execute"):
        with times.phase("live store"):
            store_image(fresh.image, lane.disk)
            lane.log.unlink(missing_ok=True)
        lane.kernel_log.skip()
        record = lane.recorder.record(lane.disk, lane.log, _delayed(workload))
        with times.around(record, "live attach", "live detach") as recorded:
            history, seen = _run_mounted(lane, workload, recorded, deadline_s, views)
            if View.REMOUNT in views:
                with times.phase("views"):
                    seen.append((View.REMOUNT, _mount_again(lane, workload, recorded, history)))
            name = Path(recorded.device).resolve().name
        lines = lane.own_lines(name, workload.fs)
        # Into memory: a mapped file would keep the run's tmpfs busy for as long as anyone holds this.
        with times.phase("live log"):
            log = join_logs(fresh.log, read_log(lane.log, mapped=False))
            if not lane.recorder.timed:
                log = settle(log, told_by_stamps(log, history))
    (_, first), *others = seen
    live = replace(first, kernel_log=tuple(lines))
    return Execution(workload, history, fresh.image, log, live, tuple(others), switched_on())


def _delayed(workload: Workload) -> DelayedIO | None:
    return DelayedIO(workload.fs, workload.delay, workload.seed) if workload.delay else None


def _run_mounted(
    lane: Lane, workload: Workload, recorded: RecordedDevice, deadline_s: float, views: tuple[View, ...]
) -> tuple[History, list[tuple[View, Recovery]]]:
    options = mount_options(workload.fs, workload.mount)
    with ExitStack() as stack:
        cgroup = None
        if workload.needs_memcg:
            # Left after the unmount, which gives most charges back: reclaiming them takes long.
            cgroup = stack.enter_context(memory_cgroup(lane.area, workload.memory or NO_LIMIT))
        throttled = stack.enter_context(throttle(lane.area)) if workload.needs_throttle else None
        mount = mounted(recorded.device, lane.live_mount, workload.fs, options)
        mount = lane.times.around(mount, "live mount", "live unmount")
        mountpoint = enter_mount(stack, mount, f"{workload.fs} with {options}")
        try:
            with lane.times.phase("actors"):
                history = run_workload(
                    workload,
                    mountpoint,
                    fs=workload.fs,
                    cgroup=cgroup,
                    throttle=throttled,
                    deadline_s=deadline_s,
                    on_durable=None if lane.recorder.timed else _marker(recorded),
                )
        except HangError as error:
            # Failing all its I/O is what frees a file system, and those who wait for it.
            lane.recorder.abort()
            reap_stuck(error.pids, _FREED_S)
            raise
        with lane.times.phase("live walk"):
            tree = walk(mountpoint, workload.fs, history.known_ids())
        with lane.times.phase("views"):
            more = _look_again(mountpoint, workload.fs, history, views)
            # Last: looking writes back what is dirty, too.
            live = Recovery(tree=tree, lost_writes=lost_writes(mountpoint))
        return history, [(View.CACHE, live), *more]


def _look_again(
    mountpoint: Path, fs: str, history: History, views: tuple[View, ...]
) -> list[tuple[View, Recovery]]:
    """Views of the mount, up to where syncfs fails: what was written may be lost then (fsync(2))."""
    seen: list[tuple[View, Recovery]] = []
    for view in views:
        if view is not View.REMOUNT:
            try:
                seen.append((view, Recovery(tree=walk(mountpoint, fs, history.known_ids(), view))))
            except OSError:
                break
    return seen


def _mount_again(lane: Lane, workload: Workload, recorded: RecordedDevice, history: History) -> Recovery:
    """The device itself, after the clean unmount: the image its log makes is judged with crash states."""
    options = recovery_options(workload.fs, workload.mount)
    with ExitStack() as stack:
        try:
            stack.enter_context(mounted(recorded.device, lane.live_mount, workload.fs, options))
        except OSError as error:
            return Recovery(mount_errno=error.errno or errno.EIO)
        return Recovery(tree=walk(lane.live_mount, workload.fs, history.known_ids(), View.REMOUNT))


def enter_mount(stack: ExitStack, mount: AbstractContextManager[Path], what: str) -> Path:
    """A file system fresh from mkfs that does not mount was asked for with options it does not take."""
    try:
        return stack.enter_context(mount)
    except OSError as error:
        raise InputError(
            f"a fresh {what} does not mount: {os.strerror(error.errno or 0)}",
            hint="see the kernel log (dmesg)",
        ) from error


def _marker(recorded: RecordedDevice) -> Callable[[int, int], None]:
    """Without times in the log, marks tell which sync calls had returned."""

    def mark(op: int, returned_ns: int) -> None:
        recorded.mark(f"{SYNC_MARK_PREFIX}{op}:{returned_ns}")

    return mark
