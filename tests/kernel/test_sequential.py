"""`powercut sweep` from the command line: silent where nothing is planted, and it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fuzzer.errors import ExitCode

pytestmark = pytest.mark.kernel


def _sweep(directory: Path, *argv: str) -> tuple[int, list[dict[str, object]]]:
    command = [sys.executable, "-m", "fuzzer", "sweep", "--dir", str(directory), "--json", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode in (ExitCode.FINDING, ExitCode.NOTHING_FOUND), done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_small_sweep_is_silent_and_done_once(tmp_path: Path) -> None:
    status, (*events, summary) = _sweep(tmp_path, "--sample", "10", "--seed", "3")
    assert status == ExitCode.NOTHING_FOUND, events
    assert sorted(int(str(event["index"])) for event in events) == list(range(20))
    assert {event["fs"] for event in events} == {"btrfs", "xfs"}
    # Of each: the live mount, the last sync call in two states, and of one in four the end.
    assert 60 <= int(str(summary["crash_states"])) <= 80
    assert summary["workloads"] == 20
    assert {"unique_states", "findings", "seconds", "dir"} < set(summary)
    assert _sweep(tmp_path, "--sample", "10", "--seed", "3")[1][-1]["workloads"] == 0
    assert _sweep(tmp_path, "--sample", "2", "--seed", "3", "--fs", "xfs")[1][-1]["workloads"] == 2


def test_a_canary_is_found(fs: str, tmp_path: Path) -> None:
    status, events = _sweep(
        tmp_path, "--fs", fs, "--canary", "drop-flush", "--length", "2", "--sample", "200"
    )
    assert status == ExitCode.FINDING
    assert any(e["event"] == "finding" and e["canary"] == "drop-flush" for e in events)
