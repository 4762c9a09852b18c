"""Size and data by brute force: on xfs a write gives no size before its words are in the last sector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from brute_history import BLOCK
from brute_law import SECTOR, Law, span

from fuzzer.state.history import Event


def is_stored(law: Law, inode: int, size: int, blocks: Sequence[tuple[int, ...]]) -> bool:
    """True if an op that gave the size may have done so with this data (`Law.block`) in the last sector.

    Words go again by a truncate that was not over when their write began; of what failed any part may be
    there.
    """
    ops = {e.id: e for e in law.data_ops(inode)}
    failed = any(s.op.name == "sync" or s.subject == inode for s in law.failed_syncs)
    if law.fs != "xfs" or failed or any(e.failed and law.shows(e) for e in ops.values()):
        return True
    words = list(_words(law, inode, blocks))
    return any(
        not giver or all(_may_end_so(law, ops[giver], size, *row) for row in words)
        for giver in law.givers(inode, size)
    )


def _words(law: Law, inode: int, blocks: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, int, int]]:
    """(start, end, word) of each piece."""
    for number, content in enumerate(blocks):
        for (start, end), word in zip(law.pieces(inode, number * BLOCK), content, strict=True):
            yield start, end, word


def _may_end_so(law: Law, giver: Event, size: int, start: int, end: int, word: int) -> bool:
    first = max((size - 1) // SECTOR * SECTOR, span(giver)[0])
    if word or giver.op.name == "truncate" or end <= first or start >= size:
        return True
    cuts = [e for e in law.data_ops(giver.subject) if e.op.name == "truncate" and law.shows(e)]
    return any(cut.end_ns >= giver.begin_ns and span(cut)[0] < min(end, size) for cut in cuts)
