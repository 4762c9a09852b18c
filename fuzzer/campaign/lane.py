"""A lane: the kernel resources one worker keeps for thousands of workloads.

A recorder, a loop minor for crash states, two mount points and image files on the run's tmpfs, and
the file systems mkfs made, recorded once per option set.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fuzzer.errors import InfrastructureError
from fuzzer.kernel.beacon import Beacon
from fuzzer.kernel.imagefile import store_image
from fuzzer.kernel.kmsg import KernelLog, lines_of_device
from fuzzer.kernel.loop import PrivateMinor, private_minor
from fuzzer.kernel.mkfs import make_fs
from fuzzer.kernel.recorder import open_recorder
from fuzzer.kernel.recorder.base import Recorder
from fuzzer.kernel.workarea import RunArea, process_name, run_area
from fuzzer.state.recovery import Recovery
from fuzzer.workload.model import Workload
from fuzzer.writelog.format import Log, read_log
from fuzzer.writelog.image import Image
from fuzzer.writelog.joined import full_image
from fuzzer.writelog.model import MARK_MKFS

T = TypeVar("T")

_ALWAYS = {"btrfs": "noatime", "xfs": "noatime,nouuid"}
"""Reading a tree must not write to it. Crash states carry the UUID of the file system they come from,
which a campaign in another terminal may have mounted at this moment: xfs refuses that without
`nouuid`, btrfs gives the second mount a temporary fsid (Linux 6.7, /sys/fs/btrfs/features/temp_fsid)."""

HANG_S = 90.0
"""How long a file system may take to mount or unmount, or to be walked or probed, before it counts as
hung: these take milliseconds, and seconds on a machine that is busy with other things."""

WATCHED = frozenset(
    (
        "mount",
        "unmount",
        "walk",
        "probe",
        "remount",
        "read-only",
        "record",
        "live mount",
        "live unmount",
        "views",
    )
)
"""Phases that block for ever if the file system does. The actors and the checker have deadlines of their
own; the rest does not touch the file system."""

_MAX_FRESH = 16
"""File systems kept ready; the oldest is dropped (their images stay small, a few MiB)."""


def mount_options(fs: str, *more: str) -> str:
    """Options for mount(2): those we always use, then `more` (empty ones are left out)."""
    return ",".join(filter(None, (_ALWAYS[fs], *more)))


@dataclass(slots=True)
class PhaseTimes:
    """Seconds spent per named phase, and how often it was entered.

    `beacon` tells the parent of a phase that can hang (see `HANG_S`).
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    beacon: Beacon | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        watched = self.beacon is not None and name in WATCHED
        if self.beacon is not None and watched:
            self.beacon.enter(name, HANG_S)
        try:
            yield
        finally:
            if self.beacon is not None and watched:
                self.beacon.leave()
            self.seconds[name] += time.perf_counter() - started
            self.counts[name] += 1

    @contextmanager
    def around(self, context: AbstractContextManager[T], entering: str, leaving: str) -> Iterator[T]:
        """Enter and leave `context`, each as a phase; what is between is not counted.

        It is told of an exception like in a `with` statement: a recorder that was aborted must know.
        """
        with self.phase(entering):
            value = context.__enter__()
        try:
            yield value
        except BaseException:
            with self.phase(leaving):
                if not context.__exit__(*sys.exc_info()):
                    raise
        else:
            with self.phase(leaving):
                context.__exit__(None, None, None)


@dataclass(frozen=True, slots=True)
class Fresh:
    """A file system as mkfs made it: its image, and the log of it being made."""

    image: Image
    log: Log


@dataclass(slots=True, kw_only=True)
class CrashLane:
    """What it takes to recover crash states. Used by one process that has one thread."""

    area: RunArea
    minor: PrivateMinor
    kernel_log: KernelLog
    directory: Path
    times: PhaseTimes = field(default_factory=PhaseTimes)
    baselines: dict[tuple[int, str], Recovery] = field(default_factory=dict)
    """Probed recoveries of file systems as mkfs made them, by image digest and mount options."""

    @property
    def crash_mount(self) -> Path:
        """Where crash states are mounted."""
        return self.directory / "crash"

    @property
    def scratch(self) -> Path:
        """Image file of the crash state being looked at."""
        return self.directory / "scratch.img"

    def own_lines(self, device: str, fs: str) -> list[str]:
        """New lines of the kernel log about `device` (as `loop101`) or this process."""
        return lines_of_device(self.kernel_log.read(), [device], fs, process_name(self.area.run_id))


@dataclass(slots=True, kw_only=True)
class Lane(CrashLane):
    """A lane that can also run workloads: see the module docstring."""

    recorder: Recorder
    _fresh: dict[tuple[str, str, int], Fresh] = field(default_factory=dict)

    @property
    def live_mount(self) -> Path:
        """Where a workload runs."""
        return self.directory / "live"

    @property
    def disk(self) -> Path:
        """Image file of the recorded device."""
        return self.directory / "disk.img"

    @property
    def log(self) -> Path:
        """Log of the workload being run."""
        return self.directory / "run.log"

    def fresh(self, workload: Workload) -> Fresh:
        """The file system the workload starts from. InputError if mkfs refuses its options."""
        key = (workload.fs, workload.mkfs, workload.size)
        if key not in self._fresh:
            if len(self._fresh) >= _MAX_FRESH:
                del self._fresh[next(iter(self._fresh))]
            with self.times.phase("mkfs"):
                self._fresh[key] = self._make(*key)
        return self._fresh[key]

    def _make(self, fs: str, options: str, size_bytes: int) -> Fresh:
        blank = Image(size_bytes)
        store_image(blank, self.disk)
        log_path = self.directory / "mkfs.log"
        log_path.unlink(missing_ok=True)
        with self.recorder.record(self.disk, log_path) as device:
            make_fs(device.device, fs, options)
            device.mark(MARK_MKFS)
        log = read_log(log_path, mapped=False)
        if not log.is_complete:
            raise InfrastructureError("the log of mkfs is not complete")
        log_path.unlink()
        return Fresh(full_image(blank, log.entries, log.payload), log)


@contextmanager
def open_lane(recorder: str, beacon: Beacon | None = None) -> Iterator[Lane]:
    """Take everything a lane needs; `recorder` is `auto`, `fuse` or `dm`. Released in reverse order.

    `beacon` is where a parent that watches over this process looks.
    """
    with ExitStack() as stack:
        area = stack.enter_context(run_area())
        opened = stack.enter_context(open_recorder(recorder, area))
        crash = stack.enter_context(_crash_lane(area))
        lane = Lane(
            area=area,
            recorder=opened,
            minor=crash.minor,
            kernel_log=crash.kernel_log,
            directory=crash.directory,
            times=PhaseTimes(beacon=beacon),
        )
        lane.live_mount.mkdir()
        yield lane


@contextmanager
def open_crash_lane() -> Iterator[CrashLane]:
    """A lane for crash states of logs that exist already: it needs no recorder."""
    with run_area() as area, _crash_lane(area) as lane:
        yield lane


@contextmanager
def _crash_lane(area: RunArea) -> Iterator[CrashLane]:
    with private_minor(area) as minor, KernelLog.open() as kernel_log:
        lane = CrashLane(area=area, minor=minor, kernel_log=kernel_log, directory=area.mkdir("lane"))
        lane.crash_mount.mkdir()
        yield lane
