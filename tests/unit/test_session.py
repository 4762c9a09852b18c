"""How many lanes there are by default."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from fuzzer.campaign.session import default_jobs


@pytest.mark.parametrize(("cpus", "lanes"), [(1, 2), (2, 3), (4, 6)])
def test_three_lanes_per_two_cpus(cpus: int, lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)))
    assert default_jobs() == lanes
    guest = SimpleNamespace(jobs=None)
    assert default_jobs(guest) == cpus, "a guest keeps its CPU busy"  # type: ignore[arg-type]
