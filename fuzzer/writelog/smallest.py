"""Smallest: of all crash states that show a finding, the one that has lost least.

Small means: first, as few open entries lost or torn as can be (none of them can be given back), then the
earliest crash point at which that loss still shows. What is left are the writes the bug is about, and
the moment from which on they were promised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fuzzer.writelog.crash import CrashState, Kept, OpenEntries, Torn
from fuzzer.writelog.model import Entry

Loss = tuple[int | Torn, ...]
"""What a state has lost: entries by index, and what is left of torn ones; ascending."""


@dataclass(slots=True)
class _Search:
    """`shows` is asked at most `tries` times, never twice about one state."""

    entries: Sequence[Entry]
    start: int
    dead_flushes: frozenset[int]
    shows: Callable[[CrashState], bool]
    tries: int
    answers: dict[CrashState, bool] = field(default_factory=dict)

    def ask(self, state: CrashState) -> bool:
        if state not in self.answers:
            if not self.tries:
                return False
            self.tries -= 1
            self.answers[state] = self.shows(state)
        return self.answers[state]

    def open_at(self, point: int) -> tuple[int, ...]:
        opened = OpenEntries(self.dead_flushes)
        for entry in self.entries[self.start : point]:
            opened.advance(entry)
        return tuple(entry.index for entry in opened.may_be_lost)

    def state(self, point: int, loss: Loss) -> CrashState:
        """The state at `point` that has lost exactly `loss`."""
        torn = tuple(one for one in loss if isinstance(one, Torn))
        lost = {one for one in loss if not isinstance(one, Torn)}
        entries = self.open_at(point)
        kept = tuple(index for index in entries if index not in lost)
        if not torn and len(kept) in (0, len(entries)):
            return CrashState(point, Kept.EVERYTHING if kept or not entries else Kept.NOTHING)
        return CrashState(point, kept, torn)

    def loss(self, state: CrashState) -> Loss:
        """What `state` has lost of what was open."""
        entries = self.open_at(state.point)
        if isinstance(state.kept, Kept):
            lost: tuple[int, ...] = entries if state.kept is Kept.NOTHING else ()
        else:
            lost = tuple(index for index in entries if index not in state.kept)
        return tuple(sorted((*lost, *state.torn), key=_index))


def _index(one: int | Torn) -> int:
    return one.entry if isinstance(one, Torn) else one


def smallest_state(
    entries: Sequence[Entry],
    state: CrashState,
    shows: Callable[[CrashState], bool],
    *,
    start: int = 0,
    dead_flushes: frozenset[int] = frozenset(),
    tries: int,
) -> CrashState:
    """The smallest state found with `tries` questions; `state` itself if it is.

    `shows` tells whether a state (without `again`) still has the finding; `state` has it. The base has what
    is before `start`.
    """
    search = _Search(entries, start, dead_flushes, shows, tries)
    search.answers[state] = True
    loss = _least(search, state.point, search.loss(state))
    point = _earliest(search, state.point, loss)
    return search.state(point, loss) if (point, loss) != (state.point, search.loss(state)) else state


def _least(search: _Search, point: int, loss: Loss) -> Loss:
    """Give entries back, many at once and then fewer, until none can be (delta debugging)."""
    size = len(loss)
    while size:
        for first in range(0, len(loss), size):
            rest = (*loss[:first], *loss[first + size :])
            if search.ask(search.state(point, rest)):
                loss, size = rest, min(size, len(rest))
                break
        else:
            size //= 2
    return loss


def _earliest(search: _Search, point: int, loss: Loss) -> int:
    """The first point at which `loss` shows, taking for granted that it then goes on showing."""
    low, high = max((search.start, *map(_index, loss))), point
    while low + 1 < high:
        middle = (low + high) // 2
        if search.ask(search.state(middle, loss)):
            high = middle
        else:
            low = middle
    return high
