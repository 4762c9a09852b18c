"""What reads return while a workload runs is recorded, judged, and found wrong when it is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzer.kernel import shared
from fuzzer.kernel.actions import data
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.history import History
from fuzzer.state.stamps import ZERO, Run, file_tag
from fuzzer.workload.model import Actor, Workload, op_id
from oracles import build_versions, judge_reads
from tests.kernel.fresh import Fresh, fresh_file_system, op

pytestmark = pytest.mark.kernel

K = 1024
SETUP = (op("create", path="a"), op("write", path="a", off=0, len=64 * K))
WRITER = Actor("writer", (op("write", path="a", off=0, len=64 * K), op("fsync", path="a")), loop=40)
READERS = (
    Actor("reader", (op("read", path="a", off=8, len=128 * K),), loop=40),
    Actor("direct", (op("read", path="a", off=0, len=64 * K, direct="yes"),), loop=40),
    Actor("dropper", (op("sync_file_range", path="a", off=0, len=0),), loop=40),
)
RACE = Workload(setup=SETUP, actors=(WRITER, *READERS))


@pytest.fixture
def fresh(area: RunArea, image: Path, fs: str) -> Iterator[Fresh]:
    with fresh_file_system(area, image, fs) as fresh:
        yield fresh


def kinds(history: History) -> set[str]:
    return {violation.kind for violation in judge_reads(build_versions(history)).violations}


def test_what_reads_return_is_recorded(fresh: Fresh) -> None:
    events = fresh.run_ops(
        op("create", path="a"),
        op("truncate", path="a", size=16 * K),
        op("write", path="a", off=4 * K, len=4 * K),
        op("read", path="a", off=8, len=64 * K),
        op("read", path="a", off=4 * K, len=4 * K, direct="yes"),
        op("read", path="a", off=16 * K, len=8),
    )
    words = Run(4 * K, 8 * K, op_id(1, 2), file_tag(events[0].subject))
    assert events[3].seen == (Run(8, 4 * K, ZERO), words, Run(8 * K, 16 * K, ZERO))
    assert events[4].seen == (words,)
    assert (events[5].seen, events[5].result) == ((), 0)


def test_reads_beside_writers_are_right(fresh: Fresh) -> None:
    history = fresh.run(RACE)
    judgement = judge_reads(build_versions(history))
    assert judgement.violations == ()
    assert (judgement.judged, judgement.no_promise) == (80, 0)


def test_a_full_record_is_no_promise(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MAX_SEEN", 2)
    reader = Actor("reader", (op("read", path="a", off=0, len=64 * K),), loop=5)
    history = fresh.run(replace(RACE, actors=(reader,)))
    judgement = judge_reads(build_versions(history))
    assert [len(event.seen) for event in history.events if event.op.name == "read"] == [1, 1, 0, 0, 0]
    assert (judgement.violations, judgement.judged, judgement.no_promise) == ((), 5, 3)


def _spoiled(spoil: Callable[[memoryview, int], int]) -> Callable[[int, list[memoryview], int], int]:
    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        return spoil(buffers[0], os.preadv(fd, buffers, offset))

    return preadv


def _flip(buffer: memoryview, got: int) -> int:
    buffer[4 * K] ^= 1
    return got


def _swap(buffer: memoryview, got: int) -> int:
    buffer[: 4 * K] = bytes(buffer[4 * K : 8 * K])
    return got


def _zero(buffer: memoryview, got: int) -> int:
    buffer[: 4 * K] = bytes(4 * K)
    return got


class _Keep:
    """A cache that nobody invalidates: every read returns what the first one did."""

    def __init__(self) -> None:
        self.first = b""

    def __call__(self, buffer: memoryview, got: int) -> int:
        self.first = self.first or bytes(buffer[:got])
        buffer[:got] = self.first
        return got


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (_flip, "foreign-data"),
        (_swap, "misplaced-data"),
        (_zero, "lost-to-zero"),
        (_Keep(), "old-data"),
        (lambda _, got: got // 2, "short-read"),
    ],
    ids=["flip", "swap", "zero", "stale", "short"],
)
def test_wrong_reads_are_found(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[memoryview, int], int], kind: str
) -> None:
    """The fault is planted between the system call and the decoding."""

    class Os:
        preadv = staticmethod(_spoiled(spoil))

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

    monkeypatch.setattr(data, "os", Os())
    found = kinds(fresh.run(RACE))
    assert {kind, f"{kind}-direct"} <= found, found
