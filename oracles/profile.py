"""Guarantee profiles: which sync call covers what, per file system. Rows of facts with sources."""

from __future__ import annotations

from dataclasses import dataclass

from oracles.btrfs import BTRFS_SOURCES
from oracles.xfs import XFS_SOURCES


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one file system promises. `sources` maps a promise to where it is written down.

    `stepwise_truncate`: an interrupted truncate may leave any block size in between.
    `atomic_xattr_replace`: a crash never shows the attribute absent while its value is replaced.
    `atomic_moves`: a move to another directory is seen whole or not at all, whatever was synced.
    `directory_nlink`: `one` (btrfs keeps 1 for directories) or `subdirs` (2 + subdirectories).
    """

    name: str
    sources: dict[str, str]
    stepwise_truncate: bool
    atomic_xattr_replace: bool
    atomic_moves: bool
    directory_nlink: str

    def source(self, promise: str) -> str:
        return self.sources[promise]


PROFILES = {
    "btrfs": Profile(
        name="btrfs",
        sources=BTRFS_SOURCES,
        stepwise_truncate=True,
        atomic_xattr_replace=True,
        # fsync of the new parent alone logs its entries; the old name goes when the inode or the old
        # parent is logged (fs/btrfs/tree-log.c). fstests generic/321 and generic/343 sync the file.
        atomic_moves=False,
        directory_nlink="one",
    ),
    "xfs": Profile(
        name="xfs",
        sources=XFS_SOURCES,
        stepwise_truncate=False,
        # A rolling transaction is not atomic (xfs-delayed-logging-design.rst): moving attributes out
        # of the inode removes the old value first (xfs_attr_sf_addname in fs/xfs/libxfs/xfs_attr.c).
        atomic_xattr_replace=False,
        atomic_moves=True,
        directory_nlink="subdirs",
    ),
}
"""Profiles by file system name."""
