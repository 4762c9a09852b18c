"""What every action uses: the op's row in the log, paths inside the mount, buffers.

An action opens what it needs, says `begin` right before the system call that has the effect and `end`
right after it. An OSError it lets through is the op's errno, whichever call raised it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from time import monotonic_ns
from types import TracebackType

import numpy as np

from fuzzer.kernel import libc
from fuzzer.kernel.aio import AsyncWrites
from fuzzer.kernel.barriers import Barriers
from fuzzer.kernel.identity import InodeReader
from fuzzer.kernel.memcg import MemoryCgroup
from fuzzer.kernel.shared import (
    BEGIN,
    BODY,
    BODY_OFFSET,
    END,
    ERRNO_OFFSET,
    GENERATIONS_OFFSET,
    OTHER,
    RESULT,
    ROW_WORDS,
    SUBJECT,
    SharedRun,
)
from fuzzer.state.history import RECORD, SEEN
from fuzzer.state.inode import inode_generation, inode_number
from fuzzer.state.stamps import decode
from fuzzer.workload.model import Op, op_id

_U64 = (1 << 64) - 1

OPENED_FLAGS = {"none": 0, "dsync": os.O_DSYNC, "sync": os.O_SYNC}

_BENEATH = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_MAGICLINKS | libc.RESOLVE_NO_XDEV
_INSIDE = _BENEATH | libc.RESOLVE_NO_SYMLINKS
"""A workload is untrusted: `..` and symbolic links must not lead out of the mount it runs on."""


class Context:
    """One actor's state while it runs. `op_id` is the id of the op it is at."""

    def __init__(self, actor: int, mount_fd: int, identity: InodeReader, shared: SharedRun) -> None:
        self.actor = actor
        self.mount_fd = mount_fd
        self.identity = identity
        self.root = identity.of_fd(mount_fd)
        self.cgroup: MemoryCgroup | None = None
        self.barriers: Barriers | None = None
        self.op_id = 0
        self._shared = shared
        self._rows = shared.rows[actor]
        self._words = self._rows.words
        self._sequence = 0
        self._word = 0
        self._byte = 0
        self._memory_fd = -1
        self._direct: mmap.mmap | None = None
        self._async: AsyncWrites | None = None

    # The row of the log. The order of stores is what a killed actor leaves behind: `begin_ns` makes the
    # row visible and so comes after what is known by then, `end_ns` makes the result count.

    def start(self, sequence: int) -> None:
        """Turn to op number `sequence`; nothing is visible yet."""
        self.op_id = op_id(self.actor, sequence)
        self._sequence = sequence
        self._word = sequence * ROW_WORDS
        self._byte = sequence * RECORD.itemsize

    def begin(self, subject: int = 0, other: int = 0, directory: int = 0, directory2: int = 0) -> None:
        """The next thing that happens is the system call with the effect."""
        BODY.pack_into(
            self._rows.bytes,
            self._byte + BODY_OFFSET,
            subject & _U64,
            other & _U64,
            directory & _U64,
            directory2 & _U64,
            subject >> 64,
            other >> 64,
            directory >> 64,
            directory2 >> 64,
            self._sequence,
            0,
        )
        self._words[self._word + BEGIN] = monotonic_ns()

    def found(self, subject: int = 0, other: int = 0) -> None:
        """Inodes that could be known only after `begin`. Generations first (see `Rows.records`)."""
        at = self._byte + GENERATIONS_OFFSET
        generations = (inode_generation(subject), inode_generation(other))
        self._rows.bytes[at : at + 8] = b"".join(g.to_bytes(4, "little") for g in generations)
        self._words[self._word + SUBJECT] = inode_number(subject)
        self._words[self._word + OTHER] = inode_number(other)

    def end(self, result: int = 0) -> None:
        """The system call with the effect has succeeded."""
        now = monotonic_ns()
        self._words[self._word + RESULT] = result & _U64
        self._words[self._word + END] = now

    def saw(self, data: memoryview, offset: int) -> None:
        """Keep what the current op, a read that has ended, found at `offset`."""
        runs = decode(data, offset, self._shared.ids)
        rows = [(self._sequence, run.start, run.end, run.op, run.tag, run.shift) for run in runs]
        self._shared.seen[self.actor].add(np.array(rows, dtype=SEEN))

    def fail(self, errno: int) -> None:
        """The op has failed, before its effect (it begins and ends now) or in it."""
        now = monotonic_ns()
        at = self._byte + ERRNO_OFFSET
        begun = self._words[self._word + BEGIN] != 0
        if not begun:
            BODY.pack_into(self._rows.bytes, self._byte + BODY_OFFSET, *(0,) * 8, self._sequence, errno)
        else:
            self._rows.bytes[at : at + 4] = errno.to_bytes(4, "little")
        self._words[self._word + END] = now
        if not begun:
            self._words[self._word + BEGIN] = now

    @property
    def end_ns(self) -> int:
        """When the current op returned; 0: it has not."""
        return self._words[self._word + END]

    # Files.

    def open(self, path: str, flags: int, *, follow: bool = False) -> OpenFile:
        """Open a file of the workload; a symbolic link on the way is ELOOP (unless `follow`, or O_PATH for
        the last place)."""
        # A fifo would wait for its other end; O_PATH takes no such flag.
        flags |= 0 if flags & os.O_PATH else os.O_NONBLOCK
        flags, resolve = (flags, _BENEATH) if follow else (flags | os.O_NOFOLLOW, _INSIDE)
        fd = libc.openat2(self.mount_fd, os.fsencode(path), flags, 0, resolve)
        return OpenFile(fd, self.identity)

    def parent(self, path: str) -> Parent:
        """Open the directory the last component of `path` is a name in."""
        directory, _, name = path.rpartition("/")
        if not directory:
            return Parent(self.mount_fd, self.root, name, borrowed=True)
        flags = os.O_PATH | os.O_DIRECTORY
        fd = libc.openat2(self.mount_fd, os.fsencode(directory), flags, 0, _INSIDE)
        return Parent(fd, self.identity.of_fd(fd), name, borrowed=False)

    def directory(self, parent: Parent) -> OpenFile:
        """The directory itself, opened so that ioctls work on it."""
        fd = libc.openat2(parent.fd, b".", os.O_RDONLY | os.O_DIRECTORY, 0, _INSIDE)
        return OpenFile(fd, self.identity)

    def name_of(self, parent: Parent) -> int:
        """Identity of what the name stands for at this moment; 0: nothing, or it cannot be told.

        A failed look-up (ENOMEM under pressure, say) must not pass for a failure of the op around it.
        """
        try:
            return self.identity.of_name(parent.fd, parent.name)
        except OSError:
            return 0

    def inode_of(self, fd: int) -> int:
        """Identity of an open file; 0 if it cannot be told, for the same reason."""
        try:
            return self.identity.of_fd(fd)
        except OSError:
            return 0

    # Buffers.

    def memory_file(self) -> int:
        """A memfd of this actor's: pages to copy into a mapping from."""
        if self._memory_fd < 0:
            self._memory_fd = os.memfd_create("powercut-stamps")
        return self._memory_fd

    def direct_buffer(self, length: int) -> memoryview:
        """Page-aligned memory for O_DIRECT; the same every time."""
        if self._direct is None or len(self._direct) < length:
            self._direct = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return memoryview(self._direct)[:length]

    def async_writes(self) -> AsyncWrites:
        """This actor's AIO context."""
        if self._async is None:
            self._async = AsyncWrites()
        return self._async


class OpenFile:
    """An open file and its identity, as a context manager."""

    __slots__ = ("fd", "inode")

    def __init__(self, fd: int, identity: InodeReader) -> None:
        self.fd = fd
        try:
            self.inode = identity.of_fd(fd)
        except BaseException:
            os.close(fd)
            raise

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self.fd)


class Parent:
    """An open directory, its identity, and a name in it. `fd` pins it: it stays what it is."""

    __slots__ = ("_borrowed", "fd", "inode", "name")

    def __init__(self, fd: int, inode: int, name: str, *, borrowed: bool) -> None:
        self.fd = fd
        self.inode = inode
        self.name = name
        self._borrowed = borrowed

    def __enter__(self) -> Parent:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._borrowed:
            os.close(self.fd)


Action = Callable[[Context, Op], None]
"""Carries out one op and logs it."""
