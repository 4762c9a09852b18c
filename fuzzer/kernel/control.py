"""ioctls on mounted file systems, and what sysfs tells of them: trim, scrub, space, still writable?"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzzer.kernel.libc import syncfs
from fuzzer.kernel.process import wait_until
from fuzzer.state.recovery import Scrub, Space

_FITRIM = 0xC0185879  # linux/fs.h: _IOWR('X', 121, struct fstrim_range)
_FSTRIM_RANGE = struct.Struct("=3Q")

_BTRFS_IOC_SCRUB = 0xC400941B  # linux/btrfs.h: _IOWR(0x94, 27, struct btrfs_ioctl_scrub_args)
_SCRUB_ARGS_BYTES = 1024
_SCRUB_HEAD = struct.Struct("=4Q")
_SCRUB_PROGRESS = struct.Struct("=15Q")
_SCRUB_READONLY = 1
_SCRUB_ERRORS = {
    4: "read_errors",
    5: "csum_errors",
    6: "verify_errors",
    9: "super_errors",
    10: "malloc_errors",
    11: "uncorrectable_errors",
    12: "corrected_errors",
    14: "unverified_errors",
}
"""Places in struct btrfs_scrub_progress."""

_BTRFS_IOC_FS_INFO = 0x8400941F  # linux/btrfs.h: _IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)
_FS_INFO_BYTES, _FS_INFO_FSID_AT = 1024, 16

_NO_SUCH_NAME = "powercut-no-such-name"

_SYSFS = Path("/sys/fs/btrfs")
_KINDS = ("data", "metadata", "system", "mixed")
_RESERVED = ("bytes_may_use", "bytes_reserved", "bytes_pinned")
_QGROUP_RESERVED = ("rsv_data", "rsv_meta_pertrans", "rsv_meta_prealloc")
_REST_S = 5.0
"""How long a synced file system may still hold reservations: its own threads work on (the cleaner, the
discard worker), and each holds some while it does."""


@contextmanager
def _root_of(mountpoint: Path) -> Iterator[int]:
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def trim(mountpoint: Path) -> None:
    """FITRIM of the whole file system, as fstrim(8) does it. OSError if it fails."""
    with _root_of(mountpoint) as root:
        trim_fd(root)


def trim_fd(fd: int) -> None:
    """`trim` of the file system `fd` is on."""
    fcntl.ioctl(fd, _FITRIM, bytearray(_FSTRIM_RANGE.pack(0, (1 << 64) - 1, 0)))


def scrub(mountpoint: Path) -> Scrub:
    """Have btrfs read and verify every copy of everything (btrfs-scrub(8) -r: nothing is repaired)."""
    argument = bytearray(_SCRUB_ARGS_BYTES)
    _SCRUB_HEAD.pack_into(argument, 0, 1, 0, (1 << 64) - 1, _SCRUB_READONLY)
    try:
        with _root_of(mountpoint) as root:
            fcntl.ioctl(root, _BTRFS_IOC_SCRUB, argument)
    except OSError as error:
        return Scrub(errno=error.errno or errno.EIO)
    counters = _SCRUB_PROGRESS.unpack_from(argument, _SCRUB_HEAD.size)
    errors = tuple((name, counters[at]) for at, name in _SCRUB_ERRORS.items() if counters[at])
    return Scrub(errors=errors, bytes_read=counters[2] + counters[3])


def space(mountpoint: Path, fs: str) -> Space:
    """Free space of a mount that was synced and is used by nobody; waits (5 s) until btrfs is at rest."""
    held: tuple[tuple[str, int], ...] = ()
    if fs == "btrfs":
        directory = _sysfs_directory(mountpoint)
        wait_until(lambda: not _held(directory), _REST_S)
        held = _held(directory)
    status = os.statvfs(mountpoint)
    return Space(
        size_bytes=status.f_blocks * status.f_frsize,
        free_bytes=status.f_bfree * status.f_frsize,
        available_bytes=status.f_bavail * status.f_frsize,
        data_bytes=_data_used(_sysfs_directory(mountpoint)) if fs == "btrfs" else -1,
        reserved=held,
    )


def wait_until_empty(mountpoint: Path, fs: str) -> None:
    """Wait (5 s) until an emptied btrfs holds no file data.

    The last reference to an inode may be dropped by the cleaner thread, which each commit wakes
    (btrfs_run_delayed_iputs in cleaner_kthread, fs/btrfs/disk-io.c), and then the next commit frees it.
    """
    if fs == "btrfs":
        directory = _sysfs_directory(mountpoint)

        def is_empty() -> bool:
            if _data_used(directory) > 0:
                with _root_of(mountpoint) as root:
                    syncfs(root)
            return _data_used(directory) <= 0

        wait_until(is_empty, _REST_S)


def lost_writes(mountpoint: Path) -> str:
    """How the mount has stopped taking writes: `read-only`, an errno, or nothing if it has not.

    btrfs turns its superblock read-only after an error (btrfs_handle_fs_error), which statfs(2) shows.
    A shut down xfs says nothing there, but fails to look up a name (xfs_lookup in fs/xfs/xfs_inode.c).
    """
    try:
        if os.statvfs(mountpoint).f_flag & os.ST_RDONLY:
            return "read-only"
        (mountpoint / _NO_SUCH_NAME).lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return ""


def _sysfs_directory(mountpoint: Path) -> Path:
    """btrfs's directory in sysfs. The kernel names it: a second mount of one fsid has another there."""
    answer = bytearray(_FS_INFO_BYTES)
    with _root_of(mountpoint) as root:
        fcntl.ioctl(root, _BTRFS_IOC_FS_INFO, answer)
    return _SYSFS / str(uuid.UUID(bytes=bytes(answer[_FS_INFO_FSID_AT : _FS_INFO_FSID_AT + 16])))


def _held(directory: Path) -> tuple[tuple[str, int], ...]:
    """Reservations that are not zero, without the global reserve, which is there to stay."""
    found: dict[str, int] = {}
    for kind in _KINDS:
        for counter in _RESERVED:
            found[f"{kind} {counter}"] = _number(directory / "allocation" / kind / counter)
    meta = "metadata bytes_may_use" if (directory / "allocation/metadata").exists() else "mixed bytes_may_use"
    found[meta] -= _number(directory / "allocation/global_rsv_reserved")
    for group in (directory / "qgroups").glob("[0-9]*_*"):
        for counter in _QGROUP_RESERVED:
            found[f"qgroup {counter}"] = _number(group / counter)
    return tuple((name, value) for name, value in found.items() if value)


def _data_used(directory: Path) -> int:
    """Bytes of data extents; -1 with space cache v1, whose own files are data too, or mixed groups."""
    path = directory / "allocation/data/bytes_used"
    return _number(path) if path.exists() and _number(directory / "features/free_space_tree") else -1


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0
