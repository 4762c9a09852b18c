"""I/O jitter: which requests the recorder holds back, and for how long, so that others overtake them.

The text of a workload's `delay:` header is a comma list of rules such as `data 20ms 1/8 size=4K..64K`:
what kind of request, how long, which share of them (or `nth=3`, only the third), and perhaps only those
of some sizes or places. A `Schedule` draws from the workload's seed, in the order requests arrive.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import NoReturn

from fuzzer.errors import InputError
from fuzzer.workload.ops import SHIFT

KINDS = ("data", "metadata", "write", "read")
"""`write` is data and metadata; which of them a write is, is guessed from its bytes."""

MAX_RULES = 8
MAX_HOLD_US = 2_000_000
_ANYWHERE = (0, 1 << 44)
_USAGE = "KIND TIME [1/N | nth=N] [size=LOW..HIGH] [at=LOW..HIGH], such as `data 20ms 1/8`"

_TIME = re.compile(r"([1-9][0-9]{0,6})(us|ms)")
_SHARE = re.compile(r"1/([1-9][0-9]{0,6})")
_NTH = re.compile(r"nth=([1-9][0-9]{0,6})")
_RANGE = re.compile(r"(size|at)=([0-9]{1,14})([KMG]?)\.\.([0-9]{1,14})([KMG]?)")


@dataclass(frozen=True, slots=True)
class Delay:
    """One rule. `size` and `at` are bytes, ends included; `at` is where on the device a request begins."""

    kind: str
    hold_us: int
    share: int = 1
    """One in so many requests, drawn."""
    nth: int = 0
    """Only this one of the requests the rule is about, from 1; 0: no such limit."""
    size: tuple[int, int] = _ANYWHERE
    at: tuple[int, int] = _ANYWHERE

    def is_about(self, kind: str, offset: int, length: int) -> bool:
        """Whether the rule speaks of a request of `kind` data, metadata or read."""
        return (
            (self.kind == kind or (self.kind == "write" and kind != "read"))
            and self.size[0] <= length <= self.size[1]
            and self.at[0] <= offset <= self.at[1]
        )


def parse_delays(text: str) -> tuple[Delay, ...]:
    """The rules of a `delay:` header. InputError if it is none."""
    rules = text.split(", ")
    if len(rules) > MAX_RULES:
        raise InputError(f"more than {MAX_RULES} delays")
    return tuple(_parse_rule(rule) for rule in rules)


def delay_defect(text: str) -> str:
    """What is wrong with the text of a `delay:` header, or an empty text."""
    try:
        parse_delays(text)
    except InputError as error:
        return str(error)
    return ""


def _parse_rule(text: str) -> Delay:
    kind, time, *rest = [*text.split(" "), ""]
    found = _TIME.fullmatch(time)
    if kind not in KINDS or not found:
        _refuse(text)
    hold_us = int(found[1]) * (1000 if found[2] == "ms" else 1)
    if hold_us > MAX_HOLD_US:
        raise InputError(f"delay {time} is more than {MAX_HOLD_US // 1_000_000} s")
    share, nth = "", ""
    ranges: dict[str, tuple[int, int]] = {}
    for word in filter(None, rest):
        if match := _SHARE.fullmatch(word) if not share + nth else None:
            share = match[1]
        elif match := _NTH.fullmatch(word) if not share + nth else None:
            nth = match[1]
        elif (match := _RANGE.fullmatch(word)) and match[1] not in ranges:
            ranges[match[1]] = (int(match[2]) << SHIFT[match[3]], int(match[4]) << SHIFT[match[5]])
        else:
            _refuse(text)
    if any(low > high or high > _ANYWHERE[1] for low, high in ranges.values()):
        raise InputError(f"delay {text!r} has a range that ends before it begins, or beyond 16 TiB")
    size, at = ranges.get("size", _ANYWHERE), ranges.get("at", _ANYWHERE)
    return Delay(kind, hold_us, int(share or 1), int(nth or 0), size, at)


def _refuse(text: str) -> NoReturn:
    raise InputError(f"delay {text[:60]!r} is not {_USAGE}")


class Schedule:
    """The rules of one run, and what they have drawn so far."""

    def __init__(self, delays: tuple[Delay, ...], seed: int) -> None:
        self._rules = [(delay, random.Random(f"delay/{seed}/{i}")) for i, delay in enumerate(delays)]
        self._seen = [0] * len(delays)

    def hold_us(self, kind: str, offset: int, length: int) -> int:
        """How long to hold this request, 0 for not at all. The longest rule wins; all of them draw."""
        longest = 0
        for i, (delay, rng) in enumerate(self._rules):
            if delay.is_about(kind, offset, length):
                self._seen[i] += 1
                drawn = self._seen[i] == delay.nth if delay.nth else rng.randrange(delay.share) == 0
                longest = max(longest, delay.hold_us if drawn else 0)
        return longest
