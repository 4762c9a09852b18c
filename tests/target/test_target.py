"""A campaign in guests: findings arrive on the host, and a guest that dies is one and no end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fuzzer.campaign import guestlane
from fuzzer.campaign.finding import load_finding
from fuzzer.campaign.fuzz import fuzz
from fuzzer.campaign.index import open_index
from fuzzer.campaign.monitor import Monitor
from fuzzer.campaign.session import origin, prepare
from fuzzer.campaign.source import Listed
from fuzzer.campaign.worker import FuzzOptions
from fuzzer.target.targets import find_target
from fuzzer.workload.text import parse
from fuzzer.writelog.points import Plan

pytestmark = pytest.mark.target("uml")

SMALL = parse("""powercut 1
title: a file is written and synced
fs: xfs
descends: somewhere

setup
  create a
  sync

actor one
  write a 0 16K
  fsync a
""")


def test_a_guest_that_panics_is_a_finding_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guestlane, "PROGRAM", "tests.target.dying_guest")
    target = find_target("uml")
    prepare(("xfs",), "auto", target)
    options = FuzzOptions(
        directory=tmp_path,
        filesystems=("xfs",),
        source=Listed((SMALL,), times=3),
        first=0,
        jobs=1,
        deadline=math.inf,
        recorder="auto",
        plan=Plan(),
        canary="drop-flush",
        origin=origin(points="fsync", canary="drop-flush", recorder="auto"),
        target=target,
    )
    with open_index(tmp_path, create=True) as index:
        totals = fuzz(options, index, Monitor())
        ids = [row["id"] for row in index.list_findings()]
    assert totals.findings == len(ids) >= 2
    assert totals.canary_seen == {"xfs"}
    assert totals.descends["somewhere"] >= 2
    found = [load_finding(tmp_path / "findings" / name) for name in ids]
    panic, planted, *more = sorted(found, key=lambda saved: saved.finding.canary)
    assert {saved.finding.canary for saved in (planted, *more)} == {"drop-flush"}
    assert panic.finding.bucket == "xfs/kernel-log/Kernel panic - not syncing: sysrq triggered crash"
    assert panic.workload == SMALL
    assert any("sysrq triggered crash" in line for line in panic.kernel_lines())
    assert panic.finding.canary == ""
    assert panic.finding.kernel == planted.finding.kernel != ""
    assert not list((tmp_path / "queue").iterdir())
