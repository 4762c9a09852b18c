"""The rules that need no history: structure, mount, checker, kernel log, use after recovery."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from oracle_cases import Script

from fuzzer.state.inode import make_inode
from fuzzer.state.recovery import FsckResult, Recovery, Remount, Scrub, Space
from fuzzer.state.tree import Node, Tree
from fuzzer.writelog.crash import Cut
from oracles import PROFILES, build_versions, judge

ROOT, DIR, FILE = 2, 3, 4


def node(inode: int, kind: str, nlink: int) -> Node:
    return Node(inode=inode, kind=kind, mode=0o755, nlink=nlink, size=0)


def tree(fs: str) -> Tree:
    """A root with a directory and a file, which has a second name in the directory."""
    nlink = {"btrfs": (1, 1), "xfs": (3, 2)}[fs]
    nodes = {
        ROOT: node(ROOT, "dir", nlink[0]),
        DIR: node(DIR, "dir", nlink[1]),
        FILE: node(FILE, "file", 2),
    }
    return Tree(ROOT, nodes, {(ROOT, "d"): DIR, (ROOT, "f"): FILE, (DIR, "g"): FILE})


def found(fs: str, recovery: Recovery) -> list[str]:
    return [f"{v.rule} {v.kind}" for v in judge(PROFILES[fs], recovery).violations]


def with_node(shown: Tree, inode: int, **changes: object) -> Tree:
    return replace(shown, nodes={**shown.nodes, inode: replace(shown.nodes[inode], **changes)})


def test_clean_tree(fs: str) -> None:
    assert not found(fs, Recovery(tree=tree(fs), probed=True, fsck=FsckResult(True)))


@pytest.mark.parametrize("nlink", [1, 3])
def test_nlink_is_number_of_names(fs: str, nlink: int) -> None:
    assert found(fs, Recovery(tree=with_node(tree(fs), FILE, nlink=nlink))) == ["structure nlink"]


def test_directory_nlink(fs: str) -> None:
    broken = with_node(tree(fs), ROOT, nlink=2)
    assert found(fs, Recovery(tree=broken)) == ["structure directory-nlink"]


def test_directory_has_one_parent(fs: str) -> None:
    shown = tree(fs)
    shown = replace(shown, entries={**shown.entries, (DIR, "again"): DIR})
    assert "structure two-parents" in found(fs, Recovery(tree=shown))


def test_mount_that_fails(fs: str) -> None:
    assert found(fs, Recovery(mount_errno=errno.EUCLEAN)) == ["mountable mount-EUCLEAN"]


def test_read_that_fails(fs: str) -> None:
    assert found(fs, Recovery(tree=with_node(tree(fs), FILE, read_errno=errno.EIO))) == ["readable read-EIO"]


def test_lookup_that_fails(fs: str) -> None:
    shown = replace(tree(fs), errors=("d/x: lookup: ESTALE",))
    assert found(fs, Recovery(tree=shown)) == ["readable look-ESTALE"]


def test_probe_that_fails(fs: str) -> None:
    recovery = Recovery(tree=tree(fs), probed=True, usable_errors=("rmdir ENOTEMPTY: d",))
    assert found(fs, recovery) == ["usable rmdir ENOTEMPTY"]


@pytest.mark.parametrize("outcome", ["", "!ENOSPC"])
def test_a_file_system_that_was_full_may_still_be(fs: str, outcome: str) -> None:
    history = Script(f"1-2 create a\n3-4 fallocate a 0 4096 {outcome}").history
    errors = ("create ENOSPC: powercut-probe", "rmdir ENOTEMPTY: d")
    shown = Recovery(tree=tree(fs), probed=True, usable_errors=errors)
    judgement = judge(PROFILES[fs], shown, build_versions(history), Cut(5, 5))
    kinds = [v.kind for v in judgement.violations if v.rule == "usable"]
    assert kinds == (["rmdir ENOTEMPTY"] if outcome else ["create ENOSPC", "rmdir ENOTEMPTY"])


@pytest.mark.parametrize(
    "line",
    [
        "BTRFS info (device loop3): start tree-log replay",
        "BTRFS info (device loop3): checking UUID tree",
        "XFS (loop3): Mounting V5 Filesystem 7a0b6b0e",
        "XFS (loop3): Starting recovery (logdev: internal)",
        "XFS (loop3): Ending recovery (logdev: internal)",
        "XFS (loop3): Unmounting Filesystem 7a0b6b0e",
        "Page cache invalidation failure on direct I/O.  Possible data corruption due to collision",
        "BTRFS error (device loop3): open_ctree failed: -117",
        "BTRFS error (device loop3): balance: mixed groups data and metadata options must be the same",
    ],
)
def test_kernel_says_nothing_of_note(fs: str, line: str) -> None:
    assert not found(fs, Recovery(tree=tree(fs), kernel_log=(line,)))


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CPU: 0 PID: 77 at fs/btrfs/tree-log.c:1234 replay_one_name+0x1/0x2",
        "kernel BUG at fs/btrfs/extent_io.c:99!",
        "BUG: kernel NULL pointer dereference, address: 0000000000000010",
        "BTRFS critical (device loop3): corrupt leaf: root=5 block=30408704 slot=3",
        "BTRFS: Transaction aborted (error -17)",
        "BTRFS warning (device loop3): csum failed root 5 ino 257 off 0",
        "XFS (loop3): Metadata corruption detected at xfs_dinode_verify",
        "XFS (loop3): Internal error xfs_trans_cancel at line 955",
        "XFS: Assertion failed: ip->i_nblocks == 0, file: fs/xfs/xfs_inode.c, line: 2300",
        "INFO: task umount:812 blocked for more than 120 seconds.",
    ],
)
def test_kernel_raises_alarm(fs: str, line: str) -> None:
    kinds = found(fs, Recovery(tree=tree(fs), kernel_log=("harmless", line)))
    assert [kind.split(" ")[0] for kind in kinds] == ["kernel-log"]


def test_alarms_of_two_runs_have_one_title(fs: str) -> None:
    def title(device: str, number: int) -> list[str]:
        line = f"BTRFS critical (device {device} state E): corrupt leaf: root=5 block={number} slot=3"
        return found(fs, Recovery(tree=tree(fs), kernel_log=(line,)))

    assert title("loop3", 30408704) == title("loop17", 5)


INCOMPLETE = (
    "Phase 3 - for each AG...\n        - process known inodes and perform inode discovery...\n"
    "attribute entry 0 in attr block 0, inode 131 is INCOMPLETE\n"
    "problem with attribute contents in inode 131\nwould clear attr fork\n"
)


QGROUP = (
    "[7/7] checking quota groups\nCounts for qgroup id: 0/5 are different\n"
    "our:\t\treferenced 16384 referenced compressed 16384\n"
    "disk:\t\treferenced 20480 referenced compressed 20480\n"
    "diff:\t\treferenced -4096 referenced compressed -4096\n"
)
RESCAN = "Rescan hasn't been initialized, a difference in qgroup accounting is expected\n"


@pytest.mark.parametrize(
    ("on", "output", "expected"),
    [
        ("btrfs", QGROUP, "fsck Counts for qgroup id: N/N are different"),
        ("btrfs", RESCAN + QGROUP, ""),
        ("btrfs", RESCAN + QGROUP + "root 5 inode 257 errors 1\n", "fsck"),
        ("btrfs", "[1/7] checking root items\nfound 147456 bytes used, no error found\n", "fsck no message"),
        ("btrfs", "[5/7] checking fs roots\nroot 5 inode 257 errors 200, dir isize wrong\n", "fsck root N"),
        ("btrfs", "[3/7] checking free space cache\ncache appears valid but isn't 22020096\n", ""),
        ("btrfs", "[3/7] checking free space tree\ncache appears valid but isn't 22020096\n", "fsck cache"),
        (
            "btrfs",
            "[3/7] checking free space cache\ncache appears valid but isn't 5\nroot 5 inode 257 errors 1\n",
            "fsck cache",
        ),
        ("xfs", "bad CRC for inode 131\n", "fsck bad CRC for inode N"),
        ("xfs", INCOMPLETE, ""),
        ("xfs", INCOMPLETE + "bad CRC for inode 131\n", "fsck attribute entry"),
        ("xfs", "problem with attribute contents in inode 131\n", "fsck problem"),
    ],
)
def test_checker(on: str, output: str, expected: str) -> None:
    kinds = found(on, Recovery(tree=tree(on), fsck=FsckResult(True, 1, output)))
    assert len(kinds) == bool(expected)
    assert not kinds or kinds[0].startswith(expected)


def test_checker_that_did_not_run_says_nothing(fs: str) -> None:
    assert not found(fs, Recovery(tree=tree(fs), fsck=FsckResult(False, 1, "bad")))


@pytest.mark.parametrize("op", ["growfs", "sync"])
@pytest.mark.parametrize(
    "said",
    [
        "would write modified primary superblock",
        "primary/secondary superblock 4 conflict - AG superblock geometry info conflicts with that",
    ],
)
def test_half_a_growfs_is_told_from_damage(op: str, said: str) -> None:
    history = Script(f"1-2 create a\n3-4 {op}").history
    damaged = FsckResult(True, 1, f"{said}\n")
    shown = Recovery(tree=tree("xfs"), fsck=damaged)
    judgement = judge(PROFILES["xfs"], shown, build_versions(history), Cut(5, 5))
    assert [v.rule for v in judgement.violations if v.rule == "fsck"] == ([] if op == "growfs" else ["fsck"])


def test_second_mode_of_the_checker() -> None:
    lowmem = FsckResult(True, 1, "[4/7] checking fs roots\nERROR: root 5 INODE[257] nlink(1) wrong\n")
    shown = Recovery(tree=tree("btrfs"), fsck=FsckResult(True), lowmem=lowmem)
    assert found("btrfs", shown) == ["fsck lowmem: ERROR: root N INODE[N] nlink(N) wrong"]
    both = replace(shown, fsck=FsckResult(True, 1, "root 5 inode 257 errors 2000, link count wrong\n"))
    assert found("btrfs", both) == ["fsck root N inode N errors N, link count wrong"]
    assert not found("btrfs", replace(shown, lowmem=FsckResult(True, 0, "no error found")))
    nameless = FsckResult(True, 1, "[4/7] checking fs roots\nERROR: errors found in fs roots\n")
    assert not found("btrfs", replace(shown, lowmem=nameless))
    assert found("btrfs", replace(shown, fsck=nameless)) == ["fsck ERROR: errors found in fs roots"]


def test_remount_shows_what_was_left(fs: str) -> None:
    left = (("p/a", "file nlink=1"), ("p/b", "dir nlink=1"))
    shown = Recovery(tree=tree(fs), remount=Remount(left=left, found=left))
    assert not found(fs, shown)
    assert found(fs, replace(shown, remount=Remount(left=left, found=left[:1]))) == ["remount gone"]
    assert found(fs, replace(shown, remount=Remount(left=left[:1], found=left))) == ["remount new"]
    changed = (left[0], ("p/b", "EIO"))
    assert found(fs, replace(shown, remount=Remount(left=left, found=changed))) == ["remount changed"]
    failed = Remount(left=left, errno=errno.EUCLEAN)
    assert found(fs, replace(shown, remount=failed)) == ["remount mount-EUCLEAN"]


def test_forced_read_only(fs: str) -> None:
    assert found(fs, Recovery(tree=tree(fs), lost_writes="read-only")) == ["writable read-only"]
    assert found(fs, Recovery(tree=tree(fs), lost_writes="EIO")) == ["writable EIO"]


def test_read_only_mount_shows_the_same(fs: str) -> None:
    shown = tree(fs)
    same = with_node(with_node(shown, FILE, ctime_ns=7), DIR, mtime_ns=7)
    assert not found(fs, Recovery(tree=shown, read_only=Recovery(tree=same)))
    for other, kind in (
        (with_node(shown, FILE, size=8), "inode"),
        (replace(shown, entries={(ROOT, "d"): DIR, (ROOT, "f"): FILE}), "name-missing"),
        (replace(shown, entries={**shown.entries, (ROOT, "z"): FILE}), "name-extra"),
    ):
        assert found(fs, Recovery(tree=shown, read_only=Recovery(tree=other))) == [f"read-only {kind}"]
    # xfs keeps what it had allocated ahead if it must not write
    other = Recovery(tree=with_node(shown, FILE, allocated_bytes=65536))
    expected = [] if fs == "xfs" else ["read-only inode"]
    assert found(fs, Recovery(tree=shown, read_only=other)) == expected
    refused = Recovery(mount_errno=errno.EROFS)
    assert found(fs, Recovery(tree=shown, read_only=refused)) == ["read-only mount-EROFS"]


def test_scrub() -> None:
    assert not found("btrfs", Recovery(tree=tree("btrfs"), scrub=Scrub(bytes_read=4096)))
    damaged = Scrub(errors=(("csum_errors", 2), ("uncorrectable_errors", 2)), bytes_read=4096)
    assert found("btrfs", Recovery(tree=tree("btrfs"), scrub=damaged)) == ["scrub csum_errors"]
    assert found("btrfs", Recovery(tree=tree("btrfs"), scrub=Scrub(errno=errno.EIO))) == ["scrub scrub-EIO"]


def probed(fs: str, data_bytes: int, free_bytes: int, **more: object) -> Recovery:
    """An emptied file system, and the same refilled."""
    room = Space(size_bytes=1000, free_bytes=free_bytes, available_bytes=free_bytes, data_bytes=data_bytes)
    return Recovery(
        tree=tree(fs),
        probed=True,
        emptied=replace(room, **more),
        remount=Remount(refilled=room),
    )


@pytest.mark.parametrize(
    ("on", "used", "fresh", "expected"),
    [
        ("btrfs", probed("btrfs", 0, 900), probed("btrfs", 0, 800), []),
        ("btrfs", probed("btrfs", 4096, 900), probed("btrfs", 0, 900), ["space data-kept"]),
        ("btrfs", probed("btrfs", -1, 900), probed("btrfs", -1, 900), []),
        ("btrfs", probed("btrfs", 0, 900), probed("btrfs", -1, 900), []),
        ("btrfs", probed("btrfs", -1, 800), probed("btrfs", -1, 900), []),
        ("xfs", probed("xfs", -1, 900), probed("xfs", -1, 900), []),
        ("xfs", probed("xfs", -1, 896), probed("xfs", -1, 900), ["space free"]),
        ("xfs", probed("xfs", -1, 900, available_bytes=901), probed("xfs", -1, 900), ["space statfs"]),
        (
            "btrfs",
            probed("btrfs", 0, 900, reserved=(("metadata bytes_may_use", 16384),)),
            probed("btrfs", 0, 900),
            ["space reserved-metadata-bytes_may_use"],
        ),
    ],
)
def test_space_comes_back(on: str, used: Recovery, fresh: Recovery, expected: list[str]) -> None:
    assert found(on, replace(used, fresh=fresh)) == expected
    assert not found(on, replace(used, fresh=fresh, emptied=None))


def test_a_file_system_of_another_size_has_another_room() -> None:
    used = replace(probed("xfs", -1, 868), fresh=probed("xfs", -1, 900))
    assert found("xfs", used) == ["space free"]
    smaller = Space(size_bytes=968, free_bytes=868, available_bytes=868)
    assert not found("xfs", replace(used, remount=Remount(refilled=smaller)))


def test_a_subvolume_gives_its_space_back_later() -> None:
    shown = tree("btrfs")
    inside = make_inode(256, 257)
    shown = replace(
        shown,
        nodes={**shown.nodes, inside: node(inside, "dir", 1)},
        entries={**shown.entries, (ROOT, "v"): inside},
    )
    used = replace(probed("btrfs", 4096, 900), fresh=probed("btrfs", 0, 900))
    assert found("btrfs", used) == ["space data-kept"]
    assert not found("btrfs", replace(used, tree=shown))
