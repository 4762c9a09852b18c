"""Versions: every value an object may have had, read off a history.

An object is a name in a directory, or a byte range, the size, the mode or one xattr of an inode. Each
op that touched it left a version with the op's [begin, end] interval. Nothing here knows what a sync
call promises (that is `floors.py`) or what a crash showed.
"""

from __future__ import annotations

import stat
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fuzzer.state.history import FOREVER, Event, History
from fuzzer.state.inode import format_inode, inode_generation
from oracles.changes import find_changes
from oracles.file_versions import (
    END_OF_FILE,
    FileVersions,
    ValueVersion,
    add_first_data,
    add_inode_version,
    halves,
    may_have_changed,
    owner,
)

if TYPE_CHECKING:
    from oracles.moments import Moments
    from oracles.size_orders import SizeGroup

UNKNOWN = -1
"""A name version whose inode could not be told (lookups raced); it explains any inode."""

ROOT_OWNER = owner(0, 0)
"""Whose all new files are: actors run as root."""

BIRTHS = frozenset({"create", "mkdir", "symlink", "mknod", "tmplink", "subvol_create", "snapshot"})
"""Ops that make an inode."""

NameKey = tuple[int, str]

Commits = tuple[tuple[int, int], ...]
"""When the superblocks of new btrfs transactions were written: (arrival, completion), ns."""


@dataclass(frozen=True, slots=True)
class NameVersion:
    """`event` bound a name to `inode` (0: removed it, `UNKNOWN`: bound to something)."""

    event: Event
    inode: int
    sure: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """Namespace ops that overlapped on a name, of which it is known how they came out.

    `ordered` are pairs of ids: the first of the two came first. `events` are the ops with the inodes they
    worked on, begun not before what came before them. `never` had no effect; `open` are ids of those that
    may have worked on several inodes.
    """

    ordered: frozenset[tuple[int, int]] = frozenset()
    events: Mapping[int, Event] = field(default_factory=dict)
    never: frozenset[int] = frozenset()
    open: frozenset[int] = frozenset()


NOTHING_SETTLED = Settled()


