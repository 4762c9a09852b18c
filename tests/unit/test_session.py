"""What is chosen where the user leaves it to us: how many lanes, which recorder."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from fuzzer.campaign.session import default_jobs, recorder_for
from fuzzer.workload.text import parse


@pytest.mark.parametrize(("cpus", "lanes"), [(1, 2), (2, 3), (4, 6)])
def test_three_lanes_per_two_cpus(cpus: int, lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)))
    assert default_jobs() == lanes
    guest = SimpleNamespace(jobs=None)
    assert default_jobs(guest) == cpus, "a guest keeps its CPU busy"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "headers", "chosen"),
    [
        ("auto", ("", ""), "auto"),
        ("auto", ("", "delay: data 5ms\n"), "fuse"),
        ("dm", ("delay: data 5ms\n",), "dm"),
    ],
)
def test_what_holds_io_back_gets_the_recorder_that_can(
    asked: str, headers: tuple[str, ...], chosen: str
) -> None:
    workloads = [parse(f"powercut 1\nfs: xfs\n{header}\nactor one\n  create a\n") for header in headers]
    assert recorder_for(asked, workloads) == chosen
