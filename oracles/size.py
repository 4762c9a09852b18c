"""File size: some value an op gave it, not older than what was made durable.

Extending ops only raise the size, truncate sets it, so sizes are no plain versions: an extension
that was made durable holds until a truncate that may have come after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from oracles.case import Case, Rule
from oracles.verdict import Violation
from oracles.versions import END_OF_FILE, FileVersions, SizeVersion, overlaps

_PARTIAL_UNIT = 512
"""An unfinished extension shows at I/O granularity: the size follows completed I/O (xfs_setfilesize,
btrfs_inode_safe_disk_i_size_write), which never ends inside a sector."""


@dataclass(frozen=True, slots=True)
class _Broken:
    newest: SizeVersion
    sync: int


def check_size(case: Case) -> Iterator[Violation]:
    """Promise: a size durable at the crash holds unless a later op changed it (source `size`)."""
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if node.kind != "file" or file is None or file.born is None:
            continue
        case.tally.judged += 1
        if any(case.floors.visible(event) for event in file.shifted):
            case.tally.no_promise += 1
            continue
        versions = [v for v in file.sizes if case.floors.visible(v.event)]
        if not _reachable(case, file, versions, node.size):
            yield _violation(case, path, node.size, None)
            continue
        broken = _broken_floor(case, file, versions, node.size)
        if broken:
            yield _violation(case, path, node.size, broken)


def _reachable(case: Case, file: FileVersions, versions: list[SizeVersion], size: int) -> bool:
    return size == 0 or any(_may_give(case, file, v, size) for v in versions)


def _may_give(case: Case, file: FileVersions, version: SizeVersion, size: int) -> bool:
    """True if the op may have left the size at `size`, finished or half done."""
    if version.value in (size, END_OF_FILE):
        # END_OF_FILE: a clone of everything there was, whose length the history does not know
        return True
    if size % _PARTIAL_UNIT:
        return False
    if size < version.value:
        # Also inside the gap between the old end and the write: its zeroes are written back like data.
        # A truncate that grows the file does the same: it writes back what is below (xfs_setattr_size).
        return True
    largest = max(v.value for v in file.sizes)
    return case.profile.stepwise_truncate and not version.raises and size < largest


def _broken_floor(case: Case, file: FileVersions, versions: list[SizeVersion], size: int) -> _Broken | None:
    """The first durable change of size that `size` contradicts."""
    for version in versions:
        sync = case.floors.data_sync(file.inode, version.event) if version.sure else None
        if sync is None or _agrees(case, file, version, versions, size):
            continue
        if version.value > size and _cut_during(case, versions, sync):
            continue
        return _Broken(version, sync)
    return None


def _cut_during(case: Case, versions: list[SizeVersion], sync: int) -> bool:
    """True if a truncate overlapped the sync call.

    It takes the pages beyond its size out of the cache before its own change of size is committed, so
    the sync call may find nothing left to extend the file with: the size on disk stays what it was
    before the extension (xfs_setattr_size; seen on 6.18).
    """
    call = case.versions.history.by_id.get(sync)
    return call is not None and any(not v.raises and overlaps(v.event, call) for v in versions)


def _agrees(
    case: Case, file: FileVersions, durable: SizeVersion, versions: list[SizeVersion], size: int
) -> bool:
    """True if `size` may have come about although `durable` happened."""
    if durable.value == size or (durable.raises and durable.value < size):
        return True
    later = [v for v in versions if v.event.end_ns >= durable.event.begin_ns and v is not durable]
    if durable.value > size:
        return any(not v.raises and v.value <= size for v in later)
    return any(_may_give(case, file, v, size) for v in later)


def _violation(case: Case, path: str, size: int, broken: _Broken | None) -> Violation:
    if broken is None:
        return Violation(
            rule="size",
            kind="size-from-nowhere",
            subject=path,
            promised="the size is one an op gave it",
            found=f"{size} bytes",
            source=case.profile.source("size"),
        )
    newest = broken.newest
    least = "at least " if newest.raises else ""
    return Violation(
        rule="size",
        kind="size-too-small" if newest.value > size else "size-too-large",
        subject=path,
        promised=f"{least}{newest.value} bytes, by {case.sync_label(broken.sync)}",
        found=f"{size} bytes",
        source=case.source("size", broken.sync),
        sync=broken.sync,
    )


RULES = (Rule("size", check_size),)
