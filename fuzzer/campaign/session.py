"""What a command needs before it can run anything here: capabilities, leftovers removed, origin."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from fuzzer.campaign.finding import Origin
from fuzzer.kernel.probe import FS_NEEDS, RECORDER_NEEDS, require
from fuzzer.kernel.sweep import sweep
from fuzzer.target.targets import Target
from fuzzer.workload.model import Workload
from oracles import OWN

_ALWAYS = ("root", "loop", "kmsg")


def prepare(filesystems: tuple[str, ...], recorder: str, target: Target | None = None) -> list[str]:
    """Check that this machine can do it (MissingCapabilityError) and sweep up after killed runs.

    With a `target` guests do it, which check it for themselves. Returns what was swept.
    """
    if target is not None:
        require("root")
        target.plan()
        return sweep()
    tools = [name for fs in filesystems for name in FS_NEEDS[fs]]
    require(*_ALWAYS, *tools, *RECORDER_NEEDS.get(recorder, ()))
    return sweep()


def recorder_for(kind: str, workloads: Iterable[Workload]) -> str:
    """The recorder to use for these if the user leaves it to us: device-mapper holds no I/O back, and a
    workload that asks for it would be left out."""
    return "fuse" if kind == "auto" and any(workload.delay for workload in workloads) else kind


def origin(*, points: str, canary: str, recorder: str, contract: str = OWN) -> Origin:
    """The facts every finding of this run shares."""
    return Origin(
        points=points,
        canary=canary,
        contract=contract,
        recorder=recorder,
        kernel=platform.release(),
        created=now(),
        command=shlex.join(["powercut", *sys.argv[1:]]),
    )


def now() -> str:
    """The time findings are given, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def default_jobs(target: Target | None = None) -> int:
    """Three lanes per two CPUs we may use: one lane waits a third of its time, for fsyncs and mounts. In
    guests one per CPU, unless a guest keeps several busy."""
    cpus = len(os.sched_getaffinity(0))
    if target is not None:
        return target.jobs or cpus
    return cpus + (cpus + 1) // 2
