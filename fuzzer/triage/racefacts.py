"""Facts about lost data: what ran beside the write or the call that promised it, or in between."""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.state.history import FOREVER, Event
from fuzzer.writelog.crash import Cut
from oracles import Violation
from oracles.versions import Versions, overlaps

_PAGE_BYTES = 4096
_RECLAIM = ("reclaim", "squeeze")


def race_facts(
    violation: Violation, op: Event, sync: Event | None, versions: Versions
) -> Iterator[tuple[str, str]]:
    """Each is `yes`, or there is no such fact.

    `failed-beside`: a write of the same file that could not read all of its source was to cover the lost
    word, after the op began and before the call that promised it returned (without one: at any time since).
    `balance-beside`: a balance overlapped the op. `reclaim-beside`: reclaim of the actors' memory
    overlapped the call.
    """
    others = [e for e in versions.history.events if e.id != op.id]
    until_ns = sync.end_ns if sync else FOREVER
    failed = (e for e in others if e.subject == op.subject and _failed_over(e, violation.offset))
    if any(e.begin_ns <= until_ns and op.begin_ns <= e.end_ns for e in failed):
        yield "failed-beside", "yes"
    if any(e.op.name == "balance" and overlaps(e, op) for e in others):
        yield "balance-beside", "yes"
    if sync is not None and any(e.op.name in _RECLAIM and overlaps(e, sync) for e in others):
        yield "reclaim-beside", "yes"


def _failed_over(event: Event, offset: int) -> bool:
    """True for a write that came short, if the page of `offset` was to be written behind that."""
    if event.op.name != "fault_write":
        return False
    start, length = event.op.number("off"), event.op.number("len")
    page = offset - offset % _PAGE_BYTES
    return page < start + length and start < page + _PAGE_BYTES


def faulted_facts(violation: Violation, versions: Versions, cut: Cut) -> Iterator[tuple[str, str]]:
    """`faulted`: `yes`, if a direct write that had to fault in its source was to cover the bad word (of a
    checker's complaint: if there was one at all), or there is no such fact."""
    for event in versions.history.events:
        direct = event.op.name == "mapped_write" and event.op.text("direct") == "yes"
        if not direct or event.begin_ns >= cut.invoked_before_ns:
            continue
        start = event.op.number("off")
        covers = start <= violation.offset < start + event.op.number("len")
        if violation.rule == "fsck" or (event.subject == violation.inode and covers):
            yield "faulted", "yes"
            return
