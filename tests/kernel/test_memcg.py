"""Memory cgroups: limits that hold, pressure that kills nobody, groups that go away."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fuzzer.errors import LeakError
from fuzzer.kernel import cgroup as cgroup_module
from fuzzer.kernel.actors import run_workload
from fuzzer.kernel.cgroup import find_hierarchy
from fuzzer.kernel.memcg import CgroupV1, MemoryCgroup, memory_cgroup
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.history import History
from fuzzer.workload.model import Actor, Workload
from tests.kernel.fresh import Fresh, fresh_file_system, op

pytestmark = pytest.mark.kernel("memcg")

K, M = 1 << 10, 1 << 20
A = op("create", path="A")


@pytest.fixture
def cgroup(area: RunArea) -> Iterator[MemoryCgroup]:
    with memory_cgroup(area, 64 * M) as cgroup:
        yield cgroup
    assert not cgroup.path.exists()


@pytest.fixture
def fresh(area: RunArea, image: Path, fs: str) -> Iterator[Fresh]:
    with fresh_file_system(area, image, fs) as fresh:
        yield fresh


def run(fresh: Fresh, cgroup: MemoryCgroup, *actors: Actor, deadline_s: float = 30) -> History:
    return run_workload(
        Workload(setup=(A,), actors=actors, memory=64 * M),
        fresh.path,
        fs=fresh.fs,
        cgroup=cgroup,
        deadline_s=deadline_s,
    )


def limit(cgroup: MemoryCgroup) -> int:
    name = "memory.limit_in_bytes" if isinstance(cgroup, CgroupV1) else "memory.max"
    return int((cgroup.path / name).read_text())


def writers(count: int, loop: int) -> list[Actor]:
    step = 16 * M
    return [
        Actor(
            f"w{n}",
            tuple(op("write", path="A", off=n * step + k * M, len=M) for k in range(16)),
            loop=loop,
        )
        for n in range(count)
    ]


def test_the_group_carries_the_mark_and_two_do_not_clash(area: RunArea) -> None:
    with (
        memory_cgroup(area, 0) as one,
        memory_cgroup(area, 0) as two,
        memory_cgroup("powercut-x", M) as named,
    ):
        assert one.path != two.path
        assert {one.path.parent, two.path.parent} == {find_hierarchy("memory")[0]}
        assert one.path.name.startswith(area.mark)
        assert named.path.name.startswith("powercut-x-")
        assert limit(named) == M
    assert not any(cgroup.path.exists() for cgroup in (one, two, named))


def test_actors_are_inside_and_reclaimers_are_not(fresh: Fresh, cgroup: MemoryCgroup) -> None:
    """Page cache is charged to whoever read it in first: only an actor inside leaves a charge."""
    before = cgroup.usage_bytes
    run(fresh, cgroup, Actor("w", (op("write", path="A", off=0, len=16 * M),)))
    assert cgroup.usage_bytes - before > 12 * M


def test_reclaim_frees_memory_next_to_writers(fresh: Fresh, cgroup: MemoryCgroup) -> None:
    reclaimer = Actor("reclaimer", (op("reclaim", bytes=8 * M), op("sleep", us=1000)), loop=None)
    history = run(fresh, cgroup, *writers(2, loop=40), reclaimer)
    assert history.killed == ()
    calls = [event for event in history.events if event.op.name == "reclaim"]
    assert len(calls) >= 3
    assert max(event.result for event in calls) > M
    assert {event.errno for event in calls} <= {0, errno.EBUSY}
    assert any(event.succeeded for event in calls)
    writes = [event.errno for event in history.events if event.op.name == "write"]
    assert set(writes) <= {0, errno.ENOMEM}
    assert writes.count(errno.ENOMEM) < len(writes) / 20, "a reclaim should hardly be felt"
    assert cgroup.oom_kills == 0
    assert limit(cgroup) == 64 * M


def test_a_squeeze_kills_nobody(fresh: Fresh, cgroup: MemoryCgroup) -> None:
    squeezer = Actor("squeezer", (op("squeeze", limit=12 * M, hold_ms=20), op("sleep", us=5000)), loop=None)
    history = run(fresh, cgroup, *writers(4, loop=15), squeezer)
    assert history.killed == ()
    assert cgroup.oom_kills == 0
    squeezes = [event for event in history.events if event.op.name == "squeeze"]
    held = [event for event in squeezes if event.succeeded]
    assert held
    assert all(event.end_ns - event.begin_ns >= 20_000_000 for event in held)
    assert {event.errno for event in squeezes} <= {0, errno.EBUSY}
    writes = [event for event in history.events if event.op.name == "write"]
    assert len(writes) == 4 * 15 * 16
    assert {event.errno for event in writes} <= {0, errno.ENOMEM}
    assert limit(cgroup) == 64 * M


def test_the_limit_comes_back_after_a_killed_squeeze(fresh: Fresh, cgroup: MemoryCgroup) -> None:
    squeezer = Actor("squeezer", (op("squeeze", limit=16 * M, hold_ms=60_000),))
    history = run(fresh, cgroup, squeezer, deadline_s=1)
    assert history.killed == ("squeezer",)
    assert limit(cgroup) == 64 * M


def test_an_impossible_squeeze_is_an_error_of_the_op(fresh: Fresh, cgroup: MemoryCgroup) -> None:
    if not isinstance(cgroup, CgroupV1):
        pytest.skip("memory.high on cgroup v2 never refuses")
    worker = Actor("worker", (op("sleep", us=300_000),))
    squeezer = Actor("squeezer", (op("sleep", us=50_000), op("squeeze", limit=0, hold_ms=1)))
    history = run(fresh, cgroup, worker, squeezer)
    assert history.killed == ()
    assert [event.errno for event in history.events if event.op.name == "squeeze"] == [errno.EBUSY]


def test_a_group_with_a_process_in_it_is_a_leak(area: RunArea, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_module, "_REMOVE_S", 0.2)
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    try:
        with pytest.raises(LeakError) as caught, memory_cgroup(area, 64 * M) as cgroup:
            cgroup.add(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert str(pid) in caught.value.hint
    cgroup.path.rmdir()


def test_actors_leave_no_process_in_the_group(fresh: Fresh, cgroup: MemoryCgroup) -> None:
    run(fresh, cgroup, *writers(2, loop=1))
    assert (cgroup.path / "cgroup.procs").read_text() == ""
    assert psutil.Process().children() == []
