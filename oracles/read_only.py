"""Recovery does not depend on how it is asked for: a read-only mount shows what a writable one does."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace

from fuzzer.state.tree import Node, Tree
from oracles.case import Case, Rule
from oracles.verdict import Violation

_SOURCES = {
    "btrfs": "btrfs(5) nologreplay: without it the log tree is replayed on a read-only mount as well",
    "xfs": "xfs(5) norecovery: without it the log is recovered on a read-only mount as well",
}


def check_read_only(case: Case) -> Iterator[Violation]:
    """Promise: a crash state mounts read-only too, and with the same names, attributes and data."""
    other = case.recovery.read_only
    if other is None:
        return
    case.tally.judged += 1
    if other.tree is None:
        name = errno.errorcode.get(other.mount_errno, str(other.mount_errno))
        yield _differs(case, f"mount-{name}", "the file system", "mounts", f"mount failed: {name}")
        return
    yield from _compare(case, case.tree, other.tree)


def _compare(case: Case, tree: Tree, other: Tree) -> Iterator[Violation]:
    shown, seen = _by_path(case, tree), _by_path(case, other)
    for path in sorted(shown.keys() | seen.keys()):
        if path not in seen:
            yield _differs(case, "name-missing", path, "shows every name", "the name is missing")
        elif path not in shown:
            yield _differs(case, "name-extra", path, "shows no other name", "the name is there")
        elif shown[path] != seen[path]:
            found = f"differs in {', '.join(_differences(shown[path], seen[path]))}"
            yield _differs(case, "inode", path, "shows the same inode", found)
        else:
            continue
        return


def _by_path(case: Case, tree: Tree) -> dict[str, Node]:
    """Nodes without what the kernel sets, or gives back, while it mounts.

    Replaying a name is linking or unlinking it: btrfs gives the inode's ctime, and the times of the
    directory, the moment of the mount (btrfs_add_link, __btrfs_unlink_inode in fs/btrfs/inode.c). An
    inode that xfs looked at during recovery loses its speculative blocks behind the end of file when it
    is let go, but not if the mount is read-only (xfs_inactive and xfs_can_free_eofblocks in fs/xfs).
    """
    keeps_blocks = case.profile.fs != "xfs"
    return {path: _settled(node, keeps_blocks=keeps_blocks) for path, node in tree.paths()}


def _settled(node: Node, *, keeps_blocks: bool) -> Node:
    mtime_ns = 0 if node.kind == "dir" else node.mtime_ns
    blocks = node.allocated_bytes if keeps_blocks else 0
    return replace(node, ctime_ns=0, mtime_ns=mtime_ns, allocated_bytes=blocks)


def _differences(node: Node, other: Node) -> list[str]:
    return [name for name in Node.__slots__ if getattr(node, name) != getattr(other, name)]


def _differs(case: Case, kind: str, subject: str, promised: str, found: str) -> Violation:
    return Violation(
        rule="read-only",
        kind=kind,
        subject=subject,
        promised=f"a read-only mount of the same crash state {promised}",
        found=found,
        source=_SOURCES[case.profile.fs],
    )


RULES = (Rule("read-only", check_read_only, needs_history=False),)
