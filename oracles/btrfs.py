"""What btrfs promises after a crash, and where it says so."""

from __future__ import annotations

_FSYNC = "fsync(2): all modified data and metadata of the file; "

BTRFS_SOURCES = {
    "sync": "sync(2): as fsync of every file; fsfreeze(8): a stable image on disk",
    "data": _FSYNC + "fstests generic/065, generic/311 and the log tree (fs/btrfs/tree-log.c)",
    "size": _FSYNC + "fstests generic/392, generic/468",
    "mode": _FSYNC + "fstests generic/489",
    "owner": _FSYNC + "fstests generic/489",
    "xattr": _FSYNC + "fstests generic/066, generic/489, generic/745",
    "name": "fstests generic/321, 322, 520: fsync of a file persists its names and new ancestors",
    "directory": "fstests generic/065, generic/348, generic/557: fsync of a directory persists its entries",
    "unlinked": "fstests generic/764: a file that had no name left and was fsynced is gone",
    "new-directory": "fstests generic/785: fsync of a directory persists what is made in its new ones",
    "partner": "fstests generic/342, 376, 502, 526, 527: inodes that changed names with the synced one",
    "dsync": "open(2) O_DSYNC, pwritev2(2) RWF_DSYNC: the write returns when its data is on stable storage",
    "msync": "msync(2) MS_SYNC: the range is written and waited for",
    "not-lost": "fstests generic/335: a renamed inode is at the old or the new place, never lost",
    "order": "btrfs(5): a crash shows the last committed transaction; each change is inside one",
    "times": _FSYNC + "fstests btrfs/236, generic/059",
    "prealloc": "fstests generic/468, generic/483, generic/677: reserved blocks survive fsync and fdatasync",
    "mount": "btrfs(5): after a crash the last committed transaction plus the log tree is what mounts",
}
"""Promise -> source."""
