"""What is made of a guest that no longer reports, and of what it left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from fuzzer.campaign import guestlane
from fuzzer.campaign.inguest import load_task, save_task
from fuzzer.campaign.queue import Queue
from fuzzer.campaign.session import origin
from fuzzer.campaign.source import Listed
from fuzzer.campaign.worker import FuzzOptions
from fuzzer.errors import InputError, LostWorkerError
from fuzzer.target.kernels import Kernel, save, store
from fuzzer.target.machine import Guest, Output, Pending
from fuzzer.target.targets import find_target
from fuzzer.workload.text import parse

WORKLOAD = parse("powercut 1\ntitle: t\nfs: btrfs\n\nactor one\n  create a\n")
PANIC = "[  3.1] Kernel panic - not syncing: Segfault with no mm"


@dataclass
class _Reports:
    """A guest and its command: what it reports, a batch for each time it is asked."""

    batches: list[list[str]]
    ends: bool = False
    asked: int = field(default=0)

    def is_done(self) -> bool:
        return self.ends and self.asked + 1 >= len(self.batches)

    def read_lines(self) -> Iterator[str]:
        self.asked += 1
        yield from self.batches[self.asked - 1] if self.asked <= len(self.batches) else ()

    def lost(self, how: str) -> LostWorkerError:
        return LostWorkerError(how)


def _lines(reports: _Reports, silent_s: float) -> list[str]:
    found = guestlane._lines(cast(Guest, reports), cast(Pending, reports), silent_s)
    return [line for line in found if line]


def test_reports_are_passed_on_to_the_last() -> None:
    assert _lines(_Reports([["a", "b"], [], ["c"]], ends=True), 60.0) == ["a", "b", "c"]


def test_a_silent_guest_is_lost() -> None:
    with pytest.raises(LostWorkerError, match="reports nothing for 0 s"):
        _lines(_Reports([["a"]]), 0.2)


def test_lines_of_a_growing_file_come_whole_and_once(tmp_path: Path) -> None:
    path, output = tmp_path / "stdout", Output()
    path.write_text("one\ntw")
    assert list(output.read(path)) == ["one"]
    path.write_text("one\ntwo\nthree\n")
    assert list(output.read(path)) == ["two", "three"]
    assert list(output.read(path)) == []


def test_a_panic_is_named_by_what_the_kernel_said() -> None:
    console = ("Linux version 6.1.0 (x)", "[  2.0] XFS (loop0): Mounting", PANIC, "[  3.2] Call Trace:")
    violation = guestlane._violation("the UML guest panicked", console)
    assert (violation.rule, violation.kind) == (
        "kernel-log",
        "Kernel panic - not syncing: Segfault with no mm",
    )
    assert guestlane._violation("the UML guest ended with status 1", console[:2]).rule == "guest"


def test_what_it_was_still_writing_down_is_left_out(tmp_path: Path) -> None:
    queue = Queue(tmp_path, 0)
    queue.begin(WORKLOAD)
    queue.path("crash.json").write_text('{"cra')
    execution, place = guestlane._load(queue)
    assert (execution.workload, place.state) == (WORKLOAD, None)


def test_a_guest_finds_the_campaign_wherever_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = FuzzOptions(
        directory=Path("powercut-run"),
        filesystems=("btrfs",),
        source=Listed((WORKLOAD,), 1),
        first=0,
        jobs=1,
        deadline=0.0,
        recorder="auto",
        plan=None,
        canary="",
        origin=origin(points="fsync", canary="", recorder="auto", contract="own"),
    )
    save_task(tmp_path / "task", options)
    assert load_task(tmp_path / "task", 1.0).directory == tmp_path / "powercut-run"


@pytest.mark.parametrize("name", ["", "moon", "qemu", "qemu:", "qemu:/nonexistent", "uml:/nonexistent"])
def test_what_is_no_target_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        find_target(name)


def test_a_target_has_known_bugs_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (store() / "old").mkdir(parents=True)
    save(Kernel(name="old", kind="uml", image="/linux", bugs=("a-vs-b", "c")))
    target = find_target("uml:old,a-vs-b,a-vs-b-widen-ms=20")
    assert target is not None
    assert target.switches == {"a-vs-b": "1", "a-vs-b-widen-ms": "20"}
    assert target.bugs == "a-vs-b"
    for name, hint in [("uml:old,d", "it has a-vs-b, c"), ("uml:old,", "it has a-vs-b, c")]:
        with pytest.raises(InputError, match="no bug") as caught:
            find_target(name)
        assert caught.value.hint == hint


def test_this_host_is_no_guest() -> None:
    assert find_target("host") is None
