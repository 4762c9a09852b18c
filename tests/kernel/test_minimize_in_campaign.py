"""A campaign begins to minimize what is new: within its share of the time, and to be gone on with."""

from __future__ import annotations

import json
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import pytest

from fuzzer.campaign import examine
from fuzzer.campaign.finding import Origin, load_finding
from fuzzer.campaign.worker import FuzzOptions, work
from fuzzer.kernel.beacon import Beacon
from fuzzer.state.view import View
from fuzzer.triage.minimize import load_progress
from fuzzer.workload.model import Workload
from fuzzer.workload.text import parse_bytes
from fuzzer.writelog.points import Plan

pytestmark = pytest.mark.kernel

_CRASHES = Path(__file__).resolve().parents[2] / "crashes"
_ORIGIN = Origin(
    points="fsync", canary="", contract="own", recorder="fuse", kernel="6", created="", command=""
)
_CAMPAIGN_S = 600.0
"""Its tenth is more than is needed; the test ends it."""


@dataclass(frozen=True)
class _Always:
    """The same workload for ever."""

    one: Workload
    total: int | None = None

    def workload(self, index: int, seen: Container[str] = ()) -> Workload:
        return self.one

    def views(self, index: int) -> tuple[View, ...]:
        return ()


def test_the_first_finding_of_a_new_bug_is_minimized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = _CRASHES.glob("0005-*/repro.workload")
    monkeypatch.setattr(examine, "load_known", tuple)
    monkeypatch.setattr("fuzzer.campaign.worker.MINIMIZE_S", 4.0)
    (tmp_path / "queue").mkdir()
    options = FuzzOptions(
        directory=tmp_path,
        filesystems=("btrfs",),
        source=_Always(parse_bytes(path.read_bytes(), str(path))),
        first=0,
        jobs=1,
        deadline=time.monotonic() + _CAMPAIGN_S,
        recorder="fuse",
        plan=Plan(),
        canary="",
        origin=_ORIGIN,
    )
    events = []

    class _EnoughError(Exception):
        """Ends the campaign."""

    def send(line: str) -> None:
        events.append(json.loads(line))
        if sum(event["event"] == "workload" for event in events) == 3:
            raise _EnoughError

    with pytest.raises(_EnoughError):
        work(options, 0, 0, send, Beacon())
    found = [event for event in events if event["event"] == "finding"]
    if not found:
        pytest.skip("this kernel does not have the bug")
    minimized = [event["id"] for event in events if event["event"] == "minimized"]
    firsts = {event["bucket"]: event["id"] for event in reversed(found)}
    assert set(minimized) <= set(firsts.values()), "the first of its bucket, and no other"
    saved = load_finding(tmp_path / "findings" / found[0]["id"])
    progress = load_progress(saved.directory / "minimize.json", saved.workload)
    assert progress.runs > 0
    shows = bool(progress.original.hits)
    assert shows == (saved.finding.id in minimized) == (saved.directory / "minimized.workload").exists()
