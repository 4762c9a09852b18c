"""Private loop devices: attach, detach, the queue check, and honest complaints."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fuzzer.errors import InfrastructureError, LeakError
from fuzzer.kernel import loop, procfs
from fuzzer.kernel.loop import private_minor
from fuzzer.kernel.process import run, wait_until
from fuzzer.kernel.workarea import RunArea

pytestmark = pytest.mark.kernel


def _write(device: str, data: bytes, offset: int) -> None:
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("direct_io", [False, True])
def test_writes_reach_the_image(area: RunArea, image: Path, direct_io: bool) -> None:
    with private_minor(area) as minor, minor.attached(image, direct_io=direct_io) as device:
        assert device == minor.device
        assert procfs.loop_backing_files()[minor.number] == str(image)
        _write(device, b"x" * 4096, 1 << 20)
    assert image.read_bytes()[1 << 20 : (1 << 20) + 4097] == b"x" * 4096 + b"\0"


def test_block_size_reaches_the_queue(area: RunArea, image: Path) -> None:
    with private_minor(area) as minor, minor.attached(image, block_size=4096):
        assert (minor.sysfs / "queue/logical_block_size").read_text() == "4096\n"


def test_two_minors_differ_and_vanish(area: RunArea) -> None:
    with private_minor(area) as one, private_minor(area) as two:
        assert one.number != two.number
        assert min(one.number, two.number) >= 100
        assert one.sysfs.exists()
        assert two.sysfs.exists()
    assert not one.sysfs.exists()
    assert not two.sysfs.exists()


def test_attached_again_and_again_at_once(area: RunArea, image: Path) -> None:
    rounds = 300
    with private_minor(area) as minor:
        start = time.perf_counter()
        for _ in range(rounds):
            with minor.attached(image):
                pass
            assert minor.number not in procfs.loop_backing_files()
        assert (time.perf_counter() - start) / rounds < 0.005


def test_leftover_queue_setting_is_refused(area: RunArea, image: Path) -> None:
    with private_minor(area) as minor:
        with minor.attached(image):
            (minor.sysfs / "queue/max_sectors_kb").write_text("4")
        with pytest.raises(InfrastructureError, match="would not show every flush"), minor.attached(image):
            pytest.fail("attached in spite of the setting")
        assert minor.number not in procfs.loop_backing_files()


def test_queue_without_flushes_is_refused(area: RunArea, image: Path) -> None:
    """Whether "write through" outlives a detach depends on the kernel (6.18 yes, 6.1 no)."""
    with private_minor(area) as minor, minor.attached(image):
        (minor.sysfs / "queue/write_cache").write_text("write through")
        with pytest.raises(InfrastructureError, match="write through"):
            minor._check_queue()


def test_holder_of_a_device_is_named(area: RunArea, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RELEASE_S", 0.05)
    with private_minor(area) as minor:
        with pytest.raises(LeakError, match="still attached") as caught, minor.attached(image) as device:
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        assert f"pid {os.getpid()} " in caught.value.hint
        os.close(fd)
        assert wait_until(lambda: minor.number not in procfs.loop_backing_files(), 5)


def test_missing_image_is_an_os_error_and_leaves_nothing(area: RunArea) -> None:
    with private_minor(area) as minor:
        with pytest.raises(FileNotFoundError), minor.attached(area.path / "none"):
            pytest.fail("attached nothing")
        assert minor.number not in procfs.loop_backing_files()


def test_discards_punch_holes_in_a_tmpfs_image(area: RunArea, image: Path) -> None:
    with private_minor(area) as minor, minor.attached(image) as device:
        _write(device, b"x" * (1 << 20), 0)
        used = image.stat().st_blocks
        run(["blkdiscard", "--offset", "0", "--length", "1MiB", device], timeout_s=10)
        assert image.stat().st_blocks <= used - 2048
