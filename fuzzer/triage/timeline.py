"""Timeline: who did what when around the broken promise, one lane per actor and one for the device.

Rows are in order of time, so what overlaps can be seen whatever the scale. `show` prints them, `svg.py`
draws them.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby

from fuzzer.state.history import Event
from fuzzer.triage.dossier import Dossier, Request
from fuzzer.workload.text import format_op
from fuzzer.writelog.decode import Content, flag_words
from fuzzer.writelog.fate import Fate

DEVICE = -1
"""Lane of the device; actors have their numbers."""

_BEFORE = 8
"""Ops shown that began before the promising call, or the op that is missing."""
_NEAR = 6
"""Rows kept around those that matter; the rest is counted only."""
_TIME_WIDTH = 10
_MIN_LANE_WIDTH = 14


class Step(StrEnum):
    """What a row shows."""

    BEGIN = "begin"
    END = "end"
    WHOLE = "whole"
    """An op that nothing came in between of."""
    REQUEST = "request"
    CRASH = "crash"
    GAP = "gap"


@dataclass(frozen=True, slots=True)
class Row:
    """`event` is the op's id (0: not an op's row), `matters` says that people should look here."""

    time_ns: int
    step: Step
    lane: int
    text: str
    event: int = 0
    matters: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """Rows in order. `lanes` are (number, name), `zero_ns` is when the promising call began.

    `open_before` are the ops that were under way when the first row came.
    """

    lanes: tuple[tuple[int, str], ...]
    rows: tuple[Row, ...]
    zero_ns: int
    open_before: tuple[tuple[int, int], ...] = ()

    def time_us(self, row: Row) -> float:
        return (row.time_ns - self.zero_ns) / 1000


def build_timeline(dossier: Dossier) -> Timeline:
    """The lanes of a finding, from shortly before the promise to the cut (or the end of the run)."""
    events = sorted(dossier.saved.history.events, key=lambda e: e.begin_ns)
    keys = [event for event in (dossier.sync, dossier.op) if event is not None]
    end_ns = dossier.crash_ns
    begun = [event for event in events if end_ns is None or event.begin_ns <= end_ns]
    first_ns = _first_ns(begun, keys)
    shown = [event for event in begun if event.end_ns >= first_ns]
    rows = [
        *(row for event in shown for row in _op_rows(event, dossier, first_ns, end_ns)),
        *_request_rows(dossier, first_ns, end_ns),
    ]
    if end_ns is not None and dossier.saved.state is not None:
        rows.append(
            Row(end_ns, Step.CRASH, DEVICE, f"power cut after entry {dossier.saved.state.point}", 0, True)
        )
    rows.sort(key=lambda row: (row.time_ns, row.step is Step.CRASH))
    rows = _thin(_whole(_joined(rows)))
    lanes = [(n, dossier.saved.workload.actor_name(n)) for n in sorted({event.actor for event in shown})]
    used = {row.lane for row in rows if row.step is not Step.GAP}
    open_before = tuple((e.actor, e.id) for e in shown if e.begin_ns < first_ns)
    zero_ns = keys[0].begin_ns if keys else first_ns
    lanes = [lane for lane in lanes if lane[0] in used] + [(DEVICE, "device")]
    return Timeline(tuple(lanes), tuple(rows), zero_ns, open_before)


def _first_ns(events: Sequence[Event], keys: Sequence[Event]) -> int:
    """Begin of the first op that is shown."""
    if not events:
        return 0
    ids = {key.id for key in keys}
    here = next((n for n, event in enumerate(events) if event.id in ids), len(events))
    return events[max(0, here - _BEFORE)].begin_ns


def _op_rows(event: Event, dossier: Dossier, first_ns: int, end_ns: int | None) -> Iterator[Row]:
    """Begin and end of one op, as far as they are in the window."""
    role = "promised: " if dossier.sync and event.id == dossier.sync.id else ""
    role = role or ("missing: " if dossier.op and event.id == dossier.op.id else "")
    if event.begin_ns >= first_ns:
        yield Row(event.begin_ns, Step.BEGIN, event.actor, role + format_op(event.op), event.id, bool(role))
    if event.returned and (end_ns is None or event.end_ns <= end_ns):
        result = errno.errorcode.get(event.errno, str(event.errno)) if event.errno else "done"
        yield Row(event.end_ns, Step.END, event.actor, result, event.id, bool(role))


def _request_rows(dossier: Dossier, first_ns: int, end_ns: int | None) -> Iterator[Row]:
    point = dossier.saved.state.point if dossier.saved.state else None
    for request in dossier.requests:
        entry = request.entry
        inside = request.done_ns >= first_ns and (point is None or entry.index < point)
        if inside and not entry.is_mark and (end_ns is None or request.done_ns <= end_ns):
            yield Row(request.done_ns, Step.REQUEST, DEVICE, _say_request(request))


def _say_request(request: Request) -> str:
    """`superblock, flush fua`, or `data, lost`: short, so that equal ones can be counted."""
    content = request.decoded.content
    what = "" if content is Content.NOTHING and request.entry.is_flush else str(content)
    what = request.decoded.text if content is Content.NOTHING and not request.entry.is_flush else what
    fate = request.fate if request.fate in (Fate.LOST, Fate.TORN) else ""
    return ", ".join(part for part in (what, flag_words(request.entry).upper(), fate) if part)


def _joined(rows: Sequence[Row]) -> list[Row]:
    """Requests with nothing in between as one row; flushes stay apart, as they make the others durable."""
    joined: list[Row] = []
    for is_request, group in groupby(rows, lambda row: row.step is Step.REQUEST and "FLUSH" not in row.text):
        if not is_request:
            joined += group
            continue
        several = list(group)
        counts = Counter(row.text for row in several)
        text = "; ".join(text if n == 1 else f"{n} {text}" for text, n in counts.items())
        joined.append(replace(several[-1], text=text))
    return joined


def _whole(rows: Sequence[Row]) -> list[Row]:
    """Ops of which nothing came in between begin and end take one row."""
    whole: list[Row] = []
    for row in rows:
        last = whole[-1] if whole else None
        if last and row.step is Step.END and last.step is Step.BEGIN and last.event == row.event:
            result = "" if row.text == "done" else f": {row.text}"
            whole[-1] = replace(last, step=Step.WHOLE, text=last.text + result)
        else:
            whole.append(row)
    return whole


def _thin(rows: Sequence[Row]) -> list[Row]:
    """Leave out rows far from those that matter, and say how many there were."""
    near = {m for n, row in enumerate(rows) if row.matters for m in range(n - _NEAR, n + _NEAR + 1)}
    near = near or set(range(len(rows)))
    # An op whose end is shown shows its begin too, or its lane would start from nowhere.
    ids = {row.event for n, row in enumerate(rows) if n in near and row.event}
    thinned: list[Row] = []
    for kept, group in groupby(enumerate(rows), lambda pair: pair[0] in near or pair[1].event in ids):
        several = [row for _, row in group]
        thinned += several if kept or len(several) == 1 else [_gap(several)]
    return thinned


def _gap(rows: Iterable[Row]) -> Row:
    several = list(rows)
    ops = len({row.event for row in several} - {0})
    requests = sum(row.step is Step.REQUEST for row in several)
    return Row(several[0].time_ns, Step.GAP, DEVICE, f"({ops} ops, {requests} rows of requests)")


def render_timeline(timeline: Timeline, width: int) -> Iterator[str]:
    """Lines of `triage show --timeline`, at most `width` columns wide where lanes can still be read."""
    lanes = timeline.lanes
    cell = max(_MIN_LANE_WIDTH, (width - _TIME_WIDTH) // max(1, len(lanes)))
    yield (" " * _TIME_WIDTH + "".join(_fit(name, cell) for _, name in lanes)).rstrip()
    running = dict(timeline.open_before)
    total = _TIME_WIDTH + cell * len(lanes)
    for row in timeline.rows:
        if row.step is Step.CRASH:
            yield f"{_time(timeline, row)}" + f"═══ {row.text} ".ljust(total - _TIME_WIDTH, "═")
            continue
        if row.step is Step.GAP:
            yield " " * _TIME_WIDTH + row.text
            continue
        if row.step is Step.BEGIN:
            running[row.lane] = row.event
        cells = (_fit(_cell(row, lane, lane in running), cell) for lane, _ in lanes)
        yield (_time(timeline, row) + "".join(cells)).rstrip()
        if row.step is Step.END:
            running.pop(row.lane, None)


def _time(timeline: Timeline, row: Row) -> str:
    return f"{timeline.time_us(row):{_TIME_WIDTH - 2}.0f}  "


_MARKS = {Step.BEGIN: "┌ ", Step.END: "└ ", Step.WHOLE: "─ ", Step.REQUEST: ""}


def _cell(row: Row, lane: int, running: bool) -> str:
    if lane == row.lane:
        return _MARKS[row.step] + row.text
    return "│" if running else ""


def _fit(text: str, width: int) -> str:
    """Exactly `width` columns, the last one blank."""
    return text.ljust(width) if len(text) < width else text[: width - 2] + "… "
