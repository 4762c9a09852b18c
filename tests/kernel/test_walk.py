"""Walking a mount: the facts in the tree are those the kernel gives, and fit the history's clock."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fuzzer.kernel import actors
from fuzzer.kernel.clock import realtime_offset_ns
from fuzzer.kernel.walk import walk
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.tree import Node, Tree
from fuzzer.workload.model import Actor, Op, Workload
from tests.kernel.fresh import Fresh, fresh_file_system, op

pytestmark = pytest.mark.kernel

TICK_NS = 10_000_000
"""Inodes may get the time of the last tick (ktime_get_coarse_real_ts64); the longest is HZ=100's."""

KINDS = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK, "other": stat.S_IFIFO}


@pytest.fixture
def fresh(area: RunArea, image: Path, fs: str) -> Iterator[Fresh]:
    with fresh_file_system(area, image, fs) as fresh:
        yield fresh


def nodes(fresh: Fresh) -> dict[str, Node]:
    tree: Tree = walk(fresh.path, fresh.fs, np.array([], dtype=np.uint64))
    assert tree.errors == ()
    return dict(tree.paths())


def test_facts_of_every_kind_of_inode(fresh: Fresh) -> None:
    (fresh.path / "d").mkdir(mode=0o2711)
    (fresh.path / "d/file").write_bytes(bytes(20_000))
    (fresh.path / "link").symlink_to("nowhere")
    os.mkfifo(fresh.path / "fifo", 0o640)
    for number, path in enumerate(("d", "d/file", "link", "fifo"), 1):
        os.chown(fresh.path / path, 1000 + number, 2000 + number, follow_symlinks=False)
        os.utime(fresh.path / path, ns=(5, 10**18 + number), follow_symlinks=False)
    os.sync()
    found = nodes(fresh)
    assert sorted(found) == [".", "d", "d/file", "fifo", "link"]
    for path, node in found.items():
        status = (fresh.path / path).lstat()
        assert (KINDS[node.kind] | node.mode, node.nlink) == (status.st_mode, status.st_nlink)
        assert (node.uid, node.gid, node.size) == (status.st_uid, status.st_gid, status.st_size)
        assert (node.mtime_ns, node.ctime_ns) == (status.st_mtime_ns, status.st_ctime_ns)
    file = found["d/file"]
    assert (file.uid, file.gid, file.mtime_ns) == (1002, 2002, 10**18 + 2)
    assert file.allocated_bytes == 20_480
    assert file.ctime_ns > file.mtime_ns


def test_times_fit_the_history(fresh: Fresh) -> None:
    history = fresh.run(Workload(setup=(op("create", path="a"),), actors=(Actor("one", (write(), write())),)))
    assert 0 <= history.realtime_drift_ns < TICK_NS
    last = history.events[-1]
    begin, end = last.begin_ns + history.realtime_ns, last.end_ns + history.realtime_ns
    assert begin - TICK_NS <= nodes(fresh)["a"].mtime_ns <= end


def test_a_wall_clock_that_is_set_shows(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = iter((realtime_offset_ns(), 17))
    monkeypatch.setattr(actors, "realtime_offset_ns", lambda: next(offsets))
    history = fresh.run(Workload(setup=(op("create", path="a"),), actors=(Actor("one", (write(),)),)))
    assert history.realtime_drift_ns == history.realtime_ns - 17


def write() -> Op:
    return op("write", path="a", off=0, len=4096)
