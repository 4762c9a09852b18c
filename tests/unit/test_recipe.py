"""Recipes of crash states: exact round trips, and refusals of everything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzer.errors import InputError
from fuzzer.writelog.crash import Again, CrashState, Kept, Span, Torn
from fuzzer.writelog.recipe import format_recipe, parse_recipe, say_state

INDEXES = st.integers(0, 1 << 40)


def _spans(edges: set[int]) -> tuple[Span, ...]:
    """Neighbouring pairs of distinct numbers of sectors: ascending and apart."""
    ordered = [512 * edge for edge in sorted(edges)]
    return tuple(zip(ordered[::2], ordered[1::2], strict=False))


@st.composite
def crash_states(draw: st.DrawFn, cuts: int = 3) -> CrashState:
    kept = draw(st.sampled_from(Kept) | st.sets(INDEXES, max_size=5))
    torn: tuple[Torn, ...] = ()
    if isinstance(kept, set):
        victims = sorted(draw(st.sets(st.sampled_from(sorted(kept))))) if kept else []
        torn = tuple(Torn(v, _spans(draw(st.sets(st.integers(0, 99), min_size=2)))) for v in victims)
        kept = tuple(sorted(kept))
    again = None
    if cuts > 1 and draw(st.booleans()):
        again = Again(draw(st.text("0123456789abcdef", min_size=1)), draw(crash_states(cuts - 1)))
    return CrashState(draw(INDEXES), kept, torn, again)


@given(crash_states())
def test_recipe_round_trip(crash: CrashState) -> None:
    assert parse_recipe(json.loads(json.dumps(format_recipe(crash)))) == crash


def test_states_in_words() -> None:
    inner = Again("ab", CrashState(7, Kept.NOTHING))
    state = CrashState(30, (4, 9), (Torn(9, ((0, 512),)),), inner)
    assert say_state(state) == (
        "power cut after log entry 30, of the unflushed writes 2 survived (4 9), 1 of them torn; "
        "while it recovered, power cut after log entry 7, only what was durable survived"
    )
    assert "every completed write survived" in say_state(CrashState(1, Kept.EVERYTHING))
    assert "(0 1 2 3 4 5 6 7 8 9 10 11 ...)" in say_state(CrashState(50, tuple(range(40))))


def test_a_recipe_says_no_more_than_it_has_to() -> None:
    assert format_recipe(CrashState(3, Kept.NOTHING)) == {"crash": 1, "point": 3, "kept": "nothing"}


GOOD: dict[str, object] = {"crash": 1, "point": 1, "kept": [0, 4]}
INNER: dict[str, object] = {"point": 1, "kept": "nothing"}


def _deep(levels: int) -> dict[str, object]:
    state = INNER
    for _ in range(levels):
        state = {**INNER, "again": {"log": "ab", "state": state}}
    return {"crash": 1, **state}


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        [],
        None,
        "nothing",
        {**GOOD, "crash": 2},
        {**GOOD, "point": "1"},
        {**GOOD, "point": True},
        {**GOOD, "point": 1.0},
        {**GOOD, "point": -1},
        {**GOOD, "kept": "some"},
        {**GOOD, "kept": ["nothing"]},
        {**GOOD, "kept": [4, 0]},
        {**GOOD, "kept": [4, 4]},
        {**GOOD, "kept": [-1]},
        {**GOOD, "kept": None},
        {"crash": 1, "point": 1},
        {**GOOD, "more": 1},
        {**GOOD, "torn": {}},
        {**GOOD, "torn": [4]},
        {**GOOD, "torn": [[4]]},
        {**GOOD, "torn": [[5, [[0, 512]]]]},
        {**GOOD, "torn": [[4, [[0, 511]]]]},
        {**GOOD, "torn": [[4, [[512, 512]]]]},
        {**GOOD, "torn": [[4, [[512, 0]]]]},
        {**GOOD, "torn": [[4, [[0, 512], [512, 1024]]]]},
        {**GOOD, "torn": [[4, [[1024, 1536], [0, 512]]]]},
        {**GOOD, "torn": [[4, [[0, 512, 1024]]]]},
        {**GOOD, "torn": [[4, []], [0, []]]},
        {**GOOD, "torn": [[4, []], [4, []]]},
        {**GOOD, "kept": "nothing", "torn": [[4, []]]},
        {**GOOD, "again": {}},
        {**GOOD, "again": {"log": "", "state": INNER}},
        {**GOOD, "again": {"log": 5, "state": INNER}},
        {**GOOD, "again": {"log": "ab", "state": GOOD}},
        {**GOOD, "again": {"log": "ab", "state": {"point": 1}}},
        _deep(9),
    ],
)
def test_hostile_recipes_are_refused(recipe: object) -> None:
    with pytest.raises(InputError, match="not a crash state"):
        parse_recipe(recipe)


def test_the_cases_above_are_one_step_from_a_good_one() -> None:
    parse_recipe(GOOD)
    parse_recipe({**GOOD, "torn": [[4, [[0, 512], [1024, 4096]]]], "again": {"log": "ab", "state": INNER}})
    parse_recipe(_deep(2))
