"""Floors: what the sync calls that had returned before the crash made durable.

A sync call covers what had *returned before it was invoked*. An op that overlaps it may be in or out.
What is covered by which call is the contract of the file system; where maintainers have said that
something is not promised (or merely happens to work), it is left out here, so it raises no floor.
"""

from __future__ import annotations

import errno
import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from fuzzer.state.history import FOREVER, Event, History
from fuzzer.writelog.crash import LIVE, Cut
from oracles.changes import logs_itself
from oracles.moments import may_be_nameless
from oracles.profile import EVERYTHING, Order, Profile
from oracles.unlinked import unlinked_for_good
from oracles.versions import (
    UNKNOWN,
    NameKey,
    NameVersion,
    Versions,
    leaves_whiteout,
    touched_names,
)

Calls = list[tuple[int, int]]
"""Sync calls, (invocation, id of the op), in order: each covers what had returned before it was invoked."""

_LOST_DATA = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EROFS})
"""Errors a sync call returns when writeback failed: pages are clean then, but not on disk."""


@dataclass(slots=True)
class Floors:
    """Which effects are durable at one cut.

    `ranges` lists (start, end, invocation, id) per inode for calls that cover a part of a file. The
    values of `names`, `moved` and `existing` are ids of sync calls. `shown` is (invocation, id) of an op
    that is known to show, which makes all metadata committed before it durable; None: no such op.
    """

    versions: Versions
    cut: Cut
    profile: Profile
    shown: tuple[int, int] | None = None
    everything: Calls = field(default_factory=list)
    committed: Calls = field(default_factory=list)
    """`everything` and `shown`, and on a file system that orders metadata the last change each fsync
    forced to the journal: what covers all metadata."""
    whole: dict[int, int] = field(default_factory=dict)
    """Ids of namespace ops that are durable as a whole, in all their directories."""
    data: dict[int, Calls] = field(default_factory=lambda: defaultdict(list))
    metadata: dict[int, Calls] = field(default_factory=lambda: defaultdict(list))
    ranges: dict[int, list[tuple[int, int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    own: set[int] = field(default_factory=set)
    """Ids of O_SYNC/O_DSYNC writes (and mwrite with msync) that returned: durable by themselves."""
    names: dict[tuple[int, NameKey], int] = field(default_factory=dict)
    """(op, name): what the op made of the name is durable, whatever it had been before."""
    moved: dict[tuple[int, NameKey], int] = field(default_factory=dict)
    """(op, name): its inode durably lost the name. Another one that had it earlier may show again:
    its own removal is a change of a directory nobody synced."""
    reasons: dict[tuple[int, NameKey], str] = field(default_factory=dict)
    """Which promise is behind an entry of `names`, where that is not the plain one of its sync call."""
    existing: dict[int, int] = field(default_factory=dict)
    """Inodes that must be there under some name."""
    rooted: set[int] = field(default_factory=set)
    """Inodes whose way up from the name they were born at was followed."""
    failed: dict[int, list[Event]] = field(default_factory=dict)
    """Per inode (0: all): the sync calls that failed on it."""

    def visible(self, event: Event) -> bool:
        """True if the op may show in this state."""
        return event.begin_ns < self.cut.invoked_before_ns

    def data_syncs(self, inode: int, event: Event) -> Iterator[int]:
        """Ids of the sync calls that made the op's effect on the whole file's data durable, first to last."""
        if event.id in self.own:
            yield event.id
        if event.succeeded:
            for _, sync in heapq.merge(*_behind(event.end_ns, self.everything, self.data.get(inode, ()))):
                if not self._spoiled(inode, event, sync):
                    yield sync

    def range_syncs(self, inode: int, event: Event) -> Iterator[tuple[int, int, int]]:
        """(start, end, id) of the calls that made the op's data durable in a part of the file only."""
        for start, end, begin_ns, sync in self.ranges.get(inode, ()):
            if event.end_ns < begin_ns and not self._spoiled(inode, event, sync):
                yield start, end, sync

    def _spoiled(self, inode: int, event: Event, sync: int) -> bool:
        """True if writeback may have failed before the call, and after the op began: then its data is
        lost for good, whatever a later call returns (fsync(2); errors are reported once, generic/441,
        generic/484). The call would have told of a failure that nobody had been told of; sync(2) does not.
        """
        if not self.failed:
            return False
        call = self.versions.history.by_id.get(sync)
        tells = call is not None and (call.op.name == "syncfs" or call.op.name not in EVERYTHING)
        before_ns = call.begin_ns if call and tells else FOREVER
        failed = (*self.failed.get(inode, ()), *self.failed.get(0, ()))
        return any(event.begin_ns < f.end_ns and f.begin_ns < before_ns for f in failed)

    def metadata_sync(self, inode: int, event: Event) -> int | None:
        """Id of the sync call that made an attribute change of `inode` durable, or None."""
        return first_covering(event, self.committed, self.metadata.get(inode, ()))

    def time_sync(self, inode: int, event: Event) -> int | None:
        """The same for the times it set; a lazy file system keeps them in memory until asked for them."""
        if self.profile.lazy_times:
            return first_covering(event, self.everything, self.metadata.get(inode, ()))
        return self.metadata_sync(inode, event)

    def is_open_move(self, event: Event, inode: int) -> bool:
        """True for a rename of `inode` to another directory that no sync call has settled since."""
        elsewhere = event.directory != event.directory2
        return elsewhere and self.metadata_sync(inode, event) is None

    def name_sync(self, key: NameKey, version: NameVersion, found: int) -> int | None:
        """Id of the sync call by which the name must be as `version` left it; None if `found` need not
        yield to it."""
        change = (version.event.id, key)
        if change not in self.names and found == version.event.subject:
            return self.moved.get(change)
        return self.names.get(change)


def _behind(time_ns: int, *groups: Sequence[tuple[int, int]]) -> list[Iterator[tuple[int, int]]]:
    """Of each group the calls invoked after `time_ns`, in order."""
    places = [(calls, bisect_right(calls, time_ns, key=itemgetter(0))) for calls in groups]
    return [map(calls.__getitem__, range(first, len(calls))) for calls, first in places]


def first_covering(event: Event, *groups: Sequence[tuple[int, int]]) -> int | None:
    """Id of the first call that covers the op, or None. What it made durable, later ones need not."""
    if not event.succeeded:
        return None
    firsts = (next(calls, None) for calls in _behind(event.end_ns, *groups))
    return min((call for call in firsts if call), default=(0, None))[1]


def failed_syncs(history: History) -> dict[int, list[Event]]:
    """Per inode (0: all): the sync calls that lost data of it."""
    failed: dict[int, list[Event]] = defaultdict(list)
    for event in history.events:
        if event.op.is_durability_point and event.failed and event.errno in _LOST_DATA:
            failed[0 if event.op.name in EVERYTHING else event.subject].append(event)
    return failed


def compute_floors(
    versions: Versions, cut: Cut, profile: Profile, shown: tuple[int, int] | None = None
) -> Floors:
    """Floors of one crash point; with the `LIVE` cut everything that returned is durable."""
    floors = Floors(versions, cut, profile, shown, failed=failed_syncs(versions.history))
    if cut == LIVE:
        floors.everything.append((FOREVER, 0))
        floors.committed.append((FOREVER, 0))
        returned = [event for event in versions.name_events if event.returned]
        floors.names = {(event.id, key): 0 for event in returned for key in touched_names(event)}
        floors.existing = {n: 0 for n, file in versions.files.items() if file.born and file.born.returned}
        return floors
    for event in versions.history.events:
        if event.op.is_durability_point and event.succeeded and event.end_ns < cut.returned_before_ns:
            _add_sync(floors, event)
    floors.committed += [*floors.everything, *([shown] if shown else [])]
    _add_whole(floors)
    floors.committed.sort()
    _add_names(floors)
    return floors


def _add_sync(floors: Floors, event: Event) -> None:
    name, inode, call = event.op.name, event.subject, (event.begin_ns, event.id)
    if name in EVERYTHING:
        floors.everything.append(call)
        return
    if not floors.versions.is_synced(inode):
        return
    if name == "fsync":
        floors.metadata[inode].append(call)
    if may_be_nameless(floors.versions, floors.profile, inode, event.end_ns):
        # Nobody can reach the data of a file without a name after a crash. That its unsynced unlink
        # may be undone by the crash promises nothing about what was written since.
        return
    if name == "msync":
        start = event.op.number("off")
        floors.ranges[inode].append((start, start + event.op.number("len"), *call))
    elif name in ("fsync", "fdatasync"):
        floors.data[inode].append(call)
    else:
        floors.own.add(event.id)


def _add_whole(floors: Floors) -> None:
    """Find the namespace ops that are durable as one transaction, with all that was committed before.

    Where metadata is ordered, fsync of an inode forces the journal up to the inode's last change
    (xfs_fsync_flush_log), so that is durable in every directory, and what had returned before it too.
    """
    versions, profile = floors.versions, floors.profile
    if profile.synchronous_names:
        returned = (e for e in versions.name_events if e.end_ns < floors.cut.returned_before_ns)
        floors.whole |= {event.id: event.id for event in returned}
    if profile.order is not Order.GLOBAL:
        return
    for event in versions.name_events:
        syncs = logs_itself(event) and event.op.name == "unlink" and event.succeeded
        if syncs and event.end_ns < floors.cut.returned_before_ns and event.id not in versions.raced:
            floors.whole.setdefault(event.id, event.id)
            floors.committed.append((event.begin_ns, event.id))
    for inode, calls in floors.metadata.items():
        for begin_ns, sync in calls:
            changes = [e for e in versions.changes.get(inode, ()) if e.end_ns < begin_ns]
            for event in changes:
                floors.whole.setdefault(event.id, sync)
            if changes:
                floors.committed.append((max(e.begin_ns for e in changes), sync))


def _add_names(floors: Floors) -> None:
    """Find the durable changes of names, and the inodes that must exist."""
    for inode, file in floors.versions.files.items():
        covered = _whole(floors, file.born) if file.born else None
        if covered is not None:
            floors.existing[inode] = covered
    for key, versions in floors.versions.names.items():
        for version in versions:
            if version.sure:
                _add_name(floors, key, version)
    if floors.profile.fsync_names:
        for inode, sync in _reached(floors):
            add_existing(floors, inode, sync)
        for event in unlinked_for_good(floors.versions, floors.cut):
            change = (event.id, touched_names(event)[0])
            if change not in floors.names and change not in floors.moved:
                floors.moved[change] = event.id
                floors.reasons[change] = "unlinked"


def _add_name(floors: Floors, key: NameKey, version: NameVersion) -> None:
    event = version.event
    sync = _name_sync(floors, event)
    away = version.inode == 0 or leaves_whiteout(event, key)
    if sync is None or (away and not _left(floors, event, sync)):
        return
    by_directory = _whole(floors, event)
    if by_directory is None:
        by_directory = first_covering(event, floors.metadata.get(key[0], ()))
    if by_directory is not None:
        sync = floors.names[event.id, key] = by_directory
    elif away:
        # The whiteout of a rename is another inode: it is its directory that it comes with.
        floors.moved[event.id, key] = sync
    elif in_place(floors, event, key, sync):
        floors.names[event.id, key] = sync
    if (not away or by_directory is not None) and version.inode and in_place(floors, event, key, sync):
        add_existing(floors, key[0], sync)
        if version.inode == UNKNOWN:
            return
        if by_directory is None:
            add_existing(floors, version.inode, sync)
        elif floors.versions.file(version.inode).born is not None:
            # Of other names it has elsewhere fsync of this directory says nothing: btrfs does not log
            # their directories, and replay passes over them (add_inode_ref() in fs/btrfs/tree-log.c).
            floors.existing.setdefault(version.inode, sync)


def _name_sync(floors: Floors, event: Event) -> int | None:
    """Id of the sync call that made a namespace op durable, or None.

    A directory renamed and then fsynced itself keeps existing, but its new name is only promised by
    its new parent. RENAME_EXCHANGE followed by fsync of one side is both-or-none (fstests btrfs/341),
    so only sync covers it. fsync of the directory a file was moved *out* of promises that the file is
    not lost, not where it is (discussion of fstests generic/335).
    """
    covered = _whole(floors, event)
    if covered is not None:
        return covered
    exchange = event.op.name == "rename" and event.op.text("flags") == "exchange"
    if exchange:
        return None
    parent = event.directory2 if event.op.name == "rename" else event.directory
    covered = first_covering(event, floors.metadata.get(parent, ()))
    if covered is not None:
        return covered
    return _by_inode(floors, event)


def _whole(floors: Floors, event: Event) -> int | None:
    """Id of what made all of a namespace op durable, whichever its directories are, or None."""
    covered = first_covering(event, floors.committed)
    return floors.whole.get(event.id) if covered is None else covered


def _by_inode(floors: Floors, event: Event) -> int | None:
    """Id of the fsync of the op's inode that covers it; only where the inode is known for sure."""
    unsure = event.id in floors.versions.raced or may_move_directory(floors, event)
    if unsure or not floors.profile.fsync_names:
        return None
    return first_covering(event, floors.metadata.get(event.subject, ()))


def _left(floors: Floors, event: Event, sync: int) -> bool:
    """True if the inode durably lost the name, given that `sync` covers the op.

    fsync of the directory a file was moved *into* logs what is there: if it may have been moved on or
    removed by then, or came from a directory nobody synced, the old name stays.
    """
    if event.op.name != "rename" or _whole(floors, event) is not None:
        return True
    if _by_inode(floors, event) is not None:
        return True
    same = event.directory == event.directory2
    return same and in_place(floors, event, touched_names(event)[1], sync)


def may_move_directory(floors: Floors, event: Event) -> bool:
    born = floors.versions.file(event.subject).born
    return event.op.name == "rename" and (born is None or born.op.name == "mkdir")


def in_place(floors: Floors, event: Event, key: NameKey, sync: int) -> bool:
    """True if what the op bound to the name was surely still there when the sync call was done.

    A binding that may have been gone again promises nothing: neither the directory it was in nor that
    an older binding is overwritten (btrfs logs the names an inode has, not those it had).
    """
    return floors.versions.gone_ns[event.id, key] > floors.versions.history.by_id[sync].end_ns


def _reached(floors: Floors) -> Iterator[tuple[int, int]]:
    """Inodes that must exist because their data was synced: (inode, sync id).

    msync(2) speaks of the pages of a mapping only; it is not counted on for names.
    """
    for inode, calls in floors.data.items():
        born = floors.versions.file(inode).born
        sync = first_covering(born, calls) if born else None
        if sync is not None:
            yield inode, sync
    for event_id in floors.own:
        event = floors.versions.history.by_id[event_id]
        if event.op.name != "mwrite":
            yield event.subject, event_id


def add_existing(floors: Floors, inode: int, sync: int) -> None:
    """The inode must exist if it was made before the sync call; so must the directories it is in, as
    far as nothing was renamed since."""
    begin_ns = floors.versions.history.by_id[sync].begin_ns
    while inode not in floors.rooted:
        born = floors.versions.file(inode).born
        if born is None or born.end_ns >= begin_ns:
            return
        floors.rooted.add(inode)
        floors.existing.setdefault(inode, sync)
        key = touched_names(born)[0]
        if not in_place(floors, born, key, sync):
            return
        floors.names.setdefault((born.id, key), sync)
        inode = born.directory
