"""Ops on special files, subvolumes, frozen file systems and descriptors opened for sync writes."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzer.kernel.identity import InodeReader
from fuzzer.kernel.walk import walk
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.history import Event
from fuzzer.state.inode import inode_generation, inode_number
from fuzzer.workload.model import Actor, Op, Workload
from tests.kernel.fresh import Fresh, fresh_file_system, op

pytestmark = pytest.mark.kernel

K = 1024
A = op("create", path="A")
SLOW_MS = 1000


@pytest.fixture
def fresh(area: RunArea, image: Path, fs: str) -> Iterator[Fresh]:
    with fresh_file_system(area, image, fs) as fresh:
        yield fresh


@pytest.fixture
def btrfs(area: RunArea, image: Path) -> Iterator[Fresh]:
    with fresh_file_system(area, image, "btrfs") as fresh:
        yield fresh


def run(fresh: Fresh, *ops: Op) -> tuple[Event, ...]:
    """Run ops that must all succeed."""
    events = fresh.run_ops(*ops)
    assert [(event.op.name, os.strerror(event.errno)) for event in events if not event.succeeded] == []
    return events


def test_special_files(fresh: Fresh) -> None:
    events = run(
        fresh, *(op("mknod", path=kind, kind=kind, mode=0o640) for kind in ("fifo", "null", "socket"))
    )
    made = {path.name: path.lstat() for path in fresh.path.iterdir()}
    assert {name: stat.S_IFMT(status.st_mode) for name, status in made.items()} == {
        "fifo": stat.S_IFIFO,
        "null": stat.S_IFCHR,
        "socket": stat.S_IFSOCK,
    }
    assert {stat.S_IMODE(status.st_mode) for status in made.values()} == {0o640}
    assert made["null"].st_rdev == os.makedev(1, 3)
    assert [inode_number(event.subject) for event in events] == [
        made[e.op.text("path")].st_ino for e in events
    ]


def test_a_fifo_stops_nobody(fresh: Fresh) -> None:
    events = fresh.run_ops(
        op("mknod", path="f"),
        op("fsync", path="f"),
        op("read", path="f", off=0, len=8),
        op("write", path="f", off=0, len=8),
        op("chmod", path="f", mode=0o600),
    )
    assert [event.errno for event in events] == [0, errno.EINVAL, errno.ESPIPE, errno.ESPIPE, 0]


def test_fsync_follows_a_link_only_if_asked_to(fresh: Fresh) -> None:
    made, _, plain, followed = fresh.run_ops(
        A,
        op("symlink", target="A", path="s"),
        op("fsync", path="s"),
        op("fsync", path="s", follow="yes"),
    )
    assert (plain.errno, followed.errno, followed.subject) == (errno.ELOOP, 0, made.subject)


def test_a_followed_link_stays_inside(fresh: Fresh) -> None:
    (fresh.path / "s").symlink_to(fresh.area.path)
    (fresh.path / "up").symlink_to("../..")
    events = fresh.run_ops(*(op("fsync", path=path, follow="yes") for path in ("s", "up")))
    assert [event.errno for event in events] == [errno.EXDEV, errno.EXDEV]


def test_sync_flags_of_descriptors(fresh: Fresh) -> None:
    create, write, direct, cut, _ = run(
        fresh,
        op("create", path="A", flags="sync"),
        op("write", path="A", off=0, len=64 * K, sync="rwf_dsync"),
        op("dwrite", path="A", off=0, len=8 * K, sync="rwf_dsync"),
        op("truncate", path="A", size=8 * K, flags="sync"),
        op("otrunc", path="A", flags="dsync"),
    )
    assert (write.result, direct.result) == (64 * K, 8 * K)
    assert {e.subject for e in (write, direct, cut)} == {create.subject}
    assert [e.op.is_durability_point for e in (create, write, direct, cut)] == [False, True, True, False]
    assert (fresh.path / "A").stat().st_size == 0


def test_copy_range(fresh: Fresh) -> None:
    """Whole blocks and less; short at the end of the source."""
    *_, blocks, words, short = run(
        fresh,
        A,
        op("write", path="A", off=0, len=64 * K),
        op("create", path="B"),
        op("copy_range", source="A", to="B", src=0, off=0, len=16 * K),
        op("copy_range", source="A", to="B", src=8, off=32 * K, len=24),
        op("copy_range", source="A", to="B", src=60 * K, off=64 * K, len=16 * K),
    )
    a, b = (fresh.path / "A").read_bytes(), (fresh.path / "B").read_bytes()
    assert (blocks.result, words.result, short.result) == (16 * K, 24, 4 * K)
    assert b[: 16 * K] == a[: 16 * K]
    assert b[32 * K : 32 * K + 24] == a[8:32]
    assert b[64 * K :] == a[60 * K :]
    assert blocks.other not in (0, blocks.subject)


def test_a_whiteout_is_left_behind(fresh: Fresh) -> None:
    """At the old name, also by a rename over a file; it cannot be opened, but moved and removed."""
    a, b, over, again, opened, unlinked = fresh.run_ops(
        A,
        op("create", path="B"),
        op("rename", source="A", to="B", flags="whiteout"),
        op("rename", source="A", to="C"),
        op("fsync", path="C"),
        op("unlink", path="C"),
    )
    assert [e.errno for e in (over, again, opened, unlinked)] == [0, 0, errno.ENXIO, 0]
    assert (over.subject, over.other) == (a.subject, b.subject)
    assert again.subject == unlinked.subject not in (0, a.subject, b.subject)
    (left,) = fresh.run_ops(op("rename", source="B", to="D", flags="whiteout"))
    assert left.errno == 0
    fresh.remount()
    status = (fresh.path / "B").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == os.makedev(0, 0)
    assert inode_number(a.subject) == (fresh.path / "D").stat().st_ino


def test_names_count_the_iterations(fresh: Fresh) -> None:
    """As many names of one file as a loop makes: its extended references on btrfs."""
    many = Actor("many", (op("link", source="A", to="name-{i}"),), loop=3000)
    history = fresh.run(Workload(setup=(A,), actors=(many,)), deadline_s=60)
    assert not any(event.failed for event in history.events)
    assert (fresh.path / "A").stat().st_nlink == 3001
    assert {path.name for path in fresh.path.iterdir()} == {"A", *(f"name-{n}" for n in range(3000))}


def test_freeze_is_over_when_it_returns_and_is_thawed(fresh: Fresh) -> None:
    """What is promised is promised as soon as it is frozen, so the wait is no part of the op."""
    _, frozen, again, _ = run(
        fresh, A, op("freeze", hold_ms=50), op("freeze", hold_ms=0), op("create", path="B")
    )
    assert again.begin_ns - frozen.end_ns >= 50_000_000


def test_a_killed_freezer_leaves_nothing_frozen(fresh: Fresh) -> None:
    """The other actor waits for the thaw; both are killed long before it would come."""
    freezer = Actor("freezer", tuple(op("freeze", hold_ms=SLOW_MS) for _ in range(30)))
    writer = Actor("writer", (op("create", path="x"), op("unlink", path="x")), loop=100_000)
    started = time.monotonic()
    history = fresh.run(Workload(actors=(freezer, writer)), deadline_s=2.0)
    assert "freezer" in history.killed
    (fresh.path / "after").touch()
    assert time.monotonic() - started < 15


def test_a_file_is_synced_when_it_is_unlinked(fresh: Fresh) -> None:
    """Whether it was its last name or not; a name that is not there is an error like any other."""
    made, _, first, last, none = fresh.run_ops(
        A,
        op("link", source="A", to="B"),
        op("unlink", path="A", fsync="yes"),
        op("unlink", path="B", fsync="yes"),
        op("unlink", path="B", fsync="yes"),
    )
    assert [e.errno for e in (first, last, none)] == [0, 0, errno.ENOENT]
    assert first.subject == last.subject == made.subject
    assert list(fresh.path.iterdir()) == []


def test_read_only_for_a_moment(fresh: Fresh) -> None:
    """Like a freeze: over when it is so, and writable afterwards; not while a file is open for writing."""
    _, made, again, _ = run(fresh, A, op("remount_ro", hold_ms=50), op("remount_ro"), op("create", path="B"))
    assert again.begin_ns - made.end_ns >= 50_000_000
    with (fresh.path / "B").open("wb"):
        (busy,) = fresh.run_ops(op("remount_ro"))
    assert busy.errno == errno.EBUSY


def test_a_killed_remounter_leaves_it_writable(fresh: Fresh) -> None:
    history = fresh.run(Workload(actors=(Actor("ro", (op("remount_ro", hold_ms=SLOW_MS),), loop=30),)), 1.5)
    assert history.killed == ("ro",)
    (fresh.path / "after").touch()


def test_remount_changes_one_option(fresh: Fresh) -> None:
    mine, other = {"btrfs": ("autodefrag", "inode32"), "xfs": ("inode32", "autodefrag")}[fresh.fs]
    none, own, foreign = fresh.run_ops(*(op("remount", option=o) for o in ("none", mine, other)))
    assert (none.errno, own.errno, foreign.errno) == (0, 0, errno.EINVAL)
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    (options,) = [fields[3] for fields in mounts if fields[1] == str(fresh.path)]
    assert mine in options.split(",")
    assert "rw" in options.split(",")


def test_a_file_is_written_from_a_mapping_of_itself(fresh: Fresh) -> None:
    """Whether through the page cache or past it; behind the end of the mapping's file it stops."""
    made, wrote, buffered, direct, short, nothing = fresh.run_ops(
        A,
        op("write", path="A", off=0, len=64 * K),
        op("mapped_write", path="A", src=4 * K, off=128 * K, len=8 * K),
        op("mapped_write", path="A", src=0, off=8 * K, len=8 * K, direct="yes"),
        op("mapped_write", path="A", src=132 * K, off=0, len=64 * K),
        op("mapped_write", path="A", src=512 * K, off=0, len=4 * K),
    )
    assert [e.errno for e in (wrote, buffered, direct, short, nothing)] == [0, 0, 0, 0, errno.EFAULT]
    assert (buffered.result, direct.result, short.result) == (8 * K, 8 * K, 4 * K)
    assert buffered.subject == buffered.other == made.subject
    fresh.remount()
    data = (fresh.path / "A").read_bytes()
    assert data[132 * K :] == data[: 4 * K]
    assert data[128 * K : 132 * K] == data[4 * K : 8 * K] != bytes(4 * K)


