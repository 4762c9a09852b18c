"""The report of a whole campaign: how much was looked at, what was found, when, and what is left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from fuzzer.campaign.index import Index
from fuzzer.triage.html import Html, element, page, section, table
from fuzzer.triage.known import load_known
from fuzzer.triage.svg import draw_steps
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.pairs import pairs_of, unseen_pairs

_MAX_ROWS = 60
_SHAPES = "D data, M metadata, C superblock or log record, F flush, T discard, ! forced"


def html_campaign(index: Index) -> str:
    """The page of `triage report` without an ID."""
    totals, created = index.totals(), index.created()
    known = sum(bool(bug) for _, bug in created)
    summary = (
        f"{totals.get('workloads', 0)} workloads, {totals.get('crash_states', 0)} crash states"
        f" ({totals.get('unique_states', 0)} unique{_rate(totals)}); {totals.get('judged', 0)} objects"
        f" judged, {totals.get('no_promise', 0)} not promised; {len(created)} findings kept"
        f" ({known} of known bugs)."
    )
    return page(
        f"powercut campaign {Path(index.directory).resolve().name}",
        element("p", summary),
        section("Findings over time", _over_time(created)),
        section("Buckets", _buckets(index)),
        section("Ops that ran beside each other on one object", _overlaps(index)),
        section("How ops ended", _counts(totals, "ops/", "op/outcome", "ops")),
        section("Arguments of ops", _counts(totals, "arguments/", "op and value", "runs")),
        section("Shapes of logs: " + _SHAPES, _counts(totals, "log/", "shape", "runs")),
        section("Judged, by rule", _counts(totals, "judged_by_rule/", "rule")),
        section("Not promised, by reason", _counts(totals, "no_promise_reasons/", "rule: reason")),
    )


def _rate(totals: Mapping[str, int]) -> str:
    busy_s = totals.get("busy_ms", 0) / 1000
    return f", {totals.get('crash_states', 0) / busy_s:.1f} per second and worker" if busy_s else ""


def _over_time(created: Sequence[tuple[str, str]]) -> Html:
    times = [(when, bug) for text, bug in created if (when := _parse_time(text)) is not None]
    if not times:
        return element("p", "Nothing was found yet.", class_="dim")
    first, last = times[0][0], times[-1][0]
    span_s = (last - first).total_seconds() or 1.0
    places = [((when - first).total_seconds() / span_s, bug) for when, bug in times]
    curves = (
        ("all findings", "known", [place for place, _ in places]),
        ("not of known bugs", "new", [place for place, bug in places if not bug]),
    )
    legend = "Grey: all findings that were kept. Red: those that are not of a known bug."
    ends = (when.isoformat(" ", "seconds") for when in (first, last))
    return Html(element("p", legend, class_="dim") + draw_steps(curves, *ends))


def _parse_time(text: str) -> datetime | None:
    """Findings are untrusted: a time that is none, or of no zone, is left out."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo is not None else None


def _buckets(index: Index) -> Html:
    titles = {bug.id: bug.describe() for bug in load_known()}
    rows = (
        (
            "dim" if row["known"] else "",
            (
                str(row["bucket"]),
                str(row["hits"]),
                str(row["findings"]),
                titles.get(row["known"], str(row["known"])),
                str(row["first"]),
            ),
        )
        for row in index.buckets()
    )
    return table(("bucket", "seen", "kept", "known bug", "first found"), rows)


def _overlaps(index: Index) -> Html:
    """How many of the pairs that could meet did, and those that did not, by file system."""
    seen = index.members("overlaps")
    rows = []
    for fs in FILE_SYSTEMS:
        possible, unseen = pairs_of(fs), unseen_pairs(fs, seen)
        if len(unseen) < len(possible):
            some = ", ".join(unseen[:_MAX_ROWS]) + (", ..." if len(unseen) > _MAX_ROWS else "")
            rows.append(("", (fs, f"{len(possible) - len(unseen)} of {len(possible)}", some)))
    return table(("file system", "pairs seen", "not yet"), rows)


def _counts(totals: Mapping[str, int], prefix: str, head: str, unit: str = "objects") -> Html:
    found = [(n, name.removeprefix(prefix)) for name, n in totals.items() if name.startswith(prefix) and n]
    rows = (
        ("", (name, str(n))) for n, name in sorted(found, key=lambda pair: (-pair[0], pair[1]))[:_MAX_ROWS]
    )
    return table((head, unit), rows)
