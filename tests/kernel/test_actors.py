"""Running whole workloads: concurrency, barriers, deadlines, actors that die, what is left behind."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest

from fuzzer.errors import HangError, LostWorkerError, MissingCapabilityError
from fuzzer.kernel import actors
from fuzzer.kernel.actions import ACTIONS
from fuzzer.kernel.actors import reap_stuck, run_workload
from fuzzer.kernel.shared import FREE_RUNNING_ROWS
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.history import FOREVER, Event, History
from fuzzer.state.stamps import decode, file_tag
from fuzzer.workload.model import SETUP, Actor, Draw, Op, Resolver, Workload, make_op
from tests.kernel.fresh import Fresh, fresh_file_system, op

pytestmark = pytest.mark.kernel

K = 1024
A = op("create", path="A")
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


@pytest.fixture
def fresh(area: RunArea, image: Path, fs: str) -> Iterator[Fresh]:
    with fresh_file_system(area, image, fs) as fresh:
        yield fresh
        assert psutil.Process().children() == []


one_fs = pytest.mark.parametrize("fs", ["xfs"])
"""For what does not depend on the file system."""


def of(history: History, actor: int) -> list[Event]:
    return [event for event in history.events if event.actor == actor]


def four(*ops: Op, loop: int = 1) -> tuple[Actor, ...]:
    return tuple(Actor(f"a{number}", ops, loop=loop) for number in range(1, 5))


def test_actors_overlap_and_share_a_file(fresh: Fresh) -> None:
    meet = op("barrier", name="go")
    writers = tuple(
        Actor(f"a{n}", (meet, op("write", path="A", off=n * 64 * K, len=64 * K, sync="dsync")), loop=10)
        for n in range(4)
    )
    history = fresh.run(Workload(setup=(A,), actors=writers))
    assert [len(of(history, number)) for number in range(5)] == [1, 20, 20, 20, 20]
    assert all(event.succeeded for event in history.events)
    starts = [event.begin_ns for event in history.events]
    assert starts == sorted(starts)
    spans = [(of(history, n)[1].begin_ns, of(history, n)[-1].end_ns) for n in range(1, 5)]
    assert max(begin for begin, _ in spans) < min(end for _, end in spans), "not all four ran at once"
    everyone = [event for event in history.events if event.op.name == "write"]
    assert any(b.begin_ns < a.end_ns and a.actor != b.actor for a, b in pairwise(everyone))
    subject = everyone[0].subject
    runs = decode((fresh.path / "A").read_bytes(), 0, history.known_ids())
    assert [(run.op, run.tag) for run in runs] == [
        (of(history, n)[-1].id, file_tag(subject)) for n in range(1, 5)
    ]


def test_the_setup_is_over_before_anyone_starts(fresh: Fresh) -> None:
    history = fresh.run(Workload(setup=(A, op("mkdir", path="d")), actors=four(op("fsync", path="d"))))
    assert [event.actor for event in history.events[:2]] == [SETUP, SETUP]
    assert all(event.begin_ns >= history.events[1].end_ns for event in history.events[2:])
    assert all(event.succeeded for event in history.events)


@one_fs
def test_draws_are_those_the_judge_resolves(fresh: Fresh) -> None:
    draw = make_op("write", {"path": "A", "off": Draw(0, 64 * K, 8), "len": 8})
    workload = Workload(setup=(A,), actors=(Actor("a", (draw, op("sleep", us=0)), loop=50),), seed=7)
    history = fresh.run(workload)
    resolver = Resolver(workload, 1)
    assert [event.op for event in of(history, 1)] == [resolver.op(n) for n in range(100)]
    data = np.fromfile(fresh.path / "A", dtype=np.uint8)
    found = {(run.op, run.start) for run in decode(data, 0, history.known_ids()) if run.op}
    last = {event.op.number("off"): event.id for event in of(history, 1) if event.op.name == "write"}
    assert found == {(id_, offset) for offset, id_ in last.items()}


@one_fs
def test_an_actor_without_a_count_ends_with_the_others(fresh: Fresh) -> None:
    counted = Actor("counted", (op("sleep", us=20_000),), loop=3)
    other = Actor("other", (op("sleep", us=500), op("sleep", us=0)), loop=None)
    history = fresh.run(Workload(actors=(counted, other)))
    assert history.killed == ()
    last, mine = of(history, 1)[-1], of(history, 2)
    assert len(mine) > 20
    assert mine[-1].begin_ns < last.end_ns + 10_000_000


@one_fs
def test_an_actor_without_a_count_is_bounded(fresh: Fresh) -> None:
    counted = Actor("counted", (op("sleep", us=3_000_000),))
    history = fresh.run(
        Workload(actors=(counted, Actor("other", (op("chmod", path=".", mode=0o755),), loop=None)))
    )
    assert len(of(history, 2)) == FREE_RUNNING_ROWS


@one_fs
def test_pinned_actors_run_on_their_cpu(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIONS, "sleep", lambda ctx, _: (ctx.begin(), ctx.end(os.sched_getcpu_for_test())))
    monkeypatch.setattr(os, "sched_getcpu_for_test", lambda: max(os.sched_getaffinity(0)), raising=False)
    cpus = sorted(os.sched_getaffinity(0))
    pinned = tuple(Actor(f"a{n}", (op("sleep", us=0),), cpu=n) for n in range(3))
    history = fresh.run(Workload(actors=pinned))
    assert [of(history, n + 1)[0].result for n in range(3)] == [cpus[n % len(cpus)] for n in range(3)]


# Barriers.


@one_fs
def test_a_barrier_holds_until_all_have_come(fresh: Fresh) -> None:
    late = Actor("late", (op("sleep", us=30_000), op("barrier", name="x")), loop=3)
    early = Actor("early", (op("barrier", name="x"),), loop=3)
    history = fresh.run(Workload(actors=(late, early, Actor("stranger", (op("sleep", us=0),)))))
    arrivals = [event.begin_ns for event in of(history, 1) if event.op.name == "barrier"]
    assert all(left.end_ns >= came for left, came in zip(of(history, 2), arrivals, strict=True))
    assert all(event.succeeded for event in history.events)


@one_fs
def test_nobody_waits_at_a_barrier_for_one_that_has_ended(fresh: Fresh) -> None:
    twice = Actor("twice", (op("barrier", name="x"),), loop=2)
    once = Actor("once", (op("barrier", name="x"),))
    free = Actor("free", (op("barrier", name="x"),), loop=None)
    history = fresh.run(Workload(actors=(twice, once, free)), deadline_s=5)
    assert history.killed == ()
    assert all(event.succeeded for event in history.events)


@one_fs
def test_nobody_waits_at_a_barrier_for_one_that_was_killed(fresh: Fresh) -> None:
    ops = (op("fsync", path="."), op("barrier", name="x"))

    def die_as_first_actor(op_id: int, end_ns: int) -> None:
        if op_id >> 19 == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    history = run_workload(
        Workload(actors=(Actor("dies", ops), Actor("waits", ops))),
        fresh.path,
        fs=fresh.fs,
        cgroup=None,
        deadline_s=5,
        on_durable=die_as_first_actor,
    )
    assert history.killed == ("dies",)
    barrier = of(history, 2)[-1]
    assert barrier.succeeded
    assert barrier.end_ns - barrier.begin_ns < 1_000_000_000


@one_fs
def test_barriers_in_opposite_orders_give_up(fresh: Fresh) -> None:
    one, two = op("barrier", name="one"), op("barrier", name="two")
    history = fresh.run(Workload(actors=(Actor("a", (one, two)), Actor("b", (two, one)))))
    assert history.killed == ()
    assert errno.ETIMEDOUT in {event.errno for event in history.events}


# Actors that do not end well.


@one_fs
def test_the_deadline_ends_it(fresh: Fresh) -> None:
    start = time.monotonic()
    history = fresh.run(
        Workload(actors=(Actor("slow", (A, op("sleep", us=60_000_000))), *four(op("sleep", us=0)))),
        deadline_s=0.4,
    )
    assert 0.4 < time.monotonic() - start < 5
    assert history.killed == ("slow",)
    create, sleep = of(history, 1)
    assert create.succeeded
    assert (sleep.end_ns, sleep.returned, sleep.begin_ns > create.end_ns) == (FOREVER, False, True)


@one_fs
def test_a_killed_setup_is_all_there_is(fresh: Fresh) -> None:
    history = fresh.run(Workload(setup=(op("sleep", us=60_000_000),), actors=four(A)), deadline_s=0.2)
    assert history.killed == ("setup",)
    assert [event.actor for event in history.events] == [SETUP]


def test_a_killed_actor_leaves_a_true_history(fresh: Fresh) -> None:
    def die_at_third(op_id: int, end_ns: int) -> None:
        if op_id == (1 << 19 | 6):
            os.kill(os.getpid(), signal.SIGKILL)

    ops = (op("write", path="A", off=0, len=64 * K), op("fsync", path="A"))
    history = run_workload(
        Workload(setup=(A,), actors=(Actor("dies", ops, loop=10), Actor("lives", ops, loop=10))),
        fresh.path,
        fs=fresh.fs,
        cgroup=None,
        deadline_s=20,
        on_durable=die_at_third,
    )
    assert history.killed == ("dies",)
    assert len(of(history, 1)) == 6
    assert len(of(history, 2)) == 20
    assert all(event.succeeded for event in history.events)


@one_fs
def test_an_actor_that_gets_a_fatal_signal_is_named(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch_beyond_the_end(ctx: object, op: Op) -> None:
        with (fresh.path / "A").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as memory:
            file.truncate(0)
            memory[0] = 1

    monkeypatch.setitem(ACTIONS, "sleep", touch_beyond_the_end)
    setup = (A, op("truncate", path="A", size=4096))
    history = fresh.run(Workload(setup=setup, actors=(Actor("sigbus", (op("sleep", us=0),)),)))
    assert history.killed == ("sigbus",)


@one_fs
def test_our_own_mistake_in_an_actor_is_raised(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ctx: object, op: Op) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setitem(ACTIONS, "sleep", broken)
    with pytest.raises(LostWorkerError, match=r"(?s)actor a2.*ZeroDivisionError: planted"):
        fresh.run(Workload(actors=(Actor("a1", (A,)), Actor("a2", (op("sleep", us=0),)))))


def test_a_hang_in_the_kernel_is_reported(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers of a frozen file system wait where no signal reaches them."""
    monkeypatch.setattr(actors, "KILL_S", 0.5)
    root = os.open(fresh.path, os.O_RDONLY)
    try:
        fcntl.ioctl(root, FIFREEZE, 0)
        try:
            with pytest.raises(HangError) as caught:
                fresh.run(Workload(actors=(Actor("frozen", (A,)), Actor("fine", (op("sleep", us=0),)))), 0.3)
        finally:
            fcntl.ioctl(root, FITHAW, 0)
    finally:
        os.close(root)
    assert caught.value.stacks.keys() == {"frozen"}
    history = caught.value.history
    assert isinstance(history, History)
    assert [event.returned for event in of(history, 1)] == [False]
    assert [event.succeeded for event in of(history, 2)] == [True]
    assert reap_stuck(caught.value.pids, 10) == ()


