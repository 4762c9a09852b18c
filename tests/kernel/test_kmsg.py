"""Reading the kernel log for real: our own record through /dev/kmsg, and a device's lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fuzzer.kernel.kmsg import KernelLog, lines_of_device
from fuzzer.kernel.loop import private_minor
from fuzzer.kernel.mkfs import make_fs
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.workarea import RunArea

pytestmark = pytest.mark.kernel


def test_a_mount_shows_up_once(area: RunArea, image: Path, fs: str) -> None:
    with private_minor(area) as minor, minor.attached(image) as device:
        make_fs(device, fs)
        with KernelLog.open() as log:
            with mounted(device, area.mkdir("mnt"), fs):
                pass
            lines = lines_of_device(log.read(), [minor.name])
            assert any(minor.name in line for line in lines)
            assert lines_of_device(log.read(), [minor.name]) == []


def test_skip_forgets_and_user_space_is_left_out() -> None:
    with KernelLog.open() as log:
        fd = os.open("/dev/kmsg", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"powercut test: written by user space")
        finally:
            os.close(fd)
        assert not [line for line in log.read() if "powercut test" in line]
        log.skip()
        assert log.read() == []
        assert log.lost == 0
