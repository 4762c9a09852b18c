"""Guarantee profiles: which sync call covers what, per file system and options. Facts with sources."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from oracles.btrfs import BTRFS_SOURCES
from oracles.xfs import XFS_SOURCES

EVERYTHING = frozenset({"sync", "syncfs", "freeze", "remount_ro"})
"""Calls that cover the whole file system. A freeze leaves a stable image on disk (fsfreeze(8)); so does
making it read-only (fstests generic/599)."""


class Order(StrEnum):
    """How metadata changes of different inodes are ordered after a crash."""

    NONE = "none"
    COMMIT = "commit"
    """As in the last commit: all or nothing, until a call that logs single inodes comes in between."""
    GLOBAL = "global"
    """What shows brings along all that was committed before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is promised, and facts about the file system that judging needs.

    Facts: `stepwise_truncate`: an interrupted truncate may leave any block size in between.
    `atomic_xattr_replace`: a crash never shows the attribute absent while its value is replaced.
    `torn_blocks`: data is written in place, so a block may mix sectors of two moments.
    `data_before_size`: the size on disk ends where I/O that is done ended.
    `directory_nlink`: `one` (btrfs keeps 1 for directories) or `subdirs` (2 + subdirectories).

    Promises: `atomic_moves`: a move to another directory is seen whole or not at all, whatever was
    synced. `order`: see `Order`. `fsync_names`: fsync of a file persists its names and the directories
    above. `synchronous_names`: changes of names are durable when they return. `lazy_times`: times come
    with fsync of the file and with sync, not with later changes of others. `silent` are patterns of
    `rule/kind` that are not promised. `sources` maps a promise to where it is written down.
    """

    fs: str
    name: str
    sources: dict[str, str]
    stepwise_truncate: bool
    atomic_xattr_replace: bool
    atomic_moves: bool
    torn_blocks: bool
    data_before_size: bool
    directory_nlink: str
    order: Order
    fsync_names: bool = True
    synchronous_names: bool = False
    lazy_times: bool = False
    silent: tuple[str, ...] = ()

    def source(self, promise: str) -> str:
        return self.sources[promise]

    def promises(self, rule: str, kind: str) -> bool:
        """False if this contract leaves that kind of violation open."""
        return not any(fnmatchcase(f"{rule}/{kind}", pattern) for pattern in self.silent)


PROFILES = {
    "btrfs": Profile(
        fs="btrfs",
        name="btrfs",
        sources=BTRFS_SOURCES,
        stepwise_truncate=True,
        atomic_xattr_replace=True,
        # fsync of the new parent alone logs its entries; the old name goes when the inode or the old
        # parent is logged (fs/btrfs/tree-log.c). fstests generic/321 and generic/343 sync the file.
        atomic_moves=False,
        torn_blocks=False,
        # Extents of the gap before a write, or of any part of it, may come first (no-holes).
        data_before_size=False,
        directory_nlink="one",
        order=Order.COMMIT,
    ),
    "xfs": Profile(
        fs="xfs",
        name="xfs",
        sources=XFS_SOURCES,
        stepwise_truncate=False,
        # A rolling transaction is not atomic (xfs-delayed-logging-design.rst): moving attributes out
        # of the inode removes the old value first (xfs_attr_sf_addname in fs/xfs/libxfs/xfs_attr.c).
        atomic_xattr_replace=False,
        atomic_moves=True,
        torn_blocks=True,
        data_before_size=True,
        directory_nlink="subdirs",
        order=Order.GLOBAL,
    ),
}
"""What each file system promises with its default options."""


def own_profile(fs: str, mount: str = "") -> Profile:
    """What file system `fs` promises when mounted with the options `mount`."""
    profile, options = PROFILES[fs], set(mount.split(","))
    if "nodatacow" in options:
        # btrfs(5): "potential partial writes, in case the write is interrupted", and no checksums to notice
        profile = replace(profile, torn_blocks=True)
    if "lazytime" in options:
        # mount(8): times are updated on disk for fsync, syncfs and sync, or with another change of the inode.
        profile = replace(profile, lazy_times=True)
    if fs == "xfs" and "wsync" in options:
        # xfs(5): namespace operations are executed synchronously.
        return replace(profile, synchronous_names=True)
    return profile
