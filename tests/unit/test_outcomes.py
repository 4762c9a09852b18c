"""Outcomes of ops: counted by op and error, and what never worked is named."""

from __future__ import annotations

from oracle_cases import Script

from fuzzer.campaign.outcomes import by_op, count_outcomes, never_succeeded

HISTORY = """
1-2 create a
3-4 create a !EEXIST
5-6 write a 0 8 !ENOSPC
7-8 write a 0 8 !EIO
9-? fsync a
"""


def test_outcomes_are_counted_by_op_and_error() -> None:
    outcomes = count_outcomes(Script(HISTORY).history)
    assert by_op(outcomes) == {
        "create": {"EEXIST": 1, "ok": 1},
        "fsync": {"unfinished": 1},
        "write": {"EIO": 1, "ENOSPC": 1},
    }


def test_what_never_succeeded_is_named() -> None:
    outcomes = count_outcomes(Script(HISTORY).history)
    assert never_succeeded(outcomes) == "fsync (1 unfinished), write (1 EIO, 1 ENOSPC)"
    outcomes.update(["fsync/ok", "write/ok"])
    assert never_succeeded(outcomes) == ""
