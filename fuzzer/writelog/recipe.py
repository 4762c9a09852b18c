"""Recipes: a crash state as JSON, the way crash.json of a finding keeps it.

    {"crash": 1, "point": 310, "kept": [301, 305], "torn": [[305, [[0, 512]]]],
     "again": {"log": "5f1c…", "state": {"point": 7, "kept": "nothing"}}}

What is torn, and `again`, are left out where there is nothing to say.
"""

from __future__ import annotations

from itertools import pairwise

from fuzzer.errors import InputError
from fuzzer.writelog.crash import Again, CrashState, Kept, Span, Torn
from fuzzer.writelog.model import SECTOR_BYTES

RECIPE_VERSION = 1
_MAX_NAMED = 12
MAX_CUTS = 4
"""Power cuts in one crash state, that of the workload included; more than is ever generated."""


def format_recipe(state: CrashState) -> dict[str, object]:
    """The recipe of `state`, ready for JSON."""
    return {"crash": RECIPE_VERSION, **_format(state)}


def parse_recipe(data: object) -> CrashState:
    """Inverse of `format_recipe`; InputError on anything else."""
    recipe = dict(_object(data, "it", ("crash", "point", "kept"), ("torn", "again")))
    if recipe.pop("crash") != RECIPE_VERSION:
        raise _bad("crash", data, str(RECIPE_VERSION))
    return _parse(recipe, MAX_CUTS)


def say_state(state: CrashState) -> str:
    """The state in words, for people."""
    torn = f", {len(state.torn)} of them torn" if state.torn else ""
    kept = {
        Kept.NOTHING: "only what was durable survived",
        Kept.EVERYTHING: f"every completed write survived{torn}",
    }
    if isinstance(state.kept, Kept):
        text = kept[state.kept]
    else:
        names = " ".join(map(str, state.kept[:_MAX_NAMED])) + (" ..." if len(state.kept) > _MAX_NAMED else "")
        text = (
            f"of the unflushed writes {len(state.kept)} survived ({names}){torn}"
            if names
            else kept[Kept.NOTHING]
        )
    again = "" if state.again is None else f"; while it recovered, {say_state(state.again.state)}"
    return f"power cut after log entry {state.point}, {text}{again}"


def _format(state: CrashState) -> dict[str, object]:
    kept: object = str(state.kept) if isinstance(state.kept, Kept) else list(state.kept)
    recipe: dict[str, object] = {"point": state.point, "kept": kept}
    if state.torn:
        recipe["torn"] = [[torn.entry, [list(span) for span in torn.spans]] for torn in state.torn]
    if state.again is not None:
        recipe["again"] = {"log": state.again.log, "state": _format(state.again.state)}
    return recipe


def _parse(data: object, cuts: int) -> CrashState:
    recipe = _object(data, "state", ("point", "kept"), ("torn", "again"))
    if not cuts:
        raise _bad("again", data, f"at most {MAX_CUTS} cuts")
    kept, torn = _parse_kept(recipe["kept"]), _parse_torn(recipe.get("torn", []))
    if torn and (kept is Kept.NOTHING or (isinstance(kept, tuple) and {t.entry for t in torn} - set(kept))):
        raise _bad("torn", recipe["torn"], "a choice of what is kept")
    again = None
    if "again" in recipe:
        inner = _object(recipe["again"], "again", ("log", "state"))
        if not isinstance(inner["log"], str) or not inner["log"]:
            raise _bad("log", inner["log"], "the digest of a log")
        again = Again(inner["log"], _parse(inner["state"], cuts - 1))
    return CrashState(_number(recipe["point"], "point"), kept, torn, again)


def _parse_kept(value: object) -> Kept | tuple[int, ...]:
    if isinstance(value, str) and value in set(Kept):
        return Kept(value)
    kept = tuple(_number(one, "kept") for one in _list(value, "kept"))
    if any(a >= b for a, b in pairwise(kept)):
        raise _bad("kept", value, "ascending")
    return kept


def _parse_torn(value: object) -> tuple[Torn, ...]:
    torn: list[Torn] = []
    for one in _list(value, "torn"):
        entry, spans = _pair(one)
        torn.append(Torn(_number(entry, "torn"), tuple(map(_parse_span, _list(spans, "torn")))))
        if any(a[1] >= b[0] for a, b in pairwise(torn[-1].spans)):
            raise _bad("torn", value, "spans that are ascending and apart")
    if any(a.entry >= b.entry for a, b in pairwise(torn)):
        raise _bad("torn", value, "ascending")
    return tuple(torn)


def _parse_span(value: object) -> Span:
    first, end = (_number(one, "torn") for one in _pair(value))
    if first >= end or (first | end) % SECTOR_BYTES:
        raise _bad("torn", value, "a span of whole sectors")
    return first, end


def _pair(value: object) -> tuple[object, object]:
    pair = _list(value, "torn")
    if len(pair) != 2:
        raise _bad("torn", value, "a pair")
    return pair[0], pair[1]


def _list(value: object, name: str) -> list[object]:
    if not isinstance(value, list):
        raise _bad(name, value, "a list")
    return value


def _object(
    value: object, name: str, needed: tuple[str, ...], allowed: tuple[str, ...] = ()
) -> dict[str, object]:
    if not isinstance(value, dict) or set(needed) - set(value) or set(value) - {*needed, *allowed}:
        raise _bad(name, value, f"an object with {', '.join(needed)}")
    return value


def _number(value: object, name: str) -> int:
    if type(value) is not int or value < 0:
        raise _bad(name, value, "a number from 0 on")
    return value


def _bad(name: str, value: object, wanted: str) -> InputError:
    return InputError(
        f"not a crash state of version {RECIPE_VERSION}: {name} is {str(value)[:80]}, not {wanted}"
    )
