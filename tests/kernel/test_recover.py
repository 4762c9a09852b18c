"""Recovery looked at in full: silent on a healthy file system, and each check sees its damage."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzer.campaign import recover as recover_module
from fuzzer.campaign.execute import Execution, execute
from fuzzer.campaign.lane import Lane, open_lane
from fuzzer.campaign.recover import FULL, SHALLOW, Depth, Look, recover
from fuzzer.kernel import fsck, usable
from fuzzer.kernel.libc import MS_RDONLY, mount
from fuzzer.state.recovery import Recovery
from fuzzer.workload.text import parse
from fuzzer.writelog.crash import CrashState, Kept, StateBuilder
from fuzzer.writelog.image import BLOCK_BYTES, Image
from oracles import PROFILES, judge

pytestmark = pytest.mark.kernel

_WORKLOAD = """powercut 1
setup
  mkdir d
  create a
  write a 0 256K
  create d/b
  write d/b 0 8K
  sync
actor one
  write a 0 16K
  link d/b c
  fsync a
  unlink d/b
  fsync c
"""

_MS_REMOUNT = 32
_XFS_IOC_GOINGDOWN = 0x8004587D
_XFS_FSOP_GOING_FLAGS_NOLOGFLUSH = 2
_SUPERBLOCK_AT, _FSID_AT = 65536, 32


@pytest.fixture
def lane() -> Iterator[Lane]:
    with open_lane("fuse") as opened:
        yield opened


def _execute(lane: Lane, fs: str) -> tuple[Execution, Look, Image]:
    """A run, how to look at it, and the image of its last state (everything written)."""
    execution = execute(lane, parse(_WORKLOAD).with_fs(fs))
    look = Look(fs=fs, mount_options="", known=execution.history.known_ids(), fresh=execution.base)
    builder = StateBuilder(execution.base, execution.log, execution.log.start)
    return execution, look, builder.at(CrashState(len(execution.log.entries), Kept.EVERYTHING))


def _broken(fs: str, recovery: Recovery) -> list[str]:
    return [f"{v.rule} {v.kind}" for v in judge(PROFILES[fs], recovery).violations]


def _state_in_the_middle(execution: Execution) -> Image:
    """Cut at the last flush before the unmount: there is a log to replay."""
    builder = StateBuilder(execution.base, execution.log, execution.log.start)
    last = max(event.end_ns for event in execution.history.events)
    flushes = [e.index for e in execution.log.entries if e.is_flush and e.arrived_ns < last]
    return builder.at(CrashState(flushes[-1] + 1, Kept.EVERYTHING))


def test_a_full_look_is_silent_on_a_healthy_file_system(lane: Lane, fs: str) -> None:
    execution, look, end = _execute(lane, fs)
    for image in (execution.base, _state_in_the_middle(execution), end):
        recovery = recover(lane, image, look, FULL)
        assert _broken(fs, recovery) == []
        assert recovery.remount is not None
        assert len(recovery.remount.left) == 6
        assert recovery.emptied is not None
        assert recovery.read_only is not None
        assert recovery.fsck.ran
        if fs == "btrfs":
            assert recovery.lowmem.ran
            assert recovery.scrub is not None
            assert recovery.scrub.bytes_read > 0
    assert judge(PROFILES[fs], execution.live).violations == ()


def test_a_full_look_is_silent_with_quotas(lane: Lane) -> None:
    """btrfs check compares the numbers of each qgroup, and what sysfs calls reserved is zero at rest."""
    workload = replace(parse(_WORKLOAD).with_fs("btrfs"), mkfs="-R quota")
    execution = execute(lane, workload)
    look = Look(fs="btrfs", mount_options="", known=execution.history.known_ids(), fresh=execution.base)
    for image in (execution.base, _state_in_the_middle(execution)):
        recovery = recover(lane, image, look, FULL)
        assert _broken("btrfs", recovery) == []
        assert "checking quota groups" in recovery.fsck.output


def test_what_changes_over_a_clean_unmount(lane: Lane, fs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, look, image = _execute(lane, fs)
    seen: list[int] = []

    def listing(mountpoint: Path) -> object:
        seen.append(1)
        if len(seen) == 2:
            (mountpoint / "powercut-probe" / "symlink").unlink()
        return real(mountpoint)

    real = usable.listing
    monkeypatch.setattr(usable, "listing", listing)
    recovery = recover(lane, image, replace(look, fresh=None), Depth(probe=True, remount=True))
    assert _broken(fs, recovery) == ["remount gone"]


def test_space_that_does_not_come_back(lane: Lane, fs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the removal missed stands for a leak: it costs blocks and nobody says so."""
    _, look, image = _execute(lane, fs)
    healthy = recover(lane, image, look, Depth(probe=True, remount=True))
    assert _broken(fs, healthy) == []
    assert list(lane.baselines) == [(look.fresh.digest if look.fresh else 0, "")]

    def empty(mountpoint: Path) -> tuple[str, ...]:
        errors = real(mountpoint)
        (mountpoint / "leak").write_bytes(os.urandom(65536))
        usable.sync(mountpoint)
        return errors

    real = usable.empty
    monkeypatch.setattr(usable, "empty", empty)
    expected = {"btrfs": "space data-kept", "xfs": "space free"}
    assert _broken(fs, recover(lane, image, look, Depth(probe=True, remount=True))) == [expected[fs]]


