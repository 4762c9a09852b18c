"""Extension: a write that made a file larger is on disk before the size that says so.

xfs sets the size on disk when the I/O behind it is done (xfs_end_ioend and xfs_dio_write_end_io), up to
where that I/O ended (xfs_setfilesize). So whatever the size, its last sector was written with it, from a
page the write had filled already: its stamps are there, though nobody synced the file. Of the sectors
before it this is not said, as their I/O may be another one and may still be under way.

Before Linux 51d20d1dacbe (6.14, 6.12.10) the size went on to what concurrent appends had made of it in
memory, which left a tail of zeroes: a known bug there.
"""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.state.history import Event
from fuzzer.state.stamps import ZERO, Run
from fuzzer.state.tree import Node
from fuzzer.workload.ops import WORD_BYTES
from oracles.case import Case, Rule
from oracles.data import edges_of, may_be_undone_by_mapping, split
from oracles.file_versions import FileVersions, SizeVersion, Source, own_shift
from oracles.size import size_givers
from oracles.verdict import Violation

_SECTOR_BYTES = 512
"""The smallest block xfs can be made with: no I/O ends inside one but at the end of file."""

_WRITES = frozenset({"write", "append", "dwrite"})


def check_extension(case: Case) -> Iterator[Violation]:
    """Promise: there are no zeroes at the end of a file that only writes can have made so large
    (source `extension`)."""
    if not case.profile.data_before_size:
        return
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if node.kind != "file" or not node.size or file is None or file.born is None:
            continue
        givers = size_givers(case, file, node.size) or []
        if not _is_promised(case, file, node, givers):
            continue
        case.tally.judged += 1
        zeros = list(_zeros(file, node))
        missing = [_first_missing(case, file, node, giver.event, zeros) for giver in givers]
        if missing[0] is not None and None not in missing:
            yield _broken(case, path, node, givers[0].event, missing[0])


def _zeros(file: FileVersions, node: Node) -> Iterator[Run]:
    """Zeroes, in pieces that each op put something at all of, or at nothing of."""
    edges = edges_of(file)
    return (piece for run in node.runs if run.op == ZERO for piece in split(run, edges))


def _is_promised(case: Case, file: FileVersions, node: Node, givers: list[SizeVersion]) -> bool:
    """True if whichever op gave the size put words at the end of the file."""
    if any(case.floors.visible(event) for event in file.shifted):
        case.tally.skip("collapse or insert may have moved its end")
    elif case.floors.failed.get(0) or case.floors.failed.get(file.inode) or _wrote_in_part(case, file):
        case.tally.skip("of what failed any part may be there")
    elif not givers or any(_start(giver.event) is None for giver in givers):
        case.tally.skip("something else than a write may have set the size")
    elif any(may_be_undone_by_mapping(file, giver.event) for giver in givers):
        case.tally.skip("a store through a mapping may have undone a direct write")
    elif any(_first_stored(node, giver.event) + WORD_BYTES > node.size for giver in givers):
        case.tally.skip("the size lies in a gap before a write")
    else:
        return True
    return False


def _first_stored(node: Node, giver: Event) -> int:
    """Where the words begin that the write put into the last sector."""
    return max((node.size - 1) // _SECTOR_BYTES * _SECTOR_BYTES, _start(giver) or 0)


def _first_missing(case: Case, file: FileVersions, node: Node, giver: Event, zeros: list[Run]) -> int | None:
    """Where there are zeroes instead, that nothing put there since; None: nowhere."""
    low = _first_stored(node, giver)
    pieces = ((max(run.start, low), run.end) for run in zeros if run.end > low)
    bad = (start for start, end in pieces if not _may_be_zeroed(case, file, start, end, giver.begin_ns))
    return next(bad, None)


def _start(event: Event) -> int | None:
    """Where a write began; None: something else, or nobody knows."""
    if event.op.name not in _WRITES:
        return None
    return own_shift(event) if event.op.name == "append" else event.op.number("off")


def _wrote_in_part(case: Case, file: FileVersions) -> bool:
    return any(not v.sure and v.event.returned and case.floors.visible(v.event) for v in file.data)


def _may_be_zeroed(case: Case, file: FileVersions, start: int, end: int, since_ns: int) -> bool:
    """True if an op that was not over at `since_ns` may have put zeroes in [start, end), or cloned them."""
    return any(
        version.source is not Source.WRITE
        and version.start < end
        and version.end > start
        and case.floors.visible(version.event)
        and version.event.end_ns >= since_ns
        for version in file.data
    )


def _broken(case: Case, path: str, node: Node, giver: Event, offset: int) -> Violation:
    return Violation(
        rule="extension",
        kind="zeros-inside-size",
        subject=path,
        promised=f"`{giver.op.brief}`, or another write, made it {node.size} bytes large, with its data",
        found=f"zeroes at {offset}, in the last sector",
        source=case.profile.source("extension"),
        inode=node.inode,
        offset=offset,
        op=giver.id,
    )


RULES = (Rule("extension", check_extension),)
