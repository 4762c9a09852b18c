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

from fuzzer.state.history import FOREVER, Event, History
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

MAX_CASES = 16
"""Histories whose races may have come out in more ways are judged name by name."""

Pair = tuple[int, int]
Rivals = tuple[Event, Event]
Outcome = frozenset[tuple[int, tuple[int, ...]]]
"""How races came out: (op, inodes it found at its names, then the ids of rivals that came before it)."""


def build_versions(history: History, commits: Commits | None = None) -> Versions:
    """All versions of a history. `commits` are those of the log, None where it does not tell."""
    versions = read_versions(history, commits)
    races = find_races(versions) if versions.raced else None
    if races is None:
        return versions
    settled, cases = races
    versions = read_versions(history, commits, settled)
    versions.cases = tuple(read_versions(history, commits, case) for case in cases)
    return versions


def find_races(versions: Versions) -> tuple[Settled, tuple[Settled, ...]] | None:
    """What is known of the ops that raced, and all cases of what is not; None if their orders cannot all
    be followed."""
    walk = Walk(versions, PROFILES["btrfs"])  # which calls make what durable is not asked here
    if walk.follow() is None or not walk.steps:
        return None
    raced = [event for event in versions.name_events if event.id in versions.raced]
    rivals = _rivals(raced)
    settled = _settle(raced, rivals, walk)
    whole = not settled.open and len(settled.ordered) == len(rivals)
    return settled, () if whole else _cases(raced, rivals, walk)


def _settle(raced: list[Event], rivals: list[Rivals], walk: Walk) -> Settled:
    steps: dict[int, list[Step]] = defaultdict(list)
    for step in walk.steps:
        steps[step.event.id].append(step)
    ordered = frozenset(_ordered(rivals, steps, walk.places()))
    never = frozenset(event.id for event in raced if event.id not in steps)
    came_out = {e.id: _with_inodes(e, _found_by(steps[e.id]), walk.told) for e in raced if e.id not in never}
    known = [event for event in came_out.values() if event is not None]
    unknown = frozenset(number for number, event in came_out.items() if event is None)
    return Settled(ordered, _begun(known, raced, ordered), never, unknown)


def _cases(raced: list[Event], rivals: list[Rivals], walk: Walk) -> tuple[Settled, ...]:
    """Each way to the end of the history by how the races came out on it."""
    outcomes = _outcomes(rivals, walk)
    cases = [_case(raced, outcome, walk.told) for outcome in outcomes]
    whole = [case for case in cases if case is not None]
    return tuple(whole) if len(whole) == len(cases) else ()


def _outcomes(rivals: Iterable[Rivals], walk: Walk) -> frozenset[Outcome]:
    """How the races came out on the ways to the end; none if there are too many of them."""
    against: dict[int, list[Event]] = defaultdict(list)
    for one, two in rivals:
        against[one.id].append(two)
        against[two.id].append(one)
    places, ways, ends = walk.places(), defaultdict[int, set[Outcome]](set), set[Outcome]()
    # Steps are in order of how much was done before them.
    for step in walk.steps:
        here = ways[id(step.source)] or {Outcome()}
        if step.event.id in against:
            before = (e.id for e in against[step.event.id] if _is_done(e, step, places))
            found = next(iter(_found_by([step])))
            here = {outcome | {(step.event.id, (*found, *sorted(before)))} for outcome in here}
        ways[id(step.after)] |= here
        if step.after.until_ns == FOREVER:
            ends |= here
        if len(ways[id(step.after)]) > MAX_CASES or len(ends) > MAX_CASES:
            return frozenset()
    return frozenset(ends)


def _case(raced: list[Event], outcome: Outcome, told: set[int]) -> Settled | None:
    """One way in which all races came out; None if it hangs on inodes nobody was told of."""
    found = dict(outcome)
    ordered, events = set[Pair](), list[Event]()
    for event in (e for e in raced if e.id in found):
        count = len(touched_names(event))
        ordered |= {(before, event.id) for before in found[event.id][count:]}
        known = _with_inodes(event, {found[event.id][:count]}, told)
        if known is None:
            return None
        events.append(known)
    never = frozenset(event.id for event in raced if event.id not in found)
    return Settled(frozenset(ordered), _begun(events, raced, ordered), never)


def _rivals(raced: Iterable[Event]) -> list[Rivals]:
    """Pairs of ops that overlapped on one name."""
    touching: dict[NameKey, list[Event]] = defaultdict(list)
    for event in raced:
        for key in set(touched_names(event)):
            touching[key].append(event)
    pairs = (pair for group in touching.values() for pair in combinations(group, 2))
    return list({(one.id, two.id): (one, two) for one, two in pairs if overlaps(one, two)}.values())


def _ordered(
    rivals: Iterable[Rivals],
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


def _found_by(steps: Iterable[Step]) -> set[tuple[int, ...]]:
    """What the op found at its names."""
    return {tuple(step.before.get(key, 0) for key in touched_names(step.event)) for step in steps}


def _with_inodes(event: Event, found: set[tuple[int, ...]], told: set[int]) -> Event | None:
    """The op with what it found at its names; None if that may be several things, or nobody knows."""
    if event.op.name in BIRTHS:
        # Only these two know the inode from a descriptor.
        return event if event.op.name in ("create", "tmplink") else None
    if len(found) != 1 or not {inode for inodes in found for inode in inodes} - {0} <= told:
        return None
    inodes = next(iter(found))
    if event.op.name == "rename":
        return replace(event, subject=inodes[0], other=inodes[1])
    return replace(event, subject=inodes[0]) if event.op.name in REMOVALS else event


def _begun(events: Iterable[Event], raced: Iterable[Event], ordered: Iterable[Pair]) -> dict[int, Event]:
    begins = _begins(raced, ordered)
    return {event.id: replace(event, begin_ns=begins[event.id]) for event in events}


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