@one_fs
def test_nothing_is_forked_without_the_cgroup_it_needs(fresh: Fresh) -> None:
    with pytest.raises(MissingCapabilityError):
        fresh.run(Workload(actors=(Actor("a", (A,)), Actor("b", (op("reclaim"),), loop=None))))
    assert list(fresh.path.iterdir()) == []


# Durability points and what actors inherit.


def test_durability_points_are_told_with_their_return_time(fresh: Fresh) -> None:
    reader, writer = os.pipe()

    def tell(op_id: int, end_ns: int) -> None:
        os.write(writer, f"{op_id} {end_ns}\n".encode())

    ops = (
        op("write", path="A", off=0, len=8),
        op("write", path="A", off=0, len=8, sync="dsync"),
        op("mwrite", path="A", off=0, len=8, msync="sync"),
        op("mwrite", path="A", off=0, len=8, msync="async"),
        op("fsync", path="A"),
        op("fsync", path="none"),
        op("sync_file_range", path="A", off=0, len=8),
        op("syncfs"),
    )
    try:
        history = run_workload(
            Workload(setup=(A,), actors=(Actor("a", ops),)),
            fresh.path,
            fs=fresh.fs,
            cgroup=None,
            deadline_s=20,
            on_durable=tell,
            keep_fds=(writer,),
        )
        told = os.read(reader, 65536).decode().splitlines()
    finally:
        os.close(reader)
        os.close(writer)
    events = of(history, 1)
    assert told == [f"{events[n].id} {events[n].end_ns}" for n in (1, 2, 4, 7)]


