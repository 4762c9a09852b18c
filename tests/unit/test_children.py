"""Forked children: what became of them shows in their exit status."""

from __future__ import annotations

import pytest

from fuzzer.errors import LeakError
from fuzzer.kernel.children import CRASHED, LEAKED, Child, fork_child
from fuzzer.kernel.process import wait_until


def _status(child: Child) -> int | None:
    assert wait_until(lambda: child._is_reaped(), 30.0)
    return child.status


@pytest.mark.parametrize(
    ("error", "status"),
    [(LeakError("busy"), LEAKED), (ValueError("wrong"), CRASHED), (SystemExit(3), CRASHED)],
)
def test_what_a_child_raised_shows(error: BaseException, status: int) -> None:
    def fail(_: object) -> int:
        raise error

    assert _status(fork_child(fail)) == status


def test_a_child_ends_with_what_it_returned() -> None:
    assert _status(fork_child(lambda _: 5)) == 5