def test_subvolumes_have_inodes_of_their_own(btrfs: Fresh) -> None:
    make, x, a, snap = run(
        btrfs,
        op("subvol_create", path="v"),
        op("create", path="v/x"),
        A,
        op("snapshot", source="v", path="w"),
    )
    assert inode_number(make.subject) == inode_number(snap.subject) == 256
    assert x.directory == make.subject != snap.subject
    assert inode_number(x.subject) == inode_number(a.subject) == 257
    assert 0 == inode_generation(a.subject) != inode_generation(x.subject)
    (history,) = [btrfs.run(Workload())]
    tree = walk(btrfs.path, "btrfs", history.known_ids())
    assert tree.entries[make.subject, "x"] == x.subject
    assert inode_generation(tree.entries[snap.subject, "x"]) == inode_generation(snap.subject)


def test_a_snapshot_of_the_root_shows_no_placeholder(btrfs: Fresh) -> None:
    *_, snap = run(btrfs, op("subvol_create", path="v"), A, op("snapshot", source=".", path="w"))
    tree = walk(btrfs.path, "btrfs", btrfs.run(Workload()).known_ids())
    assert [name for directory, name in tree.entries if directory == snap.subject] == ["A"]
    assert (btrfs.path / "w/v").is_dir()


def test_subvolume_errors_and_deletion(btrfs: Fresh) -> None:
    root = InodeReader("btrfs")
    fd = os.open(btrfs.path, os.O_RDONLY)
    try:
        mkdir, make, taken, plain, file, delete = btrfs.run_ops(
            op("mkdir", path="d"),
            op("subvol_create", path="d/v"),
            op("snapshot", source=".", path="d/v"),
            op("snapshot", source="d", path="w"),
            op("create", path="d/v/x"),
            op("subvol_delete", path="d/v"),
        )
        assert root.of_fd(fd) == mkdir.directory
    finally:
        os.close(fd)
    assert [e.errno for e in (taken, plain, file)] == [errno.EEXIST, errno.EINVAL, 0]
    assert (delete.errno, delete.subject, delete.directory) == (0, make.subject, mkdir.subject)
    assert list((btrfs.path / "d").iterdir()) == []
