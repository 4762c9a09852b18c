"""Buckets: the group of findings that are probably one bug, as one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fuzzer.triage.facts import Crash, Evidence, Facts, find_facts
from fuzzer.triage.known import Known, match_known
from oracles import Violation


@dataclass(frozen=True, slots=True)
class Label:
    """What a forbidden state is filed under. `violation` is the promise that gives it its title."""

    violation: Violation
    facts: Facts
    known: str
    bucket: str


def label(violations: Sequence[Violation], evidence: Evidence, crash: Crash, known: Sequence[Known]) -> Label:
    """File a state by the first promise no known bug explains, or else by the first of all.

    So what a known bug breaks beside it does not hide a new one.
    """
    first: Label | None = None
    for violation in violations:
        facts = find_facts(violation, evidence, crash)
        bug = match_known(known, evidence.fs, violation, facts)
        named = Label(violation, facts, bug, bucket_of(evidence.fs, violation, facts, bug))
        if not bug:
            return named
        first = first or named
    assert first is not None, "a forbidden state breaks a promise"
    return first


def bucket_of(fs: str, violation: Violation, facts: Facts, known: str) -> str:
    """File system, and the known bug or else rule and kind."""
    if known:
        return f"{fs}/known/{known}"
    through = f"@{facts['view']}" if "view" in facts else ""
    return f"{fs}/{violation.rule}/{violation.kind}{through}"
