"""Minimizing a finding on the kernel: a planted bug in a workload that is full of other things."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fuzzer.campaign.finding import load_finding
from fuzzer.errors import ExitCode
from fuzzer.triage.reduce import minimized_directory
from fuzzer.triage.sequential import GIVE, Rate, decide
from fuzzer.workload.text import parse_bytes

pytestmark = pytest.mark.kernel

_WORKLOAD = """powercut 1
setup
  mkdir d
  create a
  create b
  create d/f
  write b 0 64K
  symlink a s
  sync
actor one loop=2
  write a 0 16K
  chmod d/f 0600
  setxattr b x
  fsync a
  truncate b 4K
actor two
  rename d/f d/g
  write b 8K 8K
  fdatasync b
"""


def _powercut(*argv: str, cwd: Path) -> tuple[int, list[dict[str, object]], str]:
    """Run the command; its exit status, the JSON lines it printed, and what it said."""
    command = [sys.executable, "-m", "fuzzer", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=660, check=False, cwd=cwd)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_planted_bug_is_minimized(fs: str, tmp_path: Path) -> None:
    """A few ops are left, it shows about as often as before, and the record can be seen again."""
    (tmp_path / "large.workload").write_text(_WORKLOAD)
    status, events, said = _powercut(
        "run", "large.workload", "--fs", fs, "--canary", "lose-block", "--repeat", "4", "--json", cwd=tmp_path
    )
    assert status == ExitCode.FINDING, said
    found = [e for e in events if e["event"] == "finding" and "planted:lose-block" in str(e["bucket"])]
    status, (result,), said = _powercut(
        "minimize", str(found[0]["id"]), "--time", "540s", "--json", cwd=tmp_path
    )
    assert status == ExitCode.FINDING, said
    (before, after), (first, last) = result["ops"], result["reproduced"]  # type: ignore[misc]
    assert (before, result["done"]) == (15, True), said
    assert after <= 8, said  # 3 to 6 are usual: chance decides what is taken for needed
    rate = Rate(*first).value * 0.8
    assert decide(Rate(*last), rate, GIVE) is not False, "it shows more rarely than before"
    directory = tmp_path / "powercut-run" / "findings" / str(found[0]["id"])
    minimized = load_finding(minimized_directory(directory))
    text = (directory / "minimized.workload").read_bytes()
    assert minimized.workload == parse_bytes(text)
    assert minimized.finding.bucket == found[0]["bucket"]
    assert minimized.finding.reproduced == tuple(last)
    print(f"{fs}: {result}\n{text.decode()}")  # noqa: T201

    # Its rate is measured again, which may take some back: how often it shows depends on the machine's load.
    accepted = " ops ("
    assert accepted in said
    status, (again,), said = _powercut("minimize", str(found[0]["id"]), "--json", cwd=tmp_path)
    assert again["done"] is True
    assert accepted not in said, "nothing more is tried"
