"""Kill -9 while an actor freezes the file system: the next sweep lets go of it and of all who wait for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fuzzer.kernel.journal import LeftBehind, read_journals
from fuzzer.kernel.process import run, wait_until
from fuzzer.kernel.sweep import sweep

pytestmark = pytest.mark.kernel

_WORKLOAD = """powercut 1
fs: {fs}

setup
  create a
  sync

actor writer loop=400
  write a 0 64K
  chmod a 0600
  fsync a
  chmod a 0644

actor admin loop=others
  freeze
"""
_KILLS = 5
_PATIENCE_S = 60.0


def _runs_of(pid: int) -> list[LeftBehind]:
    owners = {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    return [left for left in read_journals() if left.owner_pid in owners]


@pytest.mark.parametrize("fs", ["btrfs", "xfs"])
def test_nobody_waits_for_what_a_killed_run_froze(tmp_path: Path, fs: str) -> None:
    workload = tmp_path / "freeze.workload"
    workload.write_text(_WORKLOAD.format(fs=fs))
    argv = [sys.executable, "-m", "fuzzer", "run", str(workload), "--dir", str(tmp_path / "campaign")]
    for number in range(_KILLS):
        started = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert wait_until(lambda pid=started.pid: any(r.held for r in _runs_of(pid)), _PATIENCE_S)
        runs = {left.run_id for left in _runs_of(started.pid)}
        time.sleep(0.5 + number / 5)
        os.kill(started.pid, signal.SIGKILL)
        started.wait(_PATIENCE_S)
        sweep()
        assert not runs & {left.run_id for left in read_journals()}
        run(["sync"], timeout_s=_PATIENCE_S)
