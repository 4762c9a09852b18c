"""Versions: every value an object may have had, read off a history.

An object is a name in a directory, or a byte range, the size, the mode or one xattr of an inode. Each
op that touched it left a version with the op's [begin, end] interval. Nothing here knows what a sync
call promises (that is `floors.py`) or what a crash showed.
"""

from __future__ import annotations

import errno
import stat
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum

from fuzzer.state.history import FOREVER, Event, History
from fuzzer.state.inode import format_inode, inode_generation
from fuzzer.workload.ops import MAX_FILE_BYTES
from oracles.changes import find_changes

UNKNOWN = -1
"""A name version whose inode could not be told (lookups raced); it explains any inode."""

END_OF_FILE = MAX_FILE_BYTES * 2
"""Upper end of ranges that reach to whatever the end of the file is."""

NameKey = tuple[int, str]

Commits = tuple[tuple[int, int], ...]
"""When the superblocks of new btrfs transactions were written: (arrival, completion), ns."""

_HALF_DONE = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.ENOMEM, errno.EFAULT})
"""A data op that failed with one of these may have done a part of its work (write(2), fallocate(2))."""


@dataclass(frozen=True, slots=True)
class NameVersion:
    """`event` bound a name to `inode` (0: removed it, `UNKNOWN`: bound to something)."""

    event: Event
    inode: int
    sure: bool


class Source(Enum):
    """Where the bytes of a data version come from."""

    WRITE = "write"
    ZERO = "zero"
    CLONE = "clone"


@dataclass(frozen=True, slots=True)
class DataVersion:
    """`event` put bytes at [start, end). `sure`: it did so if it returned; else it may have."""

    event: Event
    start: int
    end: int
    source: Source
    sure: bool


@dataclass(frozen=True, slots=True)
class SizeVersion:
    """`event` set the size to `value`, or raised it to at least `value` (`raises`)."""

    event: Event
    value: int
    raises: bool
    sure: bool


@dataclass(frozen=True, slots=True)
class ValueVersion:
    """`event` set an attribute to `value` (None: removed)."""

    event: Event
    value: int | None


@dataclass(slots=True)
class FileVersions:
    """Everything that happened to one inode."""

    inode: int
    born: Event | None = None
    data: list[DataVersion] = field(default_factory=list)
    sizes: list[SizeVersion] = field(default_factory=list)
    modes: list[ValueVersion] = field(default_factory=list)
    xattrs: dict[str, list[ValueVersion]] = field(default_factory=lambda: defaultdict(list))
    shifted: list[Event] = field(default_factory=list)
    """Collapse and insert ops: they move data, so offsets no longer tell ops apart."""
    reserved: list[Event] = field(default_factory=list)
    """fallocate ops that reserved all of their range."""
    rewritten: list[Event] = field(default_factory=list)
    """Defragmentations: the data is the same after them, the number of blocks it takes need not be."""
    mapped: list[Event] = field(default_factory=list)
    """Stores through a mapping; see `data.py` on what they do to direct writes."""
    _writes: dict[int, list[DataVersion]] = field(default_factory=lambda: defaultdict(list))
    _zeros: list[DataVersion] = field(default_factory=list)
    _clones: list[DataVersion] = field(default_factory=list)

    def add_data(self, version: DataVersion) -> None:
        self.data.append(version)
        if version.source is Source.WRITE:
            self._writes[version.event.id].append(version)
        elif version.source is Source.ZERO:
            self._zeros.append(version)
        else:
            self._clones.append(version)

    @property
    def is_special(self) -> bool:
        """True for fifos, devices and sockets."""
        return self.born is not None and self.born.op.name == "mknod"

    def data_like(self, op: int) -> list[DataVersion]:
        """The versions that can hold words of op `op` (0: zeroes)."""
        return (self._writes.get(op, []) if op else self._zeros) + self._clones


@dataclass(slots=True)
class Versions:
    """All versions of all objects of one history."""

    history: History
    names: dict[NameKey, list[NameVersion]] = field(default_factory=lambda: defaultdict(list))
    files: dict[int, FileVersions] = field(default_factory=dict)
    name_events: list[Event] = field(default_factory=list)
    """Namespace ops that (may) have had an effect, in order of their start."""
    gone_ns: dict[tuple[int, NameKey], int] = field(default_factory=dict)
    """(op, name): until when the name surely was as the op left it; the op's begin if it raced."""
    raced: set[int] = field(default_factory=set)
    """Ids of namespace ops that overlapped another op on one of their names: the inodes they looked up
    may not be those they worked on."""
    named_ns: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Per inode, sorted: when ops that gave it one more name had returned."""
    changes: dict[int, list[Event]] = field(default_factory=dict)
    """Per inode: the namespace ops that succeeded and certainly changed it, itself or as a directory."""
    unnamed_ns: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Per inode (`UNKNOWN`: any), sorted: when ops began that may have taken a name from it."""
    moved: dict[tuple[int, NameKey], frozenset[int]] = field(default_factory=dict)
    """Answers of `bindings.py`, kept for the next crash of this history."""
    commits: Commits | None = None

    subvolumes: bool = False
    """True if the history makes or deletes btrfs subvolumes."""

    def is_opaque(self, inode: int) -> bool:
        """True if the inode is in a subvolume, or is its root: only the subvolume's own name is judged.

        A snapshot shows what nobody did in it, a deletion takes everything away, and fsync inside a new
        one commits the transaction (btrfs_record_new_subvolume): another contract.
        """
        return self.subvolumes and inode_generation(inode) != 0

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


