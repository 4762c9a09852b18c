"""Facts about words behind an end: of a file that was cut, or of a write that came short."""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.state.history import Event
from fuzzer.writelog.crash import Cut
from oracles import Violation
from oracles.file_versions import Source
from oracles.versions import Versions

_BLOCK_BYTES = 4096


def tail_facts(violation: Violation, op: Event, versions: Versions, cut: Cut) -> Iterator[tuple[str, str]]:
    """`cut-block`: whether the word stands in the block that the truncate `op` let the file end in.

    `grown`: whether the file was made larger since, and that `synced` before the crash.
    """
    size = op.op.number("size") if op.op.name == "truncate" else 0
    same = size % _BLOCK_BYTES and violation.offset // _BLOCK_BYTES == size // _BLOCK_BYTES
    yield "cut-block", "yes" if same else "no"
    sizes = versions.file(violation.inode).sizes
    grown = [v.event for v in sizes if v.value > violation.offset and v.event.begin_ns > op.begin_ns]
    synced = any(_is_synced(event, versions, cut) for event in grown)
    yield "grown", "synced" if synced else "yes" if grown else "no"


def short_facts(violation: Violation, versions: Versions) -> Iterator[tuple[str, str]]:
    """`short`: whether a write was to put something where the bad word is, and ended before it.

    `written`: whether any op was to put data there; else something shows that was there before.
    """
    short = any(
        event.op.name in ("write", "splice", "fault_write")
        and event.succeeded
        and event.subject == violation.inode
        and event.result <= violation.offset - event.op.number("off") < event.op.number("len")
        for event in versions.history.events
    )
    yield "short", "yes" if short else "no"
    placed = (v for v in versions.file(violation.inode).data if v.source is not Source.ZERO)
    yield "written", "yes" if any(v.start <= violation.offset < v.end for v in placed) else "no"


def _is_synced(event: Event, versions: Versions, cut: Cut) -> bool:
    return any(
        call.op.is_durability_point
        and (call.op.name in ("sync", "syncfs") or call.subject == event.subject)
        and event.end_ns < call.begin_ns
        and call.end_ns < cut.returned_before_ns
        for call in versions.history.events
    )
