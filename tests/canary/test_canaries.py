"""Planted bugs, found by real fuzzing from the command line and shown again by triage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fuzzer.errors import ExitCode
from fuzzer.writelog.canary import CANARIES

pytestmark = pytest.mark.canary

_BUDGET_S = 120
_REPRO_RUNS = 5
_POINTS = {"weak-flush": ("--points", "subset")}
"""Where a canary shows that does not show at sync calls. Without them it takes many workloads."""


def _powercut(*argv: str, timeout_s: float) -> tuple[int, list[dict[str, object]]]:
    """Run the command; its exit status and the JSON lines it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzzer", *argv],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode in (ExitCode.FINDING, ExitCode.NOTHING_FOUND), done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("fs", ["btrfs", "xfs"])
@pytest.mark.parametrize("canary", sorted(CANARIES))
def test_canary_is_found_and_shown_again(canary: str, fs: str, tmp_path: Path) -> None:
    directory = str(tmp_path / "campaign")
    status, events = _powercut(
        "fuzz", "--canary", canary, "--fs", fs, "--time", f"{_BUDGET_S}s", "--dir", directory, "--json",
        "--no-corpus", *_POINTS.get(canary, ()),
        timeout_s=_BUDGET_S + 60,
    )  # fmt: skip
    found = [e for e in events if e["event"] == "finding" and e["canary"] == canary]
    assert status == ExitCode.FINDING, f"{canary} was not found on {fs} in {_BUDGET_S} s"
    assert found, f"only other bugs were found: {events}"
    status, (shown,) = _powercut(
        "triage", "repro", str(found[0]["id"]), "--times", str(_REPRO_RUNS), "--dir", directory, "--json",
        timeout_s=120,
    )  # fmt: skip
    assert status == ExitCode.FINDING
    assert shown["recorded_state"] is True, "the recorded crash state was allowed when judged again"


def test_canaries_are_listed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fuzzer", "fuzz", "--canary", "list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == list(CANARIES)
