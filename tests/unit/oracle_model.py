"""A small file system in memory that crashes legally: what the judge must never complain about.

`Core` is what system calls see: names, inodes and a page cache; `oracle_disk.py` is what it writes to.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator

from oracle_disk import MAX_BYTES, PAGE, ROOT, Cached, Disk, Inode, Key, Record, World, pages_of

from fuzzer.state.stamps import Words, decode
from fuzzer.state.tree import Node, Tree

AHEAD_NS = 1_700_000_000_000_000_000
"""What the wall clock of a model is ahead of its events' clock."""


def make_tree(world: World, read: Callable[[int], bytes], known: Words, directory_nlink: str = "one") -> Tree:
    """What a mount of `world` shows. `read` gives the bytes of a block."""
    reachable = world.reachable()
    entries = {key: n for key, n in world.entries.items() if key[0] in reachable}
    nodes = {}
    for number in reachable:
        inode = world.inodes[number]
        is_dir = inode.kind == "dir"
        subdirs = sum(1 for (d, _), n in entries.items() if d == number and world.inodes[n].kind == "dir")
        nlink = sum(1 for n in entries.values() if n == number)
        if is_dir:
            nlink = 1 if directory_nlink == "one" else 2 + subdirs
        data = file_bytes(inode, read) if inode.kind == "file" else b""
        nodes[number] = Node(
            inode=number,
            kind=inode.kind,
            mode=0o777 if inode.kind == "symlink" else inode.mode,
            nlink=nlink,
            size=inode.size,
            xattrs=tuple(sorted(("user." + k, v) for k, v in inode.xattrs.items())),
            target=inode.target,
            runs=decode(data, 0, known),
            allocated_bytes=inode.allocated_bytes,
            mtime_ns=AHEAD_NS + inode.mtime_ns,
            ctime_ns=AHEAD_NS + inode.ctime_ns,
        )
    return Tree(ROOT, nodes, entries)