@dataclass(slots=True)
class Versions:
    """All versions of all objects of one history."""

    history: History
    names: dict[NameKey, list[NameVersion]] = field(default_factory=lambda: defaultdict(list))
    files: dict[int, FileVersions] = field(default_factory=dict)
    name_events: list[Event] = field(default_factory=list)
    """Namespace ops that (may) have had an effect, in order of their start."""
    idle: list[Event] = field(default_factory=list)
    """Renames of a name to itself that succeeded: all they say is that it was there."""
    gone_ns: dict[tuple[int, NameKey], int] = field(default_factory=dict)
    """(op, name): until when the name surely was as the op left it; the op's begin if it raced. A rename
    that surely did nothing is passed over."""
    raced: set[int] = field(default_factory=set)
    """Ids of namespace ops that overlapped another op on one of their names: the inodes they looked up
    may not be those they worked on."""
    named_ns: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Per inode, sorted: when ops that gave it one more name had returned."""
    changes: dict[int, list[Event]] = field(default_factory=dict)
    """Per inode: the namespace ops that succeeded and certainly changed it, itself or as a directory."""
    unnamed_ns: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Per inode (`UNKNOWN`: any), sorted: when ops began that may have taken a name from it."""
    settled: Settled = field(default_factory=lambda: NOTHING_SETTLED)
    """What was found out about ops that overlapped (`races.py`)."""
    cases: tuple[Versions, ...] = ()
    """All ways in which the ops may have come out that are not settled; none if nothing is open, or there
    are too many."""
    moved: dict[tuple[int, NameKey], frozenset[int]] = field(default_factory=dict)
    """Answers of `bindings.py`, kept for the next crash of this history."""
    moments: dict[str, Moments | None] = field(default_factory=dict)
    """Answers of `moments.py` by contract, kept as well."""
    size_groups: dict[int, list[SizeGroup]] = field(default_factory=dict)
    """Answers of `size_orders.py` by inode, kept as well."""
    commits: Commits | None = None

    in_place: bool = False
    """True if the history may have turned copy-on-write off for single files (chattr +C)."""
    inherits_group: bool = False
    """True if some directory may have given its group to what was made in it (S_ISGID, inode(7))."""
    subvolumes: bool = False
    """True if the history makes or deletes btrfs subvolumes."""

    def precedes(self, one: Event, two: Event) -> bool:
        """True if `one` surely came before `two`."""
        return one.end_ns < two.begin_ns or (one.id, two.id) in self.settled.ordered

    def is_opaque(self, inode: int) -> bool:
        """True if the inode is in a subvolume, or is its root: only the subvolume's own name is judged.

        A snapshot shows what nobody did in it, a deletion takes everything away, and fsync inside a new
        one commits the transaction (btrfs_record_new_subvolume): another contract.
        """
        return self.subvolumes and inode_generation(inode) != 0

    def is_synced(self, inode: int) -> bool:
        """False if fsync of it promises nothing here: on a special file it does nothing, if it does not fail
        (Documentation/filesystems/vfs.rst)."""
        file = self.files.get(inode)
        return not self.is_opaque(inode) and not (file is not None and file.is_special)

    def removals(self, inode: int, before_ns: int) -> int:
        """How many names the inode may have lost by ops that began before `before_ns`."""
        return sum(bisect_left(self.unnamed_ns.get(n, ()), before_ns) for n in (inode, UNKNOWN))

    def may_be_nameless(self, inode: int, when_ns: int) -> bool:
        """True if the inode may have had no name at `when_ns`; then it never gets one again (link(2))."""
        removals = self.removals(inode, when_ns)
        return removals > 0 and bisect_left(self.named_ns.get(inode, ()), when_ns) <= removals

    def cut_during(self, file: FileVersions, sync: int) -> int:
        """The smallest size a truncate that overlapped the call `sync` set; `END_OF_FILE`: there was none.

        A truncate takes the pages behind its size out of the cache before its own change of size is
        committed, so a sync call in between finds nothing to write, nor to extend the file with: what
        is on disk stays older than both (xfs_setattr_size; seen on 6.18).
        """
        call = self.history.by_id.get(sync)
        if call is None:
            return END_OF_FILE
        cuts = (v.value for v in file.sizes if not v.raises and overlaps(v.event, call))
        return min(cuts, default=END_OF_FILE)

    def file(self, inode: int) -> FileVersions:
        """The versions of `inode`, made on first use."""
        if inode not in self.files:
            self.files[inode] = FileVersions(inode)
        return self.files[inode]

    def label(self, inode: int) -> str:
        """`a/b (inode 257)`: the last name it was given in the history, for people."""
        if inode == self.history.root:
            return "the root directory"
        names = [name for (_, name), found in self.names.items() if any(v.inode == inode for v in found)]
        return f"{'|'.join(sorted(set(names))) or 'unnamed'} (inode {format_inode(inode)})"


def read_versions(
    history: History, commits: Commits | None = None, settled: Settled = NOTHING_SETTLED
) -> Versions:
    """Read all versions off a history. `commits` are those of the log, None where it does not tell."""
    versions = Versions(
        history,
        settled=settled,
        commits=commits,
        in_place=any(e.op.name == "chattr" and e.op["flag"] == "nocow" for e in history.events),
        inherits_group=any(_sets_group_bit(event) for event in history.events),
        subvolumes=any(event.op.name in _SUBVOLUME_OPS for event in history.events),
    )
    root = versions.file(history.root)
    root.born = None
    for event in history.events:
        if event.op.name in _NAME_OPS:
            if not event.failed and not versions.is_opaque(event.directory) and event.id not in settled.never:
                found = versions.idle if _is_idle(event) else versions.name_events
                found.append(settled.events.get(event.id, event))
        elif event.subject and may_have_changed(event) and not versions.is_opaque(event.subject):
            for half in halves(event):
                add_inode_version(versions.file(half.subject), half)
    versions.name_events.sort(key=lambda e: e.begin_ns)
    _find_races(versions)
    for event in versions.name_events:
        _NAME_OPS[event.op.name](versions, event)
    _find_lives(versions)
    versions.changes = find_changes(versions.name_events, versions.raced)
    return versions


