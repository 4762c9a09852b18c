"""Sample: the crash states of a plan. Simple modes take all of theirs, the others draw some.

Everything drawn comes from the `random.Random` handed in, so one seed and one log give the same states.
What recovery reads decides what is worth losing: metadata is drawn more often than data.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import xxhash

from fuzzer.state.history import History
from fuzzer.writelog.crash import CrashState, Kept, LogData, OpenEntries, Span, Torn, states_at
from fuzzer.writelog.metadata import is_metadata, tear_bytes
from fuzzer.writelog.model import Entry, Flag
from fuzzer.writelog.points import Plan, Points, crash_points

_METADATA_WEIGHT = 8
"""How much rather an entry is lost or torn that recovery reads, compared to data."""

_TRIES = 8
"""Draws per state wanted, before a small log is taken to have no more."""

_CHANCES = (0.15, 0.5, 0.85)
"""How likely each entry, or sector, survives, where that is a matter of chance."""


def choose_states(
    log: LogData, history: History, plan: Plan, rng: random.Random, *, fs: str, start: int = 0
) -> tuple[CrashState, ...]:
    """The states of `plan` in building order, each once. Those of recovery are made while it runs."""
    points = {point for mode in plan.simple for point in crash_points(log, history, mode, start)}
    simple = list(states_at(sorted(points)))
    limit = plan.states // (len(plan.sampled) + 1) if plan.sampled else plan.states
    if plan.states and len(simple) > limit:
        simple = rng.sample(simple, limit)
    chosen, share = set(simple), plan.share(len(simple))
    epochs = _epochs(log, history, fs, start) if plan.sampled else []
    if Points.SUBSET in plan.modes:
        goal = len(chosen) + share
        corners = [state for epoch in epochs for state in _corners(epoch) if state not in chosen]
        chosen.update(rng.sample(corners, min(len(corners), share // 2)))
        _draw(chosen, goal, epochs, _subset, rng)
    if Points.TORN in plan.modes:
        _draw(chosen, len(chosen) + share, [epoch for epoch in epochs if epoch.units], _torn, rng)
    return tuple(sorted(chosen, key=_building_order))


def _building_order(
    state: CrashState,
) -> tuple[int, int, tuple[int, ...], list[tuple[int, tuple[Span, ...]]]]:
    torn = [(one.entry, one.spans) for one in state.torn]
    if isinstance(state.kept, Kept):
        return state.point, list(Kept).index(state.kept), (), torn
    return state.point, len(Kept), state.kept, torn


@dataclass(frozen=True, slots=True)
class _Epoch:
    """A point and the entries that may be lost there; `weights`, for drawing, are cumulative.

    `units` says in pieces of how many bytes an entry may tear, for those that can; `copies`, which open
    entries say the same as one of metadata: btrfs keeps two of each node, and one of them hides the loss of
    the other.
    """

    point: int
    entries: tuple[Entry, ...]
    weights: tuple[int, ...]
    units: dict[int, int]
    copies: dict[int, set[int]]


def _epochs(log: LogData, history: History, fs: str, start: int) -> list[_Epoch]:
    """Points at which something may be lost."""
    opened, position = OpenEntries(), start
    weights: dict[int, int] = {}
    units: dict[int, int] = {}
    contents: dict[int, int] = {}
    found: list[_Epoch] = []
    for point in crash_points(log, history, Points.SUBSET, start):
        for entry in log.entries[position:point]:
            opened.advance(entry)
            payload = log.payload(entry)
            weights[entry.index] = 1
            if is_metadata(fs, payload):
                weights[entry.index] = _METADATA_WEIGHT
                contents[entry.index] = xxhash.xxh3_64_intdigest(payload)
            unit = tear_bytes(fs, payload, log.sector_bytes)
            if entry.is_write and entry.length > unit:
                units[entry.index] = unit
        position = point
        entries = opened.may_be_lost
        if entries:
            tearable = {e.index: units[e.index] for e in entries if e.index in units}
            weighed = tuple(accumulate(weights[e.index] for e in entries))
            found.append(_Epoch(point, entries, weighed, tearable, _copies(entries, contents)))
    return found


def _copies(entries: Sequence[Entry], contents: dict[int, int]) -> dict[int, set[int]]:
    by_content: dict[int, set[int]] = {}
    for entry in entries:
        if entry.index in contents:
            by_content.setdefault(contents[entry.index], set()).add(entry.index)
    return {index: same for same in by_content.values() if len(same) > 1 for index in same}


def _corners(epoch: _Epoch) -> Iterator[CrashState]:
    """The worst, the best, and discards running ahead of all writes or lagging behind them.

    A file system may discard only what no state that can still be mounted needs: with all discards done
    and nothing else, the state before them must be there.
    """
    yield CrashState(epoch.point, Kept.NOTHING)
    yield CrashState(epoch.point, Kept.EVERYTHING)
    discards = tuple(e.index for e in epoch.entries if e.flags & Flag.DISCARD)
    if discards and len(discards) < len(epoch.entries):
        yield CrashState(epoch.point, discards)
        yield _without(epoch, set(discards))


def _draw(
    chosen: set[CrashState],
    goal: int,
    epochs: Sequence[_Epoch],
    draw: Callable[[_Epoch, random.Random], CrashState],
    rng: random.Random,
) -> None:
    """Add new states to `chosen` until there are `goal` of them, or as many as can be found."""
    for _ in range((goal - len(chosen)) * _TRIES if epochs else 0):
        if len(chosen) >= goal:
            return
        chosen.add(draw(rng.choice(epochs), rng))


def _subset(epoch: _Epoch, rng: random.Random) -> CrashState:
    """All but one, all but a few, one alone, or a matter of chance."""
    shape = rng.choice(("all but one", "all but a few", "one alone", "chance", "chance"))
    if shape == "chance":
        chance = rng.choice(_CHANCES)
        return _without(epoch, {e.index for e in epoch.entries if rng.random() > chance})
    picked = _pick(epoch, rng, rng.randint(2, 4) if shape == "all but a few" else 1)
    return CrashState(epoch.point, tuple(sorted(picked))) if shape == "one alone" else _without(epoch, picked)


def _pick(epoch: _Epoch, rng: random.Random, count: int) -> set[int]:
    """Up to `count` entries, each with its copies."""
    drawn = {e.index for e in rng.choices(epoch.entries, cum_weights=epoch.weights, k=count)}
    return drawn.union(*(epoch.copies.get(index, ()) for index in drawn))


def _without(epoch: _Epoch, lost: set[int]) -> CrashState:
    """The state at the end of `epoch` that lost the entries with these indexes."""
    kept = tuple(e.index for e in epoch.entries if e.index not in lost)
    if len(kept) in (0, len(epoch.entries)):
        return CrashState(epoch.point, Kept.EVERYTHING if kept else Kept.NOTHING)
    return CrashState(epoch.point, kept)


def _torn(epoch: _Epoch, rng: random.Random) -> CrashState:
    """One or any number of writes torn; all, nothing or a matter of chance survives of the others."""
    tearable = [e for e in epoch.entries if e.index in epoch.units]
    drawn = _pick(epoch, rng, _TRIES)
    victims = [rng.choice([e for e in tearable if e.index in drawn] or tearable)]
    if rng.random() < _CHANCES[0]:
        victims = [e for e in tearable if rng.random() < 0.5] or victims
    spans = {e.index: _spans(e.length, epoch.units[e.index], rng) for e in victims}
    if rng.random() < 0.5:
        spans |= {copy: spans[e.index] for e in victims for copy in epoch.copies.get(e.index, ())}
    chance = rng.choice((0.0, *_CHANCES, 1.0))
    kept = {e.index for e in epoch.entries if rng.random() < chance} | spans.keys()
    torn = tuple(Torn(index, spans[index]) for index in sorted(spans))
    return CrashState(epoch.point, tuple(e.index for e in epoch.entries if e.index in kept), torn)


def _spans(length: int, unit: int, rng: random.Random) -> tuple[Span, ...]:
    """What survives of `length` bytes: the beginning, the end, or pieces; never all and never nothing."""
    count = -(-length // unit)
    middle = rng.randint(1, count - 1)
    shape = rng.choice(("prefix", "suffix", "pieces"))
    if shape == "pieces":
        chance = rng.choice(_CHANCES)
        kept = [number for number in range(count) if rng.random() < chance]
        if 0 < len(kept) < count:
            return _joined(kept, unit, length)
    return ((0, middle * unit),) if shape == "prefix" else ((middle * unit, length),)


def _joined(numbers: Sequence[int], unit: int, length: int) -> tuple[Span, ...]:
    spans: list[Span] = []
    for number in numbers:
        first, end = number * unit, min((number + 1) * unit, length)
        if spans and spans[-1][1] == first:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((first, end))
    return tuple(spans)
