"""The smallest state of a finding: what was lost is what it takes, and the point the first that shows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzer.writelog.crash import CrashState, Kept, Torn
from fuzzer.writelog.model import Entry, Flag
from fuzzer.writelog.smallest import smallest_state

PLENTY = 10_000


def make_log(text: str) -> list[Entry]:
    """`w` is a write, `W` a forced one, `f` a flush."""
    flags = {"w": Flag(0), "W": Flag.FUA, "f": Flag.FLUSH}
    return [
        Entry(
            n, flags[letter], 4096 * n, 0 if letter == "f" else 4096, arrived_ns=2 * n + 1, done_ns=2 * n + 2
        )
        for n, letter in enumerate(text)
    ]


def lost_by(log: list[Entry], state: CrashState) -> set[int]:
    """Entries that are not in the state, or only in part: from the definition."""
    flush = max((e.index for e in log[: state.point] if e.is_flush), default=-1)
    opened = {e.index for e in log[flush + 1 : state.point] if not e.flags & Flag.FUA}
    if isinstance(state.kept, Kept):
        return opened if state.kept is Kept.NOTHING else set()
    return (opened - set(state.kept)) | {one.entry for one in state.torn}


@given(st.data(), st.text("wwwwWf", min_size=1, max_size=24))
def test_what_it_takes_and_no_more(data: st.DataObject, text: str) -> None:
    """The finding needs some writes lost, and a point not before one: exactly that is left."""
    log = make_log(text)
    first = CrashState(len(log), Kept.NOTHING)
    opened = sorted(lost_by(log, first))
    needed = data.draw(st.sets(st.sampled_from(opened)) if opened else st.just(set()))
    since = data.draw(st.integers(1, len(log)))

    def shows(state: CrashState) -> bool:
        return needed <= lost_by(log, state) and state.point >= since

    found = smallest_state(log, first, shows, tries=PLENTY)
    assert lost_by(log, found) == needed
    assert found.point == max([since, *(index + 1 for index in needed)])


def test_either_of_two() -> None:
    """Not only the smallest of all but one nothing can be given back of."""
    log = make_log("wwwwwwww")

    def shows(state: CrashState) -> bool:
        lost = lost_by(log, state)
        return {1, 2} <= lost or {5} <= lost

    found = smallest_state(log, CrashState(8, Kept.NOTHING), shows, tries=PLENTY)
    assert lost_by(log, found) in ({1, 2}, {5})


def test_torn_writes_are_given_back_like_lost_ones() -> None:
    log = make_log("wwww")
    torn = (Torn(1, ((0, 512),)), Torn(2, ((512, 1024),)))
    start = CrashState(4, (1, 2), torn)
    found = smallest_state(log, start, lambda state: torn[1] in state.torn, tries=PLENTY)
    assert found == CrashState(3, (0, 1, 2), (torn[1],))


def test_nothing_smaller_is_the_same_state() -> None:
    log = make_log("wf")
    for state in (CrashState(1, Kept.NOTHING), CrashState(2, Kept.NOTHING), CrashState(1, Kept.EVERYTHING)):
        assert smallest_state(log, state, lambda one, state=state: one == state, tries=PLENTY) == state


@pytest.mark.parametrize("tries", [0, 1, 5, 20])
def test_the_budget_is_kept(tries: int) -> None:
    log = make_log("w" * 64)
    asked: list[CrashState] = []

    def shows(state: CrashState) -> bool:
        asked.append(state)
        return 17 in lost_by(log, state)

    found = smallest_state(log, CrashState(64, Kept.NOTHING), shows, tries=tries)
    assert len(asked) <= tries
    assert len(set(asked)) == len(asked)
    assert 17 in lost_by(log, found)


def test_what_the_base_has_is_not_open() -> None:
    """Positions before `start` are neither lost nor cut at."""
    log = make_log("wwwww")
    found = smallest_state(log, CrashState(5, Kept.NOTHING), lambda _: True, start=3, tries=PLENTY)
    assert found == CrashState(4, Kept.EVERYTHING)
