"""Which findings count for a known bug, and what the scoreboard makes of them. The guest is a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuzzer.campaign import score as scoring
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.recording import Counts, Task
from fuzzer.campaign.score import Trial, score, score_rounds
from fuzzer.campaign.scoreboard import GENERATED, SEED, Score, format_scores
from fuzzer.errors import LostWorkerError
from fuzzer.target.kernels import Kernel
from fuzzer.target.targets import Target, target_of
from fuzzer.workload.model import Workload

BUG = "old-name-for-a-new-file"
BUCKET, OTHER = "btrfs/names/missing", "btrfs/size/lost"
TARGET: Target = target_of(Kernel(name="known-bugs-uml", kind="uml", image="/nonexistent", bugs=(BUG,)))


@dataclass(frozen=True)
class Does:
    """What one workload does: counts hits, and shows buckets with the switch on and with it off."""

    hits: int = 0
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    known: str = ""
    dies: bool = False


@dataclass
class Script:
    """Stands for guest and examination. Workload number n of a round does `acts[n]`, later ones nothing."""

    acts: list[Does]
    boots: int = 0
    asked: list[tuple[int, bool, int | None]] = field(default_factory=list)
    """Of each task: its first workload, whether the bug was on, and how many there were."""
    of: dict[int, Does] = field(default_factory=dict)
    """By the id of a workload that ran; it is kept alive by `ran`."""
    ran: list[Workload] = field(default_factory=list)

    @contextmanager
    def open_guest(self, plan: object, *, exchange: Path, boot_s: float) -> Iterator[None]:
        self.boots += 1
        yield

    @contextmanager
    def recorded(
        self, guest: object, target: Target, task: Task, switches: Mapping[str, str], limit_s: float
    ) -> Iterator[Iterator[tuple[Counts, Any]]]:
        self.asked.append((task.first, bool(switches), task.source.total))
        yield self._run(task, bool(switches))

    def _run(self, task: Task, on: bool) -> Iterator[tuple[Counts, Any]]:
        hits = 0
        for index in count(task.first):
            again = task.source.total is not None and task.source.total < 100
            if index >= (task.source.total if again else len(self.acts) + 3):  # type: ignore[operator]
                return
            workload = task.source.workload(index)
            if id(workload) not in self.of:
                self.ran.append(workload)
                self.of[id(workload)] = self.acts[index] if index < len(self.acts) else Does()
            does = self.of[id(workload)] if task.source.total != 100_000 else self._seed(index)
            if does.dies:
                raise LostWorkerError("the UML guest panicked: BUG: x")
            hits += does.hits if on else 0
            yield Counts(index, {BUG: hits}), SimpleNamespace(workload=workload, does=does, on=on)

    def _seed(self, index: int) -> Does:
        """The bug's own workload runs again and again: what it does is a matter of luck."""
        return self.acts[index] if index < len(self.acts) else Does()

    @staticmethod
    def examine(lane: object, run: Any, plan: object) -> Any:
        buckets = run.does.on if run.on else run.does.off
        forbidden = [SimpleNamespace(bucket=bucket, known=run.does.known) for bucket in buckets]
        return SimpleNamespace(forbidden=forbidden)


def _play(
    acts: list[Does], monkeypatch: pytest.MonkeyPatch, *, origin: str = GENERATED, on: bool = True
) -> tuple[Score, Script]:
    script = Script(acts)
    for name in ("open_guest", "recorded", "examine"):
        monkeypatch.setattr(scoring, name, getattr(script, name))
    monkeypatch.setattr(scoring._Hunt, "_save", lambda self, execution, forbidden: "btrfs-names-1")
    trial = Trial(bug=BUG, fs="btrfs", origin=origin, time_s=0.3, on=on)
    told = score(cast(Lane, None), TARGET, trial, directory=Path("/nonexistent"), say=lambda text: None)
    return told, script


def test_of_its_own_workload_whatever_is_found_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    told, script = _play([Does(), Does(3, (OTHER,), (OTHER,))], monkeypatch, origin=SEED)
    assert (told.found, told.runs, told.first_run, told.hits) == (1, 2, 2, 3)
    assert (told.finding, told.buckets) == ("btrfs-names-1", (OTHER,))
    assert script.boots == 1


