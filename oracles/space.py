"""Space comes back: what was removed is free again, and nobody keeps reservations of an idle mount."""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.state.inode import inode_generation
from fuzzer.state.recovery import Recovery, Space
from oracles.case import Case, Rule
from oracles.verdict import Violation

_BACK_SOURCE = "fstests generic/015: removing everything gives all of the space back"
_RESERVED_SOURCE = "fs/btrfs/space-info.c: reservations are for operations under way; an idle mount has none"


def check_space(case: Case) -> Iterator[Violation]:
    """Promise: emptied, an old file system has the room of a new one of the same options.

    Not a block less: no data extent is left on btrfs, and the B+trees of an empty xfs are single
    blocks again (xfs_btree_kill_root in fs/xfs/libxfs/xfs_btree.c), as those of a new one are.
    """
    used = case.recovery
    if used.emptied is None or used.usable_errors:
        return
    if _has_subvolumes(case):
        case.tally.skip("a deleted subvolume gives its space back later")
        return
    case.tally.judged += 1
    yield from _check_statfs(used.emptied)
    if used.emptied.reserved:
        found = ", ".join(f"{name} {value}" for name, value in used.emptied.reserved)
        kind = f"reserved-{used.emptied.reserved[0][0].replace(' ', '-')}"
        yield _broken(kind, "an idle mount holds no reservations", found, _RESERVED_SOURCE)
    if used.fresh is not None and used.fresh.emptied is not None:
        yield from _compare(case.profile.fs, used, used.fresh)


def _has_subvolumes(case: Case) -> bool:
    """True if btrfs may be removing a subvolume in the background, as it does with deleted ones
    (btrfs_clean_one_deleted_snapshot in fs/btrfs/transaction.c), those deleted before the crash included."""
    if case.history is not None and case.versions.subvolumes:
        return True
    nodes = case.recovery.tree.nodes if case.recovery.tree is not None else {}
    return case.profile.fs == "btrfs" and any(inode_generation(inode) for inode in nodes)


def _check_statfs(space: Space) -> Iterator[Violation]:
    if not 0 <= space.available_bytes <= space.free_bytes <= space.size_bytes:
        found = f"{space.available_bytes} available, {space.free_bytes} free, of {space.size_bytes} bytes"
        yield _broken("statfs", "statfs counts up", found, "statfs(2): available <= free <= size")


def _compare(fs: str, used: Recovery, fresh: Recovery) -> Iterator[Violation]:
    """The data in use after the removal; on xfs also what the next mount counts after both were refilled.

    On btrfs free space has the leaves of trees in it where groups are mixed, and trees need not be as
    small again as they were.
    """
    assert used.emptied is not None
    assert fresh.emptied is not None
    # A mount that makes the free space tree shows in one of them only what file data takes.
    known = min(used.emptied.data_bytes, fresh.emptied.data_bytes) >= 0
    kept = used.emptied.data_bytes - fresh.emptied.data_bytes
    if known and kept:
        found = f"{kept} bytes of file data more are in use than in a new one"
        yield _broken("data-kept", "an emptied file system holds no file data", found, _BACK_SOURCE)
    ours, theirs = (r.remount.refilled if r.remount is not None else None for r in (used, fresh))
    if fs != "xfs" or ours is None or theirs is None:
        return
    if ours.size_bytes != theirs.size_bytes:
        return  # It was resized.
    missing = theirs.free_bytes - ours.free_bytes
    if missing:
        found = f"{missing} bytes less are free than in a new one"
        yield _broken("free", "an emptied file system has the room of a new one", found, _BACK_SOURCE)


def _broken(kind: str, promised: str, found: str, source: str) -> Violation:
    return Violation(
        rule="space", kind=kind, subject="the file system", promised=promised, found=found, source=source
    )


RULES = (Rule("space", check_space, needs_history=False),)
