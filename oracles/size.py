"""File size: some value an op gave it, not older than what was made durable.

Extending ops only raise the size, truncate sets it, so sizes are no plain versions: an extension
that was made durable holds until a truncate that may have come after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from fuzzer.state.history import Event
from oracles.case import Case, Rule
from oracles.file_versions import END_OF_FILE, FileVersions, SizeVersion
from oracles.size_orders import BORN, SECTOR_BYTES, givers_in_order
from oracles.verdict import Violation


@dataclass(frozen=True, slots=True)
class _Broken:
    newest: SizeVersion
    sync: int
    how: str = ""


def check_size(case: Case) -> Iterator[Violation]:
    """Promise: a size durable at the crash holds unless a later op changed it (source `size`)."""
    for path, node in case.tree.files():
        if node.kind != "file":
            continue
        if case.versions.is_opaque(node.inode):
            continue
        # a file nobody is known to have touched (its create was cut short) is empty
        file = case.versions.files.get(node.inode) or FileVersions(node.inode)
        case.tally.judged += 1
        if any(case.floors.visible(event) for event in file.shifted):
            case.tally.skip("collapse or insert may have moved its end")
            continue
        sizes = _Sizes(case, file)
        givers = sizes.givers(node.size)
        broken = _broken_floor(sizes, givers, node.size) if sizes.ever(node.size) else None
        if broken or (node.size and not givers):
            yield _violation(case, path, file, node.size, broken)
        elif sizes.in_order(node.size) == frozenset():
            yield _violation(
                case, path, file, node.size, sizes.otherwise(node.size) or sizes.unseen(node.size)
            )


def size_makers(case: Case) -> Iterator[list[Event]]:
    """For every file whose size some op must have set, the ops that may have."""
    for _, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if node.kind != "file" or file is None or file.born is None:
            continue
        if not any(case.floors.visible(event) for event in file.shifted):
            givers = size_givers(case, file, node.size)
            if givers is not None:
                yield [giver.event for giver in givers]


def size_givers(case: Case, file: FileVersions, size: int) -> list[SizeVersion] | None:
    """The changes of size that may have left it at `size`; None: it may still be as empty as at first."""
    sizes = _Sizes(case, file)
    other, in_order = sizes.otherwise(size), sizes.in_order(size)
    if not size and not other and (in_order is None or BORN in in_order):
        return None
    givers = [v for v in sizes.all_givers(size) if not other or v.event.end_ns >= other.newest.event.begin_ns]
    return givers if in_order is None else [v for v in givers if v.event.id in in_order]


class _Sizes:
    """The versions of one file's size at one cut."""

    def __init__(self, case: Case, file: FileVersions) -> None:
        self._case, self._file = case, file
        self._cuts: dict[int, int] = {}
        self.versions = [v for v in file.sizes if case.floors.visible(v.event)]
        self._largest = max((v.value for v in self.versions), default=0)

    def sync(self, version: SizeVersion) -> int | None:
        """Id of the sync call that made the change durable, or None."""
        if not version.sure:
            return None
        for sync in self._case.floors.data_syncs(self._file.inode, version.event):
            if not version.raises or self._cut_during(sync) >= version.value:
                return sync
        return None

    def _cut_during(self, sync: int) -> int:
        if sync not in self._cuts:
            self._cuts[sync] = self._case.versions.cut_during(self._file, sync)
        return self._cuts[sync]

    def in_order(self, size: int) -> frozenset[int] | None:
        """Ids of the ops that may have left the size at `size` in some order of all; None: not known."""
        return givers_in_order(self._case, self._file, size, lambda op: self.sync(op) is not None)

    def ever(self, size: int) -> bool:
        """False if no op can have made the file that large, whatever survived."""
        return not size or any(
            v.value in (size, END_OF_FILE) or (size < v.value and not size % SECTOR_BYTES)
            for v in self.versions
        )

    def otherwise(self, size: int) -> _Broken | None:
        """The youngest durable op that left another size than `size`, as it is broken where no order of
        all ops ends there."""
        return self._youngest(self.versions, size)

    def unseen(self, size: int) -> _Broken | None:
        """The same of all ops: a sync call that wrote nothing may have promised what nobody can see."""
        return self._youngest(self._file.sizes, size)

    def _youngest(self, versions: list[SizeVersion], size: int) -> _Broken | None:
        others = [v for v in versions if v.value > size or (v.value < size and not v.raises)]
        latest_first = sorted(others, key=lambda v: v.event.begin_ns, reverse=True)
        durable = ((version, self.sync(version)) for version in latest_first)
        return next(
            (_Broken(v, sync, "in some order of all ops, ") for v, sync in durable if sync is not None), None
        )

    def givers(self, size: int) -> list[SizeVersion]:
        """The two ops that ended last of all that may have left the size at `size`."""
        return list(islice(self._latest_givers(size), 2))

    def all_givers(self, size: int) -> list[SizeVersion]:
        """All ops that may have left the size at `size`."""
        return list(self._latest_givers(size))

    def _latest_givers(self, size: int) -> Iterator[SizeVersion]:
        latest_first = sorted(self.versions, key=lambda v: v.event.end_ns, reverse=True)
        return (v for v in latest_first if self._may_give(v, size))

    def _may_give(self, version: SizeVersion, size: int) -> bool:
        """True if the op may have left the size at `size`: finished, or half done and not durable."""
        if version.value in (size, END_OF_FILE):
            # END_OF_FILE: a clone of everything there was, whose length the history does not know
            return not self._was_inside(version)
        if size % SECTOR_BYTES or not size:
            return False
        # Also inside the gap between the old end and the write: its zeroes are written back like data.
        # A truncate that grows the file does the same: it writes back what is below (xfs_setattr_size).
        grows = size < version.value
        stops = self._case.profile.stepwise_truncate and not version.raises and size < self._largest
        return (grows or stops) and self.sync(version) is None and not self._was_inside(version)

    def _was_inside(self, version: SizeVersion) -> bool:
        """True for a write into a file that surely was as large when it began: it left the size alone, and
        where that had got to on disk is a matter of the ops that made it so large."""
        if not version.raises:
            return False
        began_ns, ended_ns, value = version.event.begin_ns, version.event.end_ns, version.value
        cuts = (v for v in self.versions if not v.raises and v.value < value and v.event.begin_ns <= ended_ns)
        cut_ns = max((v.event.end_ns for v in cuts), default=-1)
        return any(
            v.sure and v.value >= value and cut_ns < v.event.begin_ns and v.event.end_ns < began_ns
            for v in self.versions
        )


