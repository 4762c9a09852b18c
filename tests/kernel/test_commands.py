"""The commands as a person runs them: results, exit statuses, and what bad input gets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fuzzer.campaign.corpus import load_corpus
from fuzzer.campaign.examine import examine
from fuzzer.campaign.execute import execute
from fuzzer.campaign.index import open_index
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.source import Generated
from fuzzer.campaign.worker import digest
from fuzzer.errors import ExitCode
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.text import parse
from fuzzer.writelog.points import Plan, Points

pytestmark = pytest.mark.kernel

_WORKLOAD = """powercut 1
setup
  create a
  mkdir d
  write a 0 64K
  sync
actor one loop=3
  write a rand(0,60K,4K) 4K
  fsync a
  create d/x
  fsync d
  rename d/x b
  fsync b
  setxattr b k
  fsync b
  unlink b
  fsync .
"""


def _powercut(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzzer", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd)


def _events(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_sequential_workload_breaks_no_promise(tmp_path: Path) -> None:
    file = tmp_path / "good.workload"
    file.write_text(_WORKLOAD)
    done = _powercut("run", file, "--repeat", "3", "--json", cwd=tmp_path)
    assert done.returncode == ExitCode.NOTHING_FOUND, done.stderr
    *runs, summary = _events(done)
    assert {run["fs"] for run in runs} == {"btrfs", "xfs"}
    assert all(run["failed_ops"] == 0 and run["killed"] == [] for run in runs)
    assert summary["event"] == "summary"
    assert summary["workloads"] == 6
    # Per run: the setup's sync and 15 of the actor, each in two states, the live mount and the end.
    assert summary["crash_states"] == 6 * (16 * 2 + 2)
    assert set(summary) == {
        *("event", "workloads", "crash_states", "unique_states", "findings", "known", "seconds", "dir"),
        *("judged", "no_promise", "judged_by_rule", "no_promise_reasons"),
    }
    by_rule = summary["judged_by_rule"]
    assert isinstance(by_rule, dict)
    assert by_rule["data"] > 6 * 16
    assert sum(by_rule.values()) == summary["judged"]


@pytest.mark.parametrize("points", [Points.FLUSH, Points.FUA, Points.WRITE])
def test_other_points_look_at_more(points: Points, fs: str) -> None:
    workload = parse(_WORKLOAD).with_fs(fs)
    with open_lane("fuse") as lane:
        execution = execute(lane, workload)
        few = examine(lane, execution, Plan())
        many = examine(lane, execution, Plan((points,)))
    assert few.forbidden == many.forbidden == ()
    assert many.states > few.states


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("powercut 1\nactor a\n  explode x\n", "3:3"),
        ("powercut 1\nactor a\n  write a 0 banana\n", "3:13"),
        ("powercut 1\nactor a\n  write a 3 4K\n", "3:11"),
        ("powercut 7\nactor a\n  sync\n", "1:"),
        ("", "1:"),
        ("\0\1\2", "1:"),
    ],
)
def test_bad_workloads_say_where(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.workload"
    file.write_text(text)
    done = _powercut("run", file, cwd=tmp_path)
    assert done.returncode == ExitCode.BAD_INPUT
    assert f"bad.workload:{complaint}" in done.stderr
    assert "Traceback" not in done.stderr


def test_100_mb_of_garbage(tmp_path: Path) -> None:
    file = tmp_path / "garbage.workload"
    with file.open("wb") as out:
        for _ in range(100):
            out.write(bytes(range(256)) * 4096)
    done = _powercut("run", file, cwd=tmp_path)
    assert done.returncode == ExitCode.BAD_INPUT
    assert "garbage.workload" in done.stderr


def test_refused_options_are_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "mount.workload"
    file.write_text("powercut 1\nfs: btrfs\nmount: commit=nonsense\n\nactor a\n  sync\n")
    done = _powercut("run", file, cwd=tmp_path)
    assert done.returncode == ExitCode.BAD_INPUT, done.stderr
    assert "commit=nonsense" in done.stderr


def test_usage_and_unknown_things(tmp_path: Path) -> None:
    for argv in (
        ["fuzz", "--fs", "ext4"],
        ["fuzz", "--time", "soon"],
        ["fuzz", "--canary", "none"],
        ["frobnicate"],
    ):
        assert _powercut(*argv, cwd=tmp_path).returncode == ExitCode.BAD_INPUT, argv
    for argv in (["triage", "list"], ["triage", "show", "x"], ["triage", "repro", "x"]):
        done = _powercut(*argv, cwd=tmp_path)
        assert done.returncode == ExitCode.BAD_INPUT, argv
        assert "no campaign" in done.stderr


def test_without_root_it_says_so(tmp_path: Path) -> None:
    """As a user without root: exit 3 and what is missing, before anything is touched."""
    code = (
        "import os; os.geteuid = lambda: 65534; from fuzzer.cli import main; main(['fuzz', '--time', '1s'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == ExitCode.CANNOT_RUN_HERE
    assert "root (running as uid 65534)" in done.stderr
    assert not (tmp_path / "powercut-run").exists()


def test_fuzz_resumes_where_it_stopped(tmp_path: Path) -> None:
    """What ran is what the seed says, byte for byte, whichever process asks: corpus and mutations too."""
    first = _powercut("fuzz", "--time", "4s", "--seed", "11", "--fs", "xfs", "--json", cwd=tmp_path)
    again = _powercut("fuzz", "--time", "4s", "--fs", "xfs", "--json", cwd=tmp_path)
    for done in (first, again):
        assert done.returncode in (ExitCode.NOTHING_FOUND, ExitCode.FINDING), done.stderr
    before, after = (
        [int(str(e["index"])) for e in _events(done) if e["event"] in ("workload", "skipped")]
        for done in (first, again)
    )
    assert before
    assert after
    assert min(after) > max(before)
    assert "--seed 11" in again.stderr
    source = Generated(11, ("xfs",), load_corpus(), 25)
    ran = [e for e in _events(first) if e["event"] == "workload"]
    assert [e["digest"] for e in ran] == [digest(source.workload(int(str(e["index"])))) for e in ran]
    ops = _events(again)[-1]["ops"]
    assert isinstance(ops, dict)
    assert ops["create"]["ok"] > 0
    with open_index(tmp_path / "powercut-run") as index:
        assert index.totals()["ops/create/ok"] > ops["create"]["ok"]


def test_one_seed_one_sequence() -> None:
    def texts(seed: int) -> list[str]:
        source = Generated(seed, ("btrfs", "xfs"))
        return [format_workload(source.workload(index)) for index in range(50)]

    assert texts(3) == texts(3)
    assert texts(3) != texts(4)
