"""Loop devices on private minors: made for one run, attached thousands of times, removed at the end.

A minor's queue settings outlive detach and reach its next user: after a left-over "write through" no
flush arrives at the backing file any more and every verdict would be worthless. So a run makes its
own minors, never takes a free one, and checks the queue at each attach.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzzer.errors import InfrastructureError, LeakError
from fuzzer.kernel.mount import RELEASE_S
from fuzzer.kernel.process import wait_until
from fuzzer.kernel.procfs import who_holds
from fuzzer.kernel.workarea import RunArea

# linux/loop.h
LOOP_CONTROL = Path("/dev/loop-control")
LOOP_CLR_FD = 0x4C01
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_ADD = 0x4C80
LOOP_CTL_REMOVE = 0x4C81
LO_FLAGS_DIRECT_IO = 16

_FIRST_MINOR, _LAST_MINOR = 100, 1123
"""Numbers tried for private minors; below 100 is what `losetup -f` hands out."""

_MIN_SECTORS_KB = 64
"""A request split smaller than this was split by someone's left-over max_sectors_kb."""


class _LoopInfo64(ctypes.Structure):
    _fields_ = (
        ("lo_device", ctypes.c_uint64),
        ("lo_inode", ctypes.c_uint64),
        ("lo_rdevice", ctypes.c_uint64),
        ("lo_offset", ctypes.c_uint64),
        ("lo_sizelimit", ctypes.c_uint64),
        ("lo_number", ctypes.c_uint32),
        ("lo_encrypt_type", ctypes.c_uint32),
        ("lo_encrypt_key_size", ctypes.c_uint32),
        ("lo_flags", ctypes.c_uint32),
        ("lo_file_name", ctypes.c_char * 64),
        ("lo_crypt_name", ctypes.c_char * 64),
        ("lo_encrypt_key", ctypes.c_uint8 * 32),
        ("lo_init", ctypes.c_uint64 * 2),
    )


class _LoopConfig(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _LoopInfo64),
        ("reserved", ctypes.c_uint64 * 8),
    )


assert ctypes.sizeof(_LoopConfig) == 304


@dataclass(frozen=True, slots=True)
class PrivateMinor:
    """A loop device number that belongs to this run. `name` is `loopN`, `device` is `/dev/loopN`."""

    number: int

    @property
    def name(self) -> str:
        return f"loop{self.number}"

    @property
    def device(self) -> str:
        return f"/dev/{self.name}"

    @property
    def sysfs(self) -> Path:
        """The block device's directory in sysfs; `queue/` below it holds the settings."""
        return Path("/sys/block") / self.name

    @contextmanager
    def attached(self, path: Path, *, direct_io: bool = False, block_size: int = 512) -> Iterator[str]:
        """Attach the file `path` while the block runs; gives the device's path.

        `block_size` is the logical block size in bytes. LO_FLAGS_AUTOCLEAR is not used: it would make
        us hold a descriptor of the device, which every forked actor would inherit and keep. LeakError
        if the device cannot be detached in 30 s.
        """
        self._configure(path, LO_FLAGS_DIRECT_IO if direct_io else 0, block_size)
        try:
            self._check_queue()
            yield self.device
        finally:
            self._detach()

    def _configure(self, path: Path, flags: int, block_size: int) -> None:
        backing = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            config = _LoopConfig(fd=backing, block_size=block_size)
            config.info.lo_flags = flags
            # Shown by losetup and by /sys/block/loopN/loop/backing_file's readers; cut, not refused.
            config.info.lo_file_name = os.fsencode(path)[:63]
            self._wait_configured(bytes(config))
        finally:
            os.close(backing)

    def _wait_configured(self, config: bytes) -> None:
        """LOOP_CONFIGURE, waiting while the detach before it is still being finished.

        That happens where udev looks at every device: then the last close, which does the work, is
        udev's, and sysfs says "detached" a moment before the device is free again.
        """

        def done() -> bool:
            try:
                with _opened(self.device, os.O_RDWR) as device:
                    fcntl.ioctl(device, LOOP_CONFIGURE, config)
            except OSError as error:
                if error.errno in (errno.EBUSY, errno.ENXIO):
                    return False
                raise
            return True

        if not wait_until(done, RELEASE_S):
            raise LeakError(f"{self.device} does not become free", hint=who_holds(self.device))

    def _check_queue(self) -> None:
        queue = {name: self._queue(name) for name in ("write_cache", "fua", "max_sectors_kb")}
        if (
            queue["write_cache"] != "write back"
            or queue["fua"] != "0"
            or int(queue["max_sectors_kb"]) < _MIN_SECTORS_KB
        ):
            raise InfrastructureError(
                f"{self.device} would not show every flush and write: {queue}",
                hint="settings survive detach; someone else changed this run's private device",
            )

    def _queue(self, name: str) -> str:
        # os.read on a descriptor: this runs three times for each of thousands of attaches.
        with _opened(f"/sys/block/{self.name}/queue/{name}", os.O_RDONLY) as attribute:
            return os.read(attribute, 64).decode().strip()

    def _detach(self) -> None:
        # LOOP_CLR_FD with other openers around only arms the detach for the last close
        # (__loop_clr_fd and lo_release in drivers/block/loop.c), so success here proves nothing.
        with _opened(self.device, os.O_RDONLY) as device:
            fcntl.ioctl(device, LOOP_CLR_FD)
        if not wait_until(self._is_detached, RELEASE_S):
            raise LeakError(
                f"{self.device} is still attached after {RELEASE_S:g} s",
                hint=who_holds(self.device),
            )

    def _is_detached(self) -> bool:
        return not os.path.exists(f"/sys/block/{self.name}/loop")  # noqa: PTH110 (hot path)


