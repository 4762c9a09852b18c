"""Blocks: a file system that never writes in place shows each block as it was at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from fuzzer.state.stamps import Run, file_tag
from oracles.case import Case, Rule
from oracles.data import FileFloors, Origins, edges_of, may_be_undone_by_mapping, split
from oracles.file_versions import DataVersion, FileVersions, own_shift
from oracles.verdict import Violation

_BLOCK_BYTES = 4096
"""The smallest block btrfs is made with here; what holds of larger ones holds of these."""

_BY_PAGE = frozenset({"write", "append", "dwrite"})

_SOURCE = "btrfs writes data to new places and points at it when it is there (btrfs(5), datacow)"


def check_blocks(case: Case) -> Iterator[Violation]:
    """Promise: with words of some op in a block, no word there is older than what had returned when that
    op was invoked, nor than the op itself where it wrote.

    Copy on write leaves a block as the page was at the one moment it was written from: then everything
    that had been done to the block before was in it, and a write goes into a page as a whole (stores
    through a mapping do not). Written in place (nodatacow, xfs), sectors mix.
    """
    if case.profile.torn_blocks or case.versions.in_place:
        return
    origins = Origins(case.versions)
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if node.kind != "file" or file is None or case.versions.is_opaque(node.inode):
            continue
        if any(case.floors.visible(event) for event in file.shifted):
            case.tally.skip("collapse and insert move blocks")
            continue
        if case.floors.failed.get(0) or case.floors.failed.get(node.inode):
            case.tally.skip("after a failed sync call pages may be older than what was written")
            continue
        case.tally.judged += 1
        yield from _check_file(case, path, file, node.runs, origins)


def _check_file(
    case: Case, path: str, file: FileVersions, runs: tuple[Run, ...], origins: Origins
) -> Iterator[Violation]:
    before_ns, edges, floors = case.floors.cut.invoked_before_ns, edges_of(file), FileFloors(case, file)
    for block, parts in _mixed(runs):
        pieces = [piece for part in parts for piece in split(part, edges)]
        seen = _Seen(case, file, parts, {floors.floor(piece.start, piece.end)[0] for piece in pieces})
        for piece in pieces:
            if origins.explain(file, piece, before_ns, seen.floor(piece)):
                continue
            if origins.explain(file, piece, before_ns, 0):
                yield _torn(case, path, file, block, piece)
                return


def _mixed(runs: tuple[Run, ...]) -> Iterator[tuple[int, list[Run]]]:
    """Blocks that show more than one op: (start, their runs)."""
    inner = {run.start // _BLOCK_BYTES for run in runs if run.start % _BLOCK_BYTES}
    edges = sorted({edge * _BLOCK_BYTES for block in inner for edge in (block, block + 1)})
    parts = (part for run in runs for part in split(run, edges))
    for block, group in groupby(parts, key=lambda part: part.start // _BLOCK_BYTES):
        if block in inner:
            yield block * _BLOCK_BYTES, list(group)


class _Seen:
    """The ops of which a block shows words or that are durable in a part of it, begun at `durable`, and
    what must have been done to it by then."""

    def __init__(self, case: Case, file: FileVersions, parts: list[Run], durable: set[int]) -> None:
        self._file = file
        by_id, tag = case.versions.history.by_id, file_tag(file.inode)
        shown = (by_id[part.op].begin_ns for part in parts if part.op in by_id)
        self._invoked_ns = max((*shown, *durable), default=0)
        own = {
            part.op
            for part in parts
            if part.op in by_id and part.tag == tag and part.shift == own_shift(by_id[part.op])
        }
        forced = {v.event.id for v in file.data if v.sure and v.event.begin_ns in durable - {0}}
        self._whole = {op for op in own | forced if by_id[op].op.name in _BY_PAGE}
        # Zeroes do not tell who put them, so a truncate only counts if it is known to be there.
        self._whole |= {op for op in forced if by_id[op].op.name == "truncate"}

    def floor(self, piece: Run) -> int:
        """Begin of the youngest op that must show at the piece, or have been overwritten there."""
        return max((v.event.begin_ns for v in self._file.data if self._must_show(v, piece)), default=0)

    def _must_show(self, version: DataVersion, piece: Run) -> bool:
        event = version.event
        if (
            version.start > piece.start
            or version.end < piece.end
            or may_be_undone_by_mapping(self._file, event)
        ):
            return False
        by_then = version.sure and event.end_ns < self._invoked_ns
        return by_then or (event.id in self._whole and (version.sure or not event.returned))


def _torn(case: Case, path: str, file: FileVersions, block: int, piece: Run) -> Violation:
    event = case.versions.history.by_id.get(piece.op)
    return Violation(
        rule="blocks",
        kind="torn-block",
        subject=f"{path} bytes {block}..{block + _BLOCK_BYTES}",
        promised="a block is as it was at one moment",
        found=f"{f'words of `{event.op.brief}`' if event else 'zeros'} at {piece.start}..{piece.end} beside "
        "words of an op that was there after they had been overwritten",
        source=_SOURCE,
        inode=file.inode,
        offset=block,
        op=max(piece.op, 0),
    )


RULES = (Rule("blocks", check_blocks),)
