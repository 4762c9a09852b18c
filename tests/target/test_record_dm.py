"""`powercut record` with the device-mapper recorder: its log has no times, only marks say what came first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fuzzer.errors import ExitCode
from fuzzer.kernel.probe import missing
from fuzzer.target.uml import run_in_uml

pytestmark = [
    pytest.mark.target,
    pytest.mark.skipif(bool(missing(["uml"])), reason="package user-mode-linux is not installed"),
]

_EXAMPLE = Path(__file__).parents[2] / "scripts/sqlite-example"
_GUEST_S = 300.0


@pytest.mark.parametrize("fs", ["btrfs", "xfs"])
@pytest.mark.parametrize(
    ("modes", "status", "says"),
    [("wal full", ExitCode.NOTHING_FOUND, ""), ("delete off", ExitCode.FINDING, "corrupt: ")],
)
def test_sqlite(tmp_path: Path, fs: str, modes: str, status: ExitCode, says: str) -> None:
    check = f"{sys.executable} {_EXAMPLE / 'checker.py'}"
    argv = [*(sys.executable, "-m", "fuzzer", "record", "--recorder", "dm", "--fs", fs)]
    argv += ["--log", str(tmp_path / "log"), "--check", check, "--"]
    argv += [sys.executable, str(_EXAMPLE / "writer.py"), *modes.split(), "2"]
    result = run_in_uml(argv, exchange=tmp_path, timeout_s=_GUEST_S)
    assert result.status == status, result.stdout + result.stderr
    assert says in result.stdout
    assert "2 marks" in result.stderr
