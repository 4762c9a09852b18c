"""Known bugs: findings people have looked at, told by the facts of the promise they break.

A match must be strict: what is called known is not looked at again, so a row names which promises its
bug breaks and every fact that sets it apart. A finding that lacks one of them is new.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import fuzzer
from fuzzer.errors import InputError
from fuzzer.triage.facts import Facts
from fuzzer.workload.options import FILE_SYSTEMS
from oracles import Violation

_PATH = Path(fuzzer.__file__).parent.parent / "crashes" / "known.toml"

_TEXTS = ("id", "title", "fs", "fix")
_KEYS = {*_TEXTS, "breaks", "facts"}


@dataclass(frozen=True, slots=True)
class Known:
    """One known bug. `fix` is the commit that repairs it (empty: none known).

    `breaks` lists the promises it breaks, as `rule/kind`; `facts` the values each fact may have.
    """

    id: str
    title: str
    fs: str
    fix: str
    breaks: frozenset[str]
    facts: Mapping[str, frozenset[str]]

    @property
    def summary(self) -> str:
        """Its title, and whether it is repaired."""
        fix = f"fix {self.fix}, missing in this kernel" if self.fix else "no fix known"
        return f"{self.title}; {fix}"

    @property
    def taken_out(self) -> bool:
        """True if its fix was taken out by us, behind a switch of a known-bug kernel."""
        return "without" in self.facts

    def describe(self) -> str:
        """The line people see with a finding."""
        return f"known {self.id}: {self.summary}"

    def matches(self, fs: str, violation: Violation, facts: Facts) -> bool:
        return (
            fs == self.fs
            and f"{violation.rule}/{violation.kind}" in self.breaks
            and all(facts.get(name) in values for name, values in self.facts.items())
        )


def match_known(known: Iterable[Known], fs: str, violation: Violation, facts: Facts) -> str:
    """Id of the known bug that broke this promise; empty if it is none of them."""
    return next((bug.id for bug in known if bug.matches(fs, violation, facts)), "")


def describe_known(bug_id: str) -> str:
    """The line people see with a finding of this bug; the id alone if the table has no such row."""
    return next((bug.describe() for bug in load_known() if bug.id == bug_id), f"known {bug_id}")


def load_known(path: Path = _PATH) -> tuple[Known, ...]:
    """The rows of known.toml; none where powercut is installed without its checkout.

    InputError says which row is wrong.
    """
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise InputError(f"not a table of known bugs: {error}", place=str(path)) from error
    rows = data.get("known")
    if not isinstance(rows, list) or set(data) != {"known"}:
        raise InputError("known bugs are `[[known]]` tables", place=str(path))
    bugs = tuple(_row(row, f"{path}: row {number}") for number, row in enumerate(rows, 1))
    if len({bug.id for bug in bugs}) != len(bugs):
        raise InputError("an id appears twice", place=str(path))
    return bugs


def _row(row: object, place: str) -> Known:
    if not isinstance(row, dict) or set(row) != _KEYS:
        raise InputError(f"a row has exactly {', '.join(sorted(_KEYS))}", place=place)
    for key in _TEXTS:
        if not isinstance(row[key], str) or (not row[key] and key != "fix"):
            raise InputError(f"{key} is not a text", place=place)
    if row["fs"] not in FILE_SYSTEMS:
        raise InputError(f"no file system {row['fs']!r}", place=place, hint=f"one of {FILE_SYSTEMS}")
    breaks = _words(row["breaks"], "breaks", place)
    if not all("/" in promise for promise in breaks):
        raise InputError("breaks lists `rule/kind`", place=place)
    facts = row["facts"]
    if not isinstance(facts, dict) or not facts:
        raise InputError("facts is not a table, or empty", place=place, hint="it would match far too much")
    sets = {name: _words(values, name, place) for name, values in facts.items()}
    return Known(row["id"], row["title"], row["fs"], row["fix"], breaks, sets)


def _words(values: object, name: str, place: str) -> frozenset[str]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise InputError(f"{name} is not a list of words", place=place)
    return frozenset(values)
