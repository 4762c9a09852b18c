"""Source: where a campaign's workloads come from. A number names a workload, whoever asks and when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from fuzzer.state.view import MORE_VIEWS, View
from fuzzer.workload.generate import generate
from fuzzer.workload.model import Workload
from fuzzer.workload.sweep import Space


class Source(Protocol):
    """A numbered sequence of workloads. Workers are forked with it, so it must not change."""

    @property
    def total(self) -> int | None:
        """How many there are; None for no end."""

    def workload(self, index: int) -> Workload:
        """Workload number `index`, from 0, bound to a file system."""

    def views(self, index: int) -> tuple[View, ...]:
        """How to look at the live mount after it, besides through the cache."""


@dataclass(frozen=True, slots=True)
class Generated:
    """First each corpus entry once per file system, then new workloads, without end.

    What comes out depends on nothing but the fields and the index, so a campaign can be repeated
    whatever `--jobs` was.
    """

    seed: int
    filesystems: tuple[str, ...]
    corpus: tuple[Workload, ...] = ()

    @property
    def total(self) -> None:
        return None

    def workload(self, index: int) -> Workload:
        seeds = [w.with_fs(fs) for w in self.corpus for fs in self.filesystems if w.fs in ("", fs)]
        if index < len(seeds):
            return seeds[index]
        fs = random.Random(f"fs/{self.seed}/{index}").choice(self.filesystems)
        return generate(self.seed, index, fs)

    def views(self, index: int) -> tuple[View, ...]:
        """One way each, since each costs about what a crash state does."""
        return (random.Random(f"views/{self.seed}/{index}").choice(MORE_VIEWS),)


@dataclass(frozen=True, slots=True)
class Listed:
    """These workloads, each bound to a file system, one after the other."""

    workloads: tuple[Workload, ...]

    @property
    def total(self) -> int:
        return len(self.workloads)

    def workload(self, index: int) -> Workload:
        return self.workloads[index]

    def views(self, index: int) -> tuple[View, ...]:
        """Another one each time."""
        return (MORE_VIEWS[index % len(MORE_VIEWS)],)


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

    def workload(self, index: int) -> Workload:
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

    @property
    def total(self) -> int:
        return len(self.workloads) * self.times

    def workload(self, index: int) -> Workload:
        return self.workloads[index // self.times]

    def views(self, index: int) -> tuple[View, ...]:
        return ()
