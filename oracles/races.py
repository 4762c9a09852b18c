"""Races: how ops that overlapped on a name came out, where only one way lets all of them work.

A create that worked beside an unlink of the same name came after it. What is known so is taken for what
happened (`Settled`), and only the rest stays open. All orders in which everything that worked could work
are those of `moments.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations

from fuzzer.state.history import Event, History
from oracles.moments import Step, Walk
from oracles.profile import PROFILES
from oracles.versions import (
    BIRTHS,
    REMOVALS,
    Commits,
    NameKey,
    Settled,
    Versions,
    overlaps,
    read_versions,
    touched_names,
)

Pair = tuple[int, int]


def build_versions(history: History, commits: Commits | None = None) -> Versions:
    """All versions of a history. `commits` are those of the log, None where it does not tell."""
    versions = read_versions(history, commits)
    settled = settle(versions) if versions.raced else None
    return versions if settled is None else read_versions(history, commits, settled)


def settle(versions: Versions) -> Settled | None:
    """What is known of the ops that raced; None if their orders cannot all be followed."""
    walk = Walk(versions, PROFILES["btrfs"])  # which calls make what durable is not asked here
    if walk.follow() is None or not walk.steps:
        return None
    steps: dict[int, list[Step]] = defaultdict(list)
    for step in walk.steps:
        steps[step.event.id].append(step)
    raced = [event for event in versions.name_events if event.id in versions.raced]
    ordered = frozenset(_ordered(_rivals(raced), steps, walk.places()))
    never = frozenset(event.id for event in raced if event.id not in steps)
    came_out = {e.id: _with_inodes(e, steps[e.id], walk.told) for e in raced if e.id not in never}
    known = {number: event for number, event in came_out.items() if event is not None}
    begins = _begins(raced, ordered)
    return Settled(
        ordered,
        {number: replace(event, begin_ns=begins[number]) for number, event in known.items()},
        never,
        open=frozenset(came_out.keys() - known.keys()),
    )


def _rivals(raced: Iterable[Event]) -> list[tuple[Event, Event]]:
    """Pairs of ops that overlapped on one name."""
    touching: dict[NameKey, list[Event]] = defaultdict(list)
    for event in raced:
        for key in set(touched_names(event)):
            touching[key].append(event)
    pairs = (pair for group in touching.values() for pair in combinations(group, 2))
    return list({(one.id, two.id): (one, two) for one, two in pairs if overlaps(one, two)}.values())


def _ordered(
    rivals: Iterable[tuple[Event, Event]],
    steps: Mapping[int, list[Step]],
    places: Mapping[int, tuple[int, int]],
) -> Iterator[Pair]:
    """(first, second) of the pairs that came in this order whichever way the history is followed."""
    for one, two in rivals:
        seen = {_is_done(two, step, places) for step in steps.get(one.id, ())}
        seen |= {not _is_done(one, step, places) for step in steps.get(two.id, ())}
        if len(seen) == 1:
            yield (two.id, one.id) if seen.pop() else (one.id, two.id)


def _is_done(event: Event, step: Step, places: Mapping[int, tuple[int, int]]) -> bool:
    row, number = places[event.id]
    return step.done[row] > number


def _with_inodes(event: Event, steps: list[Step], told: set[int]) -> Event | None:
    """The op with what it found at its names; None if that may be several things, or nobody knows."""
    if event.op.name in BIRTHS:
        # Only these two know the inode from a descriptor.
        return event if event.op.name in ("create", "tmplink") else None
    found = {tuple(step.before.get(key, 0) for key in touched_names(event)) for step in steps}
    if len(found) != 1 or not {inode for inodes in found for inode in inodes} - {0} <= told:
        return None
    inodes = found.pop()
    if event.op.name == "rename":
        return replace(event, subject=inodes[0], other=inodes[1])
    return replace(event, subject=inodes[0]) if event.op.name in REMOVALS else event


def _begins(raced: Iterable[Event], ordered: Iterable[Pair]) -> dict[int, int]:
    """When each op began to have an effect: after those it came after had begun."""
    events = {event.id: event for event in raced}
    begins = {number: event.begin_ns for number, event in events.items()}
    changed = True
    while changed:
        changed = False
        for first, second in ordered:
            at = min(begins[first] + 1, events[second].end_ns)
            if begins[second] < at:
                begins[second], changed = at, True
    return begins
