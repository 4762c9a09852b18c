"""Moments: what all names can have been at once, whichever way ops that overlapped came out.

Ops on names that overlap came in some order, and that each of them worked says something about it: a
create found the name free, a rename something to move. All orders in which everything that worked could
work are followed; two that leave the same names after the same ops meet again. So there are few moments,
though many orders: directories are locked while their entries change (Documentation/filesystems/locking
and directory-locking.rst), and where metadata is ordered a crash leaves one of these moments.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fuzzer.state.history import FOREVER, Event
from fuzzer.writelog.crash import LIVE, Cut
from oracles.profile import EVERYTHING, Order, Profile
from oracles.versions import BIRTHS, REMOVALS, UNKNOWN, NameKey, Versions, leaves_whiteout, touched_names

MAX_MOMENTS = 20_000
"""Histories with more of them are not followed."""

Names = Mapping[NameKey, int]
Changes = list[tuple[NameKey, int]]


@dataclass(frozen=True, slots=True)
class Moment:
    """A first part of the ops, those of `done`, and what must be known of it.

    `latest` is (begin, id) of the op in it that began last, of those that changed something. `until_ns`:
    when the first op that is not in it had returned. `kept_ns`: when the first sync call had returned that
    made one of these durable.
    """

    latest: tuple[int, int]
    until_ns: int
    kept_ns: int


@dataclass(slots=True)
class Moments:
    """All moments of a history by the names they show."""

    told: frozenset[int]
    """Inodes of which it is known which op made them. Others are not told apart."""
    by_names: dict[int, list[Moment]] = field(default_factory=lambda: defaultdict(list))
    nameless_ns: dict[int, int] = field(default_factory=dict)
    """Per inode: when the last op began that must have begun for it to have lost all its names."""
    removed_ns: dict[int, int] = field(default_factory=dict)
    """Per inode: when the first op began that may have taken one of its names away for good."""
    moved: dict[int, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))
    """Per rename: what may have been at its two names."""

    def may_have_happened(self, since_ns: Mapping[int, int], inode: int, before_ns: int) -> bool:
        """True if what began at `since_ns` at the earliest may have come to the inode before `before_ns`."""
        return inode not in self.told or since_ns.get(inode, FOREVER) < before_ns

    def at(self, names: Names, cut: Cut) -> list[Moment]:
        """Those with these names that a crash at `cut` may leave."""
        found = self.by_names.get(_digest(names, self.told), [])
        if cut == LIVE:
            return [m for m in found if m.until_ns == FOREVER]
        return [
            m for m in found if m.latest[0] < cut.invoked_before_ns and m.kept_ns >= cut.returned_before_ns
        ]


@dataclass(slots=True)
class Step:
    """An op that was carried out."""

    event: Event
    source: _Node
    changes: Changes
    after: _Node

    @property
    def before(self) -> Names:
        """What there was when it came."""
        return self.source.names

    @property
    def done(self) -> tuple[int, ...]:
        """How many ops of each row had been carried out (`Walk.places`)."""
        return self.source.done


@dataclass(slots=True)
class _Node:
    """`done` counts the ops of each row (`_lanes`) that are in it. `latest` is (begin, id) of the one that
    began last, `changed` of the one that did of those that changed something."""

    done: tuple[int, ...]
    names: dict[NameKey, int]
    latest: tuple[int, int]
    changed: tuple[int, int]
    until_ns: int
    after: list[tuple[int, _Node]] = field(default_factory=list)
    """What it may go on to, and when the first sync call had returned that made that step durable."""
    kept_ns: int = -1


def find_moments(versions: Versions, profile: Profile) -> Moments | None:
    """All moments of the history; None if there are too many, or it is not one that can be followed."""
    walk = Walk(versions, profile)
    nodes = walk.follow()
    if nodes is None:
        return None
    moments = Moments(frozenset(walk.told))
    for node in nodes:
        moment = Moment(node.changed, node.until_ns, node.kept_ns)
        moments.by_names[_digest(node.names, moments.told)].append(moment)
    _add_steps(moments, walk.steps)
    return moments if moments.by_names else None


def _add_steps(moments: Moments, steps: list[Step]) -> None:
    """Note what the ops did that lead to where the history ended."""
    for step in steps:
        event, renames = step.event, step.event.op.name == "rename"
        if renames:
            one, two = (step.before.get(key, 0) for key in touched_names(event))
            moments.moved[event.id].add((one, two))
        for key, _ in step.changes:
            inode = step.before.get(key, 0)
            if inode and inode not in step.after.names.values():
                _lower(moments.nameless_ns, inode, step.after.latest[0])
        if step.changes and (event.op.name in REMOVALS or (renames and event.op.text("flags") == "none")):
            _lower(moments.removed_ns, step.before.get(step.changes[-1][0], 0), event.begin_ns)


def _lower(found: dict[int, int], inode: int, time_ns: int) -> None:
    found[inode] = min(time_ns, found.get(inode, FOREVER))


def moments_of(versions: Versions, profile: Profile) -> Moments | None:
    """All moments of the history, found once for all its crashes."""
    if profile.name not in versions.moments:
        versions.moments[profile.name] = find_moments(versions, profile)
    return versions.moments[profile.name]


def may_be_nameless(versions: Versions, profile: Profile, inode: int, when_ns: int) -> bool:
    """True if the inode may have had no name at `when_ns`; then it never gets one again (link(2))."""
    if not versions.may_be_nameless(inode, when_ns):
        return False
    moments = moments_of(versions, profile)
    return moments is None or moments.may_have_happened(moments.nameless_ns, inode, when_ns)


def may_be_removed(versions: Versions, profile: Profile, inode: int, before_ns: int) -> bool:
    """True if an op that began before `before_ns` may have taken a name from the inode for good."""
    if not versions.removals(inode, before_ns):
        return False
    moments = moments_of(versions, profile)
    return moments is None or moments.may_have_happened(moments.removed_ns, inode, before_ns)


def what_moved(versions: Versions, profile: Profile, rename: Event) -> tuple[int, int] | None:
    """What the rename found at its two names; None: several things, or nobody knows."""
    if rename.id not in versions.raced:
        return rename.subject, rename.other
    moments = moments_of(versions, profile)
    found = moments.moved.get(rename.id, set()) if moments else set()
    known = {inode for pair in found for inode in pair} - {0}
    if moments is None or len(found) != 1 or not known <= moments.told:
        return None
    return next(iter(found))


class Walk:
    """Follows a history from no names at all to its end, in all orders in which that can be reached.

    `told` are the inodes of which it is known which op made them, `steps` what was done on the way.
    """

    def __init__(self, versions: Versions, profile: Profile) -> None:
        self._versions = versions
        self._work = _lanes(sorted((*versions.name_events, *versions.idle), key=lambda e: e.begin_ns))
        self._made = {e.id: self._birth(versions, e, n) for n, e in enumerate(versions.name_events)}
        self.told = {inode for inode in self._made.values() if inode > 0}
        self._calls = _Calls(versions, profile)
        self.steps: list[Step] = []

    def follow(self) -> list[_Node] | None:
        """The nodes, last ones first; None if there are too many, or the history cannot be followed."""
        for event in self._versions.name_events:
            if event.op.name == "link" and event.subject not in self.told:
                return None
            if leaves_whiteout(event, touched_names(event)[0]):
                return None  # whether it left one depends on what it met
        levels = self._levels()
        if levels is None:
            return None
        nodes = [node for level in reversed(levels) for node in level]
        for node in nodes:
            further = (min(forced_ns, after.kept_ns) for forced_ns, after in node.after)
            node.kept_ns = FOREVER if node.until_ns == FOREVER else max(further, default=-1)
        self.steps = [step for step in self.steps if step.after.kept_ns >= 0]
        return [node for node in nodes if node.kept_ns >= 0]

    def places(self) -> dict[int, tuple[int, int]]:
        """Where each op is in the `done` of a step: in it if the number at the first is over the second."""
        return {op.id: (row, n) for row, ops in enumerate(self._work) for n, op in enumerate(ops)}

    def _birth(self, versions: Versions, event: Event, number: int) -> int:
        """The inode the op made; below `UNKNOWN` if nobody was told; 0: it makes none."""
        if event.op.name not in BIRTHS:
            return 0
        told = event.op.name in ("create", "tmplink") or event.id not in versions.raced
        return event.subject if event.subject and told else UNKNOWN - 1 - number

    def _levels(self) -> list[list[_Node]] | None:
        """Nodes by how many ops are in them; None: too many."""
        start = (0,) * len(self._work)
        level, levels, count = [_Node(start, {}, (-1, 0), (-1, 0), self._until(start))], [], 0
        while level:
            levels.append(level)
            count += len(level)
            if count > MAX_MOMENTS:
                return None
            following: dict[tuple[tuple[int, ...], int], _Node] = {}
            for node in level:
                self._go_on(node, following)
            level = list(following.values())
        return levels

    def _until(self, done: tuple[int, ...]) -> int:
        ahead = (ops[n].end_ns for ops, n in zip(self._work, done, strict=True) if n < len(ops))
        return min(ahead, default=FOREVER)

    def _go_on(self, node: _Node, following: dict[tuple[tuple[int, ...], int], _Node]) -> None:
        for row, number in enumerate(node.done):
            event = self._work[row][number] if number < len(self._work[row]) else None
            if event is None or event.begin_ns > node.until_ns:
                continue
            changes = self._changes(node.names, event)
            if changes is None:
                continue
            names = {**node.names, **dict(changes)}
            done = (*node.done[:row], number + 1, *node.done[row + 1 :])
            began = (event.begin_ns, event.id)
            # What changed nothing does not show, and no call has anything to make durable of it.
            changed = max(node.changed, began) if changes else node.changed
            after = _Node(done, names, max(node.latest, began), changed, self._until(done))
            after = following.setdefault((done, _digest(names)), after)
            after.changed = min(after.changed, changed)
            forced_ns = self._calls.forced_ns(event, node.names, changes)
            node.after.append((forced_ns, after))
            self.steps.append(Step(event, node, changes, after))

    def _changes(self, names: Names, event: Event) -> Changes | None:
        """What the op did to these names; None: it cannot have worked."""
        key, keys = touched_names(event)[0], touched_names(event)
        if event.op.name == "rename":
            return _rename_changes(names, keys, event.op.text("flags"))
        if event.op.name in REMOVALS:
            return [(key, 0)] if names.get(key) else None
        return None if names.get(key) else [(key, self._made[event.id] or event.subject)]


def _lanes(events: list[Event]) -> list[list[Event]]:
    """The ops in as many rows as overlap at most; in a row each had returned when the next began."""
    lanes: list[list[Event]] = []
    for event in events:
        lane = next((lane for lane in lanes if lane[-1].end_ns < event.begin_ns), None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(event)
    return lanes


def _rename_changes(names: Names, keys: tuple[NameKey, ...], flags: str) -> Changes | None:
    moved, there = (names.get(key, 0) for key in keys)
    if not moved or (flags == "exchange" and not there) or (flags == "noreplace" and there):
        return None
    if moved == there:
        return []
    return [(keys[0], there if flags == "exchange" else 0), (keys[1], moved)]


class _Calls:
    """The sync calls that make changes of names durable, wherever these are."""

    def __init__(self, versions: Versions, profile: Profile) -> None:
        self._synchronous = profile.synchronous_names
        found: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for event in versions.history.events:
            fsync = event.op.name == "fsync" and versions.is_synced(event.subject)
            if event.succeeded and event.op.name in EVERYTHING:
                found[0].append((event.begin_ns, event.end_ns))
            elif event.succeeded and fsync and profile.order is Order.GLOBAL:
                found[event.subject].append((event.begin_ns, event.end_ns))
        self._calls = {inode: list(_first_returns(calls)) for inode, calls in found.items()}

    def forced_ns(self, event: Event, names: Names, changes: Changes) -> int:
        """When the first call had returned that made the change durable: one that covers everything, or
        an fsync of an inode it changed (an exchange changes the directories alone)."""
        if not event.succeeded or not changes:
            return FOREVER
        exchange = event.op.name == "rename" and event.op.text("flags") == "exchange"
        inodes = {key[0] for key, _ in changes}
        if not exchange:
            inodes |= {inode for key, new in changes for inode in (names.get(key, 0), new)}
        first = min((self._first_return(inode, event.end_ns) for inode in inodes | {0}), default=FOREVER)
        return event.end_ns if self._synchronous else first

    def _first_return(self, inode: int, since_ns: int) -> int:
        calls = self._calls.get(inode, [])
        at = bisect_right(calls, (since_ns, FOREVER))
        return calls[at][1] if at < len(calls) else FOREVER


def _first_returns(calls: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(invocation, first return of this and all later calls), in order."""
    firsts, first = [], FOREVER
    for begin_ns, end_ns in sorted(calls, reverse=True):
        first = min(first, end_ns)
        firsts.append((begin_ns, first))
    return reversed(firsts)


def _digest(names: Names, told: frozenset[int] | None = None) -> int:
    """A number of all names that are there; inodes nobody was told of are alike if `told` is given."""
    found = 0
    for key, inode in names.items():
        if inode:
            found ^= hash((key, inode if told is None or inode in told else UNKNOWN))
    return found
