"""Sizes by order: what all ops on the size of one file can leave together, in some order they worked in.

`size.py` holds a size against one durable op at a time. Where a truncate overlaps other ops, or the sync
call, each of two durable ops may be excused by the third, and yet no order excuses both. So the orders
are gone through: an op comes before another one if it had returned before that was invoked. As they are
carried out one after the other, the file has a size in memory, and on disk any of those it has had since
the last durable change: an extension grows there by sectors, a durable one leaves nothing smaller, and
a durable truncate nothing else.

Orders that have done the same ops, and left the same, are followed as one, so their number is that of the
ops that overlap at a time. It starts where the file was last durable as a whole: of what was before, only
the size in memory counts, and that is asked once per history. Where that is too much, or a size is not
known (`END_OF_FILE`), nothing is said.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from oracles.case import Case
from oracles.file_versions import END_OF_FILE, FileVersions, SizeVersion

SECTOR_BYTES = 512
"""An unfinished extension shows at I/O granularity: the size follows completed I/O (xfs_setfilesize,
btrfs_inode_safe_disk_i_size_write), which never ends inside a sector."""

BORN = 0
"""Stands for the op that gave a file its first size: none."""

_MAX_OPS = 24
"""So many ops are put in order."""

_MAX_STATES = 400
"""So many different things may have been done and left at a time."""

_LATEST_CALLS = 8
"""So many sync calls are asked whether they made the file durable as a whole, the last first."""


@dataclass(frozen=True, slots=True)
class Left:
    """What some ops left: the size in memory, and those that may be on disk, with the id of who gave it."""

    memory: int
    disk: frozenset[tuple[int, int]]


Lefts = frozenset[Left]
"""One of these was left. Empty: nobody knows."""


@dataclass(frozen=True, slots=True)
class SizeGroup:
    """Ops that nothing else overlaps, and what they and all before leave once they are durable."""

    ops: tuple[SizeVersion, ...]
    end_ns: int
    lefts: Lefts


@dataclass(frozen=True, slots=True)
class _Orders:
    """How ops act. Ids of those that are `durable`, and of those that may have done nothing (`unsure`).

    `size` is the one that is asked about: it matters who gave it, and whether there is anything below.
    """

    durable: frozenset[int]
    unsure: frozenset[int] = frozenset()
    stepwise_truncate: bool = False
    size: int | None = None

    def after(self, ops: Sequence[SizeVersion], start: Lefts) -> Lefts:
        """What the ops leave, in whatever order."""
        if len(ops) > _MAX_OPS or any(op.value == END_OF_FILE for op in ops):
            return frozenset()
        reached: dict[int, set[Left]] = {0: set(start)}
        for _ in ops:
            following: dict[int, set[Left]] = {}
            for done, lefts in reached.items():
                for n in _next(ops, done):
                    here = following.setdefault(done | 1 << n, set())
                    here.update(new for left in lefts for new in self._outcomes(ops[n], left))
            if sum(map(len, following.values())) > _MAX_STATES:
                return frozenset()
            reached = following
        return frozenset().union(*reached.values())

    def _outcomes(self, op: SizeVersion, left: Left) -> Iterator[Left]:
        if op.event.id in self.unsure:
            yield left
        new = self._carried_out(op, left)
        if op.event.id not in self.durable:
            yield new
        elif op.raises:
            yield Left(new.memory, frozenset(entry for entry in new.disk if entry[0] >= op.value))
        else:
            yield Left(new.memory, frozenset({(op.value, self._giver(op, op.value))}))

    def _carried_out(self, op: SizeVersion, left: Left) -> Left:
        if op.raises and op.value <= left.memory:
            return left  # a write inside the file
        found = {op.value, *self._passed(op, {size for size, _ in left.disk})}
        return Left(op.value, left.disk | {(size, self._giver(op, size)) for size in found})

    def _passed(self, op: SizeVersion, there: set[int]) -> Iterator[int]:
        """Sizes asked about that the op may be seen at on its way, if `there` are those on disk."""
        if self.size:
            below = (self.size - 1) // SECTOR_BYTES * SECTOR_BYTES
            for size in (below, *([] if self.size % SECTOR_BYTES else [self.size])):
                grows = min(there) < size < op.value
                if grows or (self.stepwise_truncate and not op.raises and op.value < size < max(there)):
                    yield size

    def _giver(self, op: SizeVersion, size: int) -> int:
        return op.event.id if self.size in (None, size) else BORN


def _next(ops: Sequence[SizeVersion], done: int) -> list[int]:
    """The ops that may be carried out next: none that is left had returned before they were invoked."""
    left = [n for n in range(len(ops)) if not done >> n & 1]
    first_end_ns = min(ops[n].event.end_ns for n in left)
    return [n for n in left if ops[n].event.begin_ns <= first_end_ns]


def givers_in_order(
    case: Case, file: FileVersions, size: int, is_durable: Callable[[SizeVersion], bool]
) -> frozenset[int] | None:
    """Ids of the ops that may have left the file at `size` in some order; None: that is not known."""
    failed = (*case.floors.failed.get(file.inode, ()), *case.floors.failed.get(0, ()))
    groups = _size_groups(case, file)
    first = _first_to_order(groups, -1 if failed else _durable_ns(case, file))
    start = groups[first - 1].lefts if first else _as_born(file)
    ops = (op for group in islice(groups, first, None) for op in group.ops)
    shown = list(islice(takewhile(lambda op: case.floors.visible(op.event), ops), _MAX_OPS + 1))
    durable = frozenset(op.event.id for op in shown if is_durable(op))
    dropped = {op.event.id for op in shown if any(op.event.begin_ns < sync.end_ns for sync in failed)}
    unsure = (dropped - durable) | {op.event.id for op in shown if not op.sure}
    orders = _Orders(durable, frozenset(unsure), case.profile.stepwise_truncate, size)
    lefts = orders.after(shown, start) if start else start
    return frozenset(giver for left in lefts for n, giver in left.disk if n == size) if lefts else None


def _first_to_order(groups: list[SizeGroup], durable_ns: int) -> int:
    """How many groups are durable, and it is known what they left."""
    first = bisect_left(groups, durable_ns, key=lambda g: g.end_ns)
    last = max(0, first - _MAX_OPS)
    return next((n for n in range(first, last, -1) if groups[n - 1].lefts), last)


def _durable_ns(case: Case, file: FileVersions) -> int:
    """All that had returned by then is durable."""
    calls = heapq.nlargest(_LATEST_CALLS, (*case.floors.everything, *case.floors.data.get(file.inode, ())))
    whole = (begin for begin, sync in calls if case.versions.cut_during(file, sync) == END_OF_FILE)
    return next(whole, -1)


def _as_born(file: FileVersions) -> Lefts:
    return frozenset({Left(0, frozenset({(0, BORN)}))} if file.born else ())


def _size_groups(case: Case, file: FileVersions) -> list[SizeGroup]:
    """The ops on the size, in groups no op of which overlaps one of another, oldest first."""
    if file.inode not in case.versions.size_groups:
        found: list[SizeGroup] = []
        lefts = _as_born(file)
        for group in _in_groups(file):
            lefts = _left_by(group, lefts)
            found.append(SizeGroup(group, max(op.event.end_ns for op in group), lefts))
        case.versions.size_groups[file.inode] = found
    return case.versions.size_groups[file.inode]


def _in_groups(file: FileVersions) -> Iterator[tuple[SizeVersion, ...]]:
    group: list[SizeVersion] = []
    end_ns = -1
    for op in sorted(file.sizes, key=lambda op: op.event.begin_ns):
        if group and op.event.begin_ns > end_ns:
            yield tuple(group)
            group = []
        group.append(op)
        end_ns = max(end_ns, op.event.end_ns)
    if group:
        yield tuple(group)


def _left_by(group: tuple[SizeVersion, ...], before: Lefts) -> Lefts:
    """What is left once the group is durable as well."""
    if not all(op.sure for op in group):
        return frozenset()
    if not before and (len(group) > 1 or group[0].raises):
        return frozenset()
    # A truncate alone leaves its size, whatever there was.
    start = before or frozenset({Left(0, frozenset({(0, BORN)}))})
    return _Orders(frozenset(op.event.id for op in group)).after(group, start)
