"""Queue: what each worker is at, on disk before it is tried, so that a dead machine leaves its culprit.

`queue/lane-N.workload` is there before the workload runs; `lane-N.log` (with its times) and
`lane-N.history.jsonl` before its crash states are recovered, `lane-N.crash.json` names the one being
recovered. All are synced: writing 5 to 10 MiB and syncing takes some 20 ms of a workload's half second,
naming a state (one block, in place, O_DSYNC) less than a millisecond. `powercut replay` takes the log.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzzer.campaign.examiner import Place
from fuzzer.campaign.execute import Execution
from fuzzer.errors import InputError
from fuzzer.state.history import History, format_history, parse_history
from fuzzer.state.recovery import Recovery
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.text import parse
from fuzzer.writelog.crash import LIVE, CrashState
from fuzzer.writelog.format import Log, read_log, times_path, write_log
from fuzzer.writelog.image import Image
from fuzzer.writelog.joined import RunLog, split_log, write_joined
from fuzzer.writelog.recipe import format_recipe, parse_recipe

_STATE_BYTES = 4096
"""The state's name is padded to this: overwriting it changes no metadata, so O_DSYNC writes one block."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The files of worker `number` in a campaign's `queue` directory."""

    directory: Path
    number: int

    def path(self, suffix: str) -> Path:
        return self.directory / f"lane-{self.number}.{suffix}"

    def begin(self, workload: Workload) -> None:
        """`workload` is going to run."""
        self.clear()
        self._write("workload", format_workload(workload))

    @contextmanager
    def recovering(self, execution: Execution) -> Iterator[QueuedStates]:
        """The crash states of `execution` are going to be recovered."""
        self._write("history.jsonl", "".join(f"{line}\n" for line in format_history(execution.history)))
        log = self.path("log")
        write_joined(log, execution.log)
        for part in (log, times_path(log)):
            if part.exists():
                _sync(part)
        states = QueuedStates(self, _preallocated(self.path("crash.json")))
        try:
            yield states
        finally:
            os.close(states.fd)

    def clear(self) -> None:
        """Nothing is under way."""
        # The state first: a name without its log says nothing.
        self.path("crash.json").unlink(missing_ok=True)
        for path in self.directory.glob(f"lane-{self.number}.*"):
            path.unlink()

    def recovery_log(self, number: int) -> Path:
        """The log of the `number`-th recovery (from 1) a state goes through that crashed while recovering."""
        return self.path(f"recovery-{number}.log")

    def load(self) -> tuple[Execution, Place]:
        """What a worker that no longer answers was at; without a state it had not got to recovery."""
        workload = parse(self.path("workload").read_text(), str(self.path("workload")))
        history, log, state = History(()), RunLog((), 0, ()), None
        if self.path("crash.json").exists():
            history = parse_history(self.path("history.jsonl").read_text().splitlines())
            log = split_log(read_log(self.path("log"), mapped=False))
            state = _parse_state(self.path("crash.json"))
        recoveries = tuple(self._recovery_logs(state))
        place = Place(state, LIVE, recoveries=recoveries)
        return Execution(workload, history, Image(0), log, Recovery()), place

    def _recovery_logs(self, state: CrashState | None) -> Iterator[Log]:
        again, number = state.again if state is not None else None, 1
        while again is not None:
            yield read_log(self.recovery_log(number), mapped=False)
            again, number = again.state.again, number + 1

    def _write(self, suffix: str, text: str) -> None:
        path = self.path(suffix)
        path.write_text(text)
        _sync(path)


@dataclass(slots=True)
class QueuedStates:
    """Names the crash state being recovered. `fd` is open on its file with O_DSYNC."""

    queue: Queue
    fd: int
    _recoveries: tuple[Log, ...] = ()
    _size: int = _STATE_BYTES

    def name(self, place: Place) -> None:
        """The state at `place` is recovered next."""
        if place.state is None:
            return
        for number, log in enumerate(place.recoveries, 1):
            if not any(log is known for known in self._recoveries):
                write_log(self.queue.recovery_log(number), [(log, log.entries)])
                _sync(self.queue.recovery_log(number))
        self._recoveries = place.recoveries
        text = json.dumps(format_recipe(place.state)).encode()
        padded = text.ljust(-(-len(text) // _STATE_BYTES) * _STATE_BYTES)
        os.pwrite(self.fd, padded, 0)
        if len(padded) < self._size:
            os.ftruncate(self.fd, len(padded))
        self._size = len(padded)


def set_aside(directory: Path) -> Path | None:
    """Move a queue that a killed campaign left out of the way; where it is now, or None if there is none."""
    if not any(directory.glob("lane-*.workload")):
        return None
    kept = directory.with_name(f"died-{time.time_ns() // 1_000_000}")
    directory.rename(kept)
    return kept


def _preallocated(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_DSYNC | os.O_CLOEXEC, 0o600)
    os.pwrite(fd, b" " * _STATE_BYTES, 0)
    os.fsync(fd)
    return fd


def _parse_state(path: Path) -> CrashState | None:
    text = path.read_text().strip()
    try:
        return parse_recipe(json.loads(text)) if text else None
    except ValueError as error:
        raise InputError(f"not a crash state: {error}", place=str(path)) from error


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
