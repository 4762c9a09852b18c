"""Bench of sweeps: how many short sequential workloads a lane gets through, and what each pays for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from fuzzer.campaign.examine import QUICK, examine
from fuzzer.campaign.execute import execute
from fuzzer.campaign.lane import Lane
from fuzzer.workload.model import Workload
from fuzzer.workload.sweep import Space
from fuzzer.writelog.points import Plan

TARGETS_PER_S = {"btrfs": 15.0, "xfs": 10.0}
"""Workloads per second of one lane, which has a CPU to itself."""

_SEED = 20240
_WARM_UP = 3
_WHOLES = ("execute", "mkfs")
"""Phases that are made of others, or not paid for by every workload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialCosts:
    """What the workloads of a sweep cost: ms of each by phase, and the rate of one lane."""

    fs: str
    workloads: int
    unique: int
    phase_ms: dict[str, float]
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
        target_per_s=TARGETS_PER_S[fs],
    )


def _workloads(fs: str) -> Iterator[Workload]:
    space = Space(fs, 1)
    return (space[number] for number in cycle(space.sample(len(space) // 2, _SEED)))


def _run(lane: Lane, workload: Workload) -> int:
    """Returns how many different states there were."""
    execution = execute(lane, workload, views=())
    return examine(lane, execution, Plan(), care=QUICK).unique