def _sets_group_bit(event: Event) -> bool:
    return event.op.name in ("chmod", "mkdir") and bool(event.op.number("mode") & stat.S_ISGID)


def _find_races(versions: Versions) -> None:
    touching: dict[NameKey, list[Event]] = defaultdict(list)
    versions.raced |= versions.settled.open
    for event in versions.name_events:
        for key in set(touched_names(event)):
            touching[key].append(event)
    raced_here = {(event.id, key) for key, group in touching.items() for event in _raced_in(versions, group)}
    for key, group in touching.items():
        gone_ns = FOREVER
        for event in reversed(group):
            versions.gone_ns[event.id, key] = event.begin_ns if (event.id, key) in raced_here else gone_ns
            if event.id in versions.raced or not _does_nothing(event):
                gone_ns = event.begin_ns


def _raced_in(versions: Versions, group: list[Event]) -> Iterator[Event]:
    """The ops on one name, in order of their start, that an earlier one overlapped and may have come
    after; notes both."""
    running: list[Event] = []
    for event in group:
        running = [e for e in running if e.end_ns >= event.begin_ns]
        raced = [e.id for e in running if not versions.precedes(e, event)]
        if raced:
            versions.raced |= {event.id, *raced}
            yield event
        running.append(event)


def _does_nothing(event: Event) -> bool:
    """True for a rename between two names of one inode: both stay (rename(2); vfs_rename in fs/namei.c)."""
    return event.op.name == "rename" and event.subject == event.other != 0


def _find_lives(versions: Versions) -> None:
    for found in versions.names.values():
        for version in found:
            if version.inode > 0 and version.event.returned and version.event.op.name != "rename":
                versions.named_ns[version.inode].append(version.event.end_ns)
    for event in versions.name_events:
        for inode in _may_lose_a_name(versions, event):
            versions.unnamed_ns[inode].append(event.begin_ns)
    for times in (*versions.named_ns.values(), *versions.unnamed_ns.values()):
        times.sort()


def _may_lose_a_name(versions: Versions, event: Event) -> set[int]:
    """The inodes the op may have taken a name from without giving it another."""
    if event.op.name in REMOVALS:
        removed, key = event.subject, touched_names(event)[0]
    elif event.op.name == "rename" and event.op.text("flags") in _REPLACING:
        removed, key = event.other, touched_names(event)[1]
    else:
        return set()
    if removed and event.id not in versions.raced:
        return {removed} - ({event.subject} if event.op.name == "rename" else set())
    return may_be_at(versions, key, event)


def may_be_at(versions: Versions, key: NameKey, event: Event) -> set[int]:
    """The inodes the name may have stood for while the op ran."""
    found: set[int] = set()
    versions_here = versions.names[key]
    last = bisect_right(versions_here, event.end_ns, key=lambda v: v.event.begin_ns)
    for version in reversed(versions_here[:last]):
        before = version.event
        if before is event:
            continue
        found.add(version.inode)
        if version.sure and before.end_ns < event.begin_ns and before.id not in versions.raced:
            # nothing overlapped it, so all that was there earlier was over
            break
    return found - {0}


def _is_idle(event: Event) -> bool:
    return event.op.name == "rename" and len(set(touched_names(event))) == 1


def _last_name(event: Event, key: str) -> str:
    return event.op.text(key).rstrip("/").rsplit("/", 1)[-1]


def _birth(versions: Versions, event: Event) -> None:
    """Only create and tmplink know the inode from a descriptor; the others look the name up afterwards."""
    key = (event.directory, _last_name(event, "path"))
    if _found_it_taken(versions, key, event):
        return
    told = event.op.name in ("create", "tmplink") or event.id not in versions.raced
    inode = event.subject if event.subject and told else UNKNOWN
    if inode != UNKNOWN:
        file = versions.file(inode)
        file.born = event
        file.modes += [ValueVersion(event, mode) for mode in _first_modes(event)]
        if event.op.name not in _SUBVOLUME_OPS:
            # A snapshot has the owner of its source, and what is done to a subvolume's root is not followed.
            file.owners.append(ValueVersion(event, ROOT_OWNER))
        if event.op.name == "tmplink":
            add_first_data(file, event)
    versions.names[key].append(NameVersion(event, inode, event.returned))