@one_fs
def test_actors_keep_no_descriptor_of_the_caller(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.open("/proc/self/status", os.O_RDONLY)

    def count_descriptors(ctx: object, op: Op) -> None:
        held = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.name > "2"}
        assert held == {str(fresh.path), f"/proc/{os.getpid()}/fd"}, held
        assert Path("/proc/self/fd/1").exists()

    monkeypatch.setitem(ACTIONS, "sleep", count_descriptors)
    try:
        fresh.run(Workload(actors=(Actor("a", (op("sleep", us=0),)),)))
    finally:
        os.close(mine)


@one_fs
def test_overhead_is_small(fresh: Fresh) -> None:
    """Bounds far above what is measured (8 to 20 µs an op, 9 ms a run), for loaded machines."""
    history = fresh.run(
        Workload(setup=(A,), actors=(Actor("a", (op("write", path="A", off=0, len=4 * K),), loop=2000),))
    )
    mine = of(history, 1)
    gaps = sorted(b.begin_ns - a.end_ns for a, b in pairwise(mine))
    assert gaps[len(gaps) // 2] < 60_000
    times = []
    for _ in range(5):
        start = time.monotonic()
        fresh.run(Workload(actors=four(op("sleep", us=0))))
        times.append(time.monotonic() - start)
    assert min(times) < 0.1
