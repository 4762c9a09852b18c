"""Sequential tests: how many runs it takes to say how often something shows (Wald 1945, SPRT).

A candidate is compared with the rate of what it comes from. Accepted means that the hypothesis "its rate
is at most this fraction of that" would give so many hits with probability `FALSE_ACCEPT` at most; rejected,
that "its rate is no lower" would give so few with probability `FALSE_REJECT` at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

KEEP, GIVE = 2 / 3, 1 / 3
"""Fractions of a rate that are too little: where it is to be kept up, and where some of it may go. The second
takes a third of the runs."""

FALSE_ACCEPT = 0.05
FALSE_REJECT = 0.10

_CERTAIN = 0.98
"""A rate of 1 is never measured; with this one the first miss decides."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `runs`."""

    hits: int = 0
    runs: int = 0

    def add(self, hit: bool) -> Rate:
        return Rate(self.hits + hit, self.runs + 1)

    @property
    def value(self) -> float:
        return self.hits / self.runs if self.runs else 0.0

    def __str__(self) -> str:
        return f"{self.hits} of {self.runs} runs"

    def lower_bound(self, z: float = 1.28) -> float:
        """Wilson's lower bound; `z` = 1.28 leaves a tenth below it."""
        if not self.runs:
            return 0.0
        n, p = self.runs, self.value
        middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - spread) / (1 + z * z / n))


def decide(rate: Rate, reference: float, fraction: float) -> bool | None:
    """Is the rate behind these runs as high as `reference` (True), or `fraction` of it or less (False)?

    None: not yet known, run once more.
    """
    high = min(_CERTAIN, reference)
    low = high * fraction
    misses = rate.runs - rate.hits
    evidence = rate.hits * math.log(high / low) + misses * math.log((1 - high) / (1 - low))
    if evidence >= math.log((1 - FALSE_REJECT) / FALSE_ACCEPT):
        return True
    if evidence <= math.log(FALSE_REJECT / (1 - FALSE_ACCEPT)):
        return False
    return None
