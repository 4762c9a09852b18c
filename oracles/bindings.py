"""Bindings: which inodes an op may have given a name to, where nobody was told which."""

from __future__ import annotations

from oracles.versions import (
    BIRTHS,
    UNKNOWN,
    NameKey,
    NameVersion,
    Versions,
    leaves_whiteout,
    may_be_at,
    touched_names,
)


def may_bind(versions: Versions, key: NameKey, version: NameVersion, inode: int) -> bool:
    """True if the op may have left the name bound to this inode (0: to nothing)."""
    if version.inode != UNKNOWN or not inode:
        return version.inode == inode
    whiteout = leaves_whiteout(version.event, key)
    if whiteout or version.event.op.name in BIRTHS:
        # A new inode: not the root, and none that another op is known to have made.
        file = versions.files.get(inode)
        new = inode != versions.history.root and (file is None or file.born in (None, version.event))
        if new or not whiteout or version.event.id not in versions.raced:
            return new
    change = (version.event.id, key)
    if change not in versions.moved:
        versions.moved[change] = _may_have_moved(versions, key, version)
    return bool(versions.moved[change] & {inode, UNKNOWN})


def _may_have_moved(versions: Versions, key: NameKey, version: NameVersion) -> frozenset[int]:
    """What was at the name it came from while the op ran (`UNKNOWN`: anything)."""
    event = version.event
    if event.op.name != "rename":
        return frozenset({UNKNOWN})
    old, new = touched_names(event)
    swapped = key == old and event.op.text("flags") == "exchange"
    return frozenset(may_be_at(versions, new if swapped else old, event))
