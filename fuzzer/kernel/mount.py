"""Mounting file systems: mount(2) and umount(2) with options, deadlines and named holders."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fuzzer.errors import InputError, LeakError
from fuzzer.kernel import libc
from fuzzer.kernel.process import wait_until
from fuzzer.kernel.procfs import who_holds

RELEASE_S = 30.0
"""How long releasing a kernel resource may take before it counts as leaked."""

MS_PRIVATE = 1 << 18
_FLAGS = {
    "ro": libc.MS_RDONLY,
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "sync": 16,
    "dirsync": 128,
    "noatime": 1 << 10,
    "nodiratime": 1 << 11,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
    "lazytime": 1 << 25,
}
"""Options that mount(2) takes as flags (linux/mount.h); a file system refuses them as text."""

_OTHER_DEVICES = frozenset({"device", "logdev", "rtdev"})
"""Options that name a further device. A workload must never reach a device that is not ours."""

_BTRFS_IOC_FORGET_DEV = 0x50009405
_BTRFS_VOL_ARGS_BYTES, _BTRFS_VOL_NAME_AT = 4096, 8


def split_options(options: str) -> tuple[int, str]:
    """Split `noatime,commit=5` into mount(2) flags and the text for the file system.

    InputError for an option that would bring in another device.
    """
    flags, rest = 0, []
    for option in filter(None, options.split(",")):
        if option.partition("=")[0] in _OTHER_DEVICES:
            raise InputError(f"mount option {option} names another device")
        flags |= _FLAGS.get(option, 0)
        if option not in _FLAGS and option != "rw":
            rest.append(option)
    return flags, ",".join(rest)


@contextmanager
def mounted(device: str, directory: Path, fs: str, options: str = "") -> Iterator[Path]:
    """Mount `device` on `directory` while the block runs.

    A refused mount is an OSError with the kernel's errno: what it means is the caller's business.
    mount(2) cannot be interrupted and has no deadline of its own; who expects a hang must do this in
    a process that can be given up. LeakError if it cannot be unmounted in 30 s.
    """
    flags, data = split_options(options)
    libc.mount(device, str(directory), fs, flags, data)
    try:
        yield directory
    finally:
        unmount(directory)
        if fs == "btrfs":
            forget_btrfs_device(device)


def unmount(directory: Path, timeout_s: float = RELEASE_S) -> None:
    """umount(2), again and again while it is busy; LeakError with the holders at the deadline."""

    def done() -> bool:
        try:
            libc.umount(str(directory))
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
        return True

    if not wait_until(done, timeout_s):
        raise LeakError(f"{directory} is still busy after {timeout_s:g} s", hint=who_holds(str(directory)))


def forget_btrfs_device(device: str) -> None:
    """Have btrfs drop what it remembers of an unmounted device.

    btrfs keeps every device it has seen by fsid and generation, and refuses (EEXIST) an older image
    of the same file system that turns up elsewhere: device_list_add() in fs/btrfs/volumes.c. Crash
    states are exactly such images. Newer kernels (and 6.1.y) forget a one-device file system by
    themselves ("btrfs: free device in btrfs_close_devices for a single device filesystem").
    ENOENT: it remembers nothing. ENOTTY: kernels before 5.1 cannot forget. EBUSY: the last unmount is
    still under way.
    """

    def done() -> bool:
        try:
            _forget(device)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            if error.errno not in (errno.ENOENT, errno.ENOTTY):
                raise
        return True

    if not wait_until(done, RELEASE_S):
        raise LeakError(f"btrfs still uses {device} after its unmount", hint=who_holds(device))


def _forget(device: str) -> None:
    argument = bytearray(_BTRFS_VOL_ARGS_BYTES)
    name = os.fsencode(device)
    argument[_BTRFS_VOL_NAME_AT : _BTRFS_VOL_NAME_AT + len(name)] = name
    control = os.open("/dev/btrfs-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(control, _BTRFS_IOC_FORGET_DEV, argument)
    finally:
        os.close(control)


def mount_tmpfs(directory: Path, name: str, size_bytes: int) -> None:
    """Mount a tmpfs called `name`, private, so that nothing mounted inside it shows up elsewhere.

    Below a shared mount (systemd makes / shared) every mount is copied into the name spaces of
    services, where it would keep a loop device busy after we have unmounted it (mount_namespaces(7)).
    """
    libc.mount(name, str(directory), "tmpfs", _FLAGS["nosuid"], f"size={size_bytes},mode=0700")
    try:
        libc.mount("none", str(directory), "none", MS_PRIVATE)
    except BaseException:
        with suppress(OSError):
            libc.umount(str(directory))
        raise
