"""Source: where a campaign's workloads come from. A number names a workload, whoever asks and when."""

from __future__ import annotations

import random
from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Protocol

from fuzzer.state.view import MORE_VIEWS, View
from fuzzer.workload.generate import generate
from fuzzer.workload.mixes import ANY
from fuzzer.workload.model import Workload
from fuzzer.workload.mutate import mutate
from fuzzer.workload.pairs import unseen_pairs
from fuzzer.workload.sweep import Space


class Source(Protocol):
    """A numbered sequence of workloads. Workers are forked with it, so it must not change."""

    @property
    def total(self) -> int | None:
        """How many there are; None for no end."""

    def workload(self, index: int, seen: Container[str] = ()) -> Workload:
        """Workload number `index`, from 0, bound to a file system. `seen` are the overlapping pairs of ops
        (`coverage.py`) a source may steer away from."""

    def views(self, index: int) -> tuple[View, ...]:
        """How to look at the live mount after it, besides through the cache."""


_BLOCK = 100
"""Of so many workloads in a row exactly `share` are of the corpus, in places drawn anew for each block."""

_PLAIN_PERCENT = 15
"""Once each entry has run, so many of the corpus' turns are entries as they are; the rest are mutations."""


@dataclass(frozen=True, slots=True)
class Generated:
    """Corpus entries, their mutations and new workloads, without end.

    Of each 100 workloads `share` are of the corpus. These are in turn an entry as it is, each once per
    file system in an order drawn with `seed`, and a mutation of one. Without `feedback` what comes out
    depends on nothing but the fields and the index, so a campaign can be repeated whatever `--jobs` was.
    With it, also on what overlapped before, which is a matter of timing.
    """

    seed: int
    filesystems: tuple[str, ...]
    corpus: tuple[Workload, ...] = ()
    share: int = 0
    delays: bool = True
    """Whether new workloads may hold I/O back."""
    mix: str = ANY.name
    """Of which of `MIXES` new workloads are."""
    feedback: bool = False

    @property
    def total(self) -> None:
        return None

    def workload(self, index: int, seen: Container[str] = ()) -> Workload:
        turn = self._turn(index)
        if turn is not None:
            workload = self._of_corpus(turn)
            return workload if self.delays else replace(workload, delay="")
        fs = random.Random(f"fs/{self.seed}/{index}").choice(self.filesystems)
        workload = generate(self.seed, index, fs, self.mix, self._pair(index, fs, seen))
        return workload if self.delays else replace(workload, delay="")

    def _pair(self, index: int, fs: str, seen: Container[str]) -> str:
        """With feedback, every other workload brings a pair of ops together that did not overlap so far."""
        unseen = unseen_pairs(fs, seen) if self.feedback and index % 2 else ()
        return random.Random(f"pair/{self.seed}/{index}").choice(unseen) if unseen else ""

    def _turn(self, index: int) -> int | None:
        """How many of the corpus came before this one, if it is of the corpus."""
        if not self._seeds():
            return None
        block, place = divmod(index, _BLOCK)
        taken = sorted(random.Random(f"share/{self.seed}/{block}").sample(range(_BLOCK), self.share))
        return block * self.share + taken.index(place) if place in taken else None

    def _seeds(self) -> list[Workload]:
        return [w.with_fs(fs) for w in self.corpus for fs in self.filesystems if w.fs in ("", fs)]

    def _of_corpus(self, turn: int) -> Workload:
        seeds = self._seeds()
        random.Random(f"order/{self.seed}").shuffle(seeds)
        rng = random.Random(f"corpus/{self.seed}/{turn}")
        if turn % 2 == 0 and turn // 2 < len(seeds):
            return seeds[turn // 2]
        seed = rng.choice(seeds)
        if turn // 2 >= len(seeds) and rng.randrange(100) < _PLAIN_PERCENT:
            return seed
        return mutate(rng, seed, self.corpus, seed.fs)

    def views(self, index: int) -> tuple[View, ...]:
        """One way each, since each costs about what a crash state does."""
        return (random.Random(f"views/{self.seed}/{index}").choice(MORE_VIEWS),)


class Swept:
    """A sweep's workloads, one file system after the other; of each at most `sample`, drawn with `seed`."""

    def __init__(
        self, filesystems: tuple[str, ...], length: int, sample: int | None = None, seed: int = 0
    ) -> None:
        self._spaces = {fs: Space(fs, length) for fs in filesystems}
        self._numbers = [
            (fs, number)
            for fs, space in self._spaces.items()
            for number in space.sample(len(space) if sample is None else sample, seed)
        ]

    @property
    def sizes(self) -> dict[str, int]:
        """How many workloads there would be without `sample`, by file system."""
        return {fs: len(space) for fs, space in self._spaces.items()}

    @property
    def total(self) -> int:
        return len(self._numbers)

    def workload(self, index: int, seen: Container[str] = ()) -> Workload:
        fs, number = self._numbers[index]
        return self._spaces[fs][number]

    def views(self, index: int) -> tuple[View, ...]:
        """None: reads that bypass the cache are for what ran beside them."""
        return ()


@dataclass(frozen=True, slots=True)
class Listed:
    """Given workloads, each bound to a file system, one after the other, `times` times each."""

    workloads: tuple[Workload, ...]
    times: int = 1
    ways: tuple[View, ...] = ()
    """Views to take, another one each time; none: only through the cache."""

    @property
    def total(self) -> int:
        return len(self.workloads) * self.times

    def workload(self, index: int, seen: Container[str] = ()) -> Workload:
        return self.workloads[index // self.times]

    def views(self, index: int) -> tuple[View, ...]:
        return (self.ways[index % len(self.ways)],) if self.ways else ()
