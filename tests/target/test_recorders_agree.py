"""Both recorders tell the same: FUSE under this kernel, device-mapper under that of the guest.

The same sequential workloads are run and judged on either side, healthy and with planted damage. What
must be equal is, for each damage, each sync call k and each kept mode, the set of (rule, kind, promising
sync call) that is broken when power goes right after k returned, and after the clean unmount. A
recorder that loses or reorders a write or a flush, or is wrong about what had returned, differs.

Damage is defined by what the workload can see of it, so that it means the same in both logs:

- *all barriers of k*: what k waited for, flushes and FUA alike, is acknowledged and not done. A single
  flush would not do: a device without FUA (the loop device here) gets write and flush in its stead
  (block/blk-flush.c), and that flush covers everything before it, not just the one write.
- *last barrier of k*: FUA of the last forced write, or the flush that stands for it, or the only flush.
- *block lost*: one data block, found by its stamp, that an op before k wrote.

A lie is looked at only at its own k, because which later call heals it differs rightly: a flush does, FUA
does not. Two rules are left out. `kernel-log`: its words are the kernel's own, and rate-limited. `times`: it
allows for a clock tick that comes late, so whether a time lost with a write is too old depends on how
long before that write the file was made, which takes a slow guest longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fuzzer.target.uml import run_in_uml

pytestmark = pytest.mark.target(
    *("uml", "loop", "fuse", "pyfuse3", "kmsg"),
    *("btrfs", "mkfs.btrfs", "btrfs-check", "xfs", "mkfs.xfs", "xfs_repair"),
)

PROJECT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("crash_verdicts.py")
GUEST_S, HOST_S = 170.0, 120.0

# Every sync call has something to write: where the log has times, an idle one shares the crash state of
# the call before, which then has two that promise. No sync or syncfs follows a mere overwrite, and O_SYNC
# comes after a tick of the clock: whether xfs has anything to log then (and so a flush to send)
# depends on whether the time stamps changed.
DATA = """powercut 1
title: writes of every kind, each synced in another way

setup
  create a
  mkdir d
  create d/b
  sync

actor one
  write a 0 32K
  fsync a
  write a 8K 8K
  fdatasync a
  write a 32K 16K
  fsync a
  write a 4K 4K sync=dsync
  dwrite a 16K 8K sync=dsync
  dwrite a 48K 8K
  fdatasync a
  truncate a 40K
  fsync a
  write d/b 0 12K
  create d/c
  sync
  sleep 30000
  write d/b 4K 4K sync=sync
"""

NAMES = """powercut 1
title: names and attributes, with data behind them

setup
  mkdir d
  create d/a
  write d/a 0 8K
  create old
  sync

actor one
  create new
  write new 0 8K
  fsync new
  rename new old
  fsync .
  rename d/a d/b
  fsync d/b
  link d/b c
  fsync c
  setxattr c one
  fsync c
  write c 8K 4K
  setxattr c one size=48
  fdatasync c
  removexattr c one
  chmod c 0600
  fsync d/b
  unlink d/b
  fsync d
  mkdir d/e
  create d/e/f
  write d/e/f 0 4K
  fsync d/e/f
  symlink c s
  sync
