"""Score: are the documented races found on a kernel that has them, and is all silent on one without?

The kernel is one and the same: the fix of each race can be taken out at run time. The guest runs the
race's workload over and over, and its executions are examined here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzzer.campaign.examine import examine
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.recording import load_hits, load_recording
from fuzzer.errors import LostWorkerError
from fuzzer.target.machine import Guest, Pending, Plan, open_guest
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.text import parse_bytes
from fuzzer.writelog.points import parse_plan

RECORDER = "fuzzer.campaign.recording"
_POINTS = "fsync"
_MANY = 100_000
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What came of running a workload for a while. `seconds` count from the start of the guest, boot
    included; `first_s` is when the first finding was known (-1: never), `hits` how often the kernel did
    what the fix prevents, up to the last execution that was saved."""

    bug: str
    switched_on: bool
    runs: int
    found: int
    first_s: float
    seconds: float
    hits: int
    buckets: tuple[str, ...]
    lost: str = ""
    """How the guest died, if it did; for a bug whose symptom is a panic this is the finding."""


def score(
    lane: Lane,
    plan: Plan,
    workload: Path,
    *,
    fs: str,
    on: bool,
    time_s: float,
    enough: int,
    say: Callable[[str], None],
) -> Score:
    """Run a workload with its bug on or off until `enough` runs had findings, or `time_s` is over.

    It runs on `fs`.
    """
    started = time.monotonic()
    directory = lane.directory / "score"
    directory.mkdir()
    bug, tally = workload.stem, _Tally()
    try:
        with open_guest(plan, exchange=directory) as guest:
            pending = _start(guest, directory, workload, fs, {bug: "1"} if on else {}, time_s)
            for place in _recordings(directory, pending, started + time_s):
                tally.hits = load_hits(place).get(bug, 0)
                tally.add(_examine(lane, place), time.monotonic() - started)
                say(f"{bug} {'on' if on else 'off'}: run {tally.runs}, {tally.found} with findings")
                if tally.found >= enough:
                    break
    except LostWorkerError as error:
        tally.lose(str(error), time.monotonic() - started)
    finally:
        shutil.rmtree(directory)
    return Score(
        bug=bug,
        switched_on=on,
        runs=tally.runs,
        found=tally.found,
        first_s=round(tally.first_s, 1),
        seconds=round(time.monotonic() - started, 1),
        hits=tally.hits,
        buckets=tuple(sorted(tally.buckets)),
        lost=tally.lost,
    )


class _Tally:
    """Counts of one score."""

    def __init__(self) -> None:
        self.runs = self.found = self.hits = 0
        self.first_s = -1.0
        self.buckets: set[str] = set()
        self.lost = ""

    def add(self, buckets: tuple[str, ...], now_s: float) -> None:
        self.runs += 1
        self.buckets |= set(buckets)
        if buckets:
            self.found += 1
            self.first_s = now_s if self.first_s < 0 else self.first_s

    def lose(self, how: str, now_s: float) -> None:
        self.lost = how
        self.add(("guest-lost",), now_s)


def _start(
    guest: Guest, directory: Path, workload: Path, fs: str, switches: dict[str, str], time_s: float
) -> Pending:
    bound = directory / workload.name
    bound.write_text(format_workload(parse_bytes(workload.read_bytes(), str(workload)).with_fs(fs)))
    argv = ("python", "-m", RECORDER, str(directory), str(_MANY), str(bound.resolve()))
    return guest.start(argv, timeout_s=time_s, switches=switches)


def _recordings(directory: Path, pending: Pending, deadline: float) -> Iterator[Path]:
    """Recordings as they appear, until the deadline or the end of the one who makes them."""
    number = 0
    while time.monotonic() < deadline:
        place = directory / str(number)
        if place.exists():
            yield place
            shutil.rmtree(place)
            number += 1
        elif pending.is_done():
            ended = pending.result()
            raise LostWorkerError(f"the workload ended with status {ended.status}", hint=ended.stderr[-4000:])
        else:
            time.sleep(_POLL_S)


def _examine(lane: Lane, place: Path) -> tuple[str, ...]:
    examination = examine(lane, load_recording(place), parse_plan(_POINTS))
    return tuple(forbidden.bucket for forbidden in examination.forbidden)


def format_scores(scores: Sequence[Score]) -> str:
    """A table in Markdown, a row for each bug."""
    rows = ["| bug | found | first after | hits | off: findings in runs |", "|---|---|---|---|---|"]
    off = {score.bug: score for score in scores if not score.switched_on}
    for one in scores:
        if one.switched_on:
            first = f"{one.first_s:.0f} s" if one.found else f"not in {one.seconds:.0f} s"
            silent = f"{off[one.bug].found} in {off[one.bug].runs}" if one.bug in off else ""
            rows.append(f"| {one.bug} | {one.found} in {one.runs} | {first} | {one.hits} | {silent} |")
    return "\n".join(rows)
