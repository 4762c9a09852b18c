"""Every op on real file systems: its effect, its row in the history, its errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fuzzer.kernel.actions import ACTIONS
from fuzzer.kernel.identity import InodeReader
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.history import Event
from fuzzer.state.stamps import Run, decode, file_tag
from fuzzer.state.xattr_value import xattr_value
from fuzzer.workload.model import SETUP, Actor, Op, Workload, op_id
from fuzzer.workload.ops import FALLOCATE_MODES, OPS
from tests.kernel.fresh import Fresh, fresh_file_system, op

pytestmark = pytest.mark.kernel

K = 1024
A = op("create", path="A")


@pytest.fixture
def fresh(area: RunArea, image: Path, fs: str) -> Iterator[Fresh]:
    with fresh_file_system(area, image, fs) as fresh:
        yield fresh


def inode(fresh: Fresh, path: str) -> int:
    parent, _, name = path.rpartition("/")
    fd = os.open(fresh.path / parent, os.O_RDONLY)
    try:
        return InodeReader(fresh.fs).of_name(fd, name) if name else InodeReader(fresh.fs).of_fd(fd)
    finally:
        os.close(fd)


def runs(path: Path, *ids: int) -> tuple[Run, ...]:
    return decode(path.read_bytes(), 0, np.array(sorted(ids), dtype=np.uint64))


def errnos(events: tuple[Event, ...]) -> list[int]:
    return [event.errno for event in events]


def assert_all_succeeded(events: tuple[Event, ...]) -> None:
    assert [(event.op.name, os.strerror(event.errno)) for event in events if not event.succeeded] == []
    for before, after in pairwise(events):
        assert before.begin_ns <= before.end_ns <= after.begin_ns


# Names.


def test_names_get_their_inodes(fresh: Fresh) -> None:
    events = fresh.run_ops(
        op("create", path="A", mode=0o640),
        op("mkdir", path="d", mode=0o711),
        op("symlink", target="nowhere", path="d/s"),
        op("link", source="A", to="d/hard"),
        op("create", path="d/B"),
        op("rename", source="d/B", to="C"),
    )
    assert_all_succeeded(events)
    create, mkdir, symlink, link, _, rename = events
    root, d, a = inode(fresh, ""), inode(fresh, "d"), inode(fresh, "A")
    assert (create.subject, create.directory) == (a, root)
    assert (mkdir.subject, mkdir.directory) == (d, root)
    assert (symlink.subject, symlink.directory) == (inode(fresh, "d/s"), d)
    assert (link.subject, link.directory) == (a, d)
    assert (rename.subject, rename.other) == (inode(fresh, "C"), 0)
    assert (rename.directory, rename.directory2) == (d, root)
    assert len({root, d, a, symlink.subject, rename.subject}) == 5
    assert (fresh.path / "A").stat().st_mode & 0o7777 == 0o640
    assert (fresh.path / "d").stat().st_mode & 0o7777 == 0o711
    assert (fresh.path / "d/s").readlink() == Path("nowhere")
    assert (fresh.path / "A").stat().st_nlink == 2


def test_rename_flags(fresh: Fresh) -> None:
    a, b, over, refused, exchange, _ = fresh.run_ops(
        A,
        op("create", path="B"),
        op("rename", source="A", to="B"),
        op("rename", source="B", to="B", flags="noreplace"),
        op("rename", source="C", to="B", flags="exchange"),
        A,
        setup=(op("create", path="C"),),
    )
    assert (over.subject, over.other, over.errno) == (a.subject, b.subject, 0)
    assert refused.errno == errno.EEXIST
    assert exchange.errno == 0
    assert (exchange.subject, exchange.other) == (inode(fresh, "B"), inode(fresh, "C"))
    assert exchange.other == a.subject


def test_removal_names_what_was_there(fresh: Fresh) -> None:
    a, d, unlink, rmdir = fresh.run_ops(
        A, op("mkdir", path="d"), op("unlink", path="A"), op("rmdir", path="d")
    )
    assert_all_succeeded((a, d, unlink, rmdir))
    assert unlink.subject == a.subject
    assert rmdir.subject == d.subject
    assert list(fresh.path.iterdir()) == []


def test_a_recreated_file_is_another_inode(fresh: Fresh) -> None:
    first, _, second = fresh.run_ops(A, op("unlink", path="A"), A)
    assert first.subject != second.subject


def test_identity_survives_a_remount(fresh: Fresh) -> None:
    history = fresh.run(Workload(setup=(A, op("mkdir", path="d"), op("symlink", target="x", path="d/s"))))
    found = [event.subject for event in history.events]
    fresh.remount()
    assert [inode(fresh, path) for path in ("A", "d", "d/s")] == found
    assert history.root == inode(fresh, "")


# Data.


@pytest.mark.parametrize(
    "write",
    [
        op("write", path="A", off=8, len=5000),
        op("write", path="A", off=8, len=5000, sync="dsync"),
        op("write", path="A", off=8, len=5000, sync="sync"),
        op("dwrite", path="A", off=4 * K, len=64 * K),
        op("dwrite", path="A", off=4 * K, len=64 * K, sync="sync"),
        op("mwrite", path="A", off=4 * K + 16, len=9 * K),
        op("mwrite", path="A", off=16, len=9 * K, msync="async"),
        op("mwrite", path="A", off=16, len=9 * K, msync="sync"),
    ],
    ids=str,
)
def test_writes_leave_their_stamps(fresh: Fresh, write: Op) -> None:
    (event,) = fresh.run_ops(write, setup=(A, op("truncate", path="A", size=32 * K)))
    assert_all_succeeded((event,))
    assert event.subject == inode(fresh, "A")
    offset, length = write.number("off"), write.number("len")
    assert event.result == length
    fresh.remount()
    found = [run for run in runs(fresh.path / "A", event.id) if run.op]
    assert found == [Run(offset, offset + length, event.id, file_tag(event.subject))]


def test_a_write_ends_where_its_memory_does(fresh: Fresh) -> None:
    """Also behind a longer one, whose memory is used again; nothing good at all is an error.

    btrfs writes a block that is not in the cache whole or not at all (btrfs_copy_from_user's callers).
    """
    short, page, none = fresh.run_ops(
        op("mwrite", path="A", off=0, len=16 * K),
        op("fault_write", path="A", off=4 * K + 8, len=64 * K, good=104),
        op("fault_write", path="A", off=128 * K, len=64 * K, good=4 * K),
        op("fault_write", path="A", off=256 * K, len=64 * K, good=0),
        setup=(A, op("truncate", path="A", size=32 * K)),
    )[1:]
    done = [event for event in (short, page) if event.succeeded]
    assert (page.result, none.errno, none.result) == (4 * K, errno.EFAULT, 0)
    assert (short.errno, short.result) == ((0, 104) if fresh.fs == "xfs" else (errno.EFAULT, 0))
    fresh.remount()
    assert (fresh.path / "A").stat().st_size == 132 * K
    for event in done:
        start = event.op.number("off")
        (run,) = [run for run in runs(fresh.path / "A", event.id) if run.op == event.id]
        assert run == Run(start, start + event.result, event.id, file_tag(event.subject))


def test_a_mapping_ends_with_the_file(fresh: Fresh) -> None:
    setup = (A, op("truncate", path="A", size=4 * K + 24))
    cut, beyond = fresh.run_ops(
        op("mwrite", path="A", off=4 * K, len=8 * K), op("mwrite", path="A", off=8 * K, len=8), setup=setup
    )
    assert (cut.errno, cut.result) == (0, 24)
    assert beyond.errno == errno.EFAULT
    assert (fresh.path / "A").stat().st_size == 4 * K + 24


def test_mapped_stores_survive_a_racing_truncate(fresh: Fresh) -> None:
    """Without care this is a SIGBUS of the actor."""
    size, loops = 256 * K, 1000  # On a busy machine the two meet rarely.
    writer = Actor("writer", (op("mwrite", path="A", off=0, len=size),), loop=loops)
    cutter = Actor(
        "cutter", (op("truncate", path="A", size=8), op("truncate", path="A", size=size)), loop=None
    )
    history = fresh.run(Workload(setup=(A,), actors=(writer, cutter)))
    assert history.killed == ()
    stores = [event for event in history.events if event.op.name == "mwrite"]
    assert len(stores) == loops
    assert {event.errno for event in stores} <= {0, errno.EFAULT}
    short = [event for event in stores if event.errno or event.result < size]
    assert short, "the race was never met, so nothing was tested"


def test_reads(fresh: Fresh) -> None:
    setup = (A, op("write", path="A", off=0, len=12 * K))
    plain, direct, end, behind = fresh.run_ops(
        op("read", path="A", off=0, len=4 * K),
        op("read", path="A", off=4 * K, len=4 * K, direct="yes"),
        op("read", path="A", off=8 * K, len=64 * K),
        op("read", path="A", off=64 * K, len=8),
        setup=setup,
    )
    assert_all_succeeded((plain, direct, end, behind))
    assert [event.result for event in (plain, direct, end, behind)] == [4 * K, 4 * K, 4 * K, 0]


SIZES_AFTER = {"alloc": 40, "zero": 40, "collapse": 16, "insert": 48}
"""In KiB; 32 for the others."""

XFS_ONLY = {"collapse", "insert", "unshare"}


@pytest.mark.parametrize("mode", FALLOCATE_MODES)
def test_fallocate(fresh: Fresh, mode: str) -> None:
    # Ranges reach over the end of file where the mode allows it, to show KEEP_SIZE.
    offset, length = (8 * K, 16 * K) if mode in XFS_ONLY else (24 * K, 16 * K)
    setup = (A, op("write", path="A", off=0, len=32 * K))
    (event,) = fresh.run_ops(op("fallocate", path="A", off=offset, len=length, mode=mode), setup=setup)
    if mode in XFS_ONLY and fresh.fs == "btrfs":
        assert event.errno == errno.EOPNOTSUPP
        return
    assert_all_succeeded((event,))
    assert event.subject == inode(fresh, "A")
    assert (fresh.path / "A").stat().st_size == SIZES_AFTER.get(mode, 32) * K
    shifted = {run.shift for run in runs(fresh.path / "A", op_id(SETUP, 1)) if run.op}
    assert shifted == {"collapse": {0, -16 * K}, "insert": {0, 16 * K}}.get(mode, {0})
    holes = [run for run in runs(fresh.path / "A", op_id(SETUP, 1)) if not run.op]
    assert bool(holes) == (mode not in ("keep", "collapse", "unshare"))


def test_truncate(fresh: Fresh) -> None:
    (event,) = fresh.run_ops(op("truncate", path="A", size=24), setup=(A,))
    assert_all_succeeded((event,))
    assert (fresh.path / "A").stat().st_size == 24


def test_clone_and_dedupe(fresh: Fresh) -> None:
    setup = (
        A,
        op("write", path="A", off=0, len=64 * K),
        op("create", path="B"),
        op("create", path="C"),
        op("write", path="C", off=0, len=64 * K),
    )
    ranged, whole, same, different, bad = fresh.run_ops(
        op("clone", source="A", to="B", src=16 * K, off=0, len=16 * K),
        op("clone", source="A", to="B", src=0, off=64 * K, len=0),
        op("dedupe", source="A", to="B", src=0, off=64 * K, len=32 * K),
        op("dedupe", source="A", to="C", src=0, off=0, len=64 * K),
        op("dedupe", source="A", to="C", src=4, off=0, len=64 * K),
        setup=setup,
    )
    assert_all_succeeded((ranged, whole, same, different))
    assert ranged.subject == inode(fresh, "B")
    assert ranged.other == inode(fresh, "A")
    assert (same.result, different.result) == (32 * K, 0)
    assert bad.errno == errno.EINVAL
    written, tag = op_id(SETUP, 1), file_tag(inode(fresh, "A"))
    assert [run for run in runs(fresh.path / "B", written) if run.op] == [
        Run(0, 16 * K, written, tag, -16 * K),
        Run(64 * K, 128 * K, written, tag, 64 * K),
    ]


# Attributes.


def test_attributes(fresh: Fresh) -> None:
    events = fresh.run_ops(
        op("chmod", path="A", mode=0o4711),
        op("setxattr", path="A", name="one", size=100),
        op("setxattr", path="d", name="two"),
        op("setxattr", path="A", name="gone"),
        op("removexattr", path="A", name="gone"),
        setup=(A, op("mkdir", path="d")),
    )
    assert_all_succeeded(events)
    assert [event.subject for event in events[:3]] == [inode(fresh, p) for p in ("A", "A", "d")]
    assert (fresh.path / "A").stat().st_mode & 0o7777 == 0o4711
    assert os.listxattr(fresh.path / "A") == ["user.one"]
    assert os.getxattr(fresh.path / "A", "user.one") == xattr_value(events[1].id, 100)
    assert os.getxattr(fresh.path / "d", "user.two") == xattr_value(events[2].id, 32)


# Sync and environment.


def test_syncs(fresh: Fresh) -> None:
    setup = (A, op("mkdir", path="d"), op("write", path="A", off=0, len=64 * K))
    events = fresh.run_ops(
        op("fsync", path="A"),
        op("fsync", path="d"),
        op("fsync", path="."),
        op("fdatasync", path="A"),
        op("msync", path="A", off=8, len=1 << 20),
        op("sync_file_range", path="A", off=0, len=64 * K),
        op("sync"),
        op("syncfs"),
        setup=setup,
    )
    assert_all_succeeded(events)
    root = inode(fresh, "")
    assert [event.subject for event in events[:4]] == [inode(fresh, p) for p in ("A", "d", "", "A")]
    assert events[-1].subject == root


def test_environment(fresh: Fresh) -> None:
    drop, sleep, spin, barrier, balance = fresh.run_ops(
        op("drop_caches", level="3"),
        op("sleep", us=2000),
        op("spin", us=2000),
        op("barrier", name="alone"),
        op("balance", type="data"),
        setup=(A, op("write", path="A", off=0, len=64 * K)),
    )
    assert_all_succeeded((drop, sleep, spin, barrier))
    for waited in (sleep, spin):
        assert 2_000_000 <= waited.end_ns - waited.begin_ns < 1_000_000_000
    if fresh.fs == "btrfs":
        assert (balance.errno, balance.result > 0) == (0, True)
    else:
        assert balance.errno == errno.ENOTTY


@pytest.mark.parametrize("fs", ["btrfs"])
def test_balance_filters(fresh: Fresh) -> None:
    setup = (A, op("write", path="A", off=0, len=64 * K))
    everything, system, nearly_empty, limited = fresh.run_ops(
        op("balance", type="all"),
        op("balance", type="system"),
        op("balance", type="data", usage=0),
        op("balance", type="all", limit=1),
        setup=setup,
    )
    assert_all_succeeded((everything, system, limited))
    assert everything.result >= 3
    assert nearly_empty.result == 0
    assert 1 <= limited.result <= 3


# Errors.


def test_errors_are_recorded(fresh: Fresh) -> None:
    cases = {
        op("write", path="none", off=0, len=8): errno.ENOENT,
        op("create", path="none/A"): errno.ENOENT,
        op("create", path="A"): errno.EEXIST,
        op("mkdir", path="A"): errno.EEXIST,
        op("symlink", target="x", path="A"): errno.EEXIST,
        op("link", source="A", to="full/x"): errno.EEXIST,
        op("link", source="full", to="x"): errno.EPERM,
        op("rmdir", path="full"): errno.ENOTEMPTY,
        op("rmdir", path="A"): errno.ENOTDIR,
        op("unlink", path="full"): errno.EISDIR,
        op("unlink", path="none"): errno.ENOENT,
        op("rename", source="none", to="x"): errno.ENOENT,
        op("create", path="A/x"): errno.ENOTDIR,
        op("truncate", path="full", size=8): errno.EISDIR,
        op("removexattr", path="A", name="none"): errno.ENODATA,
        op("clone", source="A", to="A", src=0, off=0, len=4096): errno.EINVAL,
    }
    setup = (A, op("mkdir", path="full"), op("create", path="full/x"))
    events = fresh.run_ops(*cases, setup=setup)
    assert {event.op: errno.errorcode[event.errno] for event in events} == {
        case: errno.errorcode[number] for case, number in cases.items()
    }
    assert all(event.failed and event.begin_ns <= event.end_ns for event in events)
    held = {event.op.name: event for event in events if event.op.name in ("rmdir", "unlink")}
    assert held["unlink"].subject == 0
    assert held["unlink"].begin_ns < held["unlink"].end_ns


def test_failures_in_the_setup_are_recorded(fresh: Fresh) -> None:
    history = fresh.run(Workload(setup=(A, A)))
    assert errnos(history.events) == [0, errno.EEXIST]


def test_a_workload_cannot_leave_its_mount(fresh: Fresh, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"x" * 64)
    setup = (
        op("symlink", target=str(outside), path="s"),
        op("symlink", target=f"{outside}/victim", path="t"),
    )
    events = fresh.run_ops(
        op("write", path="s/victim", off=0, len=8),
        op("write", path="t", off=0, len=8),
        op("truncate", path="../image", size=0),
        op("create", path="s/new"),
        op("create", path="../new"),
        op("unlink", path="s/victim"),
        op("rename", source="s/victim", to="here"),
        op("chmod", path="t", mode=0),
        op("write", path=str(outside / "victim"), off=0, len=8),
        setup=setup,
    )
    assert {errno.errorcode[number] for number in errnos(events)} == {"ELOOP", "EXDEV"}
    assert [path.name for path in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_bytes() == b"x" * 64


def test_create_does_not_follow_a_dangling_link(fresh: Fresh) -> None:
    (event,) = fresh.run_ops(op("create", path="s"), setup=(op("symlink", target="x", path="s"),))
    assert event.errno == errno.EEXIST


def test_every_op_has_an_action_and_was_tried_here() -> None:
    """The table may grow; then this file has to."""
    assert ACTIONS.keys() == OPS.keys()
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*actions.py"))
    elsewhere = {"reclaim", "squeeze", "exchange_range"}  # test_memcg.py, test_exchange.py
    assert {name for name in OPS if f'op("{name}"' not in source} == elsewhere
