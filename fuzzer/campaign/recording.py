"""Recordings: executions as files, so that they can be examined where they did not run.

A slow guest only has to run workloads (`inrecorder.py`); looking at a hundred crash states is this
machine's work.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzer.campaign.execute import DEADLINE_S, Execution
from fuzzer.campaign.source import Source
from fuzzer.state.view import View
from fuzzer.target.guest import read_hits
from fuzzer.writelog.format import read_log
from fuzzer.writelog.joined import base_image, split_log, write_joined

STOP = "stop"
"""A file in the directory of a task: no more of it is wanted."""

_TASK = "task"
_LOG, _REST, _COUNTS = "writes.log", "execution", "counts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a guest is to run: the workloads of `source` from number `first` on."""

    source: Source
    first: int = 0
    recorder: str = "auto"
    deadline_s: float = DEADLINE_S
    views: tuple[View, ...] = ()
    """Looks at the live mount besides that through the cache: each costs a slow guest a part of a run."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one recording: the number of its workload, and the known bugs' counters when it was saved, since
    the guest's program began."""

    index: int
    hits: dict[str, int]


def save_task(directory: Path, task: Task) -> None:
    """Make `directory` for a guest's recordings, with what it is to run."""
    directory.mkdir()
    (directory / _TASK).write_bytes(pickle.dumps(task))


def load_task(directory: Path) -> Task:
    """Inverse of `save_task`, for the same powercut."""
    task = pickle.loads((directory / _TASK).read_bytes())
    assert isinstance(task, Task)
    return task


def save_recording(place: Path, execution: Execution, index: int = 0) -> None:
    """Make the directory `place`; it appears with all that belongs into it."""
    draft = place.with_name(f".{place.name}")
    draft.mkdir()
    write_joined(draft / _LOG, execution.log)
    # The clock tick of an emulated machine comes as late as that machine is kept waiting, and times of
    # files with it: nothing can be said of them.
    history = replace(execution.history, realtime_ns=0)
    rest = (execution.workload, history, execution.live, execution.views, execution.without)
    (draft / _REST).write_bytes(pickle.dumps(rest))
    (draft / _COUNTS).write_text(json.dumps({"index": index, "hits": read_hits()}))
    draft.rename(place)


def load_recording(place: Path) -> Execution:
    """Inverse of `save_recording`, for the same powercut. Only what a guest of ours wrote is to be trusted
    so far: it was running the same program with the same rights."""
    log = split_log(read_log(place / _LOG, mapped=False))
    workload, history, live, views, without = pickle.loads((place / _REST).read_bytes())
    return Execution(workload, history, base_image(log, workload.size), log, live, views, without)


def load_counts(place: Path) -> Counts:
    """What was counted when this recording was saved."""
    return Counts(**json.loads((place / _COUNTS).read_text()))