def _broken_floor(sizes: _Sizes, givers: list[SizeVersion], size: int) -> _Broken | None:
    """The first durable change of size that `size` contradicts; one that makes it too small comes first,
    as that says what is lost.

    A smaller size than a durable one takes a truncate that was not over when it began, and brought the
    size down to `size` itself or was not over before an op that gives it; a larger one than a durable
    truncate takes an op that gives it.
    """

    def given_ns(but: SizeVersion) -> int:
        return max((v.event.end_ns for v in givers if v is not but), default=-1)

    def brought_down(cut: SizeVersion) -> bool:
        return cut.value == size or cut in givers or given_ns(cut) >= cut.event.begin_ns

    cuts = [v for v in sizes.versions if not v.raises and v.value <= size]
    cut_ns = max((v.event.end_ns for v in cuts if brought_down(v)), default=-1)
    for version in sorted(sizes.versions, key=lambda v: v.value < size):
        if version.value == size or (version.raises and version.value < size):
            continue
        if version.event.begin_ns <= (cut_ns if version.value > size else given_ns(version)):
            continue
        sync = sizes.sync(version)
        if sync is not None:
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
        promised=f"{broken.how}{least}{newest.value} bytes, by {case.sync_label(broken.sync)}",
        found=f"{size} bytes",
        source=case.source("size", broken.sync),
        sync=broken.sync,
        inode=file.inode,
        op=newest.event.id,
    )


RULES = (Rule("size", check_size),)
