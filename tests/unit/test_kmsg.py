"""Records of /dev/kmsg and the choice of a device's lines, without a kernel."""

from __future__ import annotations

import pytest

from fuzzer.kernel.kmsg import lines_of_device, parse_record
from oracles.kernel_log import is_alarm, title
from tests.unit import kernel_splats
from tests.unit.kernel_splats import TITLES, lines_of

_WARNING = [
    "------------[ cut here ]------------",
    "BTRFS: Transaction aborted (error -28)",
    "WARNING: CPU: 1 PID: 77 at fs/btrfs/inode.c:3222 btrfs_finish_one_ordered+0x1/0x2",
    "Call Trace:",
    " <TASK>",
    " do_something+0x1/0x2",
    " </TASK>",
    "---[ end trace 0000000000000000 ]---",
]
_HUNG = [
    "INFO: task fsync:12 blocked for more than 120 seconds.",
    "      Not tainted 6.18.0",
    " <TASK>",
    " </TASK>",
]


def test_record_of_the_kernel() -> None:
    record = "6,1234,5678,-;XFS (loop101): Mounting V5 Filesystem\\x0asecond line\n SUBSYSTEM=block\n"
    assert parse_record(record) == (1234, ["XFS (loop101): Mounting V5 Filesystem", "second line"])


def test_record_of_user_space_has_no_lines() -> None:
    assert parse_record("12,99,5678,-;systemd[1]: hello\n") == (99, [])


def test_message_may_hold_commas_and_semicolons() -> None:
    assert parse_record("3,7,1,-;a,b;c\n") == (7, ["a,b;c"])


def test_only_the_named_device() -> None:
    lines = [
        "XFS (loop101): one",
        "XFS (loop1010): two",
        "I/O error, dev loop101, sector 8",
        "EXT4-fs (vda): x",
    ]
    assert lines_of_device(lines, ["loop101"]) == [lines[0], lines[2]]
    assert lines_of_device(lines, ["loop10"]) == []
    assert lines_of_device(["BTRFS error (device dm-3): x"], ["loop101", "dm-3"]) == [
        "BTRFS error (device dm-3): x"
    ]


def test_trouble_without_a_device_is_kept_whole() -> None:
    quiet = "usb 1-1: new device"
    assert lines_of_device([quiet, *_WARNING, quiet], ["loop101"]) == _WARNING
    assert lines_of_device([quiet, *_HUNG, quiet], ["loop101"]) == _HUNG


def test_trouble_of_another_device_is_dropped() -> None:
    others = [*_WARNING[:3], "BTRFS error (device loop102): x", *_WARNING[3:]]
    assert lines_of_device(others, ["loop101"]) == []
    assert lines_of_device(others, ["loop102"]) == others


def test_lines_of_others_inside_our_trouble_are_left_out() -> None:
    mixed = [*_WARNING[:3], "XFS (loop102): hello", "XFS (loop101): hello", *_WARNING[3:]]
    assert lines_of_device(mixed, ["loop101"]) == [line for line in mixed if "loop102" not in line]


def test_unfinished_trouble_is_kept() -> None:
    assert lines_of_device(_WARNING[:4], ["loop101"]) == _WARNING[:4]


def test_trouble_of_another_file_system_is_not_ours() -> None:
    oops = [
        "BUG: kernel NULL pointer dereference, address: 000000000000002c",
        "RIP: 0010:btrfs_root_node+0x13/0x80",
        "---[ end trace 0000000000000000 ]---",
    ]
    assert lines_of_device(oops, ["loop101"], "xfs") == []
    assert lines_of_device(oops, ["loop101"], "btrfs") == oops
    assert lines_of_device(oops[:1] + oops[2:], ["loop101"], "xfs") == oops[:1] + oops[2:]


def alarm_title(lines: list[str]) -> str:
    return title(lines[next(at for at, line in enumerate(lines) if is_alarm(line)) :])


@pytest.mark.parametrize("splat", TITLES, ids=list(TITLES.values()))
def test_titles(splat: str) -> None:
    assert alarm_title(lines_of(splat)) == TITLES[splat]


@pytest.mark.parametrize("splat", TITLES, ids=list(TITLES.values()))
def test_a_title_is_the_same_elsewhere(splat: str) -> None:
    other = splat.replace("4711", "12").replace("0x1", "0x9").replace("0000000000000", "ffff888123456")
    stamped = [f"[ 1234.567890] {line}" for line in lines_of(other, "pc-fedc9876", "loop7")]
    assert alarm_title(stamped) == TITLES[splat]


@pytest.mark.parametrize("splat", TITLES, ids=list(TITLES.values()))
def test_a_splat_is_kept_whole_and_by_its_own_run_only(splat: str) -> None:
    noise = ["EXT4-fs (vda): mounted", "usb 1-1: new device"]
    lines = lines_of(splat)
    fs = "xfs" if splat in (kernel_splats.XFS_CORRUPTION, kernel_splats.SOFT_LOCKUP) else "btrfs"
    kept = lines_of_device([*noise, *lines, *noise], ["loop101"], fs, "pc-0123abcd")
    # The ruler above a report says nothing by itself.
    assert kept == lines[set(lines[0]) == {"="} :]
    others = lines_of_device([*noise, *lines, *noise], ["loop102"], fs, "pc-00000000")
    # A kernel thread that names no device may be anybody's.
    assert others == (lines if splat == kernel_splats.NULL_POINTER else [])


def test_lines_of_two_devices_in_each_others_splat() -> None:
    mine, other = lines_of(kernel_splats.BTRFS_WARN), "BTRFS info (device loop102): last unmount"
    mixed = [*mine[:4], other, *mine[4:]]
    assert lines_of_device(mixed, ["loop101"], "btrfs", "pc-0123abcd") == mine
    assert lines_of_device(mixed, ["loop102"], "btrfs", "pc-00000000") == [other]