def test_of_others_it_has_to_come_again_and_only_with_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    told, script = _play([Does(), Does(2, (BUCKET,))], monkeypatch)
    assert (told.found, told.first_run, told.again, told.rejected) == (1, 2, (5, 5), 0)
    assert script.asked == [(0, True, None), (0, True, 5), (0, False, 10)]


@pytest.mark.parametrize(
    "what",
    [
        Does(1, (OTHER,), (OTHER,)),  # this kernel has it anyway
        Does(1, (OTHER,), (OTHER, BUCKET)),
    ],
)
def test_what_shows_without_it_as_well_is_rejected_and_the_search_goes_on(
    what: Does, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, script = _play([what, Does(1, (BUCKET,))], monkeypatch)
    assert (told.found, told.rejected, told.first_run, told.buckets) == (1, 1, 2, (BUCKET,))
    assert [first for first, on, total in script.asked if total is None] == [0, 1]


@pytest.mark.parametrize(
    ("what", "found"),
    [
        (Does(0, (BUCKET,)), 0),  # the code without the fix was never reached
        (Does(1, (BUCKET,), known="0024"), 0),  # a bug of this kernel that is known
        (Does(1, (BUCKET,), known="0026"), 1),  # a bug whose fix was taken out
        (Does(1, (BUCKET,)), 1),
    ],
)
def test_what_may_be_it(what: Does, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told, _ = _play([what], monkeypatch)
    assert (told.found, told.rejected) == (found, 0)
    assert (told.first_s >= 0) == bool(found)


def test_a_guest_that_dies_of_its_own_workload_is_the_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    told, script = _play([Does(), Does(dies=True)], monkeypatch, origin=SEED)
    assert (told.found, told.runs, told.buckets, script.boots) == (1, 2, ("guest-lost",), 1)
    assert "panicked" in told.lost


def test_a_guest_that_dies_of_others_is_told_and_another_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told, script = _play([Does(), Does(dies=True), Does(1, (BUCKET,))], monkeypatch)
    assert (told.found, told.first_run, script.boots) == (1, 2, 2)
    assert "panicked" in told.lost


def test_rounds_end_with_the_first_that_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [1, 1, 0, 1]
    wanted: list[Trial] = []

    def play(lane: object, target: object, trial: Trial, **_: object) -> Score:
        wanted.append(trial)
        found = rounds[trial.round - 1] if trial.on else 0
        return Score(
            bug=BUG, origin=trial.origin, round=trial.round, switched_on=trial.on, runs=7, found=found
        )

    monkeypatch.setattr(scoring, "score", play)
    trial = Trial(bug=BUG, fs="btrfs", origin=SEED, time_s=60, minimize_s=9)
    told = list(
        score_rounds(
            cast(Lane, None), TARGET, trial, 4, 20.0, directory=Path("/nonexistent"), say=lambda text: None
        )
    )
    assert [one.found for one in told] == [1, 1, 0, 0]
    assert [(one.round, one.on, one.minimize_s, one.time_s) for one in wanted] == [
        *((1, True, 9, 60), (2, True, 0, 60), (3, True, 0, 60)),
        (1, False, 0, 20),
    ]


def test_the_table() -> None:
    one = Score(
        bug="a",
        origin=SEED,
        round=1,
        switched_on=True,
        runs=3,
        found=1,
        first_s=10.0,
        first_run=3,
        seconds=12.0,
        hits=4,
        again=(4, 5),
        ops=(30, 6),
        minimized=(19, 20),
    )
    scores = [
        one,
        replace(one, round=2, first_s=20.4, first_run=9, ops=(0, 0), minimized=(0, 0), again=(5, 5)),
        replace(one, round=3, found=0, first_s=-1.0, first_run=-1, again=(0, 0), minimized=(0, 0)),
        Score(bug="a", origin=SEED, round=1, switched_on=False, runs=8, found=0),
        Score(bug="a", origin=GENERATED, round=1, switched_on=True, runs=50, seconds=61.0),
    ]
    assert format_scores(scores).splitlines()[2:] == [
        "| a | seed | in 2 of 3 rounds | 15 s (20 s) | 6 (9) | 12 | 9/10 "
        "| 30 to 6 ops, 19/20 | 0 of 8 runs |",
        "| a | generation | in 0 of 1 rounds | not in 61 s |  | 0 |  |  |  |",
    ]
