"""Case: one state to judge, with all a rule may look at; and the shape of a rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fuzzer.state.recovery import Recovery
from fuzzer.state.tree import Tree
from oracles.floors import Floors
from oracles.profile import Profile
from oracles.verdict import Judgement, Violation
from oracles.versions import Versions

_BY_CALL = {
    "sync": "sync",
    "syncfs": "sync",
    "freeze": "sync",
    "remount_ro": "sync",
    "write": "dsync",
    "dwrite": "dsync",
    "awrite": "dsync",
    "msync": "msync",
    "mwrite": "msync",
}
"""Calls whose own manual page makes the promise, whatever the object is."""


_TOP_REASONS = 3


@dataclass(slots=True)
class Tally:
    """Counts of objects rules judged, and of objects nothing is promised about.

    `rules` and `reasons` are the same counts by rule, and by `rule: reason`, of rules that are `done`.
    """

    judged: int = 0
    no_promise: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    _said: Counter[str] = field(default_factory=Counter)

    def skip(self, reason: str) -> None:
        """Nothing is promised about one more object; why, in a few words for people."""
        self.no_promise += 1
        self._said[reason] += 1

    def done(self, rule: str) -> None:
        """What was counted since the rule before was done belongs to this one."""
        self.rules[rule] += self.judged - self.rules.total()
        self._said["no reason given"] += self.no_promise - self.reasons.total() - self._said.total()
        self.reasons.update({f"{rule}: {reason}": n for reason, n in self._said.items() if n})
        self._said.clear()

    def add(self, judgement: Judgement) -> None:
        """Add what one judgement counted."""
        self.judged += judgement.judged
        self.no_promise += judgement.no_promise
        self.rules.update(judgement.rules)
        self.reasons.update(judgement.reasons)

    def to_json(self) -> dict[str, object]:
        """The part of events and summaries that says how much was judged, the largest counts first."""
        return {
            "judged": self.judged,
            "no_promise": self.no_promise,
            "judged_by_rule": dict(self.rules.most_common()),
            "no_promise_reasons": dict(self.reasons.most_common()),
        }

    def add_json(self, counts: Mapping[str, Any]) -> None:
        """Add what `to_json` gave."""
        self.judged += counts["judged"]
        self.no_promise += counts["no_promise"]
        self.rules.update(counts["judged_by_rule"])
        self.reasons.update(counts["no_promise_reasons"])

    def words(self) -> str:
        """For people: how much was judged, how much is not promised, and the main reasons."""
        text = f"judged {self.judged} objects, {self.no_promise} not promised"
        top = ", ".join(f"{n} {reason}" for reason, n in self.reasons.most_common(_TOP_REASONS))
        return f"{text} ({top})" if top else text


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
        call = f"`{event.op.brief}` (actor {event.actor}, op {event.sequence})"
        if self.floors.shown and sync == self.floors.shown[1]:
            return f"having returned before {call} was invoked, which shows"
        return f"completed {call}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One promise: how it is checked and what it needs to be checkable."""

    name: str
    check: Callable[[Case], Iterator[Violation]]
    needs_tree: bool = True
    needs_history: bool = True
