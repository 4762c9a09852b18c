"""Recordings: what runs workloads in a guest, and what it does not run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fuzzer.campaign import inrecorder
from fuzzer.campaign.hunt import Trial
from fuzzer.campaign.recording import STOP, Task, save_task
from fuzzer.campaign.scoreboard import GENERATED, SEED
from fuzzer.campaign.source import Listed
from fuzzer.errors import InputError
from fuzzer.state.view import MORE_VIEWS, View
from fuzzer.target import guest
from fuzzer.workload.model import Workload
from fuzzer.workload.text import parse


def _workloads(*headers: str) -> tuple[Workload, ...]:
    return tuple(
        parse(f"powercut 1\ntitle: {n}\nfs: btrfs\n{header}\nactor one\n  create a\n")
        for n, header in enumerate(headers)
    )


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A lane that runs nothing; `saved` are the numbers of recordings and of their workloads."""
    told: dict[str, Any] = {"lanes": [], "saved": [], "views": []}

    @contextmanager
    def open_lane(kind: str) -> Iterator[SimpleNamespace]:
        told["lanes"].append(kind)
        yield SimpleNamespace(recorder=SimpleNamespace(delays=kind == "fuse"))

    def execute(lane: object, workload: Workload, limit_s: float, views: tuple[View, ...]) -> Workload:
        told["views"].append(views)
        if "64K" in workload.mkfs:
            raise InputError("mkfs says no")
        return workload

    def save(place: Path, execution: Workload, index: int) -> None:
        told["saved"].append((place.name, index))

    monkeypatch.setattr(inrecorder, "open_lane", open_lane)
    monkeypatch.setattr(inrecorder, "execute", execute)
    monkeypatch.setattr(inrecorder, "save_recording", save)
    return told


def test_recordings_are_numbered_and_know_their_workloads(tmp_path: Path, recorder: dict[str, Any]) -> None:
    """What this machine cannot run and what its kernel refuses leaves no gap."""
    listed = Listed(_workloads("", "delay: data 5ms\n", "mkfs: -n 64K\n", ""))
    save_task(tmp_path / "task", Task(source=listed, first=0))
    inrecorder.main(tmp_path / "task")
    assert recorder == {"lanes": ["auto"], "saved": [("0", 0), ("1", 3)], "views": [(), (), ()]}


def test_it_goes_on_where_it_is_told_to_with_the_recorder_it_is_told(
    tmp_path: Path, recorder: dict[str, Any]
) -> None:
    listed = Listed(_workloads("", "delay: data 5ms\n"), times=2)
    save_task(tmp_path / "task", Task(source=listed, first=1, recorder="fuse", views=MORE_VIEWS))
    inrecorder.main(tmp_path / "task")
    saved = [("0", 1), ("1", 2), ("2", 3)]
    assert recorder == {"lanes": ["fuse"], "saved": saved, "views": [MORE_VIEWS] * 3}


def test_it_stops_when_no_more_is_wanted(tmp_path: Path, recorder: dict[str, Any]) -> None:
    save_task(tmp_path / "task", Task(source=Listed(_workloads(""), times=100)))
    (tmp_path / "task" / STOP).touch()
    inrecorder.main(tmp_path / "task")
    assert recorder["saved"] == [("0", 0)]


def test_it_does_not_run_far_ahead(
    tmp_path: Path, recorder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "task"
    save_task(place, Task(source=Listed(_workloads(""), times=100)))
    waited = 0

    def save(place: Path, execution: Workload, index: int) -> None:
        place.mkdir()

    def sleep(_: float) -> None:
        nonlocal waited
        waited += 1
        if waited == 3:
            (place / STOP).touch()

    monkeypatch.setattr(inrecorder, "save_recording", save)
    monkeypatch.setattr(inrecorder, "time", SimpleNamespace(sleep=sleep))
    inrecorder.main(place)
    assert sorted(path.name for path in place.iterdir() if path.is_dir()) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("of", "bug", "kind"),
    [
        (SEED, "page-release-vs-fast-fsync", "auto"),
        (SEED, "nocow-write-vs-balance", "fuse"),  # it holds I/O back
        (GENERATED, "nocow-write-vs-balance", "auto"),
    ],
)
def test_a_round_records_with_what_its_workloads_need(of: str, bug: str, kind: str) -> None:
    assert Trial(bugs=(bug,), fs="btrfs", origin=of, time_s=1).recorder == kind


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ((), ""),
        (("one-race",), "one-race"),
        (("two-race", "one-race"), "one-race+two-race"),
        (("one-race-widen",), ""),
    ],
)
def test_a_run_knows_which_bugs_are_on(
    on: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What belongs to a bug and has no counter is a parameter of it."""
    names = ("one-race", "one-race-hits", "one-race-widen", "two-race", "two-race-hits")
    parameters = {name: tmp_path / name for name in names}
    for name, path in parameters.items():
        path.write_text("0\n" if name.endswith("hits") else "Y\n" if name in on else "N\n")
    monkeypatch.setattr(guest, "_parameters", lambda: parameters)
    assert guest.switched_on() == said
