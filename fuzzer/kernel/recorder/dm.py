"""The device-mapper recorder: the kernel's own log-writes target between two loop devices.

It records discards, FUA and metadata flags, but no times: what the log holds of a completed sync call
is only known from a mark made after the call returned. It cannot hold requests back: dm-delay below it
would hold all alike, which is only a slow device (Documentation/admin-guide/device-mapper/delay.rst).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzzer.errors import InfrastructureError, InputError, MissingCapabilityError
from fuzzer.kernel.loop import PrivateMinor, private_minor
from fuzzer.kernel.mount import RELEASE_S
from fuzzer.kernel.recorder.base import DelayedIO, check_recorder
from fuzzer.kernel.recorder.dm_ioctl import DmControl
from fuzzer.kernel.workarea import RunArea
from fuzzer.writelog.format import check_mark, read_log
from fuzzer.writelog.model import SECTOR_BYTES

DELAY_HINT = "record with --recorder fuse, or without the `delay:` line"

_STOPPED_HINT = "the log is full or memory ran out"

LOG_BYTES = 16 << 30
"""Size of the sparse log while it is written. The target stops logging at its end, which is an error."""


@contextmanager
def dm_recorder(area: RunArea) -> Iterator[DmRecorder]:
    """Check that log-writes works here, flushes included, and record until the block ends."""
    with private_minor(area) as data, private_minor(area) as log:
        control = DmControl()
        try:
            recorder = DmRecorder(control, f"{area.mark}-{data.number}", data, log)
            check_recorder(recorder, area.path)
            yield recorder
        finally:
            control.close()


class DmRecorder:
    """See `base.Recorder`. `dm_name` is the name of its device-mapper devices, one at a time."""

    name = "dm"
    timed = False
    delays = False

    def __init__(self, control: DmControl, dm_name: str, data: PrivateMinor, log: PrivateMinor) -> None:
        self._control = control
        self._dm_name = dm_name
        self._data = data
        self._log = log

    @contextmanager
    def record(self, image: Path, log: Path, delay: DelayedIO | None = None) -> Iterator[DmDevice]:
        if delay is not None:
            raise MissingCapabilityError("the dm recorder cannot hold I/O back", hint=DELAY_HINT)
        with log.open("xb") as file:
            file.truncate(LOG_BYTES)
        sectors = image.stat().st_size // SECTOR_BYTES
        with (
            self._data.attached(image) as data_device,
            self._log.attached(log) as log_device,
            self._mapped(sectors, f"{data_device} {log_device}") as device,
        ):
            yield DmDevice(device, self._control, self._dm_name)
        _finish(log)

    @contextmanager
    def _mapped(self, sectors: int, parameters: str) -> Iterator[str]:
        """The log-writes device. InfrastructureError if it stopped logging, which it does silently."""
        major, minor = self._control.create(self._dm_name)
        try:
            self._control.load(self._dm_name, sectors, "log-writes", parameters)
            with _node(major, minor) as device:
                yield device
            status = self._control.status(self._dm_name)
        finally:
            self._control.remove(self._dm_name, RELEASE_S)
        if "logging_disabled" in status:
            raise InfrastructureError(f"dm-log-writes stopped logging (status {status})", hint=_STOPPED_HINT)

    def abort(self) -> None:
        """Nothing to do: no process of ours stands between the file system and its image."""


@contextmanager
def _node(major: int, minor: int) -> Iterator[str]:
    """Path of the device node; made, and removed, by us only where /dev is no devtmpfs."""
    path = Path(f"/dev/dm-{minor}")
    made = not path.exists()
    if made:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(major, minor))
    try:
        yield str(path)
    finally:
        if made:
            path.unlink()


def _finish(log: Path) -> None:
    """Cut the log to what was used. Its end mark is the last thing the target writes when removed.

    The target logs in a thread of its own, so it may have stopped only after its status was asked for;
    a log that it never wrote its super to cannot even be read.
    """
    try:
        found = read_log(log)
    except InputError:
        found = None  # Not raised from here: the error would hold on to the mapped log.
    if found is None or not found.is_complete:
        written = f"{len(found.entries)} entries" if found else "nothing that can be read"
        raise InfrastructureError(
            f"dm-log-writes stopped logging: the log has {written} and no end mark", hint=_STOPPED_HINT
        )
    os.truncate(log, found.size_bytes)


@dataclass(frozen=True, slots=True)
class DmDevice:
    """See `base.RecordedDevice`."""

    device: str
    _control: DmControl
    _dm_name: str

    def mark(self, text: str) -> None:
        self._control.message(self._dm_name, f"mark {check_mark(text)}")
