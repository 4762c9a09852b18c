"""Cuts of a log without times: what the sync marks say about when the power went."""

from __future__ import annotations

import pytest

from fuzzer.state.history import FOREVER, Event, History
from fuzzer.workload.model import SETUP, make_op, op_id
from fuzzer.writelog.crash import Cut, cut_at
from fuzzer.writelog.model import Entry, Flag


def event(actor: int, sequence: int, begin_ns: int) -> Event:
    op = make_op("sync")
    return Event(
        id=op_id(actor, sequence),
        actor=actor,
        sequence=sequence,
        op=op,
        begin_ns=begin_ns,
        end_ns=begin_ns + 5,
    )


HISTORY = History((event(SETUP, 0, 10), event(1, 0, 20), event(2, 0, 25), event(1, 1, 30), event(1, 2, 50)))
LOG = (
    Entry(0, Flag(0), 0, 4096),
    Entry(1, Flag.MARK, mark=f"sync:{op_id(SETUP, 0)}:15"),
    Entry(2, Flag(0), 0, 4096),
    Entry(3, Flag.MARK, mark=f"sync:{op_id(2, 0)}:30"),
    Entry(4, Flag.MARK, mark=f"sync:{op_id(1, 0)}:26"),
    Entry(5, Flag.FLUSH),
    Entry(6, Flag.MARK, mark=f"sync:{op_id(1, 2)}:55"),
)


@pytest.mark.parametrize(
    ("point", "cut"),
    [
        pytest.param(1, Cut(0, 20), id="the actors start after the last mark of the setup"),
        pytest.param(2, Cut(16, 20), id="a mark is put before its actor goes on"),
        pytest.param(3, Cut(16, 30), id="a mark that comes later bounds, too"),
        pytest.param(4, Cut(31, 30), id="an actor that has no next op bounds nothing"),
        pytest.param(5, Cut(31, 30), id="an older call may be marked later"),
        pytest.param(6, Cut(31, FOREVER), id="behind the last mark but one"),
        pytest.param(7, Cut(56, FOREVER), id="at the end nothing bounds"),
    ],
)
def test_marks_bound_both_times(point: int, cut: Cut) -> None:
    assert cut_at(LOG, point, HISTORY) == cut


def test_a_mark_of_an_unknown_op_bounds_only_what_returned() -> None:
    log = (Entry(0, Flag.MARK, mark=f"sync:{op_id(3, 7)}:40"),)
    assert cut_at(log, 1, HISTORY) == Cut(41, FOREVER)
