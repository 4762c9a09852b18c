"""Bench of sweeps: how many short sequential workloads this machine gets through, and what one pays for."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from fuzzer.campaign.examine import QUICK, examine
from fuzzer.campaign.execute import execute
from fuzzer.campaign.fuzz import fuzz
from fuzzer.campaign.index import open_index
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.monitor import Monitor, Progress
from fuzzer.campaign.session import default_jobs, origin
from fuzzer.campaign.source import Swept
from fuzzer.campaign.worker import FuzzOptions
from fuzzer.workload.model import Workload
from fuzzer.workload.sweep import Space
from fuzzer.writelog.points import Plan

TARGETS_PER_S = {"btrfs": 15.0, "xfs": 10.0}
"""Workloads per second and CPU, with all lanes of a campaign at work."""

_SEED = 20240
_WARM_UP = 3
"""Workloads not counted, of each lane: they pay for mkfs and for loading code."""
_LEAST_S = 6.0
"""A shorter sweep would measure how its lanes are opened."""
_WHOLES = ("execute", "mkfs")
"""Phases that are made of others, or not paid for by every workload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialCosts:
    """What the workloads of a sweep cost: ms of each by phase, and the rate of one lane alone."""

    fs: str
    workloads: int
    unique: int
    phase_ms: dict[str, float]
    per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRate:
    """Short sequential workloads per second of this machine: run, cut, recovered, judged and indexed."""

    fs: str
    jobs: int
    workloads: int
    per_s: float
    target_per_s: float

    @property
    def met(self) -> bool:
        return self.per_s >= self.target_per_s


def bench_sequential(lane: Lane, fs: str, end: float) -> SequentialCosts:
    """Run workloads of the shortest sweep until `end` (monotonic clock, seconds), as a sweep does."""
    workloads = _workloads(fs)
    for _ in range(_WARM_UP):
        _run(lane, next(workloads))
    before, started = dict(lane.times.seconds), time.perf_counter()
    count = unique = 0
    while not count or time.monotonic() < end:
        unique += _run(lane, next(workloads))
        count += 1
    elapsed_s = time.perf_counter() - started
    per_workload = {
        name: 1000 * (seconds - before.get(name, 0.0)) / count
        for name, seconds in lane.times.seconds.items()
        if name not in _WHOLES
    }
    # What is in no phase: comparing log positions, looking images up.
    per_workload["other"] = 1000 * elapsed_s / count - sum(per_workload.values())
    return SequentialCosts(
        fs=fs,
        workloads=count,
        unique=unique,
        phase_ms=per_workload,
        per_s=count / elapsed_s,
    )


def _workloads(fs: str) -> Iterator[Workload]:
    space = Space(fs, 1)
    return (space[number] for number in cycle(space.sample(len(space) // 2, _SEED)))


def _run(lane: Lane, workload: Workload) -> int:
    """Returns how many different states there were."""
    execution = execute(lane, workload, views=())
    return examine(lane, execution, Plan(), care=QUICK).unique


@dataclass(slots=True)
class _Clock(Monitor):
    """Notes when workloads are done, and says nothing."""

    done_s: list[float] = field(default_factory=list)

    def say(self, text: str) -> None:
        pass

    def tick(self, progress: Progress, left: str) -> None:
        pass

    def event(self, event: Mapping[str, object]) -> None:
        if event["event"] == "workload":
            self.done_s.append(time.monotonic())


def bench_sweep(fs: str, seconds: float, recorder: str) -> SweepRate:
    """Sweep for about `seconds`, or `_LEAST_S`, as `powercut sweep` does, with as many lanes.

    To be called with no lane open.
    """
    jobs, plan, clock = default_jobs(), Plan(), _Clock()
    with tempfile.TemporaryDirectory(prefix="powercut-bench-") as place:
        options = FuzzOptions(
            directory=Path(place),
            filesystems=(fs,),
            source=Swept((fs,), 1),
            first=0,
            jobs=jobs,
            deadline=time.monotonic() + max(seconds, _LEAST_S),
            recorder=recorder,
            plan=plan,
            canary="",
            origin=origin(points=str(plan), canary="", recorder=recorder),
            care=QUICK,
        )
        with open_index(options.directory, create=True) as index:
            fuzz(options, index, clock)
    counted = clock.done_s[_WARM_UP * jobs :]
    return SweepRate(
        fs=fs,
        jobs=jobs,
        workloads=len(counted),
        per_s=(len(counted) - 1) / (counted[-1] - counted[0]) if len(counted) > 1 else math.nan,
        target_per_s=TARGETS_PER_S[fs] * len(os.sched_getaffinity(0)),
    )
