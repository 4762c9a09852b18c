"""Exchange of two ranges of xfs files: what it does, and that the judge knows when it was lost."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fuzzer.campaign.examine import examine
from fuzzer.campaign.execute import execute
from fuzzer.campaign.lane import open_lane
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.stamps import decode
from fuzzer.workload.model import Actor, Workload
from fuzzer.writelog.points import Plan, Points
from tests.kernel.fresh import Fresh, fresh_file_system, op

pytestmark = pytest.mark.kernel("xfs-exchange")

K = 1024
FILES = (
    op("create", path="A"),
    op("create", path="B"),
    op("write", path="A", off=0, len=64 * K),
    op("write", path="B", off=0, len=64 * K),
    op("sync"),
)


@pytest.fixture
def fresh(area: RunArea, image: Path) -> Iterator[Fresh]:
    with fresh_file_system(area, image, "xfs", "-i exchange=1") as fresh:
        yield fresh


def test_ranges_change_places(fresh: Fresh) -> None:
    swap = op("exchange_range", source="A", to="B", src=4 * K, off=16 * K, len=8 * K)
    history = fresh.run(Workload(setup=FILES, actors=(Actor("one", (swap,)),)))
    first, second = (event.id for event in history.events if event.op.name == "write")
    fresh.remount()
    for name, before, after, at in (("A", first, second, 4 * K), ("B", second, first, 16 * K)):
        runs = decode((fresh.path / name).read_bytes(), 0, np.array([first, second], dtype=np.uint64))
        assert [(run.start, run.end, run.op) for run in runs] == [
            (0, at, before),
            (at, at + 8 * K, after),
            (at + 8 * K, 64 * K, before),
        ]


def test_what_the_kernel_refuses(fresh: Fresh) -> None:
    behind, crooked = fresh.run_ops(
        op("exchange_range", source="A", to="B", src=64 * K, off=0, len=4 * K),
        op("exchange_range", source="A", to="B", src=8, off=0, len=4 * K),
        setup=FILES,
    )
    assert (behind.errno, crooked.errno) == (errno.EINVAL, errno.EINVAL)


@pytest.mark.parametrize("synced", ["A", "B"])
def test_crash_states_are_judged(synced: str) -> None:
    """Either file's fsync makes it durable; every write is a crash point as well."""
    swap = op("exchange_range", source="A", to="B", src=0, off=32 * K, len=32 * K)
    actors = (
        Actor("one", (swap, op("fsync", path=synced)), loop=4),
        Actor("two", (op("write", path="B", off=60 * K, len=8 * K), op("fdatasync", path="A")), loop=4),
    )
    workload = Workload(fs="xfs", mkfs="-i exchange=1", setup=FILES, actors=actors)
    with open_lane("auto") as lane:
        execution = execute(lane, workload)
        assert sum(e.op.name == "exchange_range" and e.succeeded for e in execution.history.events) == 4
        examination = examine(lane, execution, Plan((Points.FSYNC, Points.WRITE)))
    assert examination.unique > 4
    assert not examination.forbidden
