"""Pictures for the reports, as inline SVG. Colours are classes of the page's style."""

from __future__ import annotations

from collections.abc import Sequence

from fuzzer.triage.html import Html, element
from fuzzer.triage.timeline import DEVICE, Row, Step, Timeline

_ROW, _TOP, _LEFT, _BAR = 22, 34, 90, 8
_LANE, _DEVICE_LANE = 230, 300
_MAX_TEXT = 27


def draw_timeline(timeline: Timeline) -> Html:
    """One column per actor and one for the device; time goes down, a row for each thing that happened."""
    x = {lane: _LEFT + n * _LANE for n, (lane, _) in enumerate(timeline.lanes)}
    width = _LEFT + (len(timeline.lanes) - 1) * _LANE + _DEVICE_LANE
    height = _TOP + len(timeline.rows) * _ROW + 10
    heads = [element("text", name, x=x[lane], y=18, class_="dim") for lane, name in timeline.lanes]
    lines = [
        element("line", x1=left + 4, x2=left + 4, y1=_TOP - 8, y2=height, class_="lane")
        for left in x.values()
    ]
    rows = [part for n, row in enumerate(timeline.rows) for part in _draw_row(timeline, row, n, x, width)]
    return element(
        "div",
        element(
            "svg",
            element("title", "Who did what when: one lane per actor and one for the device"),
            *heads,
            *lines,
            *_bars(timeline, x, height),
            *rows,
            width=width,
            height=height,
            viewBox=f"0 0 {width} {height}",
            role="img",
        ),
        class_="wide",
    )


def _y(number: int) -> int:
    return _TOP + number * _ROW


def _bars(timeline: Timeline, x: dict[int, int], height: int) -> list[Html]:
    """From begin to end of each op."""
    begins = {event: 0 for _, event in timeline.open_before}
    lanes = {event: lane for lane, event in timeline.open_before}
    ends, matters = dict[int, int](), set[int]()
    for n, row in enumerate(timeline.rows):
        if row.step in (Step.BEGIN, Step.WHOLE):
            begins[row.event], lanes[row.event] = n, row.lane
        if row.step in (Step.END, Step.WHOLE):
            ends[row.event] = n
        matters |= {row.event} if row.matters else set()
    bars = []
    for event, n in begins.items():
        if lanes[event] not in x:
            continue
        bottom = _y(ends[event]) + _ROW - 6 if event in ends else height
        kind = "key" if event in matters else "bar"
        bars.append(
            element("rect", x=x[lanes[event]], y=_y(n), width=_BAR, height=bottom - _y(n), rx=2, class_=kind)
        )
    return bars


def _draw_row(timeline: Timeline, row: Row, number: int, x: dict[int, int], width: int) -> list[Html]:
    y = _y(number) + 12
    time = element("text", f"{timeline.time_us(row):.0f}", x=_LEFT - 14, y=y, text_anchor="end", class_="dim")
    if row.step is Step.GAP:
        return [element("text", row.text, x=_LEFT, y=y, class_="dim")]
    if row.step is Step.CRASH:
        line = element("line", x1=0, x2=width, y1=y + 6, y2=y + 6, class_="cut")
        return [time, line, element("text", row.text, x=_LEFT + 14, y=y, class_="bad")]
    kind = "dim" if row.step is Step.END and row.text == "done" else ""
    kind = "bad" if row.matters and row.step is not Step.END else kind
    limit = _MAX_TEXT + 9 if row.lane == DEVICE else _MAX_TEXT
    text = row.text if len(row.text) <= limit else row.text[: limit - 1] + "…"
    label = element("text", element("title", row.text), text, x=x[row.lane] + 14, y=y, class_=kind)
    return [time, label]


def draw_steps(curves: Sequence[tuple[str, str, Sequence[float]]], first: str, last: str) -> Html:
    """How many there were by when: (name, class, times in 0..1 ascending) per curve; labels of the ends."""
    width, height, left = 900, 220, 50
    most = max((len(times) for _, _, times in curves), default=0) or 1
    parts = [
        element("text", str(most), x=left - 8, y=24, text_anchor="end", class_="dim"),
        element("text", "0", x=left - 8, y=height - 26, text_anchor="end", class_="dim"),
        element("text", first, x=left, y=height - 6, class_="dim"),
        element("text", last, x=width, y=height - 6, text_anchor="end", class_="dim"),
        element("line", x1=left, x2=width, y1=height - 30, y2=height - 30, class_="lane"),
    ]
    for name, kind, times in curves:
        points, y = [f"{left},{height - 30}"], float(height - 30)
        for count, time in enumerate(times, 1):
            x = left + time * (width - left)
            points.append(f"{x:.1f},{y:.1f}")
            y = height - 30 - count / most * (height - 50)
            points.append(f"{x:.1f},{y:.1f}")
        points.append(f"{width},{y:.1f}")
        title = element("title", f"{name}: {len(times)}")
        parts.append(element("polyline", title, points=" ".join(points), class_=f"curve {kind}"))
    return element(
        "div",
        element("svg", *parts, width=width, height=height, viewBox=f"0 0 {width} {height}"),
        class_="wide",
    )
