"""Cases: names must go with one of the ways in which ops that raced may have come out.

Where it is not known which of them came first (`races.py`), each name alone is explained by any of the
ways. Together they must be explained by one. A log that holds single inodes need not show names as they
were at one moment, so this is asked of it, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from oracles.case import Case, Rule, Tally
from oracles.floors import compute_floors
from oracles.names import check_names, check_not_lost
from oracles.renames import check_rename_atomic, check_rename_whole
from oracles.verdict import Violation
from oracles.versions import Versions

_CHECKS = (check_names, check_not_lost, check_rename_atomic, check_rename_whole)


def check_cases(case: Case) -> Iterator[Violation]:
    """Promise: the same as of each name; broken if it is in all cases. The one that breaks least is shown."""
    if not case.versions.cases or _broken(replace(case, tally=Tally())):
        return
    case.tally.judged += 1
    found = (_broken(_in(case, versions)) for versions in case.versions.cases)
    yield from min(found, key=len)


def _in(case: Case, versions: Versions) -> Case:
    floors = compute_floors(versions, case.floors.cut, case.profile, case.floors.shown)
    return replace(case, tally=Tally(), history=(versions, floors))


def _broken(case: Case) -> list[Violation]:
    return [violation for check in _CHECKS for violation in check(case)]


RULES = (Rule("cases", check_cases),)
