"""Monitor: what people and programs see of a running campaign.

People get one status line and a line per finding on standard error; `--json` gives one JSON object a
line on standard output. Both may be on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from fuzzer.triage.known import describe_known
from oracles import Tally

_QUIET_EVERY_S = 10.0
"""Without a terminal a status line is printed this often."""


class Progress(Protocol):
    """The numbers a status line shows."""

    counts: dict[str, int]
    findings: int
    known: int
    tally: Tally

    @property
    def seconds(self) -> float: ...


@dataclass(slots=True)
class Monitor:
    """Prints events. `json_lines`: also as JSON on standard output."""

    json_lines: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))
    _last_s: float = field(default_factory=time.monotonic)
    _status_shown: bool = False

    def say(self, text: str) -> None:
        """A line for people."""
        self._clear()
        self.console.print(Text(text))

    def event(self, event: Mapping[str, object]) -> None:
        """Something happened; see `worker.py` for the kinds."""
        if self.json_lines:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()
        if event["event"] == "finding":
            self.say(finding_line(event))
        elif event["event"] == "minimized":
            self.say(_minimized_line(event))
        elif event["event"] == "killed":
            self.say(f"killed at the deadline, or died: {event['actors']} (workload {event['index']})")
        elif event["event"] == "lost":
            self.say(f"worker {event['worker']} was lost (status {event['status']}), a new one is started")

    def tick(self, progress: Progress, left: str) -> None:
        """Refresh the status line; `left` says what is still to do."""
        interactive = self.console.is_terminal
        if not interactive and time.monotonic() - self._last_s < _QUIET_EVERY_S:
            return
        self._last_s = time.monotonic()
        line = _status(progress, left)
        if interactive:
            self._clear()
            self.console.print(Text(line), end="")
            self._status_shown = True
        else:
            self.console.print(Text(line))

    def _clear(self) -> None:
        if self._status_shown:
            self.console.file.write("\r\x1b[2K")
            self._status_shown = False


def finding_line(finding: Mapping[str, object]) -> str:
    """One line for people about a finding: of a known bug what it is called, else what was seen."""
    if finding["known"]:
        return f"{describe_known(str(finding['known']))} ({finding['id']})"
    return f"finding {finding['id']}: {finding['title']}"


def _minimized_line(event: Mapping[str, Any]) -> str:
    before, after = event["ops"]
    more = "" if event["done"] else f"; `powercut minimize {event['id']}` goes on"
    return f"minimized {event['id']}: {before} ops became {after} in {event['runs']} runs{more}"


def count_findings(findings: int, known: int) -> str:
    """`3 findings`, or `3 findings (2 of known bugs)`."""
    return f"{findings} findings" + (f" ({known} of known bugs)" if known else "")


def _status(progress: Progress, left: str) -> str:
    counts, seconds = progress.counts, max(progress.seconds, 0.001)
    states = counts.get("crash_states", 0)
    return (
        f"{counts.get('workloads', 0)} workloads, {states} crash states "
        f"({counts.get('unique_states', 0)} unique, {states / seconds:.0f}/s), "
        f"{progress.tally.judged} objects judged, {progress.tally.no_promise} not promised, "
        f"{count_findings(progress.findings, progress.known)}, {left} left"
    )
