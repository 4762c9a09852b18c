"""Bugs to plant in a crashed model: what real file systems have been caught doing.

A bug changes what the disk shows after the crash, or lives in the disk from the start. `None` means
that this crash gave it nothing to break.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from oracle_disk import PAGE, ROOT, SECTOR, Btrfs, Inode, Record, World, Xfs, redone
from oracle_runner import Runner, Snapshot, random_op

from fuzzer.state.stamps import FOREIGN, ZERO
from fuzzer.state.tree import Tree
from fuzzer.workload.model import Op

Plant = Callable[[Runner, Snapshot, random.Random], Snapshot | None]


@dataclass(frozen=True)
class Bug:
    """`expected` are the (rule, kind) pairs one of which must be reported, `choose` makes the histories."""

    name: str
    expected: frozenset[tuple[str, str]]
    plant: Plant = lambda _runner, snapshot, _rng: snapshot
    in_disk: Callable[[Runner], None] | None = None
    in_tree: Callable[[Tree], Tree] = lambda tree: tree
    fs: tuple[str, ...] = ("btrfs", "xfs")
    choose: Callable[[random.Random], Op] = random_op

    def __str__(self) -> str:
        return self.name


def forget(what: str) -> Plant:
    """Log recovery skips one record of this sort."""

    def plant(runner: Runner, snapshot: Snapshot, rng: random.Random) -> Snapshot | None:
        disk = runner.disk
        assert isinstance(disk, Xfs)
        numbers = [n for n, record in enumerate(disk.journal[: disk.forced]) if record.what == what]
        if not numbers:
            return None
        return _after(disk.crash_without(rng.choice(numbers)), runner, snapshot)

    return plant


def _after(world: World, runner: Runner, snapshot: Snapshot) -> Snapshot:
    wanted = {b for inode in world.inodes.values() for b in inode.blocks.values()}
    return replace(snapshot, world=world, blocks={b: runner.disk.read_block(b) for b in wanted})


_NAMESPACE = frozenset({"file", "dir", "symlink", "other", "link", "rename", "remove"})


def _swap_records(runner: Runner, snapshot: Snapshot, rng: random.Random) -> Snapshot | None:
    """Recovery redoes a record too early, before one that had been committed first, and ends between."""
    disk = runner.disk
    assert isinstance(disk, Xfs)
    later = [n for n in range(disk.forced, len(disk.journal)) if disk.journal[n].what in _NAMESPACE]
    if len(later) < 2:
        return None
    first, last = sorted(rng.sample(later, 2))
    numbers = [n for n in range(last + 1) if n != first]
    return _after(disk.crash_with(numbers), runner, snapshot)


def in_a_block(damage: Callable[[bytes, random.Random], bytes]) -> Plant:
    """One block that is read back is damaged."""

    def plant(runner: Runner, snapshot: Snapshot, rng: random.Random) -> Snapshot | None:
        full = sorted(b for b, data in snapshot.blocks.items() if any(data[:SECTOR]))
        if not full:
            return None
        hit = rng.choice(full)
        return replace(snapshot, blocks={**snapshot.blocks, hit: damage(snapshot.blocks[hit], rng)})

    return plant


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    return bytes([data[0] ^ 1 << rng.randrange(8)]) + data[1:]


def tear_word(data: bytes, rng: random.Random) -> bytes:
    """Half a word of this stamp, half of the next."""
    return data[:4] + data[12:16] + data[8:]


def shift_block(data: bytes, rng: random.Random) -> bytes:
    """The block lands one sector too late."""
    return data[-SECTOR:] + data[:-SECTOR]


def in_names(change: Callable[[Runner, Snapshot, random.Random], bool]) -> Plant:
    """`change` works on a copy; False: nothing to break."""

    def plant(runner: Runner, snapshot: Snapshot, rng: random.Random) -> Snapshot | None:
        copy = replace(snapshot, world=snapshot.world.copy())
        return copy if change(runner, copy, rng) else None

    return plant


def _keep_old_name(flags: str) -> Callable[[Runner, Snapshot, random.Random], bool]:
    def change(runner: Runner, snapshot: Snapshot, rng: random.Random) -> bool:
        renames = [r for r in runner.events if r.op.name == "rename" and r.op.text("flags") == flags]
        for running in renames:
            event = running.event()
            new = (event.directory2, event.op.text("to").rsplit("/", 1)[-1])
            old = (event.directory, event.op.text("from").rsplit("/", 1)[-1])
            here = snapshot.world.entries.get(new)
            if event.succeeded and here == event.subject and old != new:
                snapshot.world.entries[old] = here
                return True
        return False

    return change


def _lose_inode(runner: Runner, snapshot: Snapshot, rng: random.Random) -> bool:
    victims = sorted(n for n in set(snapshot.world.entries.values()))
    if not victims:
        return False
    victim = rng.choice(victims)
    for key in snapshot.world.names_of(victim):
        del snapshot.world.entries[key]
    return True


def _second_parent(runner: Runner, snapshot: Snapshot, rng: random.Random) -> bool:
    dirs = sorted(n for n in set(snapshot.world.entries.values()) if snapshot.world.inodes[n].kind == "dir")
    if not dirs:
        return False
    snapshot.world.entries[ROOT, "again"] = dirs[0]
    return True


def _ghost(runner: Runner, snapshot: Snapshot, rng: random.Random) -> bool:
    files = sorted(n for n in set(snapshot.world.entries.values()) if snapshot.world.inodes[n].kind == "file")
    if not files:
        return False
    snapshot.world.entries[ROOT, "ghost"] = files[0]
    return True


def every(kind: str, change: Callable[[Inode], None]) -> Plant:
    """Every inode of a kind comes back changed."""

    def apply(runner: Runner, snapshot: Snapshot, rng: random.Random) -> bool:
        hit = [i for i in snapshot.world.inodes.values() if i.kind == kind]
        for inode in hit:
            change(inode)
        return bool(hit)

    return in_names(apply)


def _wrong_nlink(tree: Tree) -> Tree:
    nodes = {n: replace(x, nlink=x.nlink + (x.kind == "file")) for n, x in tree.nodes.items()}
    return replace(tree, nodes=nodes)


def _no_flush(runner: Runner) -> None:
    runner.disk.flush = lambda: None  # type: ignore[method-assign]


def _no_fsync(runner: Runner) -> None:
    runner.disk.sync_inode = lambda inode, data_only: None  # type: ignore[method-assign, assignment]


def _size_first(runner: Runner) -> None:
    """The size of an append is in the journal before its data is on disk."""
    disk = runner.disk
    write = disk.writeback

    def writeback(inode: int, page: int) -> None:
        cached = disk.cached(inode)
        end = min(cached.size, (page + 1) * PAGE)
        if page in cached.dirty and end > disk.world.inodes[inode].size:
            disk.set_size(inode, end)
        write(inode, page)

    disk.writeback = writeback  # type: ignore[method-assign]


def _tail_of_zeroes(runner: Runner) -> None:
    """An append that came after its page was written is in the size (as before Linux 51d20d1dacbe)."""
    disk = runner.disk
    store, seen = disk.store_page, dict[tuple[int, int], bytes]()

    def store_page(inode: int, page: int, data: bytes) -> None:
        if disk.world.inodes[inode].size < min(disk.cached(inode).size, (page + 1) * PAGE):
            data, seen[inode, page] = seen.get((inode, page), data), data
        store(inode, page, data)

    disk.store_page = store_page  # type: ignore[method-assign]


def _torn_blocks(runner: Runner) -> None:
    """A new block gets the second half of the page of a while ago."""
    disk = runner.disk
    store = disk.store_page

    def torn(inode: int, page: int, data: bytes) -> None:
        old = disk.world.inodes[inode].blocks.get(page)
        half = len(data) // 2
        store(inode, page, data if old is None else data[:half] + disk.blocks[old][-1][half:])

    disk.store_page = torn  # type: ignore[method-assign]


def _stale_behind_the_end(tree: Tree) -> Tree:
    """Where a file was extended, what the disk held before shows instead of zeroes."""
    nodes = {
        n: replace(x, runs=tuple(replace(r, op=FOREIGN) if r.op == ZERO else r for r in x.runs))
        for n, x in tree.nodes.items()
    }
    return replace(tree, nodes=nodes)


def _fast_fsync_forgets_extents(runner: Runner) -> None:
    """fsync of a file that is in the log already logs the inode and no extent."""
    disk = runner.disk
    assert isinstance(disk, Btrfs)
    sync, logged = disk.sync_inode, set[int]()

    def sync_inode(inode: int, *, data_only: bool) -> None:
        old = disk.durable.inodes.get(inode)
        blocks = dict(old.blocks) if old and inode in logged else None
        sync(inode, data_only=data_only)
        logged.add(inode)
        if blocks is not None and inode in disk.durable.inodes:
            disk.durable.inodes[inode].blocks = blocks

    disk.sync_inode = sync_inode  # type: ignore[method-assign]


def _no_log(rng: random.Random) -> Op:
    """An op that does not make btrfs write a log tree."""
    ops = iter(lambda: random_op(rng), None)
    return next(op for op in ops if not op.is_durability_point or op.name in ("sync", "syncfs"))


def _commit_misses_a_name(runner: Runner) -> None:
    """A commit leaves out one of the changes of names that are in its transaction."""
    disk = runner.disk
    assert isinstance(disk, Btrfs)
    do, commit, rng = disk.do, disk.sync_all, random.Random(len(runner.events))
    before, since = disk.world.copy(), list[Record]()

    def remember(record: Record) -> None:
        do(record)
        since.append(record)

    def sync_all() -> None:
        nonlocal before
        commit()
        names = [record for record in since if record.what in _NAMESPACE]
        if names:
            missed = rng.choice(names)
            disk.durable = redone(before, [record for record in since if record is not missed])
        before = disk.world.copy()
        since.clear()

    disk.do, disk.sync_all = remember, sync_all  # type: ignore[method-assign]


def _fsync_is_fdatasync(runner: Runner) -> None:
    disk = runner.disk
    sync = disk.sync_inode
    disk.sync_inode = lambda inode, data_only: sync(inode, data_only=True)  # type: ignore[method-assign, assignment]


def _forgets_reserved(runner: Runner) -> None:
    """The log of a file has no extents behind its end (as before fstests generic/483)."""
    disk = runner.disk
    assert isinstance(disk, Btrfs)
    sync = disk.sync_inode

    def sync_inode(inode: int, *, data_only: bool) -> None:
        sync(inode, data_only=data_only)
        logged = disk.durable.inodes.get(inode)
        if logged:
            logged.reserved = {page for page in logged.reserved if page * PAGE < logged.size}

    disk.sync_inode = sync_inode  # type: ignore[method-assign]


def _no_range(runner: Runner) -> None:
    runner.disk.sync_range = lambda inode, start, end: None  # type: ignore[method-assign]


def _no_sync(runner: Runner) -> None:
    runner.disk.sync_all = lambda: None  # type: ignore[method-assign]


def _expect(*pairs: str) -> frozenset[tuple[str, str]]:
    return frozenset((rule, kind) for rule, kind in (pair.split(" ") for pair in pairs))


_BINDING = _expect("names missing-name", "names resurrected-name", "names old-binding")
_DATA = _expect("data old-data", "data lost-to-zero")
_ORDER = _expect("order missing-name", "order resurrected-name", "order old-binding", "order lost-inode")
_RESERVED = _expect("prealloc lost-reservation")
_ZEROS = _expect("extension zeros-inside-size")
_XATTR = _expect("xattr missing-xattr", "xattr old-xattr")

BUGS = (
    Bug("loses a rename", _BINDING, forget("rename"), fs=("xfs",)),
    Bug("loses an exchange", _BINDING, forget("exchange"), fs=("xfs",)),
    Bug("loses a new file", _expect("names missing-name"), forget("file"), fs=("xfs",)),
    Bug("loses a new directory", _expect("names missing-name"), forget("dir"), fs=("xfs",)),
    Bug("loses a hard link", _expect("names missing-name"), forget("link"), fs=("xfs",)),
    Bug("resurrects an unlinked name", _expect("names resurrected-name"), forget("remove"), fs=("xfs",)),
    Bug("loses a written range", _expect("data lost-to-zero"), forget("map"), fs=("xfs",)),
    Bug("loses a punched hole", _expect("data old-data"), forget("punch"), fs=("xfs",)),
    Bug("loses a clone", _DATA, forget("clone"), fs=("xfs",)),
    Bug("forgets the size", _expect("size size-too-small"), forget("size"), fs=("xfs",)),
    Bug("forgets a truncate", _expect("size size-too-large"), forget("truncate"), fs=("xfs",)),
    Bug("old mode", _expect("mode old-mode"), forget("chmod"), fs=("xfs",)),
    Bug("old xattr", _XATTR, forget("setxattr"), fs=("xfs",)),
    Bug("xattr comes back", _expect("xattr resurrected-xattr"), forget("removexattr"), fs=("xfs",)),
    Bug("flips a bit", _expect("data foreign-data"), in_a_block(flip_bit)),
    Bug("tears a word", _expect("data foreign-data"), in_a_block(tear_word)),
    Bug("misplaces a block", _expect("data misplaced-data"), in_a_block(shift_block)),
    Bug("zeroes a block", _expect("data lost-to-zero"), in_a_block(lambda data, rng: bytes(len(data)))),
    Bug(
        "loses symlink targets",
        _expect("names wrong-target"),
        every("symlink", lambda i: setattr(i, "target", "")),
    ),
    Bug(
        "turns files into fifos",
        _expect("names wrong-type"),
        every("file", lambda i: setattr(i, "kind", "other")),
    ),
    Bug(
        "mode from nowhere", _expect("mode mode-from-nowhere"), every("file", lambda i: setattr(i, "mode", 1))
    ),
    Bug(
        "xattr from nowhere",
        _expect("xattr xattr-from-nowhere"),
        every("file", lambda i: i.xattrs.update(z=b"op=1;")),
    ),
    Bug(
        "corrupts xattrs",
        _expect("xattr corrupt-xattr"),
        every("file", lambda i: i.xattrs.update({k: b"!" + v for k, v in i.xattrs.items()})),
    ),
    Bug(
        "size beyond all",
        _expect("size size-from-nowhere"),
        every("file", lambda i: setattr(i, "size", 1 << 20)),
    ),
    Bug("a file at two names after rename", _expect("names rename-both"), in_names(_keep_old_name("none"))),
    Bug("half an exchange", _expect("names rename-both"), in_names(_keep_old_name("exchange"))),
    Bug("loses an inode", _expect("names lost-inode"), in_names(_lose_inode)),
    Bug("directory with two parents", _expect("structure two-parents"), in_names(_second_parent)),
    Bug("a name nobody made", _expect("names name-from-nowhere"), in_names(_ghost)),
    Bug("wrong nlink", _expect("structure nlink"), in_tree=_wrong_nlink),
    Bug("flush does nothing", _DATA, in_disk=_no_flush, fs=("xfs",)),
    Bug("fsync keeps no data", _DATA, in_disk=_no_fsync),
    Bug("fsync keeps no names", _BINDING | _expect("names lost-inode"), in_disk=_no_fsync),
    Bug("fsync keeps no size", _expect("size size-too-small"), in_disk=_no_fsync),
    Bug("fsync keeps no mode", _expect("mode old-mode"), in_disk=_no_fsync),
    Bug("fsync keeps no xattr", _XATTR, in_disk=_no_fsync),
    Bug("msync and O_DSYNC do nothing", _DATA, in_disk=_no_range),
    Bug("sync does nothing", _BINDING, in_disk=_no_sync),
    Bug("size before data", _ZEROS, in_disk=_size_first, fs=("xfs",)),
    Bug("a tail of zeroes", _ZEROS, in_disk=_tail_of_zeroes, fs=("xfs",)),
    Bug("torn copy-on-write block", _expect("blocks torn-block"), in_disk=_torn_blocks, fs=("btrfs",)),
    Bug("stale data behind the end of file", _expect("data foreign-data"), in_tree=_stale_behind_the_end),
    Bug("fast fsync loses extents", _DATA, in_disk=_fast_fsync_forgets_extents, fs=("btrfs",)),
    Bug(
        "a mode comes before what was committed earlier",
        _expect("order old-mode"),
        forget("chmod"),
        fs=("xfs",),
    ),
    Bug(
        "a name comes before what was committed earlier",
        _expect("order missing-name"),
        forget("file"),
        fs=("xfs",),
    ),
    Bug("a removal is overtaken", _expect("order resurrected-name"), forget("remove"), fs=("xfs",)),
    Bug("recovery swaps two records", _ORDER, _swap_records, fs=("xfs",)),
    Bug(
        "a commit misses a change of a name",
        _ORDER,
        in_disk=_commit_misses_a_name,
        fs=("btrfs",),
        choose=_no_log,
    ),
    Bug("fsync keeps the old mtime", _expect("times old-mtime"), in_disk=_fsync_is_fdatasync),
    Bug("fsync keeps the old ctime", _expect("times old-ctime"), in_disk=_fsync_is_fdatasync),
    Bug("recovery loses a change of times", _expect("times old-mtime"), forget("times"), fs=("xfs",)),
    Bug(
        "times from after the crash",
        _expect("times mtime-from-nowhere"),
        every("file", lambda i: setattr(i, "mtime_ns", 1 << 60)),
    ),
    Bug("recovery loses a reservation", _RESERVED, forget("reserve"), fs=("xfs",)),
    Bug("fsync forgets what is reserved", _RESERVED, in_disk=_forgets_reserved, fs=("btrfs",)),
    Bug("frees what is reserved", _RESERVED, every("file", lambda i: i.reserved.clear())),
)
