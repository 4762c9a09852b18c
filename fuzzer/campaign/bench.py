"""Bench: what recording costs against a plain loop device, and a crash state against a bare mount.

Both sides of every ratio are measured in turns, and medians are compared: the machine may be busy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from fuzzer.campaign.bench_sequential import SequentialCosts, SweepRate, bench_sequential
from fuzzer.campaign.examine import examine
from fuzzer.campaign.execute import Execution, execute
from fuzzer.campaign.lane import Lane, mount_options
from fuzzer.campaign.recover import recovery_options
from fuzzer.kernel.imagefile import store_image
from fuzzer.kernel.load import fsync_rate, sequential_rate
from fuzzer.kernel.mkfs import make_fs
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.probe import missing
from fuzzer.workload.generate import generate
from fuzzer.workload.model import Workload
from fuzzer.writelog.crash import StateBuilder, states_at
from fuzzer.writelog.image import Image
from fuzzer.writelog.points import Plan, Points, crash_points

RECORDER_TARGET = 0.3
"""fsync-heavy work on a recorded device is at least this fast, compared to a plain loop device."""

STATE_TARGET = 3.0
"""A crash state without fsck costs at most this many bare mounts + unmounts."""

SEED = 20240

_DEVICE_BYTES = 1 << 30
_STREAM_BYTES = 64 << 20
_BURST_S = 0.2
_RECORDER_SHARE, _STATES_SHARE, _LANE_SHARE = 0.3, 0.4, 0.1
SWEEP_SHARE = 0.2
"""Parts of the time. Each section has its own, however long those before it took."""
_WARM_UP = 2
"""Workloads not counted: they pay for mkfs and for loading code."""

PHASES = (
    *("build", "attach", "mount", "walk", "probe", "unmount", "remount", "read-only", "detach"),
    *("fsck", "judge"),
)
"""Phases of a crash state, in order. Some states are looked at deeper; here all pay for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A measured value beside what it is compared to. `target` is None where none is set."""

    name: str
    fs: str
    value: float
    base: float
    unit: str
    ratio: float
    target: float | None = None
    at_most: bool = False
    """Whether the target is an upper bound."""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCosts:
    """What crash states of one file system cost: ms per unique state by phase, and rates of one lane."""

    fs: str
    workloads: int
    unique: int
    phase_ms: dict[str, float]
    execute_ms: float
    per_s: float
    per_s_without_fsck: float
    per_s_of_all: float
    """Unique states per second when the time of running the workloads counts too."""


Result = Comparison | StateCosts | SequentialCosts | SweepRate


def bench(lane: Lane, fs: str, seconds: float) -> Iterator[Result]:
    """Measure one file system in one lane, for about `seconds` but for `SWEEP_SHARE` of it; results come as
    they are known."""
    yield from _bench_recorder(lane, fs, time.monotonic() + seconds * _RECORDER_SHARE)
    yield from _bench_states(lane, fs, time.monotonic() + seconds * _STATES_SHARE)
    yield bench_sequential(lane, fs, time.monotonic() + seconds * _LANE_SHARE)


# The recorder.


@dataclass(frozen=True, slots=True)
class _Load:
    name: str
    unit: str
    target: float | None
    run: Callable[[Path], float]


_LOADS = (
    _Load("recorded fsync, 1 writer", "ops/s", RECORDER_TARGET, lambda path: fsync_rate(path, 1, _BURST_S)),
    _Load("recorded fsync, 4 writers", "ops/s", RECORDER_TARGET, lambda path: fsync_rate(path, 4, _BURST_S)),
    _Load("recorded 1 MiB writes", "MB/s", None, lambda path: sequential_rate(path, _STREAM_BYTES) / 1e6),
)


def _bench_recorder(lane: Lane, fs: str, end: float) -> Iterator[Comparison]:
    samples: dict[str, list[tuple[float, float]]] = {load.name: [] for load in _LOADS}
    with _plain_and_recorded(lane, fs) as (plain, recorded):
        for path in (plain, recorded):
            for load in _LOADS:
                load.run(path)  # warm up: makes the files
        while time.monotonic() < end or not samples[_LOADS[-1].name]:
            for load in _LOADS:
                samples[load.name].append((load.run(plain), load.run(recorded)))
    for load in _LOADS:
        pairs = samples[load.name]
        yield Comparison(
            name=load.name,
            fs=fs,
            value=statistics.median(b for _, b in pairs),
            base=statistics.median(a for a, _ in pairs),
            unit=load.unit,
            ratio=statistics.median(b / a for a, b in pairs),
            target=load.target,
        )


@contextmanager
def _plain_and_recorded(lane: Lane, fs: str) -> Iterator[tuple[Path, Path]]:
    """Two new file systems, on a plain loop device and on a recorded one; images on the same tmpfs."""
    with ExitStack() as stack:
        for path in (lane.scratch, lane.disk):
            store_image(Image(_DEVICE_BYTES), path)
            stack.callback(path.unlink)
        lane.log.unlink(missing_ok=True)
        stack.callback(lane.log.unlink, missing_ok=True)
        plain = stack.enter_context(lane.minor.attached(lane.scratch))
        recorded = stack.enter_context(lane.recorder.record(lane.disk, lane.log)).device
        for device in (plain, recorded):
            make_fs(device, fs)
        yield (
            stack.enter_context(mounted(plain, lane.crash_mount, fs, mount_options(fs))),
            stack.enter_context(mounted(recorded, lane.live_mount, fs, mount_options(fs))),
        )


# Crash states.


@dataclass(slots=True)
class _Sums:
    """Sums over workloads. Times are seconds."""

    workloads: int = 0
    unique: int = 0
    execute_s: float = 0.0
    examine_s: float = 0.0
    fsck_s: float = 0.0
    phases_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    pairs: list[tuple[float, float]] = field(default_factory=list)
    """Per workload: seconds of a state without fsck, seconds of a bare mount + unmount of its image."""


def _bench_states(lane: Lane, fs: str, end: float) -> Iterator[Result]:
    sums = _Sums()
    for number, workload in enumerate(_workloads(fs)):
        if number >= _WARM_UP and time.monotonic() >= end and sums.pairs:
            break
        _measure(lane, workload, _Sums() if number < _WARM_UP else sums)
    per_state = {name: 1000 * seconds / sums.unique for name, seconds in sums.phases_s.items()}
    # What is in no phase: comparing log positions, looking images up.
    per_state["other"] = 1000 * sums.examine_s / sums.unique - sum(per_state.values())
    yield Comparison(
        name="crash state without fsck",
        fs=fs,
        value=1000 * statistics.median(state for state, _ in sums.pairs),
        base=1000 * statistics.median(bare for _, bare in sums.pairs),
        unit="ms",
        ratio=statistics.median(state / bare for state, bare in sums.pairs),
        target=STATE_TARGET,
        at_most=True,
    )
    yield StateCosts(
        fs=fs,
        workloads=sums.workloads,
        unique=sums.unique,
        phase_ms=per_state,
        execute_ms=1000 * sums.execute_s / sums.workloads,
        per_s=sums.unique / sums.examine_s,
        per_s_without_fsck=sums.unique / (sums.examine_s - sums.fsck_s),
        per_s_of_all=sums.unique / (sums.examine_s + sums.execute_s),
    )


def _workloads(fs: str) -> Iterator[Workload]:
    """Generated ones that can run here, the same each time, with no I/O held back."""
    for index in count():
        workload = replace(generate(SEED, index, fs), delay="")
        if not missing(workload.capabilities):
            yield workload


def _measure(lane: Lane, workload: Workload, sums: _Sums) -> None:
    started = time.perf_counter()
    execution = execute(lane, workload, views=())
    executed = time.perf_counter()
    before = dict(lane.times.seconds)
    examination = examine(lane, execution, Plan())
    examine_s = time.perf_counter() - executed
    if not examination.unique or any(found.recovery.mount_errno for found in examination.forbidden):
        return  # A state that does not mount is a finding; what it costs says nothing.
    spent = {name: lane.times.seconds[name] - before.get(name, 0.0) for name in PHASES}
    bare_s = [_bare_mount_s(lane, execution, image) for image in _unique_images(execution)]
    sums.workloads += 1
    sums.unique += examination.unique
    sums.execute_s += executed - started
    sums.examine_s += examine_s
    sums.fsck_s += spent["fsck"]
    for name, seconds in spent.items():
        sums.phases_s[name] += seconds
    sums.pairs.append(((examine_s - spent["fsck"]) / examination.unique, statistics.mean(bare_s)))


def _unique_images(execution: Execution) -> Iterator[Image]:
    """The images `examine` recovers, except that of the end of the log."""
    points = crash_points(execution.log, execution.history, Points.FSYNC, execution.log.start)
    builder = StateBuilder(execution.base, execution.log, execution.log.start)
    seen: set[int] = set()
    for state in states_at(points):
        image = builder.at(state)
        if image.digest not in seen:
            seen.add(image.digest)
            yield image


def _bare_mount_s(lane: Lane, execution: Execution, image: Image) -> float:
    """Seconds that mounting (with recovery) and unmounting take, and nothing else."""
    store_image(image, lane.scratch)
    options = recovery_options(execution.workload.fs, execution.workload.mount)
    with lane.minor.attached(lane.scratch) as device:
        started = time.perf_counter()
        with mounted(device, lane.crash_mount, execution.workload.fs, options):
            pass
        return time.perf_counter() - started
