"""The judge against brute force: on tiny histories it accepts what the law of `brute_law.py` calls legal,
and nothing else.

Every candidate of `brute_universe.py` is judged. Legal and rejected is a false alarm, illegal and accepted
a miss.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from itertools import product

import pytest
from brute_history import Tiny, play, random_tiny, small_ops
from brute_universe import Universe

HISTORIES = int(os.environ.get("POWERCUT_HISTORIES", "500"))
"""Random histories per file system. The environment variable asks for a longer run."""

FAMILY_STEP = max(1, 20_000 // HISTORIES)
"""Every so-many-th history of the exhaustive family is judged; all of them from 20,000 on."""

_SLICES = 4


def judge_all(tiny: Tiny, rng: random.Random) -> Counter[str]:
    """Judge every candidate; how many were legal and illegal."""
    universe, counts = Universe(tiny, rng), Counter[str]()
    for sort, legal, shown in universe.candidates():
        violations = universe.violations(universe.tree(shown))
        if legal:
            assert not violations, f"false alarm\n{tiny}\n{shown}\n{violations[0]}"
        else:
            assert violations, f"missed {sort}\n{tiny}\n{shown}"
        counts["legal" if legal else "illegal"] += 1
    return counts


@pytest.mark.parametrize("part", range(_SLICES))
def test_random_histories(fs: str, part: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(part, HISTORIES, _SLICES):
        rng = random.Random(f"{seed}/{fs}")
        counts += judge_all(random_tiny(rng, fs), rng)
    assert counts["legal"]
    assert counts["illegal"]


def overlaps() -> Iterator[tuple[int, ...]]:
    """All ways two actors' two ops each can lie in time: whose op begins or ends at each moment."""
    seen = set()
    for slots in sorted(set(product((1, 2), repeat=8))):
        if slots.count(1) != 4:
            continue
        order = _order(slots)
        if order not in seen:
            seen.add(order)
            yield slots


def _order(slots: tuple[int, ...]) -> tuple[tuple[bool, bool], ...]:
    """For each pair of ops of the two: is the first over before the second begins, and the reverse."""
    at = {actor: [n for n, slot in enumerate(slots) if slot == actor] for actor in (1, 2)}
    spans = {actor: [(a[0], a[1]), (a[2], a[3])] for actor, a in at.items()}
    return tuple((one[1] < two[0], two[1] < one[0]) for one in spans[1] for two in spans[2])


def family(theme: str) -> Iterator[tuple[tuple[int, ...], dict[int, list[object]]]]:
    for ops in product(small_ops(theme), repeat=4):
        for slots in overlaps():
            yield slots, {1: list(ops[:2]), 2: list(ops[2:])}


@pytest.mark.parametrize("theme", ["names", "data", "values"])
def test_all_small_histories(fs: str, theme: str) -> None:
    """Two actors, two ops each, of a small alphabet, in every overlap, with power cut at the end."""
    for number, (slots, work) in enumerate(family(theme)):
        if number % FAMILY_STEP == 0:
            rng = random.Random(number)
            judge_all(play(list(slots), work, rng, fs, len(slots)), rng)  # type: ignore[arg-type]


def test_there_are_as_many_overlaps_as_there_should_be() -> None:
    assert len(list(overlaps())) == 19
