"""The guest's side of recordings: `python -m fuzzer.campaign.inrecorder DIRECTORY` runs the task in it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fuzzer.campaign.execute import Execution, execute
from fuzzer.campaign.lane import Lane, open_lane
from fuzzer.campaign.recording import STOP, Task, load_task, save_recording
from fuzzer.campaign.worker import STUCK
from fuzzer.errors import HangError, InputError
from fuzzer.kernel.probe import missing
from fuzzer.workload.model import Workload

_AHEAD = 4
"""How many recordings may wait to be examined."""
_POLL_S = 0.05


def main(directory: Path) -> None:
    """Leave recordings 0, 1, … behind until the source ends or STOP is there."""
    task = load_task(directory)
    with open_lane(task.recorder) as lane:
        for number, (index, execution) in enumerate(_executions(lane, task)):
            save_recording(directory / str(number), execution, index)
            while (directory / str(number - _AHEAD + 1)).exists() and not (directory / STOP).exists():
                time.sleep(_POLL_S)
            if (directory / STOP).exists():
                return


def _executions(lane: Lane, task: Task) -> Iterator[tuple[int, Execution]]:
    """What could be run, with the numbers of the workloads."""
    index, total = task.first, task.source.total
    while total is None or index < total:
        workload = task.source.workload(index)
        if not _lacks(lane, workload):
            try:
                yield index, execute(lane, workload, task.deadline_s, task.views)
            except InputError as error:  # Options that this kernel does not take.
                sys.stderr.write(f"{index}: {error}\n")
        index += 1


def _lacks(lane: Lane, workload: Workload) -> bool:
    return bool(missing(workload.capabilities)) or bool(workload.delay and not lane.recorder.delays)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except HangError as error:
        sys.stderr.write(f"{error}\n" + "\n".join(error.stacks.values()))
        # What hangs cannot be waited for, and the guest goes down with it.
        os._exit(STUCK)
