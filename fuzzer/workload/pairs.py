"""Pairs of ops that could be under way at one time on one object: what feedback steers towards."""

from __future__ import annotations

from collections.abc import Container
from itertools import combinations_with_replacement

from fuzzer.workload.ops import OPS, Kind, Role
from fuzzer.workload.tables import ROWS

_ON_OLD_NAMES = frozenset({"link", "rename", "unlink"})
"""Ops on names that take hold of a file that is there already."""

_SPECIAL_MAKE = frozenset({"exchange_range"})
"""Ops that work on file systems of a special make only, which are drawn as a whole."""


def is_on_everything(name: str) -> bool:
    """True for ops that name no file: they work on the whole file system, or the machine."""
    return all(param.kind is not Kind.PATH for param in OPS[name].params)


def pair_name(one: str, other: str) -> str:
    """`fsync+write`, in whichever order they are given."""
    return "+".join(sorted((one, other)))


def pairs_of(fs: str) -> tuple[str, ...]:
    """Every pair of ops of `fs` that may share an object, sorted."""
    rows = [row for row in ROWS if row.runs_on(fs) and row.role is not Role.CONTROL]
    names = sorted({row.name for row in rows} - _SPECIAL_MAKE)
    return tuple(
        pair_name(one, other)
        for one, other in combinations_with_replacement(names, 2)
        if _may_share(one, other)
    )


def _may_share(one: str, other: str) -> bool:
    if is_on_everything(one) or is_on_everything(other):
        return not (is_on_everything(one) and one == other)
    on_names = [OPS[name].role is Role.NAMES for name in (one, other)]
    if all(on_names) or not any(on_names):
        return True
    return one in _ON_OLD_NAMES or other in _ON_OLD_NAMES


def unseen_pairs(fs: str, seen: Container[str]) -> tuple[str, ...]:
    """Those of `pairs_of` that are not in `seen`, where they are called `FS PAIR`."""
    return tuple(pair for pair in pairs_of(fs) if f"{fs} {pair}" not in seen)
