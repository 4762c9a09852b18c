"""The device log of a finding for people: what was written around the promise, and what the cut did to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fuzzer.triage.dossier import Dossier, Request
from fuzzer.writelog.decode import flag_words
from fuzzer.writelog.fate import Fate
from fuzzer.writelog.model import SYNC_MARK_PREFIX

_BEHIND = 3
"""Entries shown behind the cut."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry in words. `time_us` counts from the begin of the promising call (None: not known)."""

    index: int
    time_us: float | None
    flags: str
    place: str
    text: str
    fate: Fate


def log_lines(dossier: Dossier) -> tuple[LogLine, ...]:
    """The entries from where the promising call began, or the last flush before it, to the cut."""
    requests = dossier.requests
    first = _first(dossier, requests)
    state = dossier.saved.state
    last = len(requests) if state is None else max(0, state.point - (dossier.log.start if dossier.log else 0))
    timed = any(request.entry.done_ns for request in requests)
    zero_ns = dossier.sync.begin_ns if dossier.sync else 0

    def line(request: Request) -> LogLine:
        entry = request.entry
        time_us = (entry.done_ns - zero_ns) / 1000 if timed and zero_ns else None
        place = f"{entry.length} at {entry.offset}" if entry.length else ""
        return LogLine(entry.index, time_us, flag_words(entry), place, request.decoded.text, request.fate)

    return tuple(line(request) for request in requests[first : last + _BEHIND])


def _first(dossier: Dossier, requests: tuple[Request, ...]) -> int:
    """Where the listing begins, counted from mkfs."""
    state, sync = dossier.saved.state, dossier.sync
    end = len(requests) if state is None or dossier.log is None else state.point - dossier.log.start
    if sync is not None:
        begun = [n for n, r in enumerate(requests) if r.done_ns >= sync.begin_ns]
        own = f"{SYNC_MARK_PREFIX}{sync.id}:"
        mark = next((n for n, r in enumerate(requests) if r.entry.mark.startswith(own)), end)
        end = min(end, begun[0] if begun else end, mark)
    return next((n for n in range(min(end, len(requests)) - 1, -1, -1) if requests[n].entry.is_flush), 0)


def describe_log(dossier: Dossier) -> Iterator[str]:
    """Lines of `triage show --log`."""
    if dossier.log is None:
        yield "the device log was not kept with this finding"
        return
    state = dossier.saved.state
    zero = f"us since {dossier.sync.op.brief!r} began" if dossier.sync else "no times"
    yield f"device log (entry, {zero}, flags, bytes at offset, what it is, its fate):"
    for line in log_lines(dossier):
        if state is not None and line.index == state.point:
            yield "  ------ power was cut here ------"
        time = "" if line.time_us is None else f"{line.time_us:.0f}"
        fate = f"  [{line.fate}]" if line.fate else ""
        yield f"  {line.index:5} {time:>9} {line.flags:9} {line.place:>20}  {line.text}{fate}"
    if dossier.saved.finding.canary:
        yield f"  (as recorded: what the planted {dossier.saved.finding.canary} did to it is not shown)"
