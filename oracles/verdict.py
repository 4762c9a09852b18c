"""Verdicts: what a rule says about one crash state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """Answer of a rule. `no-promise` means the contract leaves it open: counted, never reported."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    NO_PROMISE = "no-promise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A forbidden observation.

    `rule` names the rule, `kind` the way it was broken (stable, no numbers: it becomes part of the
    bucket), `subject` the object, `promised` and `found` are sentences for people, `source` is where
    the promise comes from, `sync` the id of the op that made the promise (0: no single one), `profile`
    the contract that was judged by.

    For machines: `inode` is the file it is about or, with `name`, the directory the name is in; `offset`
    the first bad byte (-1: not about bytes); `op` the id of the op whose effect should be there and
    `seen` of the one whose effect is there instead (0: none, or not known).
    """

    rule: str
    kind: str
    subject: str
    promised: str
    found: str
    source: str
    sync: int = 0
    inode: int = 0
    name: str = ""
    offset: int = -1
    op: int = 0
    seen: int = 0
    profile: str = ""

    @property
    def sentence(self) -> str:
        """For people: what was promised of what, and what came back."""
        return f"{self.subject}: promised {self.promised}; found {self.found}"

    def to_json(self) -> dict[str, str | int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Judgement:
    """All that was found wrong with one state, and how much was looked at."""

    violations: tuple[Violation, ...]
    judged: int
    """Objects for which a rule had a promise to check."""
    no_promise: int
    """Objects for which the contract promises nothing."""
    rules: Mapping[str, int] = field(default_factory=dict)
    """Objects judged, by rule."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Objects without a promise, by `rule: reason`."""

    @property
    def outcome(self) -> Outcome:
        return Outcome.FORBIDDEN if self.violations else Outcome.ALLOWED