"""

WORKLOADS = {"data": DATA, "names": NAMES}

State = tuple[str, str, str]
"""(damage, sync call that returned last, what was kept)."""
Violations = frozenset[tuple[str, str, int]]
"""(rule, kind, id of the sync call that promised)."""
NOT_COMPARED = frozenset({"kernel-log", "times"})


@dataclass(frozen=True, slots=True)
class Side:
    """What one side says about one workload."""

    recorder: str
    kernel: str
    failed: list[str]
    verdicts: dict[State, Violations]

    def forbidden(self, damage: str) -> set[State]:
        return {state for state, broken in self.verdicts.items() if broken and state[0].startswith(damage)}

    @property
    def syncs(self) -> set[str]:
        return {sync for damage, sync, _ in self.verdicts if damage == "none" and sync != "end"}


def parse_sides(stdout: str) -> dict[str, Side]:
    sides = {}
    for line in map(json.loads, stdout.splitlines()):
        verdicts = {
            (damage, sync, kept): frozenset(
                (rule, kind, by) for rule, kind, by in found if rule not in NOT_COMPARED
            )
            for damage, sync, kept, found in line["rows"]
        }
        assert len(verdicts) == len(line["rows"])
        sides[line["workload"]] = Side(line["recorder"], line["kernel"], line["failed"], verdicts)
    return sides


def on_host(argv: Sequence[str]) -> str:
    variables = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        argv, env=variables, cwd=PROJECT, capture_output=True, text=True, timeout=HOST_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_guest(argv: Sequence[str], exchange: Path) -> str:
    done = run_in_uml(argv, exchange=exchange, timeout_s=GUEST_S)
    assert done.status == 0, done.stderr
    return done.stdout


def write_workloads(directory: Path) -> list[str]:
    for name, text in WORKLOADS.items():
        (directory / name).write_text(text)
    return [str(directory / name) for name in WORKLOADS]


@pytest.mark.parametrize("fs", ["btrfs", "xfs"])
def test_both_recorders_yield_the_same_crash_states(tmp_path: Path, fs: str) -> None:
    paths = write_workloads(tmp_path)
    fuse = parse_sides(on_host([sys.executable, str(PROGRAM), "fuse", fs, *paths]))
    dm = parse_sides(in_guest([sys.executable, str(PROGRAM), "auto", fs, *paths], tmp_path))
    assert set(fuse) == set(dm) == set(WORKLOADS)
    for name in WORKLOADS:
        host, guest = fuse[name], dm[name]
        assert (host.recorder, guest.recorder) == ("fuse", "dm")
        assert host.kernel != guest.kernel
        assert host.failed == guest.failed == []
        assert host.verdicts == guest.verdicts
        check_is_not_vacuous(host)


def check_is_not_vacuous(side: Side) -> None:
    """Healthy states are allowed; each lie breaks its own call's promise, each lost block is found."""
    assert len(side.syncs) >= 10
    assert not side.forbidden("none")
    assert not side.forbidden("not written")
    assert side.forbidden("all barriers") == {
        (f"all barriers of {sync}", sync, "nothing") for sync in side.syncs
    }
    assert len(side.forbidden("last barrier")) >= len(side.syncs) - 1
    lost = {damage for damage, _, _ in side.verdicts if damage.startswith("block lost")}
    assert len(lost) >= 4
    assert {damage for damage, _, _ in side.forbidden("block lost")} == lost


SMALL = """powercut 1
title: a file is written and synced twice

setup
  create a
  sync

actor one
  write a 0 16K
  fsync a
  write a 16K 16K
  fsync a
"""


@pytest.mark.parametrize(
    ("options", "status"),
    [
        pytest.param(("--recorder", "dm"), 0, id="healthy"),
        pytest.param(("--canary", "drop-flush"), 1, id="planted"),
    ],
)
def test_the_run_command_in_the_guest(tmp_path: Path, options: tuple[str, ...], status: int) -> None:
    """`auto` takes dm there, and findings arrive in the host's campaign directory."""
    workload, directory = tmp_path / "small.workload", tmp_path / "campaign"
    workload.write_text(SMALL)
    command = [sys.executable, "-m", "fuzzer", "run", str(workload), "--json", "--dir", str(directory)]
    done = run_in_uml([*command, *options], exchange=tmp_path, timeout_s=GUEST_S)
    assert done.status == status, done.stderr
    *events, summary = map(json.loads, done.stdout.splitlines())
    runs = {event["fs"]: event for event in events if event["event"] == "run"}
    assert set(runs) == {"btrfs", "xfs"}
    assert not any(run["failed_ops"] for run in runs.values())
    findings = [json.loads(path.read_text()) for path in directory.glob("findings/*/finding.json")]
    assert len(findings) == summary["findings"] == (2 if status else 0)
    assert {finding["recorder"] for finding in findings} <= {"dm"}
