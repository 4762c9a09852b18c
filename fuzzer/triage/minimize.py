"""Minimize: drive the shrink passes against something that shows only now and then.

The driver asks `shows` of a workload, which runs it once. A finding that showed in every first run is
taken for deterministic (and so is what has been reached once it no longer misses): one run decides about
a candidate. Otherwise each is put to a short sequential test. After every pass what is left has to stand a
longer one, or all that the pass did is taken back, and done again with the longer test for each candidate.

So the rate is kept up. Often ops are left then that only give the bug another chance; if they are too many
for a person to read, some of the rate is given for them, and won back by running what is left in a loop.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzzer.errors import InputError
from fuzzer.triage.sequential import GIVE, KEEP, Rate, decide
from fuzzer.workload.model import Workload
from fuzzer.workload.shrink import PASSES, Pass, candidates
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.text import parse

STATE_VERSION = 2

_FIRST_RUNS = 8
"""A finding that shows in all of them is taken for deterministic."""

_ENOUGH_HITS, _MOST_RUNS = 10, 80
"""How long the original's rate is measured: ten hits tell it to a third."""

_CLOSER_RUNS = 40
"""How often the original is run once it was seen to miss after all."""

_SELDOM = 0.2
"""What shows more rarely is compared less closely."""

_FEW_OPS = 5
"""A workload with more is too large for a person to see through at once."""

_MISSES = 3.0
"""What is expected to show so often and never does has gone, with 95 % confidence."""

_LOOPS = (2, 4, 8, 16)
"""How often what is left is run, to see what shows too seldom."""

_MOST_CANDIDATE_HITS = 40
"""A candidate that is undecided when it should have shown so often is as good as a rejected one."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a minimization stands; saved after every decision, so that it can go on later.

    `steps` are the accepted workloads, the original first, with what was seen of each; `tried` maps the
    hash of a candidate's text to the rate that spoke against it.
    """

    steps: list[tuple[Workload, Rate]]
    tried: dict[str, Rate] = field(default_factory=dict)
    held: int = 1
    """How many of the steps have stood the test of their pass."""
    certain: bool = False
    """One run decides."""
    doubted: bool = False
    """That was wrong once, and is not believed again."""
    runs: int = 0
    sweeps: int = 0
    """How often all passes were gone through."""
    giving: bool = False
    """Some of the rate may go."""
    done: bool = False

    @property
    def original(self) -> Rate:
        return self.steps[0][1]

    @property
    def best(self) -> Workload:
        return self.steps[-1][0]

    def to_json(self) -> dict[str, object]:
        return {
            "minimize": STATE_VERSION,
            "steps": [[format_workload(w), r.hits, r.runs] for w, r in self.steps],
            "tried": {key: [r.hits, r.runs] for key, r in self.tried.items()},
            "held": self.held,
            "certain": self.certain,
            "doubted": self.doubted,
            "runs": self.runs,
            "sweeps": self.sweeps,
            "giving": self.giving,
            "done": self.done,
        }


