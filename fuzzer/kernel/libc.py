"""The door to libc: system calls and constants that Python's os module lacks. No policy here.

Every wrapper raises OSError with errno and the path it was about.
"""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)

MS_RDONLY = 1
MS_REMOUNT = 32
AT_EMPTY_PATH = 0x1000
AT_FDCWD = -100

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15


def check(result: int, what: str, path: str = "") -> int:
    """Return `result`, or raise the OSError of a libc call that returned a negative value."""
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}", path or None)
    return result


def mount(source: str, target: str, fs: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    check(
        _LIBC.mount(
            source.encode(), target.encode(), fs.encode(), ctypes.c_ulong(flags), options.encode()
        ),
        f"mount {source} {options}",
        target,
    )


def umount(target: str) -> None:
    """umount2(2) without flags: never lazy, never forced."""
    check(_LIBC.umount2(target.encode(), 0), "umount", target)


def prctl(option: int, argument: int | bytes) -> None:
    """prctl(2) with one argument."""
    value = ctypes.c_char_p(argument) if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    check(_LIBC.prctl(option, value, 0, 0, 0), "prctl")


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2); os.posix_fallocate has no mode."""
    check(_LIBC.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)), "fallocate")


def renameat2(old_dir: int, old: str, new_dir: int, new: str, flags: int) -> None:
    """renameat2(2)."""
    check(_LIBC.renameat2(old_dir, old.encode(), new_dir, new.encode(), flags), "renameat2", new)


def sync_file_range(fd: int, offset: int, length: int, flags: int) -> None:
    """sync_file_range(2)."""
    check(
        _LIBC.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), flags), "sync_file_range"
    )


def syncfs(fd: int) -> None:
    """syncfs(2)."""
    check(_LIBC.syncfs(fd), "syncfs")


class _FileHandle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * 128),
    )


def name_to_handle(dir_fd: int, name: str, flags: int = 0) -> tuple[int, bytes]:
    """name_to_handle_at(2): (type, bytes) of the file handle. Does not follow a final symlink."""
    handle = _FileHandle(handle_bytes=128)
    mount_id = ctypes.c_int()
    result = _LIBC.name_to_handle_at(
        dir_fd, name.encode(), ctypes.byref(handle), ctypes.byref(mount_id), flags
    )
    check(result, "name_to_handle_at", name)
    return handle.handle_type, bytes(handle.f_handle[: handle.handle_bytes])
