"""Probe of a recovered file system: can everything be removed, can new files be made, do they stay?"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fuzzer.kernel import libc
from fuzzer.kernel.control import trim
from fuzzer.kernel.libc import syncfs
from fuzzer.state.recovery import Listing

_PROBE = "powercut-probe"
_PROTECTED = libc.FS_IMMUTABLE_FL | libc.FS_APPEND_FL
_BTRFS_IOC_SUBVOL_SETFLAGS = 0x4008941A
_DATA = bytes(range(256)) * 256
_CANNOT_TRIM = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EROFS}
"""fstrim(8) on a device, or through a mount, that does not take discards. EROFS: the file system has
gone read-only, which has a rule of its own."""


def empty(mountpoint: Path) -> tuple[str, ...]:
    """Remove everything, extended attributes of the root included, and sync.

    Returns what failed, as `call ERRNO: path`.
    """
    errors: list[str] = []

    def note(error: OSError) -> None:
        errors.append(f"readdir {_name(error)}: {error.filename}")

    for directory, _, files in os.walk(mountpoint):
        _unprotect(Path(directory), is_directory=True)
        for name in files:
            _unprotect(Path(directory, name), is_directory=False)
    for directory, subdirs, files in os.walk(mountpoint, topdown=False, onerror=note):
        here = Path(directory)
        for name in files:
            _attempt(errors, "unlink", name, (here / name).unlink)
        for name in subdirs:
            child = here / name
            _attempt(errors, "rmdir", name, child.unlink if child.is_symlink() else child.rmdir)
    _attempt(errors, "removexattr", ".", lambda: _remove_xattrs(mountpoint))
    _attempt(errors, "syncfs", ".", lambda: sync(mountpoint))
    return tuple(errors)


def refill(mountpoint: Path) -> tuple[str, ...]:
    """Make, move, link and remove files, trim, and leave some. Returns failures like `empty`.

    What is left was not all synced: only a clean unmount has to keep it.
    """
    errors: list[str] = []
    _attempt(errors, "create", _PROBE, lambda: _fill(mountpoint / _PROBE))
    _attempt(errors, "fstrim", ".", lambda: _trim(mountpoint))
    return tuple(errors)


def listing(mountpoint: Path) -> Listing:
    """(path, what is there in words) of everything below a mount, with contents; sorted.

    Reads whole files: for what `refill` made. What cannot be looked at says so in its place.
    """
    found: dict[str, str] = {}

    def note(error: OSError) -> None:
        found[str(error.filename)] = _name(error)

    for directory, subdirs, files in os.walk(mountpoint, onerror=note):
        for name in (*subdirs, *files):
            path = Path(directory, name)
            try:
                found[str(path.relative_to(mountpoint))] = _describe(path)
            except OSError as error:
                found[str(path.relative_to(mountpoint))] = _name(error)
    return tuple(sorted(found.items()))


def commit(mountpoint: Path) -> None:
    """Change something and sync: recovery alone leaves an old superblock where the crash left one.

    btrfs writes its second superblock after the first; until the next commit that may be stale.
    """
    with suppress(OSError):  # what cannot be made is the probe's to report
        (mountpoint / _PROBE).mkdir()
        (mountpoint / _PROBE).rmdir()
        sync(mountpoint)


def sync(mountpoint: Path) -> None:
    """syncfs(2) of the mount."""
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def _unprotect(path: Path, *, is_directory: bool) -> None:
    """Clear what makes even root fail: the immutable and the append-only flag (ioctl_iflags(2)), and that a
    btrfs subvolume is read-only.

    What cannot be opened or has no flags is left to the removal, whose failure is told.
    """
    with suppress(OSError):
        if not is_directory and not stat.S_ISREG(path.lstat().st_mode):
            return
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            argument = bytearray(4)
            fcntl.ioctl(fd, libc.FS_IOC_GETFLAGS, argument)
            flags = int.from_bytes(argument, sys.byteorder)
            if flags & _PROTECTED:
                fcntl.ioctl(fd, libc.FS_IOC_SETFLAGS, (flags & ~_PROTECTED).to_bytes(4, sys.byteorder))
            if is_directory:
                # EINVAL: not a subvolume; ENOTTY: not btrfs
                fcntl.ioctl(fd, _BTRFS_IOC_SUBVOL_SETFLAGS, bytes(8))
        finally:
            os.close(fd)


def _remove_xattrs(path: Path) -> None:
    """On xfs an ACL is listed under a second name, trusted.SGI_ACL_*, which goes with the first."""
    for name in os.listxattr(path):
        try:
            os.removexattr(path, name)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise


def _attempt(errors: list[str], call: str, path: str, action: Callable[[], object]) -> None:
    try:
        action()
    except OSError as error:
        errors.append(f"{call} {_name(error)}: {path}")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def _fill(directory: Path) -> None:
    """A synced file under two names, one that was moved, one that is gone, and a symbolic link."""
    directory.mkdir()
    inner = directory / "inner"
    inner.mkdir()
    for name in ("synced", "moved", "gone"):
        _write(directory / name, _DATA, sync=name == "synced")
    (inner / "link").hardlink_to(directory / "synced")
    (directory / "moved").rename(inner / "moved")
    (directory / "gone").unlink()
    os.setxattr(directory / "synced", "user.probe", b"value")
    (directory / "symlink").symlink_to("synced")
    inner.rename(directory / "renamed")


def _write(path: Path, data: bytes, *, sync: bool) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def _trim(mountpoint: Path) -> None:
    try:
        trim(mountpoint)
    except OSError as error:
        if error.errno not in _CANNOT_TRIM:
            raise


def _describe(path: Path) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"symlink to {path.readlink()}"
    if stat.S_ISDIR(status.st_mode):
        return f"dir nlink={status.st_nlink}"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    names = ",".join(sorted(os.listxattr(path)))
    return f"file nlink={status.st_nlink} size={status.st_size} sha256={digest} xattrs={names}"