def load_progress(path: Path, workload: Workload) -> Progress:
    """Go on where `path` says, or start anew with `workload`. InputError if the file is not ours."""
    if not path.exists():
        return Progress(steps=[(workload, Rate())])
    try:
        data = json.loads(path.read_text())
        if data["minimize"] != STATE_VERSION:
            raise ValueError(f"version {data['minimize']}")
        return Progress(
            steps=[(parse(text, str(path)), Rate(hits, runs)) for text, hits, runs in data["steps"]],
            tried={key: Rate(hits, runs) for key, (hits, runs) in data["tried"].items()},
            held=int(data["held"]),
            certain=bool(data["certain"]),
            doubted=bool(data["doubted"]),
            runs=int(data["runs"]),
            sweeps=int(data["sweeps"]),
            giving=bool(data["giving"]),
            done=bool(data["done"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"not the state of a minimization: {error!r}", place=str(path), hint="remove it to start anew"
        ) from error


def save_progress(path: Path, progress: Progress) -> None:
    """Replace the file, all of it or nothing."""
    draft = path.with_suffix(".draft")
    with draft.open("w") as file:
        file.write(json.dumps(progress.to_json()) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


@dataclass(slots=True, kw_only=True)
class Minimizer:
    """One minimization. `shows` runs a workload once; `saved` is called after every decision, `say` with
    a line for people; `stop` is asked before every run."""

    progress: Progress
    shows: Callable[[Workload], bool]
    saved: Callable[[Progress], None] = lambda progress: None
    say: Callable[[str], None] = lambda line: None
    stop: Callable[[], bool] = lambda: False
    candidate_s: float = 300.0
    """A candidate that takes longer is rejected."""
    _strict: bool = False
    """A candidate may not cost much of the rate."""

    def run(self) -> bool:
        """Minimize as far as `stop` allows; False if the original does not show at all."""
        state = self.progress
        if not state.original.hits:
            # Not measured yet; or it never showed, which may have been the machine, or too little time.
            rate = self._measure(state.best)
            state.steps[0] = (state.best, rate)
            state.certain = rate.hits == rate.runs >= _FIRST_RUNS
            self.saved(state)
            self.say(f"the original shows in {rate}")
        if not state.original.hits:
            return False
        while not (self.stop() or state.done):
            before = format_workload(state.best)
            for name, one in PASSES:
                self._go_through(name, one)
            state.sweeps += 1
            if format_workload(state.best) == before and not self.stop():
                self._fixed()
            self.saved(state)
        return True

    def shows_still(self) -> bool:
        """False if neither what was reached nor the original shows now, as on another kernel: then all that
        was reached would be taken back."""
        for workload, rate in (self.progress.steps[-1], self.progress.steps[0]):
            tries = min(_MOST_RUNS, math.ceil(_MISSES / max(rate.value, 1 / _MOST_RUNS)))
            if any(self._once(workload, Rate()).hits for _ in range(tries) if not self.stop()):
                return True
        return self.stop()

    def _fixed(self) -> None:
        """Nothing more can be left out: that was it, or some of the rate goes for what is too much."""
        state = self.progress
        if state.giving or size(state.best) <= _FEW_OPS:
            state.done = True
            return
        state.giving, state.certain = True, False
        state.tried = {key: rate for key, rate in state.tried.items() if not rate.hits}
        self.say(f"{state.runs} runs: {size(state.best)} ops are many; going on at the cost of the rate")

    def measure_best(self, runs: int) -> Rate:
        """How often what was reached shows, in `runs` runs of its own or some more; what cannot stand beside
        the original is run in loops, or taken back."""
        steps = self.progress.steps
        while True:
            rate = self._more(self.progress.best, Rate(), runs)
            smaller = size(self.progress.best) < size(steps[0][0])
            if smaller and rate.value < self.progress.original.lower_bound() and not self.stop():
                rate = self._amplify(rate, runs)
            if decide(rate, self.progress.original.value, GIVE) is not False or len(steps) == 1:
                return rate
            steps.pop()

    def _more(self, workload: Workload, rate: Rate, runs: int) -> Rate:
        """`rate` after so many runs more (one at least, if there were none)."""
        for _ in range(runs):
            if rate.runs and self.stop():
                break
            rate = self._once(workload, rate)
        return rate

    def _amplify(self, rate: Rate, runs: int) -> Rate:
        """Run it in loops, as few as bring back the original's rate, and measure that; else `rate`."""
        for loop in _LOOPS:
            looped = _looped(self.progress.best, loop)
            again = self._more(looped, Rate(), runs)
            if again.value >= self.progress.original.value:
                self.progress.steps.append((looped, again))
                self.say(f"{self.progress.runs} runs: in a loop of {loop} it shows in {again}")
                return again
        return rate

    def _measure(self, workload: Workload) -> Rate:
        rate = Rate()
        while rate.runs < _MOST_RUNS and not self.stop():
            rate = self._once(workload, rate)
            if rate.hits == rate.runs == _FIRST_RUNS or rate.hits == _ENOUGH_HITS:
                break
        return rate

    def _once(self, workload: Workload, rate: Rate) -> Rate:
        self.progress.runs += 1
        return rate.add(self.shows(workload))

    # ------------------------------------------------------------------------------------- passes

    def _go_through(self, name: str, one: Pass) -> None:
        """Try a pass's candidates until it offers nothing more, and once more, strictly, if that cost too
        much of the rate together."""
        for strict in (False, True):
            self._strict, position = strict, 0
            while not self.stop():
                accepted = self._first_good(name, one, position)
                if accepted is None:
                    break
                position = accepted
            if self.stop() or self._holds():
                return

    def _first_good(self, name: str, one: Pass, position: int) -> int | None:
        """Accept the next good candidate, from `position` on and then from the start.

        Returns where it stood: what was rejected before it is hardly better without what it took away.
        """
        for number, candidate in _from(position, candidates(one, self.progress.best)):
            if self.stop():
                return None
            if self._is_good(candidate):
                rate = self.progress.steps[-1][1]
                self.say(f"{self.progress.runs} runs: {size(candidate)} ops ({name}; shows in {rate})")
                return number
        return None

    def _is_good(self, candidate: Workload) -> bool:
        key = hashlib.sha256(format_workload(candidate).encode()).hexdigest()[:20]
        if key in self.progress.tried:
            return False
        rate, good = self._test(candidate)
        if good:
            self.progress.steps.append((candidate, rate))
            self.progress.certain = self.progress.certain or self._looks_certain()
        elif good is False:
            self.progress.tried[key] = rate
        self.saved(self.progress)
        return bool(good)

    def _looks_certain(self) -> bool:
        """True if what was reached has not missed once in as many runs as make an original certain."""
        runs = 0
        for _, rate in reversed(self.progress.steps):
            runs += rate.runs
            if rate.hits < rate.runs or self.progress.doubted:
                return False
            if runs >= _FIRST_RUNS:
                return True
        return False

    def _test(self, candidate: Workload) -> tuple[Rate, bool | None]:
        """Run until it is decided; None if that was stopped."""
        if self.progress.certain:
            rate = self._once(candidate, Rate())
            return rate, rate.hits == 1
        return self._compare(candidate, KEEP if self._strict and self._is_close() else GIVE)

    def _compare(self, candidate: Workload, fraction: float) -> tuple[Rate, bool | None]:
        """Run until it is known whether it shows as often as what it has to stand beside."""
        rate, deadline, reference = Rate(), time.monotonic() + self.candidate_s, self._reference()
        while rate.runs * reference < _MOST_CANDIDATE_HITS and time.monotonic() < deadline:
            if self.stop():
                return rate, None
            rate = self._once(candidate, rate)
            decided = decide(rate, reference, fraction)
            if decided is not None:
                return rate, decided
        return rate, False

    def _reference(self) -> float:
        """The rate to stand beside: the original's, or 1 where what was reached never missed."""
        return 1.0 if self.progress.certain else self.progress.original.value

    def _holds(self) -> bool:
        """Does what was reached since the last time show as often? If not, none of it counts."""
        state = self.progress
        if len(state.steps) == state.held or not (state.certain or self._is_close()):
            state.held = len(state.steps)
            return True
        rate, good = self._compare(state.best, KEEP)
        if good is False and not state.certain:
            # What the original was measured at may have been luck: it was stopped when it had shown enough.
            state.steps[0] = (state.steps[0][0], self._more(state.steps[0][0], state.original, rate.runs))
            good = decide(rate, self._reference(), KEEP) is not False
        if good is not False:
            state.steps[-1] = (state.best, rate)
            state.held = len(state.steps)
        else:
            del state.steps[state.held :]
            self.say(f"{state.runs} runs: back to {size(state.best)} ops, which show more often")
            self._doubt()
        self.saved(state)
        return good is not False

    def _is_close(self) -> bool:
        """Is the rate kept up closely? Of what shows seldom that would take hours."""
        return not self.progress.giving and self.progress.original.value >= _SELDOM

    def _doubt(self) -> None:
        """One run did not decide: it does not again, and the original's rate is to be known better."""
        state = self.progress
        if not state.certain:
            return
        state.certain, state.doubted = False, True
        state.tried.clear()
        workload, rate = state.steps[0]
        state.steps[0] = (workload, self._more(workload, rate, _CLOSER_RUNS - rate.runs))


def _from(position: int, offered: Iterator[Workload]) -> Iterator[tuple[int, Workload]]:
    """The candidates from `position` on with their numbers, then the earlier ones."""
    skipped = []
    for number, candidate in enumerate(offered):
        if number < position:
            skipped.append((number, candidate))
        else:
            yield number, candidate
    yield from skipped


def size(workload: Workload) -> int:
    """Its number of ops."""
    return sum(1 for _ in workload.iter_ops())


def _looped(workload: Workload, times: int) -> Workload:
    """Every actor that ends goes through its ops so many times as often."""
    actors = (replace(a, loop=None if a.loop is None else a.loop * times) for a in workload.actors)
    return replace(workload, actors=tuple(actors))


def tidy(workload: Workload) -> Workload:
    """Names that say nothing of where it came from; they make no difference to a run."""
    names = ("one", "two", "three", "four")
    actors = workload.actors
    if len(actors) <= len(names):
        actors = tuple(replace(actor, name=name) for actor, name in zip(actors, names, strict=False))
    return replace(workload, title="", actors=actors)
