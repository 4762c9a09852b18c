"""Order of metadata, by brute force: every moment a tiny history can have stopped at.

Names, modes and xattrs change in one order, and a crash keeps a first part of it: some linearization of
all of them, cut off somewhere, explains everything at once. What a sync call forces is in that part; so
is all that had returned before an op began that shows in it. A size shows only if the op that set it can
have begun, but need not show itself. On xfs fsync of an inode forces what was done to it, itself or as a
directory (an exchange is done to the directories alone); on btrfs this holds as long as nothing was
logged since the last sync.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from brute_history import NAME_OPS, PATHS, Key, Tiny, name_changes
from brute_law import FRESH, Law, Names, linearizations

from fuzzer.state.history import FOREVER, Event

_VALUE_OPS = ("chmod", "setxattr", "removexattr")
Values = Mapping[tuple[int, str], int | None]


@dataclass(frozen=True)
class Moment:
    """What was done by then (`done`), and what it made: names, and (inode, "mode" or "xattr") -> op."""

    done: frozenset[int]
    names: Names
    values: tuple[tuple[tuple[int, str], int | None], ...]


class OrderLaw:
    """Which trees of one tiny history are as at one moment."""

    def __init__(self, tiny: Tiny, law: Law) -> None:
        self.law, self.by_id = law, tiny.history.by_id
        self._ops = law.happened(*NAME_OPS, *_VALUE_OPS)

    @cached_property
    def applies(self) -> bool:
        """False if the log tree of btrfs may show single inodes as they were later."""
        if self.law.fs == "xfs":
            return True
        calls = [e for e in self.law.events if e.op.is_durability_point and self.law.shows(e)]
        since_ns = max((s.begin_ns for s in self.law.syncs if s.op.name == "sync"), default=-1)
        return not any(e.op.name != "sync" and e.end_ns >= since_ns for e in calls)

    @cached_property
    def moments(self) -> frozenset[Moment]:
        """All moments with all in it that must be."""
        found: set[Moment] = set()
        for order in linearizations(self._ops):
            found |= self._moments_of(order)
        return frozenset(found)

    def _moments_of(self, order: tuple[Event, ...]) -> set[Moment]:
        names: dict[Key, int] = dict.fromkeys(PATHS.values(), 0)
        values: dict[tuple[int, str], int | None] = {}
        forced, at = set[int](), [self._moment((), names, values)]
        for number, event in enumerate(order):
            touched = {event.subject}
            if event.op.name in NAME_OPS:
                changes = name_changes(names, event, event.subject or FRESH + event.actor)
                if changes is None and event.returned:
                    return set()
                swaps = event.op.name == "rename" and event.op.text("flags") == "exchange"
                touched = {
                    n for key, new in changes or () for n in (key[0], *(() if swaps else (names[key], new)))
                }
                names.update(changes or ())
            else:
                what = "mode" if event.op.name == "chmod" else "xattr"
                values[event.subject, what] = None if event.op.name == "removexattr" else event.id
            if self._is_forced(event, touched):
                forced.add(event.id)
            at.append(self._moment(order[: number + 1], names, values))
        return {m for m in at[: self.law.visible(order) + 1] if forced <= m.done}

    def _moment(self, done: tuple[Event, ...], names: dict[Key, int], values: Values) -> Moment:
        return Moment(frozenset(e.id for e in done), tuple(names.items()), tuple(sorted(values.items())))

    def _is_forced(self, event: Event, touched: set[int]) -> bool:
        return event.succeeded and any(
            event.end_ns < s.begin_ns
            and (s.op.name == "sync" or (s.op.name == "fsync" and s.subject in touched))
            for s in self.law.syncs
        )

    def explains(self, moment: Moment, names: Names, values: Values, sizes: Mapping[int, int]) -> bool:
        """True if all of this may be seen if the order of metadata was cut there.

        `values` are of the inodes that are there, by op; `sizes` in bytes.
        """
        # Whatever is not done had not returned when what shows began.
        until_ns = min((e.end_ns for e in self._ops if e.id not in moment.done), default=FOREVER)
        then = dict(moment.values)
        if moment.names != names:
            return False
        for (inode, what), value in values.items():
            left = then.get((inode, what))
            same = value == left or (what == "mode" and self._mode(value) == self._mode(left))
            absent = what == "xattr" and value is None
            if not same and not (absent and self._replacing(inode, moment, until_ns)):
                return False
        return all(
            any(not giver or self.by_id[giver].begin_ns <= until_ns for giver in self.law.givers(inode, size))
            for inode, size in sizes.items()
        )

    def _mode(self, op: int | None) -> int:
        return self.by_id[op].op.number("mode") if op else 0

    def _replacing(self, inode: int, moment: Moment, until_ns: int) -> bool:
        """True if an xattr may be absent as its value is being replaced (xfs)."""
        return self.law.fs == "xfs" and any(
            e.op.name == "setxattr" and e.subject == inode and e.id not in moment.done
            and e.begin_ns <= until_ns and self.law.shows(e)
            for e in self._ops
        )  # fmt: skip
