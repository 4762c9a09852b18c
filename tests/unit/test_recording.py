"""Recordings: what runs a workload in a guest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzzer.campaign import recording


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
