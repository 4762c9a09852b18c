"""Recordings: what runs a workload in a guest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzzer.campaign import recording
from fuzzer.target import guest


@pytest.mark.parametrize(("header", "kind"), [("", "auto"), ("delay: data 5ms\n", "fuse")])
def test_a_workload_that_holds_io_back_gets_a_recorder_that_can(
    header: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    @contextmanager
    def open_lane(recorder: str) -> Iterator[None]:
        taken.append(recorder)
        yield

    monkeypatch.setattr(recording, "open_lane", open_lane)
    workload = tmp_path / "one.workload"
    workload.write_text(f"powercut 1\nfs: btrfs\n{header}\nactor one\n  create a\n")
    recording.main(tmp_path, 0, workload)
    assert taken == [kind]


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
