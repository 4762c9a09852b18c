"""The disks of the model file system: what survives a crash.

`Xfs` keeps a journal that is made durable up to a position, and writes data in place. `Btrfs` keeps a
snapshot of its last commit and copies single inodes over it when they are fsynced. Both make durable
as little as the contract asks, and more only where chance says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

PAGE = 4096
SECTOR = 512
MAX_BYTES = 8 * PAGE
ROOT = 2

Key = tuple[int, str]


@dataclass
class Inode:
    """What a disk knows of an inode. `blocks` maps pages to block numbers; `reserved` are pages fallocate
    set aside."""

    kind: str
    mode: int
    target: str = ""
    size: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    blocks: dict[int, int] = field(default_factory=dict)
    reserved: set[int] = field(default_factory=set)
    mtime_ns: int = 0
    ctime_ns: int = 0

    def copy(self) -> Inode:
        xattrs, blocks, reserved = dict(self.xattrs), dict(self.blocks), set(self.reserved)
        return replace(self, xattrs=xattrs, blocks=blocks, reserved=reserved)

    @property
    def allocated_bytes(self) -> int:
        return PAGE * len(self.blocks.keys() | self.reserved)


@dataclass
class World:
    """Names and inodes: all metadata there is."""

    inodes: dict[int, Inode]
    entries: dict[Key, int] = field(default_factory=dict)

    def copy(self) -> World:
        return World({n: inode.copy() for n, inode in self.inodes.items()}, dict(self.entries))

    def names_of(self, inode: int) -> list[Key]:
        return [key for key, found in self.entries.items() if found == inode]

    def alive(self, inode: int) -> bool:
        return inode == ROOT or inode in self.entries.values()

    def reachable(self) -> set[int]:
        found, pending = {ROOT}, [ROOT]
        while pending:
            directory = pending.pop()
            new = {v for (d, _), v in self.entries.items() if d == directory} - found
            found |= new
            pending += new
        return found


def new_world() -> World:
    return World({ROOT: Inode("dir", 0o755)})


@dataclass(frozen=True)
class Record:
    """One atomic change of metadata. `forces`: inodes whose fsync must bring it along; `needs` the
    same for fdatasync."""

    what: str
    apply: Callable[[World], None]
    forces: frozenset[int]
    needs: frozenset[int] = frozenset()


@dataclass
class Cached:
    """A file in the page cache. Bytes beyond `size` are zero."""

    content: bytearray = field(default_factory=lambda: bytearray(MAX_BYTES))
    size: int = 0
    dirty: set[int] = field(default_factory=set)

    def page(self, number: int) -> bytes:
        return bytes(self.content[number * PAGE : (number + 1) * PAGE])


def pages_of(start: int, end: int) -> range:
    return range(start // PAGE, -(-end // PAGE))


class Disk:
    """What both disks do alike: blocks, the page cache and its writeback."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 10
        self.world = new_world()
        self.cache: dict[int, Cached] = {}
        self.blocks: dict[int, list[bytes]] = {}
        """Contents of a block since the last flush, oldest first: any of them may survive a crash."""
        self.shared: set[int] = set()

    def do(self, record: Record) -> None:
        record.apply(self.world)

    def cached(self, inode: int) -> Cached:
        return self.cache.setdefault(inode, Cached())

    def new_block(self, data: bytes) -> int:
        self.blocks[len(self.blocks) + 1] = [bytes(PAGE), data]
        return len(self.blocks)

    def flush(self) -> None:
        for versions in self.blocks.values():
            del versions[:-1]

    def map_page(self, inode: int, page: int, block: int) -> None:
        def apply(world: World) -> None:
            world.inodes[inode].blocks[page] = block

        self.do(Record("map", apply, frozenset({inode}), frozenset({inode})))

    def set_size(self, inode: int, size: int, what: str = "size") -> None:
        """New size on disk; blocks behind it go."""

        def apply(world: World) -> None:
            node = world.inodes[inode]
            node.size = size
            node.blocks = {p: b for p, b in node.blocks.items() if p * PAGE < size}
            if what == "truncate":
                node.reserved = {p for p in node.reserved if p * PAGE < size}

        self.do(Record(what, apply, frozenset({inode}), frozenset({inode})))

    def touch(self, inode: int, *, content: bool) -> None:
        """The file was changed now: its content, or only attributes."""
        now = self.now

        def apply(world: World) -> None:
            node = world.inodes[inode]
            node.ctime_ns = now
            if content:
                node.mtime_ns = now

        self.do(Record("times", apply, frozenset({inode})))

    def writeback(self, inode: int, page: int) -> None:
        """Write one page; the size on disk follows the data."""
        cached = self.cached(inode)
        if page not in cached.dirty:
            return
        cached.dirty.discard(page)
        self.store_page(inode, page, cached.page(page))
        end = min(cached.size, (page + 1) * PAGE)
        if end > self.world.inodes[inode].size:
            self.set_size(inode, end)

    def writeback_range(self, inode: int, start: int, end: int) -> None:
        for page in pages_of(start, end):
            self.writeback(inode, page)

    def flusher(self) -> None:
        """What the kernel does on its own: write back some page of some file."""
        dirty = [(n, p) for n, cached in self.cache.items() for p in cached.dirty]
        if dirty:
            self.writeback(*self.rng.choice(sorted(dirty)))

    def store_page(self, inode: int, page: int, data: bytes) -> None:
        raise NotImplementedError

    def sync_inode(self, inode: int, *, data_only: bool) -> None:
        raise NotImplementedError

    def sync_range(self, inode: int, start: int, end: int) -> None:
        raise NotImplementedError

    def sync_all(self) -> None:
        raise NotImplementedError

    def background(self) -> None:
        raise NotImplementedError

    def crash(self) -> World:
        raise NotImplementedError

    def read_block(self, number: int) -> bytes:
        """A block after the crash: per sector any version since the last flush."""
        versions = self.blocks[number]
        if len(versions) == 1:
            return versions[0]
        sectors = range(0, PAGE, SECTOR)
        return b"".join(self.rng.choice(versions)[at : at + SECTOR] for at in sectors)


