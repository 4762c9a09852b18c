"""What a campaign says at its end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fuzzer.campaign.fuzz import Totals
from fuzzer.campaign.monitor import Monitor
from fuzzer.cli.fuzz import summarize


def test_what_was_left_out_is_told_with_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    totals = Totals(0.0, skipped=Counter({"delay": 3, "xfs-exchange": 1}))
    summarize(Monitor(False), totals, Path("run"), False)
    assert "workloads left out: 3 need delay, 1 need xfs-exchange" in "".join(capsys.readouterr())


def test_nothing_is_said_of_what_was_not_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    summarize(Monitor(False), Totals(0.0), Path("run"), False)
    assert "left out" not in "".join(capsys.readouterr())