def build_versions(history: History, commits: Commits | None = None) -> Versions:
    """Read all versions off a history. `commits` are those of the log, None where it does not tell."""
    subvolumes = any(event.op.name in _SUBVOLUME_OPS for event in history.events)
    versions = Versions(history, commits=commits, subvolumes=subvolumes)
    root = versions.file(history.root)
    root.born = None
    for event in history.events:
        if event.op.name in _NAME_OPS:
            if _may_have_worked(event) and not versions.is_opaque(event.directory):
                versions.name_events.append(event)
        elif not versions.is_opaque(event.subject):
            _add_inode_version(versions, event)
    _find_races(versions)
    for event in versions.name_events:
        _NAME_OPS[event.op.name](versions, event)
    _find_lives(versions)
    versions.changes = find_changes(versions.name_events, versions.raced)
    return versions


def _find_races(versions: Versions) -> None:
    touching: dict[NameKey, list[Event]] = defaultdict(list)
    for event in versions.name_events:
        for key in set(touched_names(event)):
            touching[key].append(event)
    for key, group in touching.items():
        latest = group[0]
        for event, following in zip(group, [*group[1:], None], strict=True):
            # In order of their start, an op that any earlier one overlaps is overlapped by the one of
            # them that ends last; an op that overlaps any later one overlaps the next.
            raced = event is not latest and overlaps(latest, event)
            if raced:
                versions.raced |= {latest.id, event.id}
            gone_ns = following.begin_ns if following else FOREVER
            versions.gone_ns[event.id, key] = event.begin_ns if raced else gone_ns
            latest = max(latest, event, key=lambda e: e.end_ns)


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
    if event.op.name in _REMOVALS:
        removed, key = event.subject, touched_names(event)[0]
    elif event.op.name == "rename" and event.op.text("flags") == "none":
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


def _may_have_worked(event: Event) -> bool:
    """A namespace op is atomic: one that failed changed nothing; nor does a rename to its own name."""
    if event.op.name == "rename" and len(set(touched_names(event))) == 1:
        return False
    return not event.failed


def _last_name(event: Event, key: str) -> str:
    return event.op.text(key).rstrip("/").rsplit("/", 1)[-1]


def _birth(versions: Versions, event: Event) -> None:
    """Only create learns the inode from a descriptor; mkdir and symlink look the name up afterwards."""
    told = event.op.name == "create" or event.id not in versions.raced
    inode = event.subject if event.subject and told else UNKNOWN
    if inode != UNKNOWN:
        file = versions.file(inode)
        file.born = event
        file.modes += [ValueVersion(event, mode) for mode in _first_modes(event)]
    key = (event.directory, _last_name(event, "path"))
    versions.names[key].append(NameVersion(event, inode, event.returned))


def _first_modes(event: Event) -> tuple[int, ...]:
    """mkdir(2) takes no set-id bits, but a directory may inherit S_ISGID from its parent."""
    if event.op.name not in ("create", "mkdir", "mknod"):
        return ()
    mode = event.op.number("mode")
    if event.op.name != "mkdir":
        return (mode,)
    plain = mode & ~(stat.S_ISUID | stat.S_ISGID)
    return plain, plain | stat.S_ISGID


def _link(versions: Versions, event: Event) -> None:
    key = (event.directory, _last_name(event, "to"))
    versions.names[key].append(NameVersion(event, event.subject or UNKNOWN, event.returned))


def _removal(versions: Versions, event: Event) -> None:
    key = (event.directory, _last_name(event, "path"))
    versions.names[key].append(NameVersion(event, 0, event.returned))


