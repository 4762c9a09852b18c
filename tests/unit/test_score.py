"""Which findings count for a known bug, and what the scoreboard makes of them. The guest is a script."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuzzer.campaign import hunt as hunting
from fuzzer.campaign import score as scoring
from fuzzer.campaign.hunt import Trial, hunt
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.recording import Counts, Task
from fuzzer.campaign.score import score_seed
from fuzzer.campaign.scoreboard import GENERATED, SEED, Score, format_scores
from fuzzer.errors import LostWorkerError
from fuzzer.target.kernels import Kernel
from fuzzer.target.targets import Target, target_of
from fuzzer.workload.text import format as format_workload

BUG, ANOTHER = "old-name-for-a-new-file", "punch-beside-a-hole"
BUCKET, OTHER = "btrfs/names/missing", "btrfs/size/lost"
TARGET: Target = target_of(
    Kernel(name="known-bugs-uml", kind="uml", image="/nonexistent", bugs=(BUG, ANOTHER))
)


@dataclass(frozen=True)
class Does:
    """What one workload does: which bugs it makes take effect, and the buckets it shows of each bug that is
    on ("" for those of the kernel itself)."""

    hits: tuple[str, ...] = (BUG,)
    shows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    known: str = ""
    dies: bool = False
    luck: Callable[[bool, int], bool] = lambda on, run: True
    """Whether a run that tries it again shows anything, by whether a bug is on and its number."""
    patience: int = 10
    """How many such runs there is time for."""


NOTHING = Does(())
SHOWS = Does((BUG,), {BUG: (BUCKET,)})


@dataclass
class Script:
    """Stands for guest and examination. Workload number n of a round does `acts[n]`, later ones nothing."""

    acts: list[Does]
    boots: int = 0
    asked: list[tuple[int, frozenset[str], int | None]] = field(default_factory=list)
    """Of each task: its first workload, which bugs were on, and how many there were."""
    of: dict[str, Does] = field(default_factory=dict)
    """By the text of a workload that ran."""

    @contextmanager
    def open_guest(self, plan: object, *, exchange: Path, boot_s: float) -> Iterator[None]:
        self.boots += 1
        yield

    @contextmanager
    def recorded(
        self, guest: object, target: Target, task: Task, switches: Mapping[str, str], limit_s: float
    ) -> Iterator[Iterator[tuple[Counts, Any]]]:
        self.asked.append((task.first, frozenset(switches), task.source.total))
        yield self._run(task, frozenset(switches))

    def _run(self, task: Task, on: frozenset[str]) -> Iterator[tuple[Counts, Any]]:
        """Seeds run for ever, and what one run of them does is a matter of luck; so do new workloads."""
        hits = dict.fromkeys((BUG, ANOTHER), 0)
        total = task.source.total
        few = total is not None and total <= 10
        for index in range(task.first, total if few and total else len(self.acts) + 3):
            workload = task.source.workload(index)
            acted = self.acts[index] if index < len(self.acts) else NOTHING
            does = self.of[format_workload(workload)] if few else acted
            self.of[format_workload(workload)] = does
            if few and index >= does.patience:
                return
            if does.dies:
                raise LostWorkerError("the UML guest panicked: BUG: x")
            for bug in on.intersection(does.hits):
                hits[bug] += 1
            yield (
                Counts(index, dict(hits)),
                SimpleNamespace(
                    workload=workload, does=does, on=on, lucky=not few or does.luck(bool(on), index)
                ),
            )

    @staticmethod
    def examine(lane: object, run: Any, plan: object) -> Any:
        shown = [bug for bug in run.does.shows if bug in run.on | {""} and run.lucky]
        buckets = [bucket for bug in shown for bucket in run.does.shows[bug]]
        return SimpleNamespace(forbidden=[SimpleNamespace(bucket=b, known=run.does.known) for b in buckets])


def _play(
    acts: list[Does],
    monkeypatch: pytest.MonkeyPatch,
    *,
    origin: str = GENERATED,
    more: tuple[str, ...] = (),
    there: Path = Path("/nonexistent"),
) -> tuple[tuple[Score, ...], Script]:
    script = Script(acts)
    for name in ("open_guest", "recorded", "examine"):
        monkeypatch.setattr(hunting, name, getattr(script, name))
    monkeypatch.setattr(hunting._Hunt, "_save", lambda self, execution, forbidden: "btrfs-names-1")
    trial = Trial(bugs=(BUG, *more), fs="btrfs", origin=origin, time_s=0.3)
    told = hunt(cast(Lane, None), TARGET, trial, directory=there, say=lambda text: None)
    return told, script


def test_of_its_own_workload_whatever_is_new_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    acts = [Does(), Does((BUG,), {"": (BUCKET,)}, known="0004"), Does((BUG,), {"": (OTHER,)})]
    (told,), script = _play(acts, monkeypatch, origin=SEED)
    assert (told.found, told.runs, told.first_run, told.hits) == (1, 3, 3, 3)
    assert (told.finding, told.buckets) == ("btrfs-names-1", (OTHER,))
    assert script.boots == 1


def test_of_others_it_has_to_come_again_and_only_with_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    (told,), script = _play([NOTHING, SHOWS], monkeypatch)
    assert (told.found, told.first_run, told.again, told.rejected) == (1, 2, (5, 5), 0)
    only = frozenset({BUG})
    assert script.asked == [(0, only, None), (0, frozenset(), 10), (0, only, 2), (0, only, 3)]


@pytest.mark.parametrize(
    "what",
    [
        Does((BUG,), {"": (OTHER,)}),  # this kernel has it anyway
        Does((BUG,), {"": (OTHER,), BUG: (BUCKET,)}),
    ],
)
def test_what_shows_without_it_as_well_is_rejected_and_the_search_goes_on(
    what: Does, monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,), script = _play([what, SHOWS], monkeypatch)
    assert (told.found, told.rejected, told.first_run, told.buckets) == (1, 1, 2, (BUCKET,))
    assert [first for first, on, total in script.asked if total is None] == [0, 1]


@pytest.mark.parametrize(
    ("what", "found"),
    [
        (replace(SHOWS, hits=()), 0),  # the code without the fix was never reached
        (replace(SHOWS, known="0024"), 0),  # a bug of this kernel that is known
        (replace(SHOWS, known="0026"), 1),  # a bug whose fix was taken out
        (SHOWS, 1),
    ],
)
def test_what_may_be_it(what: Does, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (told,), _ = _play([what], monkeypatch)
    assert (told.found, told.rejected) == (found, 0)
    assert (told.first_s >= 0) == bool(found)


@pytest.mark.parametrize(
    ("what", "found", "again"),
    [
        (Does((BUG,), {"": (BUCKET,)}, luck=lambda on, run: on or run == 6), 0, (0, 0)),  # off, but seldom
        (replace(SHOWS, luck=lambda on, run: on and run == 1), 1, (2, 5)),  # in two of two and three
        (replace(SHOWS, luck=lambda on, run: on and run == 2), 0, (0, 0)),  # not in the first two
        (Does((BUG,), SHOWS.shows, luck=lambda on, run: on and run == 0), 1, (2, 5)),
        (replace(SHOWS, patience=4), 0, (0, 0)),  # too slow to know that it never shows with it off
        (replace(SHOWS, patience=5), 1, (5, 5)),
    ],
)
def test_how_often_it_has_to_come_again(
    what: Does, found: int, again: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,), _ = _play([what], monkeypatch)
    assert (told.found, told.again, told.rejected) == (found, again, 1 - found)


def test_one_more_time_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = iter([True] + [False] * 9)
    what = replace(SHOWS, luck=lambda on, run: on and next(shown))
    (told,), _ = _play([what], monkeypatch)
    assert (told.found, told.rejected) == (0, 1)


def test_of_many_bugs_the_one_that_shows_it_alone_is_found_and_then_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = (BUG, ANOTHER)
    acts = [
        Does(both, {ANOTHER: (BUCKET,)}),
        NOTHING,
        Does(both, {ANOTHER: (BUCKET,)}),
        Does(both, SHOWS.shows),
    ]
    told, script = _play(acts, monkeypatch, more=(ANOTHER,))
    assert [(one.bug, one.found, one.first_run, one.runs) for one in told] == [
        (BUG, 1, 4, 4),
        (ANOTHER, 1, 1, 1),
    ]
    on = [(first, sorted(on)) for first, on, total in script.asked if total is None]
    assert on == [(0, sorted(both)), (1, [BUG])]


def test_a_guest_that_dies_of_its_own_workload_is_the_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    (told,), script = _play([NOTHING, Does(dies=True)], monkeypatch, origin=SEED)
    assert (told.found, told.runs, told.first_run, told.buckets) == (1, 2, 2, ("guest-lost",))
    assert ("panicked" in told.lost, script.boots) == (True, 1)


def test_recordings_of_a_guest_that_died_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for owner in (os.getpid(), 1):
        (tmp_path / f"recordings-{owner}" / "0").mkdir(parents=True)
    _play([Does(dies=True)], monkeypatch, origin=SEED, there=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["recordings-1"], "another one's stay"


def test_a_guest_that_dies_of_others_is_told_and_another_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    (told,), script = _play([NOTHING, Does(dies=True), SHOWS], monkeypatch)
    assert (told.found, told.first_run, script.boots) == (1, 2, 2)
    assert "panicked" in told.lost


def test_rounds_of_its_own_workload_end_with_the_first_that_finds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = [1, 1, 0, 1]
    wanted: list[Trial] = []

    def play(lane: object, target: object, trial: Trial, **_: object) -> tuple[Score]:
        wanted.append(trial)
        found = rounds[trial.round - 1] if trial.on else 0
        on = trial.on
        return (Score(bug=BUG, origin=SEED, round=trial.round, switched_on=on, runs=7, found=found),)

    monkeypatch.setattr(scoring, "hunt", play)
    trial = Trial(bugs=(BUG,), fs="btrfs", origin=SEED, time_s=60, minimize_s=9)
    there = Path("/nonexistent")
    told = score_seed(cast(Lane, None), TARGET, trial, 4, 20.0, directory=there, say=lambda text: None)
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