class Xfs(Disk):
    """A journal with one global order; data in place, copied only where blocks are shared."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.journal: list[Record] = []
        self.forced = 0

    def do(self, record: Record) -> None:
        super().do(record)
        self.journal.append(record)

    def store_page(self, inode: int, page: int, data: bytes) -> None:
        block = self.world.inodes[inode].blocks.get(page)
        if block is None or block in self.shared:
            self.map_page(inode, page, self.new_block(data))
        else:
            self.blocks[block].append(data)

    def force(self, position: int) -> None:
        """The journal write carries a flush of the device (REQ_PREFLUSH)."""
        self.flush()
        self.forced = max(self.forced, position)

    def sync_inode(self, inode: int, *, data_only: bool) -> None:
        self.force(self._last(lambda r: inode in (r.needs if data_only else r.forces)))

    def sync_range(self, inode: int, start: int, end: int) -> None:
        self.writeback_range(inode, start, end)
        self.sync_inode(inode, data_only=True)

    def _last(self, match: Callable[[Record], bool]) -> int:
        return max((n + 1 for n, record in enumerate(self.journal) if match(record)), default=0)

    def sync_all(self) -> None:
        self.force(len(self.journal))

    def background(self) -> None:
        self.force(self.rng.randint(self.forced, len(self.journal)))

    def crash(self) -> World:
        world = new_world()
        for record in self.journal[: self.forced]:
            record.apply(world)
        return world

    def crash_without(self, skipped: int) -> World:
        """A planted bug: recovery skips one record, and what only made sense after it."""
        return self.crash_with(n for n in range(self.forced) if n != skipped)

    def crash_with(self, numbers: Iterable[int]) -> World:
        """A planted bug: recovery goes through these records, and passes over what makes no sense."""
        return redone(new_world(), [self.journal[number] for number in numbers])


def redone(world: World, records: Iterable[Record]) -> World:
    """`world` after the changes that can still be made."""
    for record in records:
        with suppress(KeyError):
            record.apply(world)
    world.entries = {key: n for key, n in world.entries.items() if n in world.inodes}
    return world


class NeedCommitError(Exception):
    """The log tree cannot express it."""


class Btrfs(Disk):
    """A committed snapshot, and single inodes logged over it; never writes in place."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.durable = new_world()
        self.moved_out: dict[Key, int] = {}
        """Names a rename took away since the last commit, and whose they were."""
        self.emptied: set[Key] = set()
        """Names that stood for nothing at some time since then."""
        self.exchanged: set[int] = set()
        """Inodes that changed places since then: logging one alone would show half an exchange."""
        self.commits: list[tuple[int, int]] = []

    def do(self, record: Record) -> None:
        before = dict(self.world.entries)
        super().do(record)
        if record.what == "exchange":
            self.exchanged |= {i for key, i in before.items() if self.world.entries.get(key) != i}
        gone = before.keys() - self.world.entries.keys()
        self.emptied |= gone
        if record.what == "rename":
            self.moved_out |= {key: before[key] for key in gone}
        self.moved_out = {k: inode for k, inode in self.moved_out.items() if k not in self.world.entries}

    def store_page(self, inode: int, page: int, data: bytes) -> None:
        self.map_page(inode, page, self.new_block(data))

    def sync_all(self) -> None:
        self.flush()
        self.commits.append((self.now, self.now))
        self.durable = self.world.copy()
        self.moved_out.clear()
        self.emptied.clear()
        self.exchanged.clear()

    def background(self) -> None:
        if self.rng.random() < 0.3:
            self.sync_all()

    def crash(self) -> World:
        return self.durable.copy()

    def sync_inode(self, inode: int, *, data_only: bool) -> None:
        backup = self.durable.copy()
        self.flush()
        try:
            self._log_inode(inode, data_only=data_only)
            if self.world.inodes[inode].kind == "dir":
                self._log_entries(inode)
        except NeedCommitError:
            self.durable = backup
            self.sync_all()

    def sync_range(self, inode: int, start: int, end: int) -> None:
        """Only the blocks of the range, and a size that makes them readable; or everything."""
        self.writeback_range(inode, start, end)
        old = self.durable.inodes.get(inode)
        now = self.world.inodes[inode]
        known = old is not None and self.durable.alive(inode)
        if old is None or not known or now.size < min(end, old.size) or self.rng.random() < 0.3:
            self.sync_inode(inode, data_only=True)
            return
        self.flush()
        for page in pages_of(start, min(end, now.size)):
            old.blocks.pop(page, None)
            if page in now.blocks:
                old.blocks[page] = now.blocks[page]
        old.size = max(old.size, min(now.size, -(-end // PAGE) * PAGE))

    def _log_inode(self, inode: int, *, data_only: bool) -> None:
        now, old = self.world.inodes[inode], self.durable.inodes.get(inode)
        logged = now.copy()
        if data_only and old is not None:
            logged.mode, logged.xattrs = old.mode, dict(old.xattrs)
            logged.mtime_ns, logged.ctime_ns = old.mtime_ns, old.ctime_ns
        known = self.durable.alive(inode)
        self.durable.inodes[inode] = logged
        if known and (now.kind == "dir" or data_only):
            return
        self._log_names(inode)

    def _log_names(self, inode: int) -> None:
        """Its names become what they are now; who had one of them before is logged as well."""
        if inode in self.exchanged:
            raise NeedCommitError
        now = self.world.names_of(inode)
        for key in self.durable.names_of(inode):
            if key not in now:
                self._log_lost_name(key)
        for directory, name in now:
            self._log_ancestor(directory)
            occupant = self.durable.entries.get((directory, name), inode)
            self.durable.entries[directory, name] = inode
            if occupant != inode:
                self._log_conflict(occupant)

    def _log_lost_name(self, key: Key) -> None:
        """The name goes, unless a rename put another inode there: then it shows the old or the new."""
        successor = self.world.entries.get(key)
        if successor is None or key in self.emptied:
            del self.durable.entries[key]
            if successor is not None and not self.durable.alive(successor):
                self._log_successor(successor)
        elif self.rng.random() < 0.5:
            if self.durable.alive(successor) and self.world.inodes[successor].kind == "dir":
                raise NeedCommitError
            del self.durable.entries[key]
            if self.durable.alive(successor):
                self._log_names(successor)
            else:
                self._log_existence(successor)

    def _log_successor(self, inode: int) -> None:
        """A new file at a name the logged one had goes along (fstests generic/376)."""
        self._log_existence(inode)

    def _log_conflict(self, inode: int) -> None:
        if self.world.inodes[inode].kind == "dir" and (self.world.alive(inode) or self._orphans(inode)):
            raise NeedCommitError
        self._log_names(inode)

    def _orphans(self, directory: int) -> bool:
        """True if a directory that goes still holds, on disk, something that lives on elsewhere."""
        return any(d == directory and self.world.alive(i) for (d, _), i in self.durable.entries.items())

    def _log_ancestor(self, directory: int) -> None:
        if not self.durable.alive(directory):
            self._log_existence(directory)

    def _log_existence(self, inode: int) -> None:
        now = self.world.inodes[inode]
        logged = replace(now.copy(), size=0, blocks={}, reserved=set())
        self.durable.inodes.setdefault(inode, logged)
        self._log_names(inode)

    def _log_entries(self, directory: int) -> None:
        for key, inode in list(self.world.entries.items()):
            if key[0] != directory or self.durable.entries.get(key) == inode:
                continue
            if not self.durable.alive(inode):
                self._log_existence(inode)
                self._log_new_directory(inode)
            elif self.world.inodes[inode].kind == "dir":
                raise NeedCommitError
            elif key not in self.durable.entries and self.rng.random() < 0.5:
                # The entry alone: names in directories nobody synced stay.
                self._keep_elsewhere(directory, key, inode)
            else:
                self._log_names(inode)
        for key, inode in list(self.durable.entries.items()):
            if key[0] == directory and key not in self.world.entries and key in self.durable.entries:
                self._log_removal(key, inode)

    def _log_new_directory(self, directory: int) -> None:
        """What was made in it goes along (fstests generic/785)."""
        self._log_entries(directory)

    def _keep_elsewhere(self, directory: int, key: Key, inode: int) -> None:
        if inode in self.exchanged:
            raise NeedCommitError
        for old in self.durable.names_of(inode):
            if old[0] == directory and old not in self.world.entries:
                del self.durable.entries[old]
        self.durable.entries[key] = inode

    def _log_removal(self, key: Key, inode: int) -> None:
        """A name that was moved away need not go (its inode must not be lost); a removed one must."""
        if self.moved_out.get(key) == inode and self.world.alive(inode) and self.rng.random() < 0.5:
            return
        self._log_conflict(inode)