def file_bytes(inode: Inode, read: Callable[[int], bytes]) -> bytes:
    pages = range(-(-inode.size // PAGE))
    return b"".join(read(inode.blocks[p]) if p in inode.blocks else bytes(PAGE) for p in pages)[: inode.size]


class Core:
    """System calls on names and files. Each method is one atomic effect, or raises OSError."""

    def __init__(self, disk: Disk, *, reuse_numbers: bool) -> None:
        self.disk = disk
        self._next = ROOT + 1
        self._generation = 0
        self._reuse = reuse_numbers

    @property
    def world(self) -> World:
        return self.disk.world

    def cached(self, inode: int) -> Cached:
        return self.disk.cached(inode)

    def fail(self, number: int) -> OSError:
        return OSError(number, os.strerror(number))

    def lookup(self, path: str) -> int:
        inode = ROOT
        for name in path.split("/") if path != "." else ():
            if self.world.inodes[inode].kind != "dir":
                raise self.fail(errno.ENOTDIR)
            if (inode, name) not in self.world.entries:
                raise self.fail(errno.ENOENT)
            inode = self.world.entries[inode, name]
        return inode

    def parent(self, path: str) -> Key:
        directory, _, name = path.rpartition("/")
        inode = self.lookup(directory or ".")
        if self.world.inodes[inode].kind != "dir":
            raise self.fail(errno.ENOTDIR)
        return inode, name

    def open_file(self, path: str) -> int:
        inode = self.lookup(path)
        if self.world.inodes[inode].kind != "file":
            raise self.fail(errno.EISDIR if self.world.inodes[inode].kind == "dir" else errno.ELOOP)
        return inode

    def _check_free(self, key: Key) -> None:
        if not self.world.alive(key[0]):
            raise self.fail(errno.ENOENT)
        if key in self.world.entries:
            raise self.fail(errno.EEXIST)

    def new_number(self) -> int:
        """A number never used, or (as xfs does) one of a dead inode with another generation."""
        dead = [n for n in self.world.inodes if n < 1 << 64 and not self.world.alive(n)]
        if self._reuse and dead:
            self._generation += 1
            return self._generation << 64 | min(dead)
        self._next += 1
        return self._next - 1

    def make(self, key: Key, kind: str, mode: int, target: str = "") -> int:
        self._check_free(key)
        inode, now = self.new_number(), self.disk.now

        def apply(world: World) -> None:
            made = Inode(kind, mode, target, size=len(target), mtime_ns=now, ctime_ns=now)
            world.inodes[inode] = made
            world.entries[key] = inode

        self.disk.do(Record(kind, apply, frozenset({inode, key[0]}), frozenset({inode})))
        return inode

    def link(self, inode: int, key: Key) -> None:
        self._check_free(key)
        if not self.world.alive(inode):
            raise self.fail(errno.ENOENT)

        def apply(world: World) -> None:
            world.entries[key] = inode

        self.disk.do(Record("link", apply, frozenset({inode, key[0]})))

    def remove(self, key: Key, *, directory: bool) -> None:
        inode = self.world.entries.get(key)
        if inode is None:
            raise self.fail(errno.ENOENT)
        if (self.world.inodes[inode].kind == "dir") != directory:
            raise self.fail(errno.ENOTDIR if directory else errno.EISDIR)
        if directory:
            self._check_empty(inode)

        def apply(world: World) -> None:
            world.entries.pop(key, None)

        self.disk.do(Record("remove", apply, frozenset({inode, key[0]})))

    def _check_empty(self, directory: int) -> None:
        if any(d == directory for d, _ in self.world.entries):
            raise self.fail(errno.ENOTEMPTY)

    def rename(self, old: Key, new: Key, flags: str) -> None:
        moved, target = self.world.entries.get(old), self.world.entries.get(new)
        if moved is None or (flags == "exchange" and target is None) or not self.world.alive(new[0]):
            raise self.fail(errno.ENOENT)
        if flags == "noreplace" and target is not None:
            raise self.fail(errno.EEXIST)
        if moved == target:
            return
        self._check_move(moved, new[0])
        if flags == "exchange" and target is not None:
            self._check_move(target, old[0])
        elif target is not None:
            self._check_replace(moved, target)

        left = self.new_number() if flags == "whiteout" else 0
        now = self.disk.now

        def apply(world: World) -> None:
            came = world.entries.pop(old, None)
            gone = world.entries.pop(new, None)
            if came is not None:
                world.entries[new] = came
            if flags == "exchange" and gone is not None:
                world.entries[old] = gone
            if left:
                world.inodes[left] = Inode("other", 0, mtime_ns=now, ctime_ns=now)
                world.entries[old] = left

        touched = {moved, new[0], old[0], *({target} if target else ()), *({left} if left else ())}
        what = "exchange" if flags in ("exchange", "whiteout") else "rename"
        self.disk.do(Record(what, apply, frozenset(touched)))

    def _check_move(self, inode: int, into: int) -> None:
        """A directory cannot move below itself."""
        seen = into
        while seen != ROOT:
            if seen == inode:
                raise self.fail(errno.EINVAL)
            seen = self.world.names_of(seen)[0][0]

    def _check_replace(self, moved: int, target: int) -> None:
        is_dir = self.world.inodes[moved].kind == "dir"
        if (self.world.inodes[target].kind == "dir") != is_dir:
            raise self.fail(errno.ENOTDIR if is_dir else errno.EISDIR)
        if is_dir:
            self._check_empty(target)

    def attribute(self, inode: int, what: str, change: Callable[[Inode], object]) -> None:
        def apply(world: World) -> None:
            change(world.inodes[inode])

        self.disk.do(Record(what, apply, frozenset({inode})))
        self.disk.touch(inode, content=False)

    def store(self, inode: int, offset: int, data: bytes, *, extend: bool = True) -> int:
        """Put `data`, within one page, into the cache; returns how much (0: beyond the end)."""
        cached = self.cached(inode)
        end = offset + len(data)
        if not extend and end > cached.size:
            return 0
        if extend:
            self.disk.touch(inode, content=True)
        cached.content[offset:end] = data
        cached.size = max(cached.size, end)
        cached.dirty.add(offset // PAGE)
        return len(data)

    def store_direct(self, inode: int, offset: int, data: bytes) -> None:
        """One page past the cache: on the device at once, durable only after a flush."""
        self.store(inode, offset, data)
        self.disk.writeback(inode, offset // PAGE)

    def zero(self, inode: int, start: int, end: int, *, release: bool) -> None:
        """Zero a range inside one page, or all of it: then its block goes.

        `release`: so does the space set aside for it.
        """
        cached, page = self.cached(inode), start // PAGE
        self.disk.writeback(inode, page)
        cached.content[start:end] = bytes(end - start)
        if end - start < PAGE:
            if start < cached.size:
                cached.dirty.add(page)
            return
        cached.dirty.discard(page)
        if page in self.world.inodes[inode].blocks:
            self.attribute_of_data(inode, "punch", lambda node: node.blocks.pop(page, None))
        if release and page in self.world.inodes[inode].reserved:
            self.attribute_of_data(inode, "release", lambda node: node.reserved.discard(page))

    def reserve(self, inode: int, start: int, end: int) -> None:
        """Set space aside, in whole pages."""
        self.attribute_of_data(inode, "reserve", lambda node: node.reserved.update(pages_of(start, end)))

    def attribute_of_data(self, inode: int, what: str, change: Callable[[Inode], object]) -> None:
        def apply(world: World) -> None:
            change(world.inodes[inode])

        self.disk.do(Record(what, apply, frozenset({inode}), frozenset({inode})))

    def drop_pages(self, inode: int, size: int) -> None:
        """First half of a truncate: the cache forgets, the disk does not know yet."""
        cached = self.cached(inode)
        if size < cached.size:
            cached.content[size:] = bytes(MAX_BYTES - size)
            cached.dirty = {page for page in cached.dirty if page * PAGE < size}
            if size % PAGE:
                cached.dirty.add(size // PAGE)
        cached.size = size
        if self.world.inodes[inode].size < size:
            # what was appended before must be on disk before the size says so
            self.disk.writeback_range(inode, self.world.inodes[inode].size, size)
        if size % PAGE and self.disk.rng.random() < 0.5:
            self.disk.writeback(inode, size // PAGE)

    def commit_size(self, inode: int, size: int) -> None:
        """Second half of a truncate."""
        self.disk.set_size(inode, size, "truncate")
        self.disk.touch(inode, content=True)

    def extend(self, inode: int, size: int) -> None:
        """fallocate beyond the end: the size is a transaction of its own."""
        cached = self.cached(inode)
        if size > cached.size:
            cached.size = size
            self.disk.set_size(inode, size)

    def shift(self, inode: int, start: int, distance: int) -> None:
        """Collapse (`distance` < 0) or insert whole pages; all is written back first."""
        cached, pages = self.cached(inode), distance // PAGE
        if start + max(-distance, 0) >= cached.size or cached.size + distance > MAX_BYTES:
            raise self.fail(errno.EINVAL)
        self.disk.writeback_range(inode, 0, MAX_BYTES)
        first, size = start // PAGE, cached.size + distance

        def change(node: Inode) -> None:
            kept = {p: b for p, b in node.blocks.items() if p < first or p >= first - pages}
            node.blocks = {p if p < first else p + pages: b for p, b in kept.items()}
            node.size = size

        self.attribute_of_data(inode, "shift", change)
        moved = bytes(max(distance, 0)) + cached.content[start - min(distance, 0) :]
        cached.content[start:] = (bytes(moved) + bytes(MAX_BYTES))[: MAX_BYTES - start]
        cached.size = size

    def clone(self, source: int, target: int, src: int, length: int, offset: int) -> None:
        """FICLONERANGE in whole pages; both ends are written back first."""
        from_, to = self.cached(source), self.cached(target)
        length = length or from_.size - src
        if length <= 0 or src + length > from_.size or offset + length > MAX_BYTES:
            raise self.fail(errno.EINVAL)
        if length % PAGE and (src + length != from_.size or offset + length < to.size):
            raise self.fail(errno.EINVAL)
        self.disk.writeback_range(source, src, src + length)
        for page in pages_of(offset, offset + length):
            self._clone_page(source, target, page, (src - offset) // PAGE)
        to.content[offset : offset + length] = from_.content[src : src + length]
        to.size = max(to.size, offset + length)
        if offset + length > self.world.inodes[target].size:
            self.disk.set_size(target, offset + length)

    def _clone_page(self, source: int, target: int, page: int, distance: int) -> None:
        self.cached(target).dirty.discard(page)
        block = self.world.inodes[source].blocks.get(page + distance)

        def change(node: Inode) -> None:
            if block is None:
                node.blocks.pop(page, None)
            else:
                node.blocks[page] = block

        if block is not None:
            self.disk.shared.add(block)
        self.attribute_of_data(target, "clone", change)

    def dirty_pages(self, inodes: Iterable[int]) -> Iterator[tuple[int, int]]:
        for inode in inodes:
            for page in sorted(self.cached(inode).dirty):
                yield inode, page
