"""Preallocated space: what fallocate reserved and a sync call covered is still reserved.

fsync and fdatasync keep blocks beyond the end of file too (fstests generic/468, generic/483). What is
reserved is only told by the number of blocks of a file, so a loss shows as too few.
"""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.state.history import Event
from fuzzer.state.tree import Node
from oracles.case import Case, Rule
from oracles.file_versions import END_OF_FILE, FileVersions
from oracles.verdict import Violation

_BLOCK_BYTES = 4096
"""Reservations are counted in whole blocks of this, the largest both file systems use."""

_ZEROES = frozenset({"punch", "zero", "zero_keep"})

Range = tuple[int, int]


def check_prealloc(case: Case) -> Iterator[Violation]:
    """Promise: a reservation durable at the crash is there until an op gives it back (source `prealloc`)."""
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if node.kind != "file" or file is None or not file.reserved:
            continue
        if any(case.floors.visible(event) for event in file.shifted):
            case.tally.skip("collapse or insert may have moved it")
            continue
        if any(case.floors.visible(event) for event in file.rewritten):
            case.tally.skip("defragmentation may have compressed what was written into it")
            continue
        case.tally.judged += 1
        yield from _check(case, path, node, file)


def _check(case: Case, path: str, node: Node, file: FileVersions) -> Iterator[Violation]:
    kept: list[Range] = []
    last = 0
    for event in file.reserved:
        sync = next(case.floors.data_syncs(node.inode, event), None)
        if sync is not None:
            kept += _left(case, file, event)
            last = sync
    promised_bytes = _whole_blocks(kept)
    if node.allocated_bytes >= promised_bytes:
        return
    yield Violation(
        rule="prealloc",
        kind="lost-reservation",
        subject=path,
        promised=f"at least {promised_bytes} bytes are reserved, by {case.sync_label(last)}",
        found=f"{node.allocated_bytes} bytes",
        source=case.profile.source("prealloc"),
        sync=last,
        inode=node.inode,
    )


def _left(case: Case, file: FileVersions, reservation: Event) -> list[Range]:
    """The parts of a reservation that no op which was not over before it may have given back."""
    start, length = reservation.op.number("off"), reservation.op.number("len")
    parts = [(start, start + length)]
    for low, high, event in _releases(case, file):
        if event is not reservation and case.floors.visible(event) and event.end_ns >= reservation.begin_ns:
            parts = [piece for part in parts for piece in _without(part, low, high)]
    return parts


def _releases(case: Case, file: FileVersions) -> Iterator[tuple[int, int, Event]]:
    """(start, end, op) of the ranges that ops may have freed: truncates, punched holes, clones of holes.

    Zeroing a range punches it first and reserves it again in another transaction (xfs_file_fallocate).
    Reserved blocks read like a hole, so a dedupe may put one in their place.
    """
    for event in case.versions.history.events:
        if event.op.name == "dedupe" and event.subject == file.inode:
            start = event.op.number("off")
            yield start, start + (event.op.number("len") or END_OF_FILE), event
    for version in file.data:
        op = version.event.op
        gives_back = op.name in ("truncate", "otrunc", "clone", "copy_range", "mapped_write")
        if gives_back or (op.name == "fallocate" and op.text("mode") in _ZEROES):
            yield version.start, version.end, version.event


def _without(part: Range, low: int, high: int) -> list[Range]:
    start, end = part
    pieces = [(start, min(end, low)), (max(start, high), end)]
    return [piece for piece in pieces if piece[0] < piece[1]]


def _whole_blocks(ranges: list[Range]) -> int:
    """Bytes in the whole blocks inside the union of the ranges."""
    total, reached = 0, 0
    for start, end in sorted(ranges):
        first = max(-(-start // _BLOCK_BYTES) * _BLOCK_BYTES, reached)
        last = min(end, END_OF_FILE) // _BLOCK_BYTES * _BLOCK_BYTES
        if last > first:
            total, reached = total + last - first, last
    return total


RULES = (Rule("prealloc", check_prealloc),)
