"""File size: some value an op gave it, not older than what was made durable.

Extending ops only raise the size, truncate sets it, so sizes are no plain versions: an extension
that was made durable holds until a truncate that may have come after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from oracles.case import Case, Rule
from oracles.verdict import Violation
from oracles.versions import END_OF_FILE, FileVersions, SizeVersion

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
            case.tally.skip("collapse or insert may have moved its end")
            continue
        versions = [v for v in file.sizes if case.floors.visible(v.event)]
        givers = [v for v in versions if _may_give(v, node.size)]
        if case.profile.stepwise_truncate:
            givers += _interrupted(versions, node.size)
        if node.size and not givers:
            yield _violation(case, path, file, node.size, None)
            continue
        broken = _broken_floor(case, file, versions, givers, node.size)
        if broken:
            yield _violation(case, path, file, node.size, broken)


def _may_give(version: SizeVersion, size: int) -> bool:
    """True if the op may have left the size at `size`, finished or half done."""
    if version.value in (size, END_OF_FILE):
        # END_OF_FILE: a clone of everything there was, whose length the history does not know
        return True
    # Also inside the gap between the old end and the write: its zeroes are written back like data.
    # A truncate that grows the file does the same: it writes back what is below (xfs_setattr_size).
    return size < version.value and size % _PARTIAL_UNIT == 0


def _interrupted(versions: list[SizeVersion], size: int) -> list[SizeVersion]:
    """The truncates that may have stopped at `size` on their way down."""
    if size % _PARTIAL_UNIT or size >= max((v.value for v in versions), default=0):
        return []
    return [v for v in versions if not v.raises and v.value < size]


def _broken_floor(
    case: Case,
    file: FileVersions,
    versions: list[SizeVersion],
    givers: list[SizeVersion],
    size: int,
) -> _Broken | None:
    """The first durable change of size that `size` contradicts.

    A smaller size than a durable one takes a truncate that was not over when it began, a larger one
    than a durable truncate takes an op that gives it.
    """
    cut_ns = max((v.event.end_ns for v in versions if not v.raises and v.value <= size), default=-1)
    last_two = sorted(givers, key=lambda v: v.event.end_ns)[-2:]
    for version in versions:
        if version.value == size or (version.raises and version.value < size):
            continue
        given_ns = max((v.event.end_ns for v in last_two if v is not version), default=-1)
        if version.event.begin_ns <= (cut_ns if version.value > size else given_ns):
            continue
        sync = case.floors.data_sync(file.inode, version.event) if version.sure else None
        if sync is None or (version.value > size and case.versions.cut_during(file, sync) < version.value):
            continue
        return _Broken(version, sync)
    return None


def _violation(case: Case, path: str, file: FileVersions, size: int, broken: _Broken | None) -> Violation:
    if broken is None:
        return Violation(
            rule="size",
            kind="size-from-nowhere",
            subject=path,
            promised="the size is one an op gave it",
            found=f"{size} bytes",
            source=case.profile.source("size"),
            inode=file.inode,
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
        inode=file.inode,
        op=newest.event.id,
    )


RULES = (Rule("size", check_size),)
