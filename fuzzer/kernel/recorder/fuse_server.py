"""The FUSE recorder's server: a file system of one file per recording that logs what is written.

Runs as its own process, `python -m fuzzer.kernel.recorder.fuse_server MOUNTPOINT SOCKET_FD`, because a
process that waits for a file system it serves waits for ever. One task handles one request after the
other and never waits between carrying out a request and answering it: log order is the order in which
requests were carried out, and nothing here can wait for the file systems above. Images and logs
belong on tmpfs for the same reason.

A recording may ask for chosen requests to be held back (`fuzzer.workload.delay`). A held write is
neither carried out nor logged until its time has come; meanwhile it is in flight, like on a slow device,
and others pass it. Then it is carried out, logged and answered in one go, so that the log stays in the
order of completion, a flush covers only what the log has before it, and replay still makes the image.
A read shows what was carried out before it is answered. Flushes are never held.

Clients talk to it over a SOCK_SEQPACKET socket, one JSON object per packet: `hello`, `start`, `mark`,
`stop`, each answered with an object that has an `error` if it failed.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyfuse3
from pyfuse3 import (
    ROOT_INODE,
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    Operations,
    RequestContext,
)

from fuzzer.kernel import libc
from fuzzer.kernel.recorder.reactor import MAX_TASKS, Reactor
from fuzzer.workload.delay import Schedule, parse_delays
from fuzzer.writelog.format import check_mark, format_entry, format_super, format_write, times_path
from fuzzer.writelog.metadata import is_metadata
from fuzzer.writelog.model import MARK_END, SECTOR_BYTES, Flag

MAX_PACKET_BYTES = 1 << 16
FILE_PREFIX = "disk-"
_ATTRIBUTES_VALID_S = 3600.0
_FLUSH = format_entry(Flag.FLUSH)

Answer = dict[str, str | int]


class Jitter:
    """Which requests of a recording to hold back; `fs` is the file system on it."""

    def __init__(self, fs: str, schedule: Schedule) -> None:
        self._fs = fs
        self._schedule = schedule

    def of_read(self, offset: int, length: int) -> int:
        """How long to hold a read, microseconds."""
        return self._schedule.hold_us("read", offset, length)

    def of_write(self, offset: int, data: bytes) -> int:
        """How long to hold a write, microseconds."""
        kind = "metadata" if is_metadata(self._fs, memoryview(data)) else "data"
        return self._schedule.hold_us(kind, offset, len(data))


class Disk:
    """One recording: an image file and its log. The first failure sticks and fails the recording."""

    def __init__(self, image: str, log: str, limit_bytes: int, jitter: Jitter | None) -> None:
        self.error = ""
        self.jitter = jitter
        self._log = log
        self._limit_bytes = limit_bytes
        self._at = SECTOR_BYTES
        self._times = array("Q")
        self._image_fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.size_bytes = os.fstat(self._image_fd).st_size
            self._log_fd = os.open(log, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except BaseException:
            os.close(self._image_fd)
            raise

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._image_fd, length, offset)

    def write(self, offset: int, data: bytes, arrived_ns: int) -> None:
        """Carry out and log one write. Raises OSError."""
        if offset % SECTOR_BYTES or len(data) % SECTOR_BYTES:
            raise OSError(errno.EINVAL, f"write of {len(data)} bytes at {offset} is not in sectors")
        if os.pwrite(self._image_fd, data, offset) != len(data):
            raise OSError(errno.ENOSPC, "no room for the image")
        self._append(format_write(offset // SECTOR_BYTES, len(data) // SECTOR_BYTES), data, arrived_ns)

    def flush(self, arrived_ns: int) -> None:
        """Log a flush. The image is on tmpfs or thrown away after a crash: there is nothing to sync."""
        self._append(_FLUSH, b"", arrived_ns)

    def mark(self, text: str) -> None:
        self._append(format_entry(Flag.MARK, mark=check_mark(text)), b"", time.monotonic_ns())

    def _append(self, header: bytes, data: bytes, arrived_ns: int) -> None:
        length = len(header) + len(data)
        if self._at + length > self._limit_bytes:
            raise OSError(errno.EFBIG, f"the log is full: its limit is {self._limit_bytes} bytes")
        if os.pwritev(self._log_fd, (header, data), self._at) != length:
            raise OSError(errno.ENOSPC, "no room for the log")
        self._at += length
        self._times.append(arrived_ns)
        self._times.append(time.monotonic_ns())

    def finish(self) -> None:
        """End mark, super and times: the log is complete. Raises OSError."""
        self.mark(MARK_END)
        os.pwrite(self._log_fd, format_super(len(self._times) // 2), 0)
        if sys.byteorder == "big":
            self._times.byteswap()
        times_path(Path(self._log)).write_bytes(self._times.tobytes())

    def close(self) -> None:
        os.close(self._image_fd)
        os.close(self._log_fd)


class Disks(Operations):
    """The file system: `disk-<n>` in its root for each recording. Inode of disk n is n + ROOT_INODE."""

    supports_dot_lookup = False
    enable_writeback_cache = False  # It would merge writes, and crash states with them.
    enable_acl = False

    def __init__(self, disks: dict[int, Disk], reactor: Reactor) -> None:
        super().__init__()
        self.disks = disks
        self._reactor = reactor

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        text = os.fsdecode(name)
        number = text.removeprefix(FILE_PREFIX)
        if parent_inode != ROOT_INODE or number == text or not number.isdecimal():
            raise FUSEError(errno.ENOENT)
        return await self.getattr(InodeT(int(number) + ROOT_INODE), ctx)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = inode
        entry.entry_timeout = entry.attr_timeout = _ATTRIBUTES_VALID_S
        if inode == ROOT_INODE:
            entry.st_mode, entry.st_nlink = stat.S_IFDIR | 0o700, 2
        else:
            entry.st_mode, entry.st_nlink = stat.S_IFREG | 0o600, 1
            entry.st_size = self._disk(inode).size_bytes
        return entry

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        self._disk(inode)
        return FileInfo(fh=FileHandleT(inode), direct_io=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        disk = self._disk(fh)
        if disk.jitter is not None:
            await self._reactor.hold(disk.jitter.of_read(off, size))
            disk = self._disk(fh)
        return disk.read(off, size)

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        arrived_ns = time.monotonic_ns()
        disk = self._disk(fh)
        if disk.jitter is not None:
            await self._reactor.hold(disk.jitter.of_write(off, buf))
            disk = self._disk(fh)  # It may have been stopped meanwhile.
        try:
            disk.write(off, buf, arrived_ns)
        except OSError as error:
            raise self._failed(disk, error) from None
        return len(buf)

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        arrived_ns = time.monotonic_ns()
        disk = self._disk(fh)
        try:
            disk.flush(arrived_ns)
        except OSError as error:
            raise self._failed(disk, error) from None

    async def flush(self, fh: FileHandleT) -> None:
        """close(2) is no flush of the disk."""

    async def release(self, fh: FileHandleT) -> None:
        """The disk goes when its recording stops, which may be before the kernel lets go of the file."""

    def _disk(self, inode: int) -> Disk:
        if inode not in self.disks:
            raise FUSEError(errno.ENOENT)
        return self.disks[inode]

    def _failed(self, disk: Disk, error: OSError) -> FUSEError:
        disk.error = disk.error or str(error)
        return FUSEError(errno.EIO)


class Control:
    """Answers the clients' packets."""

    def __init__(self, disks: dict[int, Disk]) -> None:
        self._disks = disks
        self._last = ROOT_INODE
        self._commands: dict[str, Callable[..., Answer]] = {
            "hello": self._hello,
            "start": self._start,
            "mark": self._mark,
            "stop": self._stop,
        }

    def talk(self, client: socket.socket) -> bool:
        """Answer one packet; False if the client has gone."""
        try:
            packet = client.recv(MAX_PACKET_BYTES)
            if packet:
                client.send(json.dumps(self._answer(packet)).encode())
        except ConnectionError:
            return False  # A client that dies takes its connection with it and nothing else.
        return bool(packet)

    def _answer(self, packet: bytes) -> Answer:
        try:
            request = json.loads(packet)
            return self._commands[request.pop("do")](**request)
        except Exception as error:
            # The client raises it; a server that dies of one bad request would take all disks along.
            return {"error": f"{type(error).__name__}: {error}"}

    def _hello(self) -> Answer:
        return {"pid": os.getpid()}

    def _start(self, image: str, log: str, limit_bytes: int, fs: str, delay: str, seed: int) -> Answer:
        jitter = Jitter(fs, Schedule(parse_delays(delay), seed)) if delay else None
        disk = Disk(image, log, limit_bytes, jitter)
        self._last += 1
        self._disks[self._last] = disk
        return {"disk": self._last, "name": f"{FILE_PREFIX}{self._last - ROOT_INODE}"}

    def _mark(self, disk: int, text: str) -> Answer:
        self._disks[disk].mark(text)
        return {}

    def _stop(self, disk: int) -> Answer:
        stopped = self._disks.pop(disk)
        try:
            if not stopped.error:
                stopped.finish()
        finally:
            stopped.close()
        return {"error": stopped.error} if stopped.error else {}


