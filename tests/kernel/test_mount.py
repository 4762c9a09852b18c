"""mkfs, mount, unmount, fsck on real devices."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fuzzer.errors import InputError, LeakError
from fuzzer.kernel import fsck, procfs
from fuzzer.kernel.loop import PrivateMinor, private_minor
from fuzzer.kernel.mkfs import make_fs
from fuzzer.kernel.mount import mounted, split_options, unmount
from fuzzer.kernel.process import CompletedRun, run
from fuzzer.kernel.workarea import RunArea

pytestmark = pytest.mark.kernel


@pytest.fixture
def minor(area: RunArea) -> Iterator[PrivateMinor]:
    with private_minor(area) as made:
        yield made


@pytest.fixture
def directory(area: RunArea) -> Path:
    return area.mkdir("mnt")


def test_files_survive_a_remount(minor: PrivateMinor, image: Path, directory: Path, fs: str) -> None:
    with minor.attached(image) as device:
        make_fs(device, fs, "")
        with mounted(device, directory, fs, "noatime"):
            (directory / "file").write_text("hello")
        assert not list(directory.iterdir())
        with mounted(device, directory, fs):
            assert (directory / "file").read_text() == "hello"
        assert fsck.check(device, fs).exit_status == 0


def test_flags_and_text_both_arrive(minor: PrivateMinor, image: Path, directory: Path) -> None:
    with minor.attached(image) as device:
        make_fs(device, "btrfs", "")
        with mounted(device, directory, "btrfs", "ro,noatime,commit=7"):
            (found,) = [one for one in procfs.mounts() if one.path == directory]
            assert "commit=7" in found.super_options
            with pytest.raises(OSError, match="Read-only"):
                (directory / "file").touch()


def test_a_refused_mount_is_an_os_error(minor: PrivateMinor, image: Path, directory: Path, fs: str) -> None:
    with minor.attached(image) as device:
        with pytest.raises(OSError, match="mount") as caught, mounted(device, directory, fs):
            pytest.fail("mounted zeroes")
        assert caught.value.errno == errno.EINVAL
    assert not [one for one in procfs.mounts() if one.path == directory]


def test_holder_of_a_mount_is_named(minor: PrivateMinor, image: Path, directory: Path, fs: str) -> None:
    with minor.attached(image) as device:
        make_fs(device, fs, "")
        with mounted(device, directory, fs):
            with (directory / "held").open("w"), pytest.raises(LeakError) as caught:
                unmount(directory, timeout_s=0.05)
            assert f"pid {os.getpid()} " in caught.value.hint
            assert "held" in caught.value.hint


def test_an_older_image_of_one_btrfs_mounts_elsewhere(area: RunArea, image: Path, directory: Path) -> None:
    """What forgetting the device is for: crash states are older images with the same fsid.

    Newer kernels forget a single device by themselves; this keeps it true on older ones.
    """
    older = area.path / "older"
    with private_minor(area) as one, private_minor(area) as two:
        with one.attached(image) as device:
            make_fs(device, "btrfs", "")
        run(["cp", "--sparse=always", str(image), str(older)], timeout_s=30)
        with one.attached(image) as device:
            for number in range(3):
                with mounted(device, directory, "btrfs"):
                    (directory / str(number)).touch()
            with two.attached(older) as elsewhere, mounted(elsewhere, directory, "btrfs"):
                assert not list(directory.iterdir())


def test_mkfs_says_what_it_refuses(minor: PrivateMinor, image: Path, fs: str) -> None:
    with minor.attached(image) as device:
        with pytest.raises(InputError, match=rf"mkfs\.{fs}.*nonsense"):
            make_fs(device, fs, "-O nonsense" if fs == "btrfs" else "-m nonsense=1")
        with pytest.raises(InputError, match="names a path"):
            make_fs(device, fs, "/dev/sda")
        with pytest.raises(InputError, match="quot"):
            make_fs(device, fs, '"open')


def test_mount_options_cannot_name_other_devices() -> None:
    with pytest.raises(InputError, match="logdev"):
        split_options("noatime,logdev=/dev/sda")


def test_fsck_sees_damage(minor: PrivateMinor, image: Path, fs: str) -> None:
    with minor.attached(image) as device:
        make_fs(device, fs, "")
    _damage(image)
    with minor.attached(image) as device:
        result = fsck.check(device, fs)
    assert result.ran
    assert result.exit_status != 0
    assert result.output


def _damage(image: Path) -> None:
    """Overwrite the first 4 KiB of every 16 KiB with anything in them, but no superblock."""
    superblocks = (0, 64 << 10, 64 << 20)
    with image.open("r+b") as file:
        for offset in range(0, image.stat().st_size, 16 << 10):
            file.seek(offset)
            start = 512 if offset == 0 else 0
            if any(file.read(4096)[start:]) and offset not in superblocks[1:]:
                file.seek(offset + start)
                file.write(b"\xff" * (4096 - start))


def test_mkfs_waits_for_the_dead_device_of_somebody_else(
    minor: PrivateMinor, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["cannot check mount status of /dev/loop9: Transport endpoint is not connected"]

    def failing_once(argv: Sequence[str], **options: Any) -> CompletedRun:
        return CompletedRun(tuple(argv), 1, "", said.pop()) if said else run(argv, **options)

    monkeypatch.setattr("fuzzer.kernel.mkfs.run", failing_once)
    with minor.attached(image) as device:
        make_fs(device, "btrfs", "-m single")
    assert not said
