"""Recordings: an execution as files, so that it can be examined where it did not run.

A slow guest only has to run the workload; looking at a hundred crash states is this machine's work.
As a program, `python -m fuzzer.campaign.recording DIRECTORY TIMES WORKLOAD`, it runs in the guest.
"""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

from fuzzer.campaign.execute import Execution, execute
from fuzzer.campaign.lane import open_lane
from fuzzer.errors import HangError
from fuzzer.target.guest import read_hits
from fuzzer.workload.text import parse_bytes
from fuzzer.writelog.format import read_log
from fuzzer.writelog.joined import base_image, split_log, write_joined

_LOG, _REST, _HITS = "writes.log", "execution", "hits"


def save_recording(directory: Path, execution: Execution) -> None:
    """Make `directory`; it appears with all that belongs into it."""
    draft = directory.with_name(f".{directory.name}")
    draft.mkdir()
    write_joined(draft / _LOG, execution.log)
    # The clock tick of an emulated machine comes as late as that machine is kept waiting, and times of
    # files with it: nothing can be said of them.
    history = replace(execution.history, realtime_ns=0)
    rest = (execution.workload, history, execution.live, execution.views, execution.without)
    (draft / _REST).write_bytes(pickle.dumps(rest))
    (draft / _HITS).write_text(json.dumps(read_hits()))
    draft.rename(directory)


def load_recording(directory: Path) -> Execution:
    """Inverse of `save_recording`, for the same powercut. Only what a guest of ours wrote is to be trusted
    so far: it was running the same program with the same rights."""
    log = split_log(read_log(directory / _LOG, mapped=False))
    workload, history, live, views, without = pickle.loads((directory / _REST).read_bytes())
    return Execution(workload, history, base_image(log, workload.size), log, live, views, without)


def load_hits(directory: Path) -> dict[str, int]:
    """The counters of the kernel's known bugs since the first execution, where this one was saved."""
    return dict(json.loads((directory / _HITS).read_text()))


def main(directory: Path, times: int, path: Path) -> None:
    """Run a workload some times and leave recordings 0, 1, … behind."""
    workload = parse_bytes(path.read_bytes(), str(path))
    # Only this recorder can hold requests back.
    with open_lane("fuse" if workload.delay else "auto") as lane:
        for number in range(times):
            save_recording(directory / str(number), execute(lane, workload))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    except HangError as error:
        sys.exit(f"hang: {error}\n" + "\n".join(error.stacks.values()))