def _serve(reactor: Reactor) -> None:
    """Carry out, log and answer requests, one by one but for those that are held."""
    # The module's own name for trio, which its type stubs do not show.
    pyfuse3.trio = reactor  # type: ignore[attr-defined]
    try:
        pyfuse3.main(min_tasks=MAX_TASKS, max_tasks=MAX_TASKS).send(None)
    except StopIteration:
        return  # Unmounted.
    raise AssertionError("pyfuse3 waits for something we do not know of")


def _protect() -> None:
    """Keep memory pressure away as far as we may; the server works without, only less safely.

    Its pages are what the kernel waits for when it wants to write back and free pages of the file
    system above. PR_SET_IO_FLUSHER needs CAP_SYS_RESOURCE (prctl(2)), as does a lower oom_score_adj.
    """
    with suppress(OSError):
        libc.mlockall(libc.MCL_CURRENT | libc.MCL_FUTURE | libc.MCL_ONFAULT)
    with suppress(OSError):
        libc.prctl(libc.PR_SET_IO_FLUSHER, 1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")


def main(mountpoint: str, socket_fd: int) -> None:
    """Mount, and serve until the parent unmounts."""
    disks: dict[int, Disk] = {}
    with socket.socket(fileno=socket_fd) as listener:
        reactor = Reactor(Control(disks).talk, listener)
        operations = Disks(disks, reactor)
        pyfuse3.init(operations, mountpoint, {"fsname=powercut", "default_permissions"})
        _protect()
        try:
            _serve(reactor)
        finally:
            pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
