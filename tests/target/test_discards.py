"""Discards in the crash model: device-mapper records them, and no legal crash may need what they took.

btrfs may discard freed extents only after the superblock of the transaction that freed them is stable
(btrfs_finish_extent_commit() in fs/btrfs/extent-tree.c), xfs only after the commit is stable in its log
(busy extents, fs/xfs/xfs_discard.c). So every state in which all discards happened, and no write behind the
last flush did, must hold what was synced before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fuzzer.kernel.probe import missing
from fuzzer.target.uml import run_in_uml

pytestmark = [
    pytest.mark.target,
    pytest.mark.skipif(bool(missing(["uml"])), reason="package user-mode-linux is not installed"),
]

GUEST_S = 400.0

SCRIPT = """
import json, sys
from dataclasses import replace
from fuzzer.campaign.examine import examine
from fuzzer.campaign.execute import execute
from fuzzer.campaign.lane import open_lane
from fuzzer.workload.text import parse
from fuzzer.writelog.model import Flag
from fuzzer.writelog.points import Plan, Points

TEXT = '''powercut 1
fs: FS
mount: MOUNT

setup
  create a
  write a 0 1M
  create b
  write b 0 256K
  sync

actor one
  unlink a
  sync
  write b 0 64K
  fsync b
  sync
  unlink b
  sync
'''

def too_early(log, moved):
    '''The log with one discard done as soon as the setup had been synced.'''
    entries = [e for e in log.entries if e is not moved]
    first = next(n for n, e in enumerate(entries) if e.mark.startswith("sync:"))
    entries.insert(first + 1, moved)
    return replace(log, entries=tuple(replace(e, index=n) for n, e in enumerate(entries)))

fs, mount = sys.argv[1:]
plan = Plan((Points.SUBSET,), each=60)
with open_lane("dm") as lane:
    execution = execute(lane, parse(TEXT.replace("FS", fs).replace("MOUNT", mount)), views=())
    log = execution.log
    discards = [e for e in log.entries[log.start :] if e.flags & Flag.DISCARD]
    largest = max(discards, key=lambda e: e.length, default=None)
    healthy = examine(lane, execution, plan)
    planted = examine(lane, replace(execution, log=too_early(log, largest)), plan) if largest else None
print(json.dumps({
    "discards": len(discards),
    "unique": healthy.unique,
    "healthy": [[str(f.state), f.bucket, f.judgement.violations[0].found] for f in healthy.forbidden],
    "planted": [f.bucket for f in planted.forbidden] if planted else None,
}))
"""


@pytest.mark.parametrize(("fs", "mount"), [("btrfs", "discard=sync"), ("xfs", "discard")])
def test_no_discard_takes_what_a_crash_needs(fs: str, mount: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", SCRIPT, fs, mount]
    result = run_in_uml(argv, exchange=tmp_path, timeout_s=GUEST_S)
    assert result.status == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["discards"] > 0, "nothing was discarded, so nothing was tested"
    assert found["unique"] > 20
    assert found["healthy"] == []
    assert found["planted"], "a discard that came too early must show"
