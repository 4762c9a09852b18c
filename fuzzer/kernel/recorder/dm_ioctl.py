"""Device-mapper by ioctl on /dev/mapper/control (linux/dm-ioctl.h): no program starts for a mark."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from functools import partial
from pathlib import Path

from fuzzer.errors import InfrastructureError, LeakError
from fuzzer.kernel.process import wait_until

CONTROL = Path("/dev/mapper/control")

_DM_DEV_CREATE = 3
_DM_DEV_REMOVE = 4
_DM_DEV_SUSPEND = 6
_DM_TABLE_LOAD = 9
_DM_TABLE_STATUS = 12
_DM_TARGET_MSG = 14
_NAME_BYTES = 128

_HEADER = struct.Struct(f"=3I2IIiI2IQ{_NAME_BYTES}s129s7x")
"""struct dm_ioctl: version, data_size, data_start, target_count, open_count, flags, event_nr, padding,
dev, name, uuid."""
_TARGET = struct.Struct("=QQiI16s")
"""struct dm_target_spec: sector_start, length, status, next, target_type."""
_MESSAGE = struct.Struct("=Q")
"""struct dm_target_msg: sector, and the text behind it."""
_ARGUMENT_BYTES = 4096
_INTERFACE = (4, 0, 0)

assert _HEADER.size == 312
assert _TARGET.size == 40


class DmControl:
    """The control device. Opened once in every process that uses it, forked children included."""

    def __init__(self) -> None:
        self._fds: dict[int, int] = {}

    def create(self, name: str) -> tuple[int, int]:
        """Make a device without a table; gives its major and minor."""
        answer = self._ioctl(_DM_DEV_CREATE, name)
        dev = _HEADER.unpack_from(answer)[10]
        # huge_encode_dev() of linux/kdev_t.h.
        return dev >> 8 & 0xFFF, dev & 0xFF | dev >> 12 & 0xFFF00

    def load(self, name: str, sectors: int, target: str, parameters: str) -> None:
        """Load a table of one target over all `sectors` (of 512 bytes), and make it live."""
        text = parameters.encode() + b"\0"
        self._ioctl(_DM_TABLE_LOAD, name, _TARGET.pack(0, sectors, 0, 0, target.encode()) + text, targets=1)
        self._ioctl(_DM_DEV_SUSPEND, name)  # Without DM_SUSPEND_FLAG this is resume.

    def message(self, name: str, text: str) -> None:
        """Send a message to the target; the kernel splits `text` at spaces."""
        self._ioctl(_DM_TARGET_MSG, name, _MESSAGE.pack(0) + text.encode() + b"\0")

    def status(self, name: str) -> str:
        """The status line of the (only) target, without its place and type."""
        answer = self._ioctl(_DM_TABLE_STATUS, name)
        start = _HEADER.unpack_from(answer)[4] + _TARGET.size
        return bytes(answer[start : answer.index(b"\0", start)]).decode()

    def remove(self, name: str, timeout_s: float) -> None:
        """Remove a device, waiting while it is open (udev looks at devices too). LeakError if that lasts."""
        if not wait_until(partial(self._removed, name), timeout_s):
            raise LeakError(f"device-mapper device {name} is still open after {timeout_s:g} s")

    def _removed(self, name: str) -> bool:
        try:
            self._ioctl(_DM_DEV_REMOVE, name)
        except InfrastructureError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EBUSY:
                return False
            raise
        return True

    def _ioctl(self, number: int, name: str, data: bytes = b"", *, targets: int = 0) -> bytearray:
        """One ioctl on the device `name`; gives the kernel's answer. InfrastructureError with its errno."""
        argument = bytearray(_ARGUMENT_BYTES)
        _HEADER.pack_into(
            argument,
            0,
            *_INTERFACE,
            _ARGUMENT_BYTES,
            _HEADER.size,
            targets,
            0,
            0,
            0,
            0,
            0,
            name.encode(),
            b"",
        )
        argument[_HEADER.size : _HEADER.size + len(data)] = data
        if len(argument) != _ARGUMENT_BYTES or len(name) >= _NAME_BYTES:
            raise InfrastructureError(f"device-mapper argument for {name} is too long")
        try:
            fcntl.ioctl(self._fd(), 0xC138FD00 | number, argument)  # _IOWR(0xfd, number, struct dm_ioctl)
        except OSError as error:
            text = f"device-mapper ioctl {number} on {name}: {error.strerror}"
            raise InfrastructureError(text) from error
        return argument

    def _fd(self) -> int:
        pid = os.getpid()
        if pid not in self._fds:
            self._fds[pid] = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        return self._fds[pid]

    def close(self) -> None:
        """Close this process's descriptor."""
        fd = self._fds.pop(os.getpid(), None)
        if fd is not None:
            os.close(fd)
