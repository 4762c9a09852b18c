"""Work in a guest that is examined here: its executions as they come, and our commands run there."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzzer.campaign.execute import Execution
from fuzzer.campaign.recording import STOP, Counts, Task, load_counts, load_recording, save_task
from fuzzer.campaign.worker import STUCK
from fuzzer.errors import InfrastructureError, LostWorkerError
from fuzzer.target.machine import Guest, Pending
from fuzzer.target.targets import Target

PROGRAM = "fuzzer.campaign.inrecorder"
_POLL_S = 0.05


@contextmanager
def recorded(
    guest: Guest, target: Target, task: Task, switches: Mapping[str, str], limit_s: float
) -> Iterator[Iterator[tuple[Counts, Execution]]]:
    """Have a guest run a task; yields executions as they appear, until the task's end or `limit_s`.

    The guest's program is ended with the context. LostWorkerError if the
    guest dies or hangs, InfrastructureError if only the program does.
    """
    place = _place(guest.exchange)
    forget_recordings(guest.exchange)  # Of a guest that was lost.
    save_task(place, task)
    argv = (sys.executable, "-m", PROGRAM, str(place))
    pending = guest.start(argv, timeout_s=limit_s + target.silent_s, switches=switches)
    yield _appearing(place, pending, time.monotonic() + limit_s)
    (place / STOP).touch()
    ended = pending.result()
    if ended.status == STUCK:
        raise LostWorkerError("a workload hangs in the guest", hint=ended.stderr[-4000:])
    if ended.status:
        raise InfrastructureError(
            f"what runs workloads in the guest ended with status {ended.status}", hint=ended.stderr[-4000:]
        )
    shutil.rmtree(place)


def forget_recordings(exchange: Path) -> None:
    """Remove what a guest that was lost or given up has left behind."""
    shutil.rmtree(_place(exchange), ignore_errors=True)


def _place(exchange: Path) -> Path:
    """Several of us may share the directory."""
    return exchange / f"recordings-{os.getpid()}"


def _appearing(place: Path, pending: Pending, deadline: float) -> Iterator[tuple[Counts, Execution]]:
    number = 0
    while time.monotonic() < deadline:
        recording, done = place / str(number), pending.is_done()
        if recording.exists():
            yield load_counts(recording), load_recording(recording)
            shutil.rmtree(recording)
            number += 1
        elif done:
            return
        else:
            time.sleep(_POLL_S)


@dataclass(frozen=True, slots=True)
class Told:
    """What `powercut minimize` said: ops before and after, and how often what is left shows the finding."""

    ops: tuple[int, int]
    after: tuple[int, int]


def minimize_in_guest(
    guest: Guest, target: Target, finding: str, switches: Mapping[str, str], seconds: float
) -> Told | None:
    """Minimize a finding of the directory the guest may write to; None if it does not show there."""
    words = ("minimize", finding, "--time", str(seconds), "--json", "--dir", str(guest.exchange))
    argv = (sys.executable, "-m", "fuzzer", *words)
    ended = guest.run(argv, timeout_s=seconds + target.silent_s, switches=switches)
    events = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    for event in events:
        if event.get("event") == "minimized":
            before, after = event["ops"]
            hits, runs = event["reproduced"][1]
            return Told((before, after), (hits, runs))
    return None
