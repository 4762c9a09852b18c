"""The door to libc: system calls and constants that Python's os module lacks. No policy here.

Every wrapper raises OSError with errno and the path it was about.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)

MS_RDONLY = 1
AT_EMPTY_PATH = 0x1000

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_IO_FLUSHER = 57

_SYS_FINIT_MODULE = 313 if os.uname().machine == "x86_64" else 273
"""x86-64 and the table all newer architectures share (asm-generic/unistd.h)."""

MCL_CURRENT = 1
MCL_FUTURE = 2
MCL_ONFAULT = 4


def check(result: int, what: str, path: str = "") -> int:
    """Return `result`, or raise the OSError of a libc call that returned a negative value."""
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}", path or None)
    return result


def mount(source: str, target: str, fs: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    check(
        _LIBC.mount(source.encode(), target.encode(), fs.encode(), ctypes.c_ulong(flags), options.encode()),
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


def mlockall(flags: int) -> None:
    """mlockall(2)."""
    check(_LIBC.mlockall(flags), "mlockall")


def finit_module(fd: int) -> None:
    """finit_module(2) without parameters; glibc has no wrapper."""
    check(_LIBC.syscall(_SYS_FINIT_MODULE, fd, b"", 0), "finit_module")


def power_off() -> None:
    """reboot(2) with LINUX_REBOOT_CMD_POWER_OFF. Does not sync."""
    check(_LIBC.reboot(ctypes.c_int(0x4321FEDC)), "reboot")


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2); os.posix_fallocate has no mode."""
    check(_LIBC.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)), "fallocate")


def renameat2(old_dir: int, old: str, new_dir: int, new: str, flags: int) -> None:
    """renameat2(2)."""
    check(_LIBC.renameat2(old_dir, old.encode(), new_dir, new.encode(), flags), "renameat2", new)


def sync_file_range(fd: int, offset: int, length: int, flags: int) -> None:
    """sync_file_range(2)."""
    check(_LIBC.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), flags), "sync_file_range")


FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
"""Of linux/fs.h; the argument is an int, whatever the size in the number says (ioctl_iflags(2))."""

FS_IMMUTABLE_FL, FS_APPEND_FL = 0x10, 0x20

_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878
"""_IOWR('X', 119, int) and _IOWR('X', 120, int) of linux/fs.h."""


def freeze(fd: int) -> None:
    """ioctl FIFREEZE of the file system `fd` is on: EBUSY if it is frozen already."""
    fcntl.ioctl(fd, _FIFREEZE, 0)


def thaw(fd: int) -> None:
    """ioctl FITHAW: EINVAL if it is not frozen."""
    fcntl.ioctl(fd, _FITHAW, 0)


_SYS_FSCONFIG, _SYS_FSPICK = 431, 433
_FSPICK_EMPTY_PATH = 8
_FSCONFIG_SET_FLAG, _FSCONFIG_CMD_RECONFIGURE = 0, 7
"""Of linux/mount.h; the same numbers on every architecture."""


def reconfigure(fd: int, option: str = "") -> None:
    """Remount the file system whose root `fd` is with one option (`ro`, `rw`) changed, and no other."""
    context = check(_LIBC.syscall(_SYS_FSPICK, fd, b"", _FSPICK_EMPTY_PATH), "fspick")
    try:
        if option:
            key = option.encode()
            check(
                _LIBC.syscall(_SYS_FSCONFIG, context, _FSCONFIG_SET_FLAG, key, None, 0), f"fsconfig {option}"
            )
        check(_LIBC.syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_RECONFIGURE, None, None, 0), "fsconfig")
    finally:
        os.close(context)


def syncfs(fd: int) -> None:
    """syncfs(2)."""
    check(_LIBC.syncfs(fd), "syncfs")


# Hot paths of the actors: typed function objects of their own, so that ctypes converts each argument
# once and no wrapper object is made per call.

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

PROT_READ = 1
PROT_WRITE = 2
MAP_SHARED = 1
MS_ASYNC = 1
MS_SYNC = 4

_SYS_OPENAT2 = 437
"""The same number on every architecture: openat2 came after the tables were unified."""

_OPEN_HOW = struct.Struct("=3Q")
_MAP_FAILED = ctypes.c_void_p(-1).value

_openat2 = _LIBC["syscall"]
_openat2.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_openat2.restype = ctypes.c_long
_linkat = _LIBC["linkat"]
_linkat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
_mmap = _LIBC["mmap"]
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_mmap.restype = ctypes.c_void_p
_munmap = _LIBC["munmap"]
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_msync = _LIBC["msync"]
_msync.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_pread = _LIBC["pread"]
_pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
_pread.restype = ctypes.c_ssize_t
_pwrite = _LIBC["pwrite"]
_pwrite.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
_pwrite.restype = ctypes.c_ssize_t
_name_to_handle_at = _LIBC["name_to_handle_at"]
_name_to_handle_at.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
)


def openat2(dir_fd: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """openat2(2): the new fd, close-on-exec. The kernel refuses a mode without O_CREAT."""
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    return check(_openat2(_SYS_OPENAT2, dir_fd, path, how, len(how)), "openat2", os.fsdecode(path))


def linkat(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int) -> None:
    """linkat(2); os.link cannot name its source by file descriptor."""
    check(_linkat(old_dir, old, new_dir, new, flags), "linkat", os.fsdecode(new))


def map_shared(fd: int, length: int, protection: int, offset: int) -> int:
    """mmap(2) with MAP_SHARED: the address. Unlike Python's mmap it does not look at the file size,
    so a concurrent truncate is met by the kernel and nobody else."""
    address: int | None = _mmap(None, length, protection, MAP_SHARED, fd, offset)
    if address is None or address == _MAP_FAILED:
        check(-1, "mmap")
    assert address is not None
    return address


def unmap(address: int, length: int) -> None:
    """munmap(2)."""
    check(_munmap(address, length), "munmap")


def msync(address: int, length: int, flags: int) -> None:
    """msync(2)."""
    check(_msync(address, length, flags), "msync")


def pread_to(fd: int, address: int, length: int, offset: int) -> int:
    """pread(2) into memory at `address`: EFAULT or a short count where that memory has gone."""
    return check(_pread(fd, address, length, offset), "pread")


def pwrite_from(fd: int, address: int, length: int, offset: int) -> int:
    """pwrite(2) of memory at `address`: EFAULT or a short count where that memory cannot be read."""
    return check(_pwrite(fd, address, length, offset), "pwrite")


class HandleReader:
    """name_to_handle_at(2) into buffers made once. One per thread: a call overwrites the last answer."""

    MAX_BYTES = 128

    def __init__(self) -> None:
        self.buffer = bytearray(8 + self.MAX_BYTES)
        """`unsigned handle_bytes; int handle_type; unsigned char f_handle[]`."""
        self._address = ctypes.addressof((ctypes.c_ubyte * len(self.buffer)).from_buffer(self.buffer))
        self._mount_id = ctypes.c_int()
        self._mount_id_address = ctypes.addressof(self._mount_id)

    def read(self, dir_fd: int, name: bytes, flags: int = 0) -> bytearray:
        """The filled buffer. Does not follow a final symlink; b"" and AT_EMPTY_PATH mean `dir_fd`."""
        self.buffer[0:4] = b"\x80\x00\x00\x00"
        result = _name_to_handle_at(dir_fd, name, self._address, self._mount_id_address, flags)
        check(result, "name_to_handle_at", os.fsdecode(name))
        return self.buffer
