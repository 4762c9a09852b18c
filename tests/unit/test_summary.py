"""What a campaign says at its end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fuzzer.campaign.fuzz import Totals, _Campaign
from fuzzer.campaign.index import Index
from fuzzer.campaign.monitor import Monitor
from fuzzer.campaign.worker import FuzzOptions
from fuzzer.cli.fuzz import summarize


def test_what_was_left_out_is_told_with_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    totals = Totals(0.0, skipped=Counter({"delay": 3, "xfs-exchange": 1}))
    summarize(Monitor(False), totals, Path("run"), False)
    assert "workloads left out: 3 need delay, 1 need xfs-exchange" in "".join(capsys.readouterr())


def test_what_a_worker_leaves_out_is_counted() -> None:
    campaign = _Campaign(
        cast(FuzzOptions, SimpleNamespace(jobs=2)), cast(Index, None), Monitor(False), Totals(0)
    )
    for number in (3, 5):
        line = {"event": "skipped", "index": number, "fs": "xfs", "missing": ["delay"]}
        campaign.hear(1, json.dumps(line))
    assert campaign.totals.skipped == {"delay": 2}
    assert campaign.turns == {1: 7}


def test_nothing_is_said_of_what_was_not_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    summarize(Monitor(False), Totals(0.0), Path("run"), False)
    assert "left out" not in "".join(capsys.readouterr())
