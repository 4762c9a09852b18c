"""Tree: what a mount shows. Names point at inodes; inodes carry attributes and decoded data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fuzzer.state.stamps import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One inode. `runs` cover [0, size) of a regular file; `read_errno` is the first read error (0: none)."""

    inode: int
    kind: str
    """`file`, `dir`, `symlink` or `other`."""
    mode: int
    """Permission bits only."""
    nlink: int
    size: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    """Nanoseconds since the epoch, as `ctime_ns`; of the granularity the kernel gives them."""
    ctime_ns: int = 0
    allocated_bytes: int = 0
    """What `st_blocks` says: on btrfs and xfs with what is reserved for data still to be written."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    target: str = ""
    runs: tuple[Run, ...] = ()
    read_errno: int = 0
    read_error_offset: int = 0


@dataclass(frozen=True, slots=True)
class Tree:
    """Names and inodes reachable from the root.

    `entries` maps (directory inode, name) to inode; `errors` lists what could not be looked at, as
    `path: call: errno name`.
    """

    root: int
    nodes: dict[int, Node]
    entries: dict[tuple[int, str], int]
    errors: tuple[str, ...] = ()

    def files(self) -> Iterator[tuple[str, Node]]:
        """Every inode once, with one of its paths."""
        seen: set[int] = set()
        for path, node in self.paths():
            if node.inode not in seen:
                seen.add(node.inode)
                yield path, node

    def paths(self) -> Iterator[tuple[str, Node]]:
        """(path, node) of everything, parents first; the root is `.`."""
        children: dict[int, list[tuple[str, int]]] = {}
        for (directory, name), inode in sorted(self.entries.items(), key=lambda item: item[0][1]):
            children.setdefault(directory, []).append((name, inode))
        pending = [(".", self.root)]
        seen: set[int] = set()
        while pending:
            path, inode = pending.pop()
            node = self.nodes.get(inode)
            if node is None:
                continue
            yield path, node
            if node.kind == "dir" and inode not in seen:
                seen.add(inode)
                prefix = "" if path == "." else path + "/"
                pending += [(prefix + name, child) for name, child in reversed(children.get(inode, []))]
