"""Runs random concurrent histories on the model of `oracle_model.py` and crashes them anywhere.

Every op is a generator: it yields between its atomic effects, and a seeded scheduler decides who goes
on. So an effect lies anywhere between invocation and return, as in a kernel, and the judge, which only
sees the two times, has to get along with it.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from oracle_disk import MAX_BYTES, PAGE, ROOT, Btrfs, Disk, World, Xfs
from oracle_model import AHEAD_NS, Core, make_tree

from fuzzer.state.history import FOREVER, Event, History
from fuzzer.state.recovery import Recovery
from fuzzer.state.stamps import Words, decode, encode, file_tag
from fuzzer.state.tree import Tree
from fuzzer.state.xattr_value import xattr_value
from fuzzer.workload.model import Actor, Op, Value, Workload, make_op, op_id
from fuzzer.writelog.crash import LIVE, Cut
from oracles import PROFILES, Judgement, build_versions, judge

PATHS = ("a", "b", "c", "d", "d/x", "d/y", "e", "e/x")
TICK_NS = 100_000_000
"""Time between two steps: long enough for a time of the step before to be told apart."""

MODES = (0o600, 0o644, 0o755)
_RENAME_FLAGS = ("none", "none", "exchange", "noreplace")
_FALLOCATE = ("alloc", "keep", "punch", "zero", "zero_keep", "unshare")
Steps = Iterator[None]

_NO_IDS: Words = np.zeros(0, dtype=np.uint64)


@dataclass
class Running:
    """An op under way: what becomes its event."""

    id: int
    actor: int
    sequence: int
    op: Op
    begin_ns: int = 0
    end_ns: int = FOREVER
    result: int = 0
    errno: int = 0
    inodes: dict[str, int] = field(default_factory=dict)
    data: bytes = b""
    """What a read returned."""

    def event(self, known: Words = _NO_IDS) -> Event:
        return Event(
            id=self.id,
            actor=self.actor,
            sequence=self.sequence,
            op=self.op,
            begin_ns=self.begin_ns,
            end_ns=self.end_ns,
            result=self.result,
            errno=self.errno,
            seen=decode(self.data, self.op.number("off"), known) if self.data else (),
            **self.inodes,
        )


def random_op(rng: random.Random) -> Op:
    """Any op of the table the model knows, on few paths, so that actors meet."""
    path, other = rng.choice(PATHS), rng.choice(PATHS)
    offset, length = rng.randrange(0, 3 * PAGE, 8), 8 * rng.choice((1, 60, 512, 700, 1024, 1100))
    block = PAGE * rng.randrange(3)
    span = {"path": path, "off": offset, "len": length}
    durable = rng.choice(("none", "none", "dsync", "sync"))
    rows: tuple[tuple[str, dict[str, Value]], ...] = (
        ("create", {"path": path, "mode": rng.choice(MODES)}),
        ("create", {"path": path}),
        ("mkdir", {"path": path, "mode": rng.choice(MODES)}),
        ("symlink", {"target": rng.choice(("t", "long/target")), "path": path}),
        ("mknod", {"path": path, "kind": rng.choice(("fifo", "null", "socket"))}),
        ("link", {"from": path, "to": other}),
        ("rename", {"from": path, "to": other, "flags": rng.choice(_RENAME_FLAGS)}),
        ("rename", {"from": path, "to": other}),
        ("unlink", {"path": path}),
        ("rmdir", {"path": path}),
        ("write", {**span, "sync": durable}),
        ("write", {**span}),
        ("dwrite", {"path": path, "off": block, "len": PAGE * rng.randint(1, 2), "sync": durable}),
        ("mwrite", {**span, "msync": rng.choice(("none", "async", "sync"))}),
        ("truncate", {"path": path, "size": rng.choice((0, 8, 4000, PAGE, 5000, 3 * PAGE))}),
        ("otrunc", {"path": path}),
        ("fallocate", {**span, "mode": rng.choice(_FALLOCATE)}),
        ("clone", {"from": path, "to": other, "src": block, "off": PAGE * rng.randrange(3),
                   "len": PAGE * rng.randint(0, 2)}),
        ("dedupe", {"from": path, "to": other, "src": block, "off": PAGE * rng.randrange(3), "len": PAGE}),
        ("chmod", {"path": path, "mode": rng.choice(MODES)}),
        ("setxattr", {"path": path, "name": rng.choice("mn"), "size": rng.choice((8, 40))}),
        ("removexattr", {"path": path, "name": rng.choice("mn")}),
        ("fsync", {"path": path}),
        ("fsync", {"path": rng.choice((".", "d", "e"))}),
        ("fdatasync", {"path": path}),
        ("msync", {**span}),
        ("sync", {}),
        ("syncfs", {}),
        ("freeze", {}),
    )  # fmt: skip
    if rng.random() < 0.004:
        # Seldom: from then on nothing is known of the file's offsets.
        mode = rng.choice(("collapse", "insert"))
        return make_op("fallocate", {"path": path, "off": block, "len": PAGE, "mode": mode})
    name, values = rng.choices(rows, weights=[1 if row[0].startswith("sync") else 3 for row in rows])[0]
    return make_op(name, values)


def random_append_or_whiteout(rng: random.Random) -> Op:
    """Every third op one of these. They are not among the others, whose histories planted bugs are
    measured on."""
    path, other = rng.choice(PATHS), rng.choice(PATHS)
    length, durable = 8 * rng.choice((1, 60, 512, 700)), rng.choice(("none", "none", "dsync"))
    if rng.random() < 0.2:
        return make_op("append", {"path": path, "len": length, "sync": durable})
    if rng.random() < 0.2:
        return make_op("rename", {"from": path, "to": other, "flags": "whiteout"})
    return random_op(rng)


def random_read(rng: random.Random) -> Op:
    span = {"off": rng.randrange(0, 3 * PAGE, 8), "len": 8 * rng.choice((60, 512, 1100))}
    return make_op("read", {"path": rng.choice(PATHS), **span, "direct": rng.choice(("no", "no", "yes"))})


SETUP = tuple(
    make_op(name, {"path": path}) for name, path in (("mkdir", "d"), ("create", "a"), ("create", "d/x"))
)


@dataclass(frozen=True)
class Snapshot:
    """A crash: when, and what a mount would show then. `read` gives a block after the crash."""

    cut: Cut
    world: World
    blocks: dict[int, bytes]


class Runner:
    """One history. `snapshots` are its crashes; `history()` what the judge gets to see.

    `readers` are further actors, that only read. With a `workload` its ops are run, and the
    seed only schedules them.
    """

    def __init__(
        self,
        seed: int,
        fs: str,
        actors: int = 3,
        ops: int = 9,
        readers: int = 0,
        choose: Callable[[random.Random], Op] = random_op,
        workload: Workload | None = None,
    ) -> None:
        self.rng = random.Random(f"{seed}/{fs}")
        self.fs = fs
        self.disk: Disk = Xfs(self.rng) if fs == "xfs" else Btrfs(self.rng)
        self.core = Core(self.disk, reuse_numbers=fs == "xfs")
        self.events: list[Running] = []
        self.snapshots: list[Snapshot] = []
        self.locked: set[int] = set()
        """Inodes whose truncate is half done."""
        self.failed_ns: dict[int, int] = {}
        """Per inode: when its writeback failed last."""
        self._work = {a: [choose(self.rng) for _ in range(ops)] for a in range(1, actors + 1)}
        for reader in range(actors + 1, actors + readers + 1):
            self._work[reader] = [random_read(self.rng) for _ in range(ops)]
        self.workload = workload or Workload(
            fs=fs,
            setup=(*SETUP, make_op("sync")),
            actors=tuple(Actor(f"actor{number}", tuple(work)) for number, work in self._work.items()),
        )
        self._work = {
            n: list(actor.ops) * (actor.loop or 1) for n, actor in enumerate(self.workload.actors, 1)
        }

    @property
    def now(self) -> int:
        return self.disk.now

    @now.setter
    def now(self, time_ns: int) -> None:
        self.disk.now = time_ns

    def run(self) -> None:
        for number, op in enumerate(self.workload.setup):
            for _ in self._start(0, number, op):
                self._tick()
        under_way: dict[int, Steps] = {}
        sequence = dict.fromkeys(self._work, 0)
        while under_way or any(self._work.values()):
            actor = self.rng.choice([a for a in self._work if a in under_way or self._work[a]])
            if actor not in under_way:
                under_way[actor] = self._start(actor, sequence[actor], self._work[actor].pop(0))
                sequence[actor] += 1
            if next(under_way[actor], "end") == "end":
                del under_way[actor]
            self._between()

    def _between(self) -> None:
        self._tick()
        chance = self.rng.random()
        if chance < 0.15:
            self.disk.flusher()
        elif chance < 0.18:
            self.disk.background()
        if self.rng.random() < 0.12:
            self.snapshots.append(self.crash())

    def crash(self) -> Snapshot:
        """A crash now."""
        world = self.disk.crash()
        wanted = {b for inode in world.inodes.values() for b in inode.blocks.values()}
        self._tick()
        return Snapshot(Cut(self.now, self.now), world, {b: self.disk.read_block(b) for b in wanted})

    def history(self) -> History:
        known = np.array(sorted(running.id for running in self.events), dtype=np.uint64)
        events = sorted((r.event(known) for r in self.events), key=lambda e: e.begin_ns)
        return History(tuple(events), ROOT, realtime_ns=AHEAD_NS)

    def tree(self, snapshot: Snapshot, history: History) -> Tree:
        nlink = PROFILES[self.fs].directory_nlink
        return make_tree(snapshot.world, snapshot.blocks.__getitem__, history.known_ids(), nlink)

    def live_snapshot(self) -> Snapshot:
        """What the running file system shows at the end: the page cache counts."""
        world = self.core.world.copy()
        blocks: dict[int, bytes] = {}
        for number, inode in world.inodes.items():
            cached = self.core.cached(number)
            if inode.kind == "file":
                inode.size = cached.size
                inode.blocks = {p: -(number << 8 | p) for p in range(MAX_BYTES // PAGE)}
                blocks |= {-(number << 8 | p): cached.page(p) for p in inode.blocks}
        return Snapshot(LIVE, world, blocks)

    # One op, from the look-ups before its begin to its end.

    def _start(self, actor: int, sequence: int, op: Op) -> Steps:
        running = Running(op_id(actor, sequence), actor, sequence, op)
        self.events.append(running)
        try:
            yield from getattr(self, f"_{op.name}")(running, op)
        except OSError as error:
            running.errno = error.errno or 0
            running.begin_ns = running.begin_ns or self._tick()
        running.end_ns = self._tick()
        yield

    def _tick(self) -> int:
        self.now += TICK_NS
        return self.now

    def _begin(self, running: Running, **inodes: int) -> None:
        running.begin_ns = self._tick()
        running.inodes = inodes

    def _name_at(self, key: tuple[int, str]) -> int:
        return self.core.world.entries.get(key, 0)

    def _make(self, running: Running, op: Op) -> Steps:
        key = self.core.parent(op.text("path"))
        self._begin(running, directory=key[0])
        yield
        if op.name == "symlink":
            made = self.core.make(key, "symlink", 0o777, op.text("target"))
        else:
            kind = {"mkdir": "dir", "mknod": "other"}.get(op.name, "file")
            made = self.core.make(key, kind, op.number("mode"))
        yield
        running.inodes["subject"] = made if op.name == "create" else self._name_at(key)
        yield

    _create = _mkdir = _symlink = _mknod = _make

    def _link(self, running: Running, op: Op) -> Steps:
        inode = self.core.lookup(op.text("from"))
        if self.core.world.inodes[inode].kind == "dir":
            raise self.core.fail(1)
        key = self.core.parent(op.text("to"))
        self._begin(running, subject=inode, directory=key[0])
        yield
        self.core.link(inode, key)
        yield

    def _remove(self, running: Running, op: Op) -> Steps:
        key = self.core.parent(op.text("path"))
        self._begin(running, directory=key[0])
        yield
        running.inodes["subject"] = self._name_at(key)
        yield
        self.core.remove(key, directory=op.name == "rmdir")
        yield

    _unlink = _rmdir = _remove

    def _rename(self, running: Running, op: Op) -> Steps:
        old, new = self.core.parent(op.text("from")), self.core.parent(op.text("to"))
        self._begin(running, directory=old[0], directory2=new[0])
        yield
        running.inodes["subject"] = self._name_at(old)
        yield
        running.inodes["other"] = self._name_at(new)
        yield
        self.core.rename(old, new, op.text("flags"))
        yield

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        while start < end:
            stop = min(end, (start // PAGE + 1) * PAGE)
            yield start, stop
            start = stop

    def _store(self, running: Running, op: Op, put: Callable[[int, int, bytes], object]) -> Steps:
        """Put the stamps, page by page; a page that cannot be stored to ends it."""
        inode, start = running.inodes["subject"], op.number("off")
        for low, high in self._pieces(start, start + op.number("len")):
            data = encode(running.id, file_tag(inode), low, high - low)
            yield from self._unlocked(inode)
            stored = put(inode, low, data)
            if stored == 0:
                break
            running.result += high - low
            yield
        if not running.result:
            raise self.core.fail(14)

    def _write(self, running: Running, op: Op) -> Steps:
        self._begin(running, subject=self.core.open_file(op.text("path")))
        yield
        yield from self._store(running, op, self.core.store)
        yield from self._if_durable(running, op, op.text("sync") != "none")

    def _append(self, running: Running, op: Op) -> Steps:
        """At once: nobody else writes between the look at the size and the end of it (i_rwsem)."""
        inode = self.core.open_file(op.text("path"))
        self._begin(running, subject=inode)
        yield
        yield from self._unlocked(inode)
        start, length = self.core.cached(inode).size, op.number("len")
        if start + length > MAX_BYTES:
            raise self.core.fail(errno.EFBIG)
        data = encode(running.id, file_tag(inode), 0, length)
        for low, high in self._pieces(start, start + length):
            self.core.store(inode, low, data[low - start : high - start])
        running.result = start
        yield
        if op.text("sync") != "none":
            self._tell_failure(running, inode)
            self.disk.sync_range(inode, start, start + length)
            yield

    def _dwrite(self, running: Running, op: Op) -> Steps:
        self._begin(running, subject=self.core.open_file(op.text("path")))
        yield
        yield from self._store(running, op, self.core.store_direct)
        yield from self._if_durable(running, op, op.text("sync") != "none")

    def _mwrite(self, running: Running, op: Op) -> Steps:
        self._begin(running, subject=self.core.open_file(op.text("path")))
        yield
        yield from self._store(running, op, lambda i, o, d: self.core.store(i, o, d, extend=False))
        yield from self._if_durable(running, op, op.text("msync") == "sync")

    def _read(self, running: Running, op: Op) -> Steps:
        inode, start = self.core.open_file(op.text("path")), op.number("off")
        self._begin(running, subject=inode)
        yield
        data = b""
        for low, high in self._pieces(start, start + op.number("len")):
            yield from self._unlocked(inode)
            if op.text("direct") == "yes":
                self.disk.writeback(inode, low // PAGE)
            high = min(high, self.core.cached(inode).size)
            if low >= high:
                break
            data += self.page_for_read(inode, low // PAGE)[low % PAGE :][: high - low]
            yield
            if high % PAGE:
                break
        running.data, running.result = data, len(data)

    def page_for_read(self, inode: int, page: int) -> bytes:
        """What a read finds; tests plant bugs here."""
        return self.core.cached(inode).page(page)

    def _if_durable(self, running: Running, op: Op, wanted: bool) -> Steps:
        if wanted:
            start = op.number("off")
            self._tell_failure(running, running.inodes["subject"])
            self.disk.sync_range(running.inodes["subject"], start, start + running.result)
            yield

    def _truncate(self, running: Running, op: Op) -> Steps:
        inode = self.core.open_file(op.text("path"))
        size = op.number("size") if op.name == "truncate" else 0
        self._begin(running, subject=inode)
        yield
        yield from self._unlocked(inode)
        self.locked.add(inode)
        self.core.drop_pages(inode, size)
        if self.fs == "xfs":
            # fsync does not take the inode lock here, so it may come in between
            for _ in range(self.rng.randrange(8)):
                yield
        self.core.commit_size(inode, size)
        self.locked.discard(inode)
        yield

    _otrunc = _truncate

    def _unlocked(self, inode: int) -> Steps:
        while inode in self.locked:
            yield

    def _fallocate(self, running: Running, op: Op) -> Steps:
        inode = self.core.open_file(op.text("path"))
        self._begin(running, subject=inode)
        yield
        start, end, mode = op.number("off"), op.number("off") + op.number("len"), op.text("mode")
        if mode in ("collapse", "insert"):
            yield from self._unlocked(inode)
            self.core.shift(inode, start, end - start if mode == "insert" else start - end)
            yield
        if mode in ("punch", "zero", "zero_keep"):
            for low, high in self._pieces(start, end):
                yield from self._unlocked(inode)
                self.core.zero(inode, low, high, release=mode == "punch")
                yield
        if mode in ("alloc", "keep", "zero", "zero_keep"):
            yield from self._unlocked(inode)
            self.core.reserve(inode, start, end)
            yield
        if mode in ("alloc", "zero", "unshare"):
            yield from self._unlocked(inode)
            self.core.extend(inode, end)
            yield

    def _dedupe(self, running: Running, op: Op) -> Steps:
        """Two stamped pages are never equal, so nothing is shared and nothing changes."""
        source, target = self.core.open_file(op.text("from")), self.core.open_file(op.text("to"))
        self._begin(running, subject=target, other=source)
        yield

    def _clone(self, running: Running, op: Op) -> Steps:
        source, target = self.core.open_file(op.text("from")), self.core.open_file(op.text("to"))
        self._begin(running, subject=target, other=source)
        yield
        while {source, target} & self.locked:
            yield
        self.core.clone(source, target, op.number("src"), op.number("len"), op.number("off"))
        yield

    def _attribute(self, running: Running, op: Op) -> Steps:
        inode = self.core.lookup(op.text("path"))
        if self.core.world.inodes[inode].kind == "symlink":
            raise self.core.fail(40)
        self._begin(running, subject=inode)
        yield
        if op.name == "chmod":
            mode = op.number("mode")
            self.core.attribute(inode, "chmod", lambda node: setattr(node, "mode", mode))
        elif op.name == "setxattr":
            name, value = op.text("name"), xattr_value(running.id, op.number("size"))
            self.core.attribute(inode, "setxattr", lambda node: node.xattrs.update({name: value}))
        elif op.text("name") not in self.core.world.inodes[inode].xattrs:
            raise self.core.fail(61)
        else:
            name = op.text("name")
            self.core.attribute(inode, "removexattr", lambda node: node.xattrs.pop(name, None))
        yield

    _chmod = _setxattr = _removexattr = _attribute

    def _tell_failure(self, running: Running, *inodes: int) -> None:
        """Writeback that failed since the descriptor was opened is told to it, too (errseq_t)."""
        if any(self.failed_ns.get(inode, 0) >= running.begin_ns for inode in inodes):
            raise self.core.fail(errno.EIO)

    def _fsync(self, running: Running, op: Op) -> Steps:
        inode = self.core.lookup(op.text("path"))
        if self.core.world.inodes[inode].kind in ("symlink", "other"):
            raise self.core.fail(22)
        self._begin(running, subject=inode)
        yield
        dirty = list(self.core.dirty_pages([inode]))
        if dirty and self.rng.random() < 0.01:
            # Writeback fails: the pages are clean from now on, and not on disk.
            self.core.cached(inode).dirty.clear()
            self.failed_ns[inode] = self.now
            raise self.core.fail(errno.EIO)
        for _, page in dirty:
            self.disk.writeback(inode, page)
            yield
        self._tell_failure(running, inode)
        self.disk.sync_inode(inode, data_only=op.name == "fdatasync")
        yield

    _fdatasync = _fsync

    def _msync(self, running: Running, op: Op) -> Steps:
        inode = self.core.open_file(op.text("path"))
        self._begin(running, subject=inode)
        yield
        self._tell_failure(running, inode)
        self.disk.sync_range(inode, op.number("off"), op.number("off") + op.number("len"))
        yield

    def _sync(self, running: Running, op: Op) -> Steps:
        self._begin(running, subject=ROOT)
        yield
        for inode, page in list(self.core.dirty_pages(list(self.disk.cache))):
            self.disk.writeback(inode, page)
            if self.rng.random() < 0.3:
                yield
        if op.name == "syncfs":
            self._tell_failure(running, *self.failed_ns)
        self.disk.sync_all()
        yield

    _syncfs = _freeze = _sync

    def judge(self, snapshot: Snapshot, change: Callable[[Tree], Tree] = lambda tree: tree) -> Judgement:
        """What the judge says of a crash, after `change` (a planted bug) was done to the tree."""
        history = self.history()
        recovery = Recovery(tree=change(self.tree(snapshot, history)))
        commits = tuple(self.disk.commits) if isinstance(self.disk, Btrfs) else None
        return judge(PROFILES[self.fs], recovery, build_versions(history, commits), snapshot.cut)