def _first_modes(event: Event) -> tuple[int, ...]:
    """mkdir(2) takes no set-id bits, but a directory may inherit S_ISGID from its parent."""
    if event.op.name not in ("create", "mkdir", "mknod", "tmplink"):
        return ()
    mode = event.op.number("mode")
    if event.op.name != "mkdir":
        return (mode,)
    plain = mode & ~(stat.S_ISUID | stat.S_ISGID)
    return plain, plain | stat.S_ISGID


def _link(versions: Versions, event: Event) -> None:
    key = (event.directory, _last_name(event, "to"))
    if not _found_it_taken(versions, key, event):
        versions.names[key].append(NameVersion(event, event.subject or UNKNOWN, event.returned))


def _found_it_taken(versions: Versions, key: NameKey, event: Event) -> bool:
    """True if the op was cut short, and cannot have made the name: it was taken all the while."""
    if event.returned or event.id in versions.raced:
        return False
    # Nothing overlapped it, so it found what the op before it had left.
    before = versions.names[key][-1:]
    return bool(before) and before[0].sure and before[0].inode != 0


def _removal(versions: Versions, event: Event) -> None:
    key = (event.directory, _last_name(event, "path"))
    versions.names[key].append(NameVersion(event, 0, event.returned))


def _rename(versions: Versions, event: Event) -> None:
    """Two names change at once; which inode moved is only known if no other op raced the lookup."""
    old_key = (event.directory, _last_name(event, "from"))
    new_key = (event.directory2, _last_name(event, "to"))
    exchange = event.op.text("flags") == "exchange"
    clear = event.id not in versions.raced
    if clear and _does_nothing(event):
        return
    needed = (old_key, new_key) if exchange else (old_key,)
    if clear and not event.returned and not all(may_be_at(versions, key, event) for key in needed):
        return  # there was nothing to move
    if event.op.text("flags") == "noreplace" and _found_it_taken(versions, new_key, event):
        return
    moved = event.subject if clear and event.subject else UNKNOWN
    left = (event.other if clear and event.other else UNKNOWN) if exchange else 0
    if leaves_whiteout(event, old_key):
        left = UNKNOWN  # a new inode that nobody looked up
    sure = event.returned and clear
    versions.names[new_key].append(NameVersion(event, moved, sure))
    versions.names[old_key].append(NameVersion(event, left, sure))
    if not clear and not exchange:
        # It may have been the no-op above: whatever was at the old name may still be there.
        versions.names[old_key].append(NameVersion(event, UNKNOWN, False))


def leaves_whiteout(event: Event, key: NameKey) -> bool:
    """True if the op, a rename, leaves a new inode at this name, its old one (RENAME_WHITEOUT, rename(2))."""
    whiteout = event.op.name == "rename" and event.op.text("flags") == "whiteout"
    return whiteout and key == touched_names(event)[0]


def touched_names(event: Event) -> tuple[NameKey, ...]:
    """The (directory, name) pairs a namespace op changes."""
    if event.op.name == "rename":
        return (
            (event.directory, _last_name(event, "from")),
            (event.directory2, _last_name(event, "to")),
        )
    return ((event.directory, _last_name(event, "to" if event.op.name == "link" else "path")),)


_NAME_OPS = {
    "create": _birth,
    "mkdir": _birth,
    "symlink": _birth,
    "link": _link,
    "rename": _rename,
    "mknod": _birth,
    "tmplink": _birth,
    "subvol_create": _birth,
    "snapshot": _birth,
    "unlink": _removal,
    "rmdir": _removal,
    "subvol_delete": _removal,
}
_REPLACING = frozenset({"none", "whiteout"})
"""Flags of a rename that takes the name of what was at the new place."""
REMOVALS = frozenset({"unlink", "rmdir", "subvol_delete"})
_SUBVOLUME_OPS = frozenset({"subvol_create", "snapshot", "subvol_delete"})


def overlaps(a: Event, b: Event) -> bool:
    """True if neither op returned before the other was invoked."""
    return a.begin_ns <= b.end_ns and b.begin_ns <= a.end_ns