def test_reservations_of_an_idle_mount(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dirty pages hold some until they are written, which btrfs may begin at any time: do not wait."""
    _, look, image = _execute(lane, "btrfs")

    def empty(mountpoint: Path) -> tuple[str, ...]:
        errors = real(mountpoint)
        (mountpoint / "dirty").write_bytes(bytes(1 << 20))
        return errors

    real = usable.empty
    monkeypatch.setattr(usable, "empty", empty)
    monkeypatch.setattr("fuzzer.kernel.control._REST_S", 0.0)
    (kind,) = _broken("btrfs", recover(lane, image, look, Depth(probe=True, remount=True)))
    assert kind.startswith("space reserved-")


def test_a_read_only_mount_that_shows_another_tree(lane: Lane, fs: str) -> None:
    """The canary that cuts a file short does so in writable mounts only."""
    _, look, image = _execute(lane, fs)
    recovery = recover(lane, image, replace(look, truncate_seed=1), Depth(read_only=True))
    assert _broken(fs, recovery) == ["read-only inode"]


def _remount_read_only(mountpoint: Path) -> None:
    mount("none", str(mountpoint), "", _MS_REMOUNT | MS_RDONLY)


def _shut_down(mountpoint: Path) -> None:
    fd = os.open(mountpoint, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _XFS_IOC_GOINGDOWN, struct.pack("=I", _XFS_FSOP_GOING_FLAGS_NOLOGFLUSH))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("on", "harm", "expected"),
    [
        ("btrfs", _remount_read_only, "writable read-only"),
        ("xfs", _remount_read_only, "writable read-only"),
        ("xfs", _shut_down, "writable EIO"),
    ],
)
def test_a_mount_that_stops_taking_writes(
    lane: Lane, on: str, harm: Callable[[Path], None], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, look, image = _execute(lane, on)

    def walk(mountpoint: Path, *arguments: object) -> object:
        tree = real(mountpoint, *arguments)
        harm(mountpoint)
        return tree

    real: Callable[..., object] = recover_module.walk
    monkeypatch.setattr(recover_module, "walk", walk)
    recovery = recover(lane, image, replace(look, check=False), SHALLOW)
    assert _broken(on, recovery)[0] == expected


def _damage_second_copies(image: Image) -> Image:
    """Flip a byte in the later copy of every metadata block btrfs keeps twice (DUP)."""
    damaged, fsid = image.fork(), image.read(_SUPERBLOCK_AT + _FSID_AT, 16)
    seen: set[bytes] = set()
    for offset, blocks in image.iter_extents():
        for number, block in enumerate(blocks):
            if offset + number * BLOCK_BYTES == _SUPERBLOCK_AT or block[_FSID_AT : _FSID_AT + 16] != fsid:
                continue
            if block in seen:
                damaged.write(offset + number * BLOCK_BYTES + 200, bytes([block[200] ^ 1]))
            seen.add(block)
    return damaged


def test_scrub_sees_what_reading_does_not(lane: Lane) -> None:
    """Second copies are damaged; every file can still be read, and the checker is content."""
    _, look, image = _execute(lane, "btrfs")
    damaged = _damage_second_copies(image)
    assert damaged.digest != image.digest
    recovery = recover(lane, damaged, look, Depth(scrub=True))
    first, *others = _broken("btrfs", recovery)
    assert first in ("scrub csum_errors", "scrub verify_errors")
    assert {kind.split(" ")[0] for kind in others} <= {"kernel-log"}
    assert recovery.fsck.exit_status == 0


def test_the_second_mode_of_the_checker_sees_damage(lane: Lane) -> None:
    _, look, image = _execute(lane, "btrfs")
    recover(lane, image, look)
    with lane.minor.attached(lane.scratch) as device:
        assert fsck.check_lowmem(device).exit_status == 0
        with Path(device).open("r+b") as file:
            file.seek(_SUPERBLOCK_AT + _FSID_AT + 200)
            file.write(b"damage")
        assert fsck.check_lowmem(device).exit_status != 0


def test_counters_that_drifted_are_seen_by_the_checker(lane: Lane) -> None:
    """xfs trusts the summary counters of a clean unmount; `xfs_repair -n` counts for itself."""
    _, look, image = _execute(lane, "xfs")
    recover(lane, image, look)
    with lane.minor.attached(lane.scratch) as device:
        assert fsck.check(device, "xfs").exit_status == 0
        subprocess.run(
            ["xfs_db", "-x", "-c", "sb 0", "-c", "write -d fdblocks 12345", device],
            check=True,
            capture_output=True,
        )
        result = fsck.check(device, "xfs")
    assert result.exit_status == 1
    assert "sb_fdblocks 12345, counted" in result.output