def _rename(versions: Versions, event: Event) -> None:
    """Two names change at once; which inode moved is only known if no other op raced the lookup."""
    old_key = (event.directory, _last_name(event, "from"))
    new_key = (event.directory2, _last_name(event, "to"))
    exchange = event.op.text("flags") == "exchange"
    clear = event.id not in versions.raced
    if clear and event.subject and event.subject == event.other and not exchange:
        # rename(2): two names of one inode: nothing happens, both stay.
        return
    needed = (old_key, new_key) if exchange else (old_key,)
    if clear and not event.returned and not all(may_be_at(versions, key, event) for key in needed):
        return  # there was nothing to move
    moved = event.subject if clear and event.subject else UNKNOWN
    left = (event.other if clear and event.other else UNKNOWN) if exchange else 0
    sure = event.returned and clear
    versions.names[new_key].append(NameVersion(event, moved, sure))
    versions.names[old_key].append(NameVersion(event, left, sure))
    if not clear and not exchange:
        # It may have been the no-op above: whatever was at the old name may still be there.
        versions.names[old_key].append(NameVersion(event, UNKNOWN, False))


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
    "subvol_create": _birth,
    "snapshot": _birth,
    "unlink": _removal,
    "rmdir": _removal,
    "subvol_delete": _removal,
}
_REMOVALS = frozenset({"unlink", "rmdir", "subvol_delete"})
_SUBVOLUME_OPS = frozenset({"subvol_create", "snapshot", "subvol_delete"})
_ATTRIBUTE_OPS = frozenset({"chmod", "setxattr", "removexattr"})


def _add_inode_version(versions: Versions, event: Event) -> None:
    name = event.op.name
    if not event.subject or (event.failed and event.errno not in _HALF_DONE):
        return
    file = versions.file(event.subject)
    if file.is_special and name not in _ATTRIBUTE_OPS:
        return
    if name in ("write", "dwrite", "mwrite", "fault_write"):
        _add_write(file, event)
    elif name in ("truncate", "otrunc"):
        size = event.op.number("size") if name == "truncate" else 0
        file.sizes.append(SizeVersion(event, size, False, event.succeeded))
        file.add_data(DataVersion(event, size, END_OF_FILE, Source.ZERO, event.succeeded))
    elif name == "fallocate":
        _add_fallocate(file, event)
    elif name == "defrag":
        file.rewritten.append(event)
    elif name == "clone":
        _add_clone(file, event)
    elif name == "copy_range":
        _add_copy(file, event)
    elif name == "chmod":
        file.modes.append(ValueVersion(event, event.op.number("mode")))
    elif name in ("setxattr", "removexattr"):
        _add_xattr(file, event)


def _add_write(file: FileVersions, event: Event) -> None:
    start = event.op.number("off")
    length = event.result if event.succeeded else event.op.number("len")
    end = start + length
    file.add_data(DataVersion(event, start, end, Source.WRITE, event.succeeded))
    if length < event.op.number("len"):
        # What a short write did behind the end it reported is not told.
        file.add_data(DataVersion(event, end, start + event.op.number("len"), Source.WRITE, False))
    if event.op.name == "mwrite":
        file.mapped.append(event)
    else:
        file.sizes.append(SizeVersion(event, end, True, event.succeeded))


def _add_fallocate(file: FileVersions, event: Event) -> None:
    start, mode = event.op.number("off"), event.op.text("mode")
    end = start + event.op.number("len")
    if mode in ("collapse", "insert"):
        file.shifted.append(event)
        return
    if mode in ("punch", "zero", "zero_keep"):
        file.add_data(DataVersion(event, start, end, Source.ZERO, event.succeeded))
    if mode in ("alloc", "keep", "zero", "zero_keep") and event.succeeded:
        file.reserved.append(event)
    if mode in ("alloc", "zero", "unshare"):
        file.sizes.append(SizeVersion(event, end, True, event.succeeded))


def _add_clone(file: FileVersions, event: Event) -> None:
    """Length 0 means to the end of the source, whatever that was: then nothing is sure."""
    start, length = event.op.number("off"), event.op.number("len")
    end = start + length if length else END_OF_FILE
    sure = event.succeeded and length > 0
    file.add_data(DataVersion(event, start, end, Source.CLONE, sure))
    file.sizes.append(SizeVersion(event, end, True, sure))


def _add_copy(file: FileVersions, event: Event) -> None:
    """copy_file_range(2) may stop short; if it goes through the page cache it is no atomic change."""
    start, wanted = event.op.number("off"), event.op.number("len")
    length = event.result if event.succeeded else wanted
    file.add_data(DataVersion(event, start, start + length, Source.CLONE, event.succeeded))
    file.sizes.append(SizeVersion(event, start + length, True, event.succeeded and length > 0))
    if length < wanted:
        file.add_data(DataVersion(event, start + length, start + wanted, Source.CLONE, False))


def _add_xattr(file: FileVersions, event: Event) -> None:
    value = event.id if event.op.name == "setxattr" else None
    file.xattrs[event.op.text("name")].append(ValueVersion(event, value))


def overlaps(a: Event, b: Event) -> bool:
    """True if neither op returned before the other was invoked."""
    return a.begin_ns <= b.end_ns and b.begin_ns <= a.end_ns
