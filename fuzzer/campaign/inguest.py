"""A lane in a guest, the guest's side: `python -m fuzzer.campaign.inguest TASK NUMBER FIRST SECONDS`.

Does what the coordinator does for a worker on the host (`fuzz.py`): forks it, passes on what it reports,
a JSON line each on standard output, and saves a finding if it hangs in the kernel. The host does the rest.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import select
import sys
import time
from dataclasses import replace
from pathlib import Path

from fuzzer.campaign.session import prepare
from fuzzer.campaign.worker import STUCK, FuzzOptions, save_stuck, work
from fuzzer.kernel.beacon import Beacon
from fuzzer.kernel.children import fork_child

_TICK_S = 0.5


def save_task(path: Path, options: FuzzOptions) -> None:
    """Write down what a guest is to do; it is read by the same powercut."""
    # A guest is somewhere else: it starts in the campaign's directory.
    path.write_bytes(pickle.dumps(replace(options, target=None, directory=options.directory.resolve())))


def load_task(path: Path, seconds: float) -> FuzzOptions:
    """The task with what only the guest knows: its clock, and which kernel it is."""
    options = pickle.loads(path.read_bytes())
    assert isinstance(options, FuzzOptions)
    origin = replace(options.origin, kernel=platform.release())
    return replace(options, deadline=time.monotonic() + seconds, origin=origin)


def main(task: Path, number: int, first: int, seconds: float) -> int:
    """Run lane `number` from workload `first` on for some seconds; returns the worker's exit status."""
    options = load_task(task, seconds)
    prepare(options.filesystems, options.recorder)
    _say(json.dumps({"event": "guest", "worker": number, "kernel": options.origin.kernel}))
    beacon, turn = Beacon(), first
    child = fork_child(lambda send: work(options, number, first, send, beacon))
    while child.status is None:
        if select.select([child.fd], [], [], _TICK_S)[0]:
            for line in child.read_lines():
                turn = _say(line).get("index", turn - options.jobs) + options.jobs
        doing = beacon.overdue()
        if doing is not None:
            finding = save_stuck(options, number, turn, child.pid, doing)
            _say(json.dumps({"event": "finding", "canary": "", **finding.summary()}))
            return STUCK
    return child.status


def _say(line: str) -> dict[str, int]:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    return dict(json.loads(line))


if __name__ == "__main__":
    # What hangs cannot be waited for, and the guest goes down with it.
    os._exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
