"""Case: one state to judge, with all a rule may look at; and the shape of a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fuzzer.state.recovery import Recovery
from fuzzer.state.tree import Tree
from oracles.floors import Floors
from oracles.profile import Profile
from oracles.verdict import Violation
from oracles.versions import Versions

_BY_CALL = {
    "sync": "sync",
    "syncfs": "sync",
    "freeze": "sync",
    "write": "dsync",
    "dwrite": "dsync",
    "msync": "msync",
    "mwrite": "msync",
}
"""Calls whose own manual page makes the promise, whatever the object is."""


@dataclass(slots=True)
class Tally:
    """Counts of objects a rule judged, and of objects nothing is promised about."""

    judged: int = 0
    no_promise: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One recovery to judge. `versions` and `floors` are None where no history is known (a bare log)."""

    profile: Profile
    recovery: Recovery
    tally: Tally
    history: tuple[Versions, Floors] | None = None

    @property
    def tree(self) -> Tree:
        """The recovered tree; only rules with `needs_tree` may ask."""
        assert self.recovery.tree is not None
        return self.recovery.tree

    @property
    def versions(self) -> Versions:
        assert self.history is not None
        return self.history[0]

    @property
    def floors(self) -> Floors:
        assert self.history is not None
        return self.history[1]

    def source(self, promise: str, sync: int) -> str:
        """Where the promise is written down, given the sync call that made it."""
        event = self.versions.history.by_id.get(sync)
        return self.profile.source(_BY_CALL.get(event.op.name, promise) if event else promise)

    def sync_label(self, sync: int) -> str:
        """`fsync b by w1` for people; "the clean shutdown" where no call made the promise."""
        event = self.versions.history.by_id.get(sync)
        if event is None:
            return "having returned, with no crash"
        words = [str(value) for _, value in event.op.args if value not in ("none", "")]
        return f"completed `{' '.join([event.op.name, *words])}` (actor {event.actor}, op {event.sequence})"


@dataclass(frozen=True, slots=True)
class Rule:
    """One promise: how it is checked and what it needs to be checkable."""

    name: str
    check: Callable[[Case], Iterator[Violation]]
    needs_tree: bool = True
    needs_history: bool = True
