"""Identity of an inode that survives a crash: number and generation in one integer.

Names move under concurrency, inodes do not: history and tree both speak of inodes, so nothing has to
be guessed from paths. xfs reuses inode numbers and tells lives apart by generation; btrfs never
reuses one and may rewrite the generation when it replays its log tree, so there it is left out. Each
btrfs subvolume counts inodes for itself; its number, which is 0 for that of the mount's root, stands in
the generation's place.
"""

from __future__ import annotations

_NUMBER_BITS = 64


def make_inode(number: int, generation: int = 0) -> int:
    """Join an inode number and a generation into one identity."""
    return generation << _NUMBER_BITS | number


def inode_number(inode: int) -> int:
    return inode & ((1 << _NUMBER_BITS) - 1)


def inode_generation(inode: int) -> int:
    return inode >> _NUMBER_BITS


def format_inode(inode: int) -> str:
    """`257` or `131.7` (number.generation)."""
    generation = inode_generation(inode)
    return f"{inode_number(inode)}.{generation}" if generation else str(inode_number(inode))
