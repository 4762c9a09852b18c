"""Outcomes: how often each op succeeded, and with which errors it failed, over the workloads of a session.

An op that never succeeds tests nothing but its own refusal; this is how one learns of it.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping

from fuzzer.state.history import Event, History

OK, UNFINISHED = "ok", "unfinished"
"""Besides names of errors: the op returned without one; its actor was killed in it."""

Outcomes = Counter[str]
"""Counts by `op/outcome`."""


def count_outcomes(history: History) -> Outcomes:
    """The outcomes of one run."""
    return Counter(f"{event.op.name}/{_outcome(event)}" for event in history.events)


def _outcome(event: Event) -> str:
    if event.succeeded:
        return OK
    return errno.errorcode.get(event.errno, str(event.errno)) if event.failed else UNFINISHED


def by_op(outcomes: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """`{op: {outcome: count}}`, sorted by op."""
    table: dict[str, dict[str, int]] = {}
    for key, count in sorted(outcomes.items()):
        op, _, outcome = key.partition("/")
        table.setdefault(op, {})[outcome] = count
    return table


def never_succeeded(outcomes: Mapping[str, int]) -> str:
    """For people: `send (12 EPERM), …` of the ops that were tried in vain; empty if there is none."""
    vain = {op: found for op, found in by_op(outcomes).items() if OK not in found}
    return ", ".join(
        f"{op} ({', '.join(f'{count} {outcome}' for outcome, count in found.items())})"
        for op, found in vain.items()
    )