@contextmanager
def private_minor(area: RunArea) -> Iterator[PrivateMinor]:
    """Make a loop device of our own, remove it at the end (LeakError if that stays impossible)."""
    minor = PrivateMinor(_add_minor())
    area.note("loop", minor.number)
    try:
        made_node = _ensure_node(minor)
        try:
            yield minor
        finally:
            if made_node:
                Path(minor.device).unlink()
    finally:
        area.forget("loop", minor.number)
        if not remove_minor(minor.number, RELEASE_S):
            area.note("loop", minor.number)
            raise LeakError(f"{minor.device} cannot be removed", hint=who_holds(minor.device))


def _add_minor() -> int:
    with _opened(LOOP_CONTROL, os.O_RDWR) as control:
        for number in range(_FIRST_MINOR, _LAST_MINOR + 1):
            try:
                return fcntl.ioctl(control, LOOP_CTL_ADD, number)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
    raise InfrastructureError(f"no loop number free from {_FIRST_MINOR} to {_LAST_MINOR}")


def remove_minor(number: int, timeout_s: float) -> bool:
    """LOOP_CTL_REMOVE, waiting while it is busy (udev looks at new devices); False at the deadline.

    A number that is already gone counts as removed.
    """

    def done() -> bool:
        try:
            fcntl.ioctl(control, LOOP_CTL_REMOVE, number)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            if error.errno != errno.ENODEV:
                raise
        return True

    with _opened(LOOP_CONTROL, os.O_RDWR) as control:
        return wait_until(done, timeout_s)


def clear_loop(number: int, timeout_s: float) -> bool:
    """Detach an attached loop device; False at the deadline, for example while it is mounted."""
    minor = PrivateMinor(number)
    with _opened(minor.device, os.O_RDONLY) as device:
        fcntl.ioctl(device, LOOP_CLR_FD)
    return wait_until(minor._is_detached, timeout_s)


def _ensure_node(minor: PrivateMinor) -> bool:
    """Make the device node where /dev is not devtmpfs (privileged containers); True if made."""
    path = Path(minor.device)
    if path.exists():
        return False
    major, number = (minor.sysfs / "dev").read_text().split(":")
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(int(major), int(number)))
    return True


@contextmanager
def _opened(path: str | Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
