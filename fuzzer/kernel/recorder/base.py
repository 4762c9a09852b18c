"""What every recorder offers: a block device over an image file, and a log of all that is written to it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fuzzer.errors import InfrastructureError
from fuzzer.writelog.format import Log, read_log, times_path

_TEST_IMAGE_BYTES = 1 << 20
_TEST_BLOCK = bytes(range(256)) * 16


@dataclass(frozen=True, slots=True)
class DelayedIO:
    """Which requests to a device with file system `fs` are held back: text and seed of a `Schedule`."""

    fs: str
    text: str
    seed: int


class RecordedDevice(Protocol):
    """A device whose writes are being logged. Usable in forked children too."""

    @property
    def device(self) -> str:
        """Path of the block device, for mkfs and mount."""

    def mark(self, text: str) -> None:
        """Put a mark at the current end of the log: one printable word of less than 480 bytes.

        A mark is no barrier: writes that completed before it may stand behind it.
        """


class Recorder(Protocol):
    """Records any number of devices, one after the other."""

    @property
    def name(self) -> str:
        """`fuse` or `dm`."""

    @property
    def timed(self) -> bool:
        """Whether logs carry times. If not, only marks tell when something happened."""

    @property
    def delays(self) -> bool:
        """Whether it can hold chosen requests back."""

    def record(
        self, image: Path, log: Path, delay: DelayedIO | None = None
    ) -> AbstractContextManager[RecordedDevice]:
        """Expose the file `image` as a block device of its size and log every write to the new file `log`.

        With `delay`, requests are held back as it says; only where the recorder `delays`.

        On exit the device is gone and the log complete, end mark included. Raises
        InfrastructureError if the log is not the whole truth, LostWorkerError if the recorder died.
        """

    def abort(self) -> None:
        """Fail all I/O to recorded devices, now and later: the watchdog's way out of a hang."""


def check_recorder(recorder: Recorder, directory: Path) -> None:
    """Write and fsync one block through `recorder` and see that both are logged, in this order.

    A device that says `write through`, as a loop device may after another user, never sends a
    flush; then every fsync looks broken. Files in `directory` are made and removed.
    """
    image, log = directory / "self-test.img", directory / "self-test.log"
    try:
        with image.open("xb") as file:
            file.truncate(_TEST_IMAGE_BYTES)
        with recorder.record(image, log) as recorded:
            _write_and_sync(recorded.device)
        _check_log(read_log(log), recorder.name)
    finally:
        for path in (image, log, times_path(log)):
            path.unlink(missing_ok=True)


def _write_and_sync(device: str) -> None:
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, _TEST_BLOCK, len(_TEST_BLOCK))
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_log(log: Log, name: str) -> None:
    written = [entry.index for entry in log.entries if log.payload(entry) == _TEST_BLOCK]
    if not written:
        raise InfrastructureError(f"no write reaches the {name} recorder")
    if not any(entry.is_flush for entry in log.entries[written[0] :]):
        raise InfrastructureError(
            f"no flush reaches the {name} recorder",
            hint="the block device below must have a volatile write cache (queue/write_cache: write back)",
        )
