"""The time of a utimes op names it, and is stored by every file system."""

from __future__ import annotations

from fuzzer.state.utimes_value import utimes_ns
from fuzzer.workload.model import MAX_ACTORS, MAX_SEQUENCE, SETUP, op_id


def test_every_op_has_a_time_of_its_own_within_one_second() -> None:
    first, last = utimes_ns(op_id(SETUP, 0)), utimes_ns(op_id(MAX_ACTORS, MAX_SEQUENCE - 1))
    assert first < last < utimes_ns(0) + 10**9
    assert 0 < last < (1 << 31) * 10**9
