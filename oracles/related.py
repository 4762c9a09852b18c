"""What an fsync on btrfs brings along: names of other inodes that its log would make no sense without.

The log tree holds single inodes, so tests of maintainers fix what must come with them: the entries of
new directories, and inodes that changed names with the one synced. Both hold inside one transaction
only, since after a commit there is no such relation left; when commits were is read off the log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from fuzzer.state.history import Event
from oracles.changes import logs_itself
from oracles.floors import Floors, add_existing, first_covering, in_place, may_move_directory
from oracles.versions import UNKNOWN, NameKey, NameVersion, Versions, overlaps, touched_names

NEW_DIRECTORY, PARTNER = "new-directory", "partner"
"""Keys of the promises in a profile's sources."""


@dataclass(frozen=True, slots=True)
class _Sync:
    """One fsync that made names durable, and the names by directory and by inode."""

    floors: Floors
    event: Event
    by_directory: dict[int, list[tuple[NameKey, NameVersion]]]
    by_inode: dict[int, list[tuple[NameKey, NameVersion]]]

    def stands(self, key: NameKey, version: NameVersion) -> bool:
        """True if the binding was there, for certain, all the while the call ran."""
        event = version.event
        before = version.sure and version.inode != UNKNOWN and event.end_ns < self.event.begin_ns
        return before and in_place(self.floors, event, key, self.event.id)

    def promise(self, key: NameKey, version: NameVersion, why: str) -> None:
        change = (version.event.id, key)
        if change not in self.floors.names:
            self.floors.names[change] = self.event.id
            self.floors.reasons[change] = why
        add_existing(self.floors, version.inode, self.event.id)


def add_related(floors: Floors) -> None:
    """Add to `floors` the names that completed fsyncs brought along; needs to know the commits."""
    versions = floors.versions
    if versions.commits is None or not floors.profile.fsync_names:
        return
    by_directory, by_inode = defaultdict(list), defaultdict(list)
    for key, found in versions.names.items():
        for version in found:
            by_directory[key[0]].append((key, version))
            by_inode[version.inode].append((key, version))
    for inode, calls in list(floors.metadata.items()):
        for _, sync_id in calls:
            sync = _Sync(floors, versions.history.by_id[sync_id], by_directory, by_inode)
            _add_new_directories(sync, inode)
            _add_partners(sync, inode)


def is_quiet(versions: Versions, since_ns: int, sync: Event) -> bool:
    """True if from `since_ns` to the end of the fsync there was no commit, and no other call that logs.

    Such a call may have logged a part of what is asked for, and then the question is another one.
    """
    assert versions.commits is not None
    if any(begin <= sync.end_ns and end >= since_ns for begin, end in versions.commits):
        return False
    return not any(
        (other.op.is_durability_point or logs_itself(other))
        and other is not sync
        and other.begin_ns <= sync.end_ns
        and other.end_ns >= since_ns
        for other in versions.history.events
    )


# ------------------------------------------------------------------------------ new directories


def _add_new_directories(sync: _Sync, directory: int) -> None:
    """fsync of a directory persists what was made in the directories that are new in it.

    fstests generic/785. A directory that is not new is not gone into ("We don't go recursively
    checking", Filipe Manana, linux-btrfs 7 April 2020), and links are left open: generic/782 asks for
    the new directory, not for the link in it.
    """
    for key, version in sync.by_directory.get(directory, ()):
        event = version.event
        if event.op.name != "mkdir" or not sync.stands(key, version):
            continue
        if is_quiet(sync.floors.versions, event.begin_ns, sync.event):
            _add_made_in(sync, version.inode)


def _add_made_in(sync: _Sync, directory: int) -> None:
    for key, version in sync.by_directory.get(directory, ()):
        if version.event.op.name in _BIRTHS and sync.stands(key, version):
            sync.promise(key, version, NEW_DIRECTORY)
            _add_made_in(sync, version.inode)


_BIRTHS = frozenset({"create", "mkdir", "symlink", "mknod", "tmplink"})


# ------------------------------------------------------------------------------------- partners


def _add_partners(sync: _Sync, inode: int) -> None:
    for removal, key, successor in _handed_over(sync, inode):
        if successor.event.op.name == "create" and _stayed(sync, removal):
            # fstests generic/376: rename a to b, new a, fsync b: both are there.
            sync.promise(key, successor, PARTNER)
    _add_names_of_losers(sync, inode, {inode})


def _stayed(sync: _Sync, removal: Event) -> bool:
    """True if the file is where the rename put it, in the directory it was in before."""
    new = touched_names(removal)[1]
    here = (v for key, v in sync.by_inode.get(removal.subject, ()) if key == new and v.event is removal)
    return removal.directory == removal.directory2 and any(sync.stands(new, v) for v in here)


def _add_names_of_losers(sync: _Sync, inode: int, seen: set[int]) -> None:
    """Whoever had a committed name that is this inode's now is logged with what it has instead.

    fstests generic/342, 502, 526 and 527, all in one directory; then it is the other's turn to have
    taken names.
    """
    for key, version in sync.by_inode.get(inode, ()):
        if may_move_directory(sync.floors, version.event) or not sync.stands(key, version):
            continue
        loser = _committed_occupant(sync, key, version)
        if loser is None or loser in seen:
            continue
        seen.add(loser)
        for other_key, other in sync.by_inode.get(loser, ()):
            if other_key[0] == key[0] and sync.stands(other_key, other):
                sync.promise(other_key, other, PARTNER)
        _add_names_of_losers(sync, loser, seen)


def _committed_occupant(sync: _Sync, key: NameKey, successor: NameVersion) -> int | None:
    """The inode that had the name in the last commit and was renamed away since."""
    for inode in {version.inode for version in sync.floors.versions.names[key]} - {0, UNKNOWN}:
        if inode == successor.inode:
            continue
        if any(k == key and s is successor for _, k, s in _handed_over(sync, inode)):
            return inode
    return None


def _handed_over(sync: _Sync, inode: int) -> Iterator[tuple[Event, NameKey, NameVersion]]:
    """(rename, name, what stands there now) for names the inode had and was renamed from."""
    versions = sync.floors.versions
    for key, version in sync.by_inode.get(inode, ()):
        removal = _renamed_away(versions, key, version)
        if removal is None or not _was_committed(sync.floors, version, removal):
            continue
        if may_move_directory(sync.floors, removal) or not is_quiet(versions, removal.begin_ns, sync.event):
            continue
        for other in versions.names[key]:
            if other.inode not in (0, inode) and sync.stands(key, other):
                yield removal, key, other


def _renamed_away(versions: Versions, key: NameKey, version: NameVersion) -> Event | None:
    """The rename that ended this binding, if nothing else can have."""
    if not version.sure or version.event.id in versions.raced:
        return None
    end_ns = versions.gone_ns[version.event.id, key]
    for other in versions.names[key]:
        event = other.event
        if event.begin_ns == end_ns and event.op.name == "rename" and other.inode == 0:
            plain = other.sure and event.subject == version.inode and not overlaps(event, version.event)
            return event if plain and event.op.text("flags") == "none" else None
    return None


def _was_committed(floors: Floors, version: NameVersion, removal: Event) -> bool:
    sync = first_covering(version.event, floors.everything)
    return sync is not None and floors.versions.history.by_id[sync].end_ns < removal.begin_ns
