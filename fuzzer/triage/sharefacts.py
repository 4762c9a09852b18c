"""Facts about words of another file: how the two came to share blocks, and how they stopped."""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.state.history import Event
from oracles import Violation
from oracles.file_versions import Source, own_shift
from oracles.versions import Versions


def share_facts(violation: Violation, versions: Versions) -> Iterator[tuple[str, str]]:
    """`shared`: a clone joined the file and the one the words were written to, at that very place.

    `exchanged`: that place and this one had changed places, by a call that was not over when they were.

    `let-go`: the op by which the file gave its share of the place up before those words were written;
    `writeback`, if none did and something else was written to it: what is beside it goes to new blocks too
    (whole folios, and xfs_bmap_extsize_align for the copy-on-write extent size).
    """
    writer = versions.history.by_id.get(violation.seen)
    if writer is None or writer.subject == violation.inode:
        return
    joined = [e for e in _clones(versions) if _joins(e, violation, writer) and e.begin_ns < writer.end_ns]
    clones = [e for e in joined if e.op.name != "exchange_range"]
    if len(clones) < len(joined):
        yield "exchanged", "yes"
    yield "shared", "yes" if clones else "no"
    ops = [e for clone in clones for e in _let_go(versions, violation, clone, writer)]
    if ops:
        yield "let-go", ops[-1].op.name
    elif any(_stored(versions, violation, clone, writer) for clone in clones):
        yield "let-go", "writeback"


def _clones(versions: Versions) -> Iterator[Event]:
    for file in versions.files.values():
        yield from (v.event for v in file.data if v.source is Source.CLONE)


def _joins(clone: Event, violation: Violation, writer: Event) -> bool:
    """True if the clone put one block at the bad offset of the file and at a place `writer` wrote."""
    source, target, length = clone.op.number("src"), clone.op.number("off"), clone.op.number("len")
    if (clone.subject, clone.other) == (violation.inode, writer.subject):
        here, there = target, source
    elif (clone.other, clone.subject) == (violation.inode, writer.subject):
        here, there = source, target
    else:
        return False
    distance = violation.offset - here
    start = own_shift(writer) if writer.op.name == "append" else writer.op.number("off")
    inside = distance >= 0 and (not length or distance < length)
    return start is not None and inside and start <= there + distance < start + writer.op.number("len")


def _stored(versions: Versions, violation: Violation, clone: Event, writer: Event) -> bool:
    """True if something may have been written to the file between the clone and the write."""
    return any(
        v.source is Source.WRITE and v.event.end_ns >= clone.begin_ns and v.event.begin_ns < writer.end_ns
        for v in versions.file(violation.inode).data
    )


def _let_go(versions: Versions, violation: Violation, clone: Event, writer: Event) -> list[Event]:
    """Ops that took the place away from the file after the clone, and may have before the write."""

    def between(event: Event) -> bool:
        return event.end_ns >= clone.begin_ns and event.begin_ns < writer.end_ns and event.id != clone.id

    file = versions.file(violation.inode)
    cuts = [
        v.event
        for v in file.data
        if v.start <= violation.offset < v.end and between(v.event) and not v.event.failed
    ]
    removals = [
        e
        for e in versions.name_events
        if e.op.name in ("unlink", "rename")
        and violation.inode == (e.subject if e.op.name == "unlink" else e.other)
        and between(e)
    ]
    return sorted((*cuts, *removals), key=lambda e: e.begin_ns)
