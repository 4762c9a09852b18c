"""Ops on owners, times and flags of inodes, and files that are linked when they are finished."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fuzzer.kernel.usable import empty
from fuzzer.kernel.walk import walk
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.stamps import Run, decode, file_tag
from fuzzer.state.utimes_value import utimes_ns
from tests.kernel.fresh import Fresh, fresh_file_system, op

pytestmark = pytest.mark.kernel

K = 1024
A = (op("create", path="A"),)


@pytest.fixture
def fresh(area: RunArea, image: Path, fs: str) -> Iterator[Fresh]:
    with fresh_file_system(area, image, fs) as fresh:
        yield fresh


def test_owner_and_times(fresh: Fresh) -> None:
    chown, utimes = fresh.run_ops(
        op("chown", path="A", uid=1000, gid=1 << 20), op("utimes", path="A"), setup=A
    )
    fresh.remount()
    found = (fresh.path / "A").stat()
    assert (chown.errno, utimes.errno) == (0, 0)
    assert (found.st_uid, found.st_gid) == (1000, 1 << 20)
    assert found.st_mtime_ns == utimes_ns(utimes.id)


def test_chown_clears_the_set_id_bits(fresh: Fresh) -> None:
    """As `_KEPT_BY_CHOWN` of the mode's oracle says."""
    fresh.run_ops(op("chmod", path="A", mode=0o6755), op("chown", path="A", uid=1, gid=1), setup=A)
    assert (fresh.path / "A").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("flag", ["append", "immutable"])
def test_protected_files(fresh: Fresh, flag: str) -> None:
    on, written, refused, off, again = fresh.run_ops(
        op("chattr", path="A", flag=flag, to="on"),
        op("write", path="A", off=0, len=8),
        op("unlink", path="A"),
        op("chattr", path="A", flag=flag, to="off"),
        op("write", path="A", off=0, len=8),
        setup=A,
    )
    assert [e.errno for e in (on, written, refused, off, again)] == [0, errno.EPERM, errno.EPERM, 0, 0]


@pytest.mark.parametrize("flag", ["append", "immutable"])
def test_protected_files_and_directories_can_be_emptied(fresh: Fresh, flag: str) -> None:
    events = fresh.run_ops(
        op("mkdir", path="d"),
        op("create", path="d/B"),
        *(op("chattr", path=path, flag=flag, to="on") for path in ("d/B", "d", "A")),
        setup=A,
    )
    assert {e.errno for e in events} == {0}
    assert empty(fresh.path) == ()
    assert list(fresh.path.iterdir()) == []


@pytest.mark.parametrize("flag", ["nocow", "compress"])
def test_how_btrfs_writes(fresh: Fresh, flag: str) -> None:
    on, wrote = fresh.run_ops(
        op("chattr", path="A", flag=flag), op("write", path="A", off=0, len=64 * K), setup=A
    )
    assert on.errno == (errno.EOPNOTSUPP if fresh.fs == "xfs" else 0)
    assert wrote.result == 64 * K


@pytest.mark.parametrize("fs", ["xfs"])
def test_extent_size_hint(fresh: Fresh) -> None:
    hint, _, _, late = fresh.run_ops(
        op("extsize", path="A", size=64 * K),
        op("write", path="A", off=0, len=8),
        op("fsync", path="A"),
        op("extsize", path="A", size=128 * K),
        setup=A,
    )
    assert (hint.errno, late.errno) == (0, errno.EINVAL)
    fd = os.open(fresh.path / "A", os.O_RDONLY)
    try:
        found = fcntl.ioctl(fd, 0x801C581F, bytes(28))  # FS_IOC_FSGETXATTR
    finally:
        os.close(fd)
    assert int.from_bytes(found[4:8], sys.byteorder) == 64 * K


def test_a_default_acl_is_inherited_and_changes_no_mode(fresh: Fresh) -> None:
    """As the oracle counts on: what is made in the directory has the mode it was made with."""
    made = [op("create", path=f"d/{mode:o}", mode=mode) for mode in (0o600, 0o644, 0o1777)]
    setting, *births, no_directory = fresh.run_ops(
        op("acl", path="d", uid=1000),
        *made,
        op("mkdir", path="d/e", mode=0o711),
        op("tmplink", path="d/t", off=0, len=8, mode=0o640),
        op("acl", path="A", uid=1000),
        setup=(*A, op("mkdir", path="d")),
    )
    assert [e.errno for e in (setting, *births, no_directory)] == [0, 0, 0, 0, 0, 0, errno.ENOTDIR]
    fresh.remount()
    for birth in births:
        path = fresh.path / birth.op.text("path")
        assert "system.posix_acl_access" in os.listxattr(path)
        assert path.stat().st_mode & 0o7777 == birth.op.number("mode")
    assert "system.posix_acl_default" in os.listxattr(fresh.path / "d/e")


def test_an_access_acl_sets_the_mode_and_follows_chmod(fresh: Fresh) -> None:
    """As the oracle counts on: all rights, other bits as they were, and the user stays."""
    events = fresh.run_ops(
        op("chmod", path="A", mode=0o1640),
        op("acl", path="A", uid=1000, kind="access"),
        op("chmod", path="A", mode=0o600),
        setup=A,
    )
    assert [e.errno for e in events] == [0, 0, 0]
    assert stat.S_IMODE((fresh.path / "A").stat().st_mode) == 0o600
    tree = walk(fresh.path, fresh.fs, np.array([], dtype=np.uint64))
    value = dict(tree.nodes[events[0].subject].xattrs)["system.posix_acl_access"]
    assert struct.pack("<HHI", 2, 7, 1000) in value
    set_again, off, off_again = fresh.run_ops(
        op("acl", path="A", uid=1001, kind="access"),
        *[op("acl", path="A", uid=1, kind="access", to="off")] * 2,
    )
    assert (set_again.errno, off.errno) == (0, 0)
    assert off_again.errno in (0, errno.ENODATA)
    assert os.listxattr(fresh.path / "A") == []
    assert stat.S_IMODE((fresh.path / "A").stat().st_mode) == 0o777


def test_a_file_is_linked_when_it_is_finished(fresh: Fresh) -> None:
    made, durable, taken = fresh.run_ops(
        op("tmplink", path="B", off=4096, len=8, mode=0o600),
        op("tmplink", path="C", off=0, len=64 * K, fsync="yes"),
        op("tmplink", path="A", off=0, len=8),
        setup=A,
    )
    assert [e.errno for e in (made, durable, taken)] == [0, 0, errno.EEXIST]
    data = (fresh.path / "B").read_bytes()
    runs = decode(data, 0, np.array([made.id], dtype=np.uint64))
    assert runs[-1] == Run(4096, 4104, made.id, file_tag(made.subject), 0)
    assert (fresh.path / "B").stat().st_mode & 0o777 == 0o600
    tree = walk(fresh.path, fresh.fs, np.array([made.id, durable.id], dtype=np.uint64))
    assert tree.entries[tree.root, "B"] == made.subject
    assert made.directory == tree.root


def test_a_root_with_an_acl_can_be_emptied(fresh: Fresh) -> None:
    (event,) = fresh.run_ops(op("acl", path=".", uid=1000))
    assert event.errno == 0
    assert empty(fresh.path) == ()
