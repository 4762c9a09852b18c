"""What xfs promises after a crash, and where it says so."""

from __future__ import annotations

_FSYNC = "fsync(2): all modified data and metadata of the file; "

XFS_SOURCES = {
    "sync": "sync(2): as fsync of every file; fsfreeze(8): a stable image on disk",
    "data": _FSYNC + "xfs_file_fsync() writes the data, then forces the log (fs/xfs/xfs_file.c)",
    "size": _FSYNC + "fstests generic/392, generic/468; size changes only after the data is written",
    "extension": "Dave Chinner, linux-xfs 30 November 2022 (20221129213436.GG3600936@dread.disaster.area):"
    " if a write extended the file, the data there is persisted before the size",
    "mode": _FSYNC + "fstests generic/489",
    "owner": _FSYNC + "fstests generic/489",
    "xattr": _FSYNC + "fstests generic/066, generic/489, generic/745",
    "name": "fstests generic/321, generic/322, generic/520: the log is forced up to the inode's last change",
    "directory": "fstests generic/065, 348, 557: the log is forced up to the directory's last change",
    "unlinked": "fstests generic/764: a file that had no name left and was fsynced is gone",
    "dsync": "open(2) O_DSYNC, pwritev2(2) RWF_DSYNC: the write returns when its data is on stable storage",
    "msync": "msync(2) MS_SYNC: the range is written and waited for",
    "not-lost": "rename(2) is atomic and a journalled transaction (xfs-delayed-logging-design.rst)",
    "order": "xfs-delayed-logging-design.rst: after recovery, what was committed before a change that shows"
    " shows too",
    "times": _FSYNC + "fstests generic/059, generic/392",
    "prealloc": "fstests generic/468, generic/483, generic/677: reserved blocks survive fsync and fdatasync",
    "mount": "xfs-delayed-logging-design.rst: every state of the log recovers to a consistent file system",
}
"""Promise -> source."""
