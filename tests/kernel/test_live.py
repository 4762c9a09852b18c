"""The live oracle: what reads return while a workload runs, and every view of the mount after it."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzer.campaign import execute as execute_module
from fuzzer.campaign.examine import examine
from fuzzer.campaign.execute import execute
from fuzzer.campaign.finding import load_finding, make_finding, save_finding
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.session import origin
from fuzzer.kernel import shared
from fuzzer.kernel.actions import data
from fuzzer.kernel.walk import walk
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.history import History
from fuzzer.state.stamps import FOREIGN, ZERO, Run, Words, encode, file_tag
from fuzzer.state.tree import Tree
from fuzzer.state.view import MORE_VIEWS, View
from fuzzer.triage.show import describe
from fuzzer.workload.model import Actor, Workload, op_id
from fuzzer.writelog.points import Plan
from oracles import PROFILES, build_versions, judge_reads
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
    return {violation.kind for violation in judge_reads(PROFILES["xfs"], build_versions(history)).violations}


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
    judgement = judge_reads(PROFILES["xfs"], build_versions(history))
    assert judgement.violations == ()
    assert (judgement.judged, judgement.no_promise) == (80, 0)


def test_a_full_record_is_no_promise(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MAX_SEEN", 2)
    reader = Actor("reader", (op("read", path="a", off=0, len=64 * K),), loop=5)
    history = fresh.run(replace(RACE, actors=(reader,)))
    judgement = judge_reads(PROFILES["xfs"], build_versions(history))
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


# Views.

FILES = (
    op("create", path="inline"),
    op("write", path="inline", off=0, len=1024),
    op("create", path="odd"),
    op("write", path="odd", off=8, len=70 * K),
    op("create", path="holes"),
    op("truncate", path="holes", size=2048 * K + 8),
    op("write", path="holes", off=1024 * K, len=8),
    op("symlink", target="odd", path="link"),
    op("mkdir", path="d"),
)


@pytest.mark.parametrize("view", [view for view in MORE_VIEWS if view is not View.REMOUNT], ids=str)
def test_views_of_a_healthy_mount_agree(fresh: Fresh, view: View) -> None:
    known = fresh.run(Workload(setup=FILES)).known_ids()
    first = walk(fresh.path, fresh.fs, known)
    again = walk(fresh.path, fresh.fs, known, view)
    assert (again.entries, again.errors) == (first.entries, ())
    for path, node in first.paths():
        # Space is reserved for dirty data, and another amount is used once it is written.
        assert replace(again.nodes[node.inode], allocated_bytes=node.allocated_bytes) == node, path


@pytest.mark.parametrize("view", [View.DIRECT, View.DROPPED], ids=str)
def test_views_see_what_the_cache_hides(fresh: Fresh, image: Path, view: View) -> None:
    """A block that changes on the device under a cached file: xfs shows it, btrfs has a checksum."""
    history = fresh.run(Workload(setup=(*SETUP, op("sync"))))
    _damage(image, encode(op_id(0, 1), file_tag(history.events[0].subject), 0, 64))
    (_, cached), (_, seen) = (
        next(
            (path, node)
            for path, node in walk(fresh.path, fresh.fs, history.known_ids(), v).paths()
            if path == "a"
        )
        for v in (View.CACHE, view)
    )
    assert [run.op for run in cached.runs] == [op_id(0, 1)]
    if fresh.fs == "xfs":
        assert seen.runs[0] == Run(0, 8, FOREIGN)
    elif view is View.DROPPED or seen.read_errno:
        # 6.18 answers a direct read of a file with checksums from the cache.
        assert (seen.read_errno, seen.read_error_offset) == (errno.EIO, 0)


def _damage(image: Path, first_bytes: bytes) -> None:
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as device:
        at = device.find(first_bytes)
        assert at > 0
        device[at] ^= 1
        device.flush()


@pytest.mark.parametrize("bad", MORE_VIEWS, ids=str)
def test_the_finding_names_the_view(
    fs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: View
) -> None:
    def wrong_walk(mountpoint: Path, fs: str, known: Words, view: View = View.CACHE) -> Tree:
        tree = walk(mountpoint, fs, known, view)
        return _without_data(tree) if view is bad else tree

    workload = Workload(setup=SETUP, actors=(Actor("one", (op("fsync", path="a"),)),)).with_fs(fs)
    with open_lane("fuse") as lane:
        with monkeypatch.context() as patched:
            patched.setattr(execute_module, "walk", wrong_walk)
            execution = execute(lane, workload)
        assert [view for view, _ in execution.views] == list(MORE_VIEWS)
        (forbidden,) = examine(lane, execution, Plan()).forbidden
    assert forbidden.bucket == f"{fs}/data/lost-to-zero@{bad}/write"
    facts = origin(points="fsync", canary="", recorder="fuse")
    place = save_finding(tmp_path, make_finding(execution, forbidden, facts), execution, forbidden)
    saved = load_finding(place)
    assert (saved.state, saved.view) == (None, bad)
    assert f"seen on the live mount, {bad.words}, without a crash" in list(describe(saved, None))


def _without_data(tree: Tree) -> Tree:
    zeroed = {
        number: replace(node, runs=(Run(0, node.size, ZERO),)) if node.size and node.kind == "file" else node
        for number, node in tree.nodes.items()
    }
    return replace(tree, nodes=zeroed)
