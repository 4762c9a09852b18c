"""Kill -9 at random moments: nothing of ours stays, and nothing that was announced is lost."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fuzzer.campaign.index import open_index
from fuzzer.kernel import procfs
from fuzzer.kernel.journal import RUN_ROOT, read_journals
from fuzzer.kernel.process import wait_until
from fuzzer.kernel.sweep import sweep

pytestmark = pytest.mark.kernel

_KILLS = 20
_LONGEST_S = 3.0
_BEGUN_S = 30.0
_FOUND_S = 120.0
_DEAD_S = 30.0
_REAPED_S = 5.0


def _start(directory: Path, output: Path) -> subprocess.Popen[bytes]:
    """A campaign that finds something every few seconds: with a canary, on one file system it lacks.

    It writes to a file: actors that hang in the kernel until the next sweep would keep a pipe open.
    """
    with output.open("wb") as stdout:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "fuzzer", "fuzz", "--time", "180s", "--jobs", "2", "--json"),
                *("--canary", "lose-block", "--no-corpus", "--dir", str(directory)),
            ],
            stdout=stdout,
            stderr=subprocess.DEVNULL,
        )


def _announced(output: str) -> set[str]:
    """Ids of findings in complete lines (a killed program may leave half of one)."""
    lines = [line for line in output.splitlines(keepends=True) if line.endswith("\n")]
    events = [json.loads(line) for line in lines]
    return {event["id"] for event in events if event["event"] == "finding"}


def _our_leftovers(run_ids: set[str]) -> list[str]:
    """What of the given runs is still on this machine."""
    areas = [RUN_ROOT / run_id for run_id in run_ids]
    left = [str(m.path) for m in procfs.mounts() if any(m.path.is_relative_to(area) for area in areas)]
    backing = procfs.loop_backing_files()
    left += [f for f in backing.values() if any(Path(f).is_relative_to(area) for area in areas)]
    left += [name for pid in procfs.processes() if (name := procfs.comm(pid)) in {f"pc-{i}" for i in run_ids}]
    groups = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]
    left += [str(g) for root in groups if root.is_dir() for i in run_ids for g in root.glob(f"powercut-{i}*")]
    return left + [str(area) for area in areas if area.exists()]


def _runs_of(pid: int) -> set[str]:
    """Run ids whose owner is a child of `pid` (the workers own the areas)."""
    children: set[int] = set()
    with suppress(psutil.NoSuchProcess):  # it may have found what it looked for
        children = {child.pid for child in psutil.Process(pid).children()}
    return {left.run_id for left in read_journals() if left.owner_pid in children}


def test_killed_campaigns_leave_nothing_and_lose_nothing(tmp_path: Path) -> None:
    rng = random.Random(20)
    directory = tmp_path / "campaign"
    output = tmp_path / "output.jsonl"
    announced: set[str] = set()
    runs: set[str] = set()
    for number in range(_KILLS):
        campaign = _start(directory, output)
        # On a busy machine it takes seconds until there is anything to leave behind, or to lose.
        if number == 0:
            wait_until(lambda: bool(_announced(output.read_text())), _FOUND_S)
        elif number % 4:
            wait_until(lambda started=campaign: bool(_runs_of(started.pid)), _BEGUN_S)
        moment = time.monotonic() + rng.uniform(0.1, _LONGEST_S)
        while time.monotonic() < moment and campaign.poll() is None:
            runs |= _runs_of(campaign.pid)
            time.sleep(0.05)
        runs |= _runs_of(campaign.pid)
        campaign.kill()
        campaign.wait(30)
        announced |= _announced(output.read_text())
    assert runs, "no campaign got as far as taking a run area: the test tested nothing"
    # A killed worker lives on until the kernel lets it out of a mount or an unmount, and no sweep
    # touches a run whose owner lives.
    assert wait_until(lambda: not any(left.alive for left in read_journals() if left.run_id in runs), _DEAD_S)
    sweep()
    # xfs that is given a label when its device dies hangs for ever: a bug of the kernel (crashes/README.md).
    runs -= {left.run_id for left in read_journals() if left.hangs}
    # A process that has ended stays visible until init has reaped it.
    wait_until(lambda: not _our_leftovers(runs), _REAPED_S)
    assert _our_leftovers(runs) == []
    with open_index(directory) as index:
        known = {str(row["id"]) for row in index.list_findings()}
    assert announced, "no campaign got as far as a finding: the test tested nothing"
    assert announced <= known
