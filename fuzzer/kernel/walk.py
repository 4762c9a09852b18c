"""Walk: look at everything a mount shows and make a `Tree` of it. Reads only.

Errors are part of what is seen: a call that fails on one object is noted and the walk goes on.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fuzzer.kernel import libc
from fuzzer.kernel.identity import InodeReader
from fuzzer.state.inode import inode_generation, inode_number
from fuzzer.state.stamps import Run, Words, decode, join
from fuzzer.state.tree import Node, Tree
from fuzzer.state.view import View
from fuzzer.workload.ops import DIRECT_ALIGN_BYTES, WORD_BYTES

_CHUNK_BYTES = 512 << 10
"""Decoding makes several arrays of this size; larger ones are fresh memory each time, which is slow."""
_MAX_READ_BYTES = 1 << 30
"""Larger files only come from corruption (workloads end at 128 MiB); the rest is not read."""

_NOTHING_READ: tuple[tuple[Run, ...], int, int] = ((), 0, 0)

_STAT_BLOCK_BYTES = 512
"""Unit of `st_blocks`, whatever the block size is (inode(7))."""

_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}


@dataclass(slots=True)
class _Walk:
    inodes: InodeReader
    known: Words
    view: View
    nodes: dict[int, Node] = field(default_factory=dict)
    entries: dict[tuple[int, str], int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def noting(self, path: str, call: str) -> Iterator[None]:
        """Turn an OSError of the block into a line of the tree's errors."""
        try:
            yield
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error.errno))
            self.errors.append(f"{path}: {call}: {name}")


def walk(mountpoint: Path, fs: str, known: Words, view: View = View.CACHE) -> Tree:
    """The tree below `mountpoint`. `known` holds the op ids of the history, for decoding stamps.

    `view` says where data is read from; unmounting for `REMOUNT` is the caller's. OSError if syncfs
    fails for `DROPPED`.
    """
    state = _Walk(InodeReader(fs), known, view)
    root_fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if view is View.DROPPED:
            libc.syncfs(root_fd)
        root = state.inodes.of_fd(root_fd)
        _look_at_directory(state, root_fd, root, ".")
    finally:
        os.close(root_fd)
    return Tree(root, state.nodes, state.entries, tuple(state.errors))


def _look_at_directory(state: _Walk, fd: int, inode: int, path: str) -> None:
    with state.noting(path, "fstat"):
        state.nodes[inode] = _opened(state, fd, inode, os.fstat(fd), path)
    names: list[str] = []
    with state.noting(path, "readdir"):
        names = sorted(os.listdir(fd))
    for name in names:
        child = name if path == "." else f"{path}/{name}"
        with state.noting(child, "lookup"):
            found = state.inodes.of_name(fd, name)
            if _is_placeholder(found, inode):
                continue
            state.entries[inode, name] = found
            if found not in state.nodes:
                _look_at(state, fd, name, found, child)


def _is_placeholder(inode: int, directory: int) -> bool:
    """True for what a btrfs snapshot shows where its source held another subvolume: an empty directory,
    the same for all (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID). Elsewhere it is an entry that leads nowhere."""
    return inode_number(inode) == 2 and inode_generation(directory) != 0 != inode_generation(inode)


def _look_at(state: _Walk, dir_fd: int, name: str, inode: int, path: str) -> None:
    status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        target = os.readlink(name, dir_fd=dir_fd)
        state.nodes[inode] = _node(inode, status, target=target)
    elif kind in (stat.S_IFREG, stat.S_IFDIR):
        direct = os.O_DIRECT if state.view is View.DIRECT and kind == stat.S_IFREG else 0
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | direct, dir_fd=dir_fd)
        try:
            if kind == stat.S_IFDIR:
                _look_at_directory(state, fd, inode, path)
            else:
                state.nodes[inode] = _opened(state, fd, inode, status, path)
        finally:
            os.close(fd)
    else:
        state.nodes[inode] = _node(inode, status)


def _opened(state: _Walk, fd: int, inode: int, status: os.stat_result, path: str) -> Node:
    """The node of an open file or directory."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    with state.noting(path, "getxattr"):
        xattrs = tuple((name, os.getxattr(fd, name)) for name in sorted(os.listxattr(fd)))
    is_file = stat.S_ISREG(status.st_mode)
    data = _read_runs(state, fd, status.st_size, path) if is_file else _NOTHING_READ
    return _node(inode, status, xattrs=xattrs, data=data)


def _node(
    inode: int,
    status: os.stat_result,
    *,
    xattrs: tuple[tuple[str, bytes], ...] = (),
    target: str = "",
    data: tuple[tuple[Run, ...], int, int] = _NOTHING_READ,
) -> Node:
    runs, read_errno, error_offset = data
    return Node(
        inode=inode,
        kind=_KINDS.get(stat.S_IFMT(status.st_mode), "other"),
        mode=stat.S_IMODE(status.st_mode),
        nlink=status.st_nlink,
        size=status.st_size,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        allocated_bytes=status.st_blocks * _STAT_BLOCK_BYTES,
        xattrs=xattrs,
        target=target,
        runs=runs,
        read_errno=read_errno,
        read_error_offset=error_offset,
    )


def _read_runs(state: _Walk, fd: int, size: int, path: str) -> tuple[tuple[Run, ...], int, int]:
    """(runs, errno of the first failed read or 0, its offset)."""
    runs: list[Run] = []
    offset, unit = 0, DIRECT_ALIGN_BYTES if state.view is View.DIRECT else WORD_BYTES
    if state.view in (View.MIXED, View.DROPPED):
        _drop_pages(fd)
    buffer = _buffer(state.view, size)
    while offset < min(size, _MAX_READ_BYTES):
        want = min(_CHUNK_BYTES, -(-(size - offset) // unit) * unit)
        try:
            got = os.preadv(fd, [buffer[:want].data], offset)
        except OSError as error:
            return join(runs), error.errno or errno.EIO, offset
        if offset + got < size:
            got -= got % unit  # a word must not be cut by a short read, nor a block of a direct one
        got = min(got, size - offset)
        if not got:
            state.errors.append(f"{path}: read at {offset} of {size}: EOF")
            break
        runs += decode(buffer[:got], offset, state.known)
        offset += got
    return join(runs), 0, 0


def _buffer(view: View, size: int) -> NDArray[np.uint8]:
    """Memory to read into; no larger than the file: touching fresh memory is what a small one costs."""
    if view is not View.DIRECT:
        return np.empty(min(size, _CHUNK_BYTES), dtype=np.uint8)
    # Anonymous memory begins on a page, as O_DIRECT wants it.
    return np.frombuffer(mmap.mmap(-1, _CHUNK_BYTES), dtype=np.uint8)


def _drop_pages(fd: int) -> None:
    """Forget what the cache holds of one file; /proc/sys/vm/drop_caches would take all of the machine's.

    Pages that are dirty stay, and their writeback is started (mm/fadvise.c, generic_fadvise).
    """
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
