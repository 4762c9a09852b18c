"""Throttled actors: they stop and go on, the others do not wait, and nothing stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzzer.campaign.execute import execute
from fuzzer.campaign.lane import open_lane
from fuzzer.errors import MissingCapabilityError
from fuzzer.kernel.actors import run_workload
from fuzzer.kernel.throttle import throttle
from fuzzer.kernel.workarea import RunArea
from fuzzer.workload.model import Actor, Workload
from tests.kernel.fresh import fresh_file_system, op

pytestmark = pytest.mark.kernel("cpu-quota")

SPIN = (op("spin", us=50_000),) * 4
WORKLOAD = Workload(
    fs="xfs",
    actors=(Actor("slow", SPIN, sched="throttled"), Actor("fast", SPIN)),
)


def test_only_the_throttled_one_is_stopped(area: RunArea, image: Path) -> None:
    """The quota is two of every ten milliseconds; both spin for as long by the clock, which goes on while
    one is stopped."""
    with fresh_file_system(area, image, "xfs") as fresh, throttle(area) as group:
        history = run_workload(WORKLOAD, fresh.path, fs="xfs", cgroup=None, throttle=group, deadline_s=20)
        assert [event.errno for event in history.events] == [0] * 8
        assert group.times > 5
        assert (group.path / "cgroup.procs").read_text() == ""
    assert not group.path.exists()


def test_without_a_group_it_is_refused(area: RunArea, image: Path) -> None:
    with (
        fresh_file_system(area, image, "xfs") as fresh,
        pytest.raises(MissingCapabilityError, match="throttles"),
    ):
        run_workload(WORKLOAD, fresh.path, fs="xfs", cgroup=None, deadline_s=20)


def test_a_lane_makes_the_group_and_takes_it_away() -> None:
    assert "cpu-quota" in WORKLOAD.capabilities
    with open_lane("fuse") as lane:
        execution = execute(lane, WORKLOAD, views=())
    assert len(execution.history.events) == 8
    assert not execution.history.killed
