"""Renames: each is seen whole or not at all."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from fuzzer.state.history import Event
from oracles.bindings import may_bind
from oracles.case import Case, Rule
from oracles.moments import what_moved
from oracles.names import called, look
from oracles.verdict import Violation
from oracles.versions import NameKey, NameVersion, touched_names


def check_rename_atomic(case: Case) -> Iterator[Violation]:
    """Promise: a rename never leaves its file at the old *and* the new name (source `not-lost`).

    Of an exchange that goes for both files (fstests btrfs/341): one of them at both names is half of it.
    """
    entries = case.tree.entries
    for event in case.versions.name_events:
        found = what_moved(case.versions, case.profile, event) if event.op.name == "rename" else None
        if found is None:
            continue
        (old, new), (subject, other) = touched_names(event), found
        moved = entries.get(new, 0)
        swapped = {other} if event.op.text("flags") == "exchange" else set()
        if old == new or subject == other or entries.get(old) != moved:
            continue
        if moved not in {subject, *swapped} - {0}:
            continue
        case.tally.judged += 1
        if _otherwise(case, event, moved, subject):
            continue
        if not swapped and not case.profile.atomic_moves and case.floors.is_open_move(event, subject):
            case.tally.skip("a move to another directory that nothing settled")
            continue
        yield Violation(
            rule="names",
            kind="rename-both",
            subject=case.versions.label(moved),
            promised=f"`{event.op.brief}` moves it: it is at one of the two names",
            found="it is at both names",
            source=case.profile.source("not-lost"),
            inode=old[0],
            name=old[1],
            op=event.id,
        )


def _otherwise(case: Case, rename: Event, moved: int, subject: int) -> bool:
    """True if another op explains that `moved` is at one of the two names."""
    old, new = touched_names(rename)
    if moved != subject:
        # the other file of an exchange goes the other way
        old, new = new, old

    def others(key: NameKey) -> Iterator[NameVersion]:
        for v in case.versions.names[key]:
            if (
                v.event is not rename
                and case.floors.visible(v.event)
                and may_bind(case.versions, key, v, moved)
            ):
                yield v

    at_old = any(not case.versions.precedes(v.event, rename) for v in others(old))
    return at_old or any(True for _ in others(new))


@dataclass(frozen=True, slots=True)
class _Between:
    """The renames between two names, in order, none of which raced.

    `against_one` counts, before each and after all, those that must not lie between if name `one` shows a
    later moment than `two`; `against_two` the other way round.
    """

    one: NameKey
    two: NameKey
    events: tuple[Event, ...]
    begins: tuple[int, ...]
    against_one: tuple[int, ...]
    against_two: tuple[int, ...]

    def agree(self, time: int, others: list[int], against: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
        """True if a name that is as an op begun at `time` left it goes with one of the other's times."""
        at = bisect_right(others, time)
        mine, further_on, behind = bisect_right(self.begins, time), *against
        return (at > 0 and further_on[mine] == further_on[bisect_right(self.begins, others[at - 1])]) or (
            at < len(others) and behind[mine] == behind[bisect_right(self.begins, others[at])]
        )


def check_rename_whole(case: Case) -> Iterator[Violation]:
    """Promise: a rename shows at both of its names or at neither, whatever else became of them.

    With nothing overlapping it, all that explains a name is either older than the rename, or the rename
    itself or younger. Explanations of one name that go with none of the other are dropped, and so on
    along a chain of renames; if none is left, the renames were not whole.

    The log tree of btrfs holds the names an inode has, and says nothing of those it had in between: there
    this is asked inside one directory only, and all it says is that the file is not at both names.
    """
    pairs = _pairs(case)
    times: dict[NameKey, list[int]] = {}
    for key in {key for pair in pairs for key in (pair.one, pair.two)}:
        seen = look(case, key, case.tree.entries.get(key, 0))
        times[key] = sorted({begin for begin, _ in seen.by})
    changed = True
    while changed:
        changed = False
        for pair in pairs:
            one, two = times[pair.one], times[pair.two]
            times[pair.one], times[pair.two] = _agreeing(pair, one, two)
            if one and two and not (times[pair.one] and times[pair.two]):
                yield _half(case, pair)
            changed = changed or (times[pair.one], times[pair.two]) != (one, two)


def _pairs(case: Case) -> list[_Between]:
    groups: dict[frozenset[NameKey], list[Event]] = defaultdict(list)
    for event in case.versions.name_events:
        if event.op.name != "rename" or event.id in case.versions.raced or not case.floors.visible(event):
            continue
        if event.subject == event.other != 0:
            continue  # two names of one inode: nothing happens, both stay
        exchange = event.op.text("flags") == "exchange"
        if not case.profile.atomic_moves and (exchange or event.directory != event.directory2):
            case.tally.skip("a move to another directory, or an exchange, may show half on btrfs")
            continue
        case.tally.judged += 1
        groups[frozenset(touched_names(event))].append(event)
    return [_between(case, events) for events in groups.values()]


def _between(case: Case, events: list[Event]) -> _Between:
    one, two = touched_names(events[0])

    def against(further_on: NameKey, behind: NameKey) -> tuple[int, ...]:
        shown, there = (case.tree.entries.get(key, 0) for key in (behind, further_on))

        def is_against(event: Event) -> bool:
            if case.profile.atomic_moves:
                return True
            # The file at both names. An op cut short that nothing overlapped is the last on its names: it
            # moved what is there.
            return there == shown != 0 and event.subject in (shown, 0)

        return tuple(accumulate(map(is_against, events), initial=0))

    begins = tuple(e.begin_ns for e in events)
    return _Between(one, two, tuple(events), begins, against(one, two), against(two, one))


def _agreeing(pair: _Between, one: list[int], two: list[int]) -> tuple[list[int], list[int]]:
    """The times of either name that go with one of the other's."""
    if not one or not two:
        return one, two
    first, second = pair.against_one, pair.against_two
    return (
        [t for t in one if pair.agree(t, two, (first, second))],
        [t for t in two if pair.agree(t, one, (second, first))],
    )


def _half(case: Case, pair: _Between) -> Violation:
    event = pair.events[-1]
    return Violation(
        rule="names",
        kind="half-rename",
        subject=case.versions.label(event.subject) if event.subject else event.op.brief,
        promised=f"`{event.op.brief}` shows at both of its names or at neither",
        found=f"{called(case, pair.one)} and {called(case, pair.two)} are not as they were at one moment",
        source=case.profile.source("not-lost"),
        inode=pair.one[0],
        name=pair.one[1],
        op=event.id,
    )


RULES = (
    Rule("rename-atomic", check_rename_atomic),
    Rule("rename-whole", check_rename_whole),
)
