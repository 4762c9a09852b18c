"""Histories: the text says all, and anything else is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzer.state.history import (
    FOREVER,
    RECORD,
    SEEN,
    Event,
    History,
    events_from_records,
    format_history,
    parse_history,
)
from fuzzer.state.inode import make_inode
from fuzzer.state.stamps import Run
from fuzzer.workload.model import MAX_ACTORS, MAX_SEQUENCE, Actor, Draw, Op, Value, Workload, make_op, op_id
from fuzzer.workload.ops import OPS, Kind

TIMES = st.integers(1, (1 << 62))
INODES = st.integers(0, (1 << 96) - 1)
NUMBERS = st.integers(-(1 << 31), (1 << 32) - 1)


@st.composite
def ops(draw: st.DrawFn) -> Op:
    spec = OPS[draw(st.sampled_from(sorted(OPS)))]
    values: dict[str, Value] = {}
    for param in spec.params:
        if param.kind in (Kind.PATH, Kind.TEXT):
            values[param.name] = draw(st.text(max_size=12))
        elif param.kind is Kind.CHOICE:
            values[param.name] = draw(st.sampled_from(param.choices))
        else:
            values[param.name] = draw(st.integers(param.low, param.high))
    return make_op(spec.name, values)


@st.composite
def events(draw: st.DrawFn) -> Event:
    actor, sequence = draw(st.integers(0, MAX_ACTORS)), draw(st.integers(0, MAX_SEQUENCE - 1))
    begin = draw(TIMES)
    event = Event(
        id=op_id(actor, sequence),
        actor=actor,
        sequence=sequence,
        op=draw(ops()),
        begin_ns=begin,
        subject=draw(INODES),
        other=draw(INODES),
        directory=draw(INODES),
        directory2=draw(INODES),
    )
    if draw(st.booleans()):
        return event
    runs = tuple(draw(st.lists(st.builds(Run, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=2)))
    result, errno = draw(st.integers(-1, 99)), draw(st.integers(0, 133))
    return replace(event, end_ns=begin + 1, result=result, errno=errno, seen=runs)


HISTORIES = st.builds(
    History,
    st.lists(events(), max_size=4).map(tuple),
    INODES,
    st.lists(st.text()).map(tuple),
    realtime_ns=st.integers(-(1 << 63), 1 << 63),
    realtime_drift_ns=st.integers(0, 1 << 63),
)


@given(HISTORIES)
def test_text_round_trip(history: History) -> None:
    lines = list(format_history(history))
    assert all("\n" not in line for line in lines)
    assert parse_history(lines) == history


HEAD = '{"history": 2, "root": 2, "killed": [], "realtime_ns": 1700000000000000000, "realtime_drift_ns": 35}'
EVENT = '{"actor": 1, "seq": 0, "op": "fsync", "args": {"path": "a"}, "begin": 5}'


def test_minimal_lines() -> None:
    (event,) = parse_history([HEAD, EVENT]).events
    assert (event.end_ns, event.returned, event.succeeded, event.failed) == (FOREVER, False, False, False)


@pytest.mark.parametrize(
    "change",
    [
        {"actor": 99},
        {"actor": -1},
        {"actor": True},
        {"actor": "1"},
        {"seq": 1 << 19},
        {"seq": None},
        {"op": "format"},
        {"op": ["fsync"]},
        {"args": []},
        {"args": {"path": 3}},
        {"args": {}},
        {"args": {"path": "a", "more": 1}},
        {"begin": "soon"},
        {"begin": 1.5},
        {"end": []},
        {"subject": "257"},
        {"seen": {}},
        {"seen": [3]},
        {"seen": [[0, 8, 1, 2]]},
        {"seen": [[0, 8, 1, 2, True]]},
        {"seen": [[0, 8, "1", 2, 0]]},
    ],
)
def test_hostile_events_are_refused(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError)):
        parse_history([HEAD, json.dumps({**json.loads(EVENT), **change})])


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        ["[]"],
        ["{}"],
        [HEAD, "17"],
        [HEAD, '{"actor": 1}'],
    ],
)
def test_hostile_files_are_refused(lines: list[str]) -> None:
    with pytest.raises((ValueError, KeyError)):
        parse_history(lines)


@pytest.mark.parametrize(
    "change",
    [
        {"history": 1},
        {"root": "2"},
        {"killed": "w"},
        {"killed": [3]},
        {"realtime_ns": None},
        {"realtime_ns": 0.5},
        {"realtime_drift_ns": "0"},
        {"realtime_drift_ns": -1},
    ],
)
def test_hostile_heads_are_refused(change: dict[str, object]) -> None:
    head = json.loads(HEAD)
    assert parse_history([HEAD]).realtime_drift_ns == 35
    with pytest.raises((ValueError, KeyError)):
        parse_history([json.dumps(head | change)])
    for name in change:
        with pytest.raises((ValueError, KeyError)):
            parse_history([json.dumps({k: v for k, v in head.items() if k != name})])


def test_records() -> None:
    """Three iterations of two ops; the last op is still running; one row was never used."""
    ops = (make_op("truncate", {"path": "a", "size": Draw(0, 80, 8)}), make_op("fsync", {"path": "a"}))
    workload = Workload(actors=(Actor("w", ops, loop=3),), seed=7)
    records = np.zeros(7, dtype=RECORD)
    for sequence in range(6):
        records[sequence]["sequence"] = sequence
        records[sequence]["begin_ns"] = 10 * sequence + 1
        records[sequence]["end_ns"] = 10 * sequence + 5 if sequence < 5 else 0
        records[sequence]["subject"], records[sequence]["subject_gen"] = 131, 7
    records[2]["result"], records[2]["errno"] = -1, 27
    events = events_from_records(workload, 1, records)
    assert [e.op.name for e in events] == ["truncate", "fsync"] * 3
    assert all(isinstance(e.op["size"], int) for e in events[::2])
    assert {e.subject for e in events} == {make_inode(131, 7)}
    assert [e.succeeded for e in events] == [True, True, False, True, True, False]
    assert (events[2].failed, events[2].result, events[5].returned) == (True, -1, False)
    history = History(tuple(events))
    assert history.known_ids().tolist() == sorted(op_id(1, n) for n in range(6))
    assert events_from_records(workload, 1, records) == events
    seen = np.array([(4, 0, 8, -1, 0, 0), (4, 8, 16, op_id(2, 0), 3, -8)], dtype=SEEN)
    with_reads = events_from_records(workload, 1, records, seen)
    assert with_reads[4].seen == (Run(0, 8, -1), Run(8, 16, op_id(2, 0), 3, -8))
    assert [replace(event, seen=()) for event in with_reads] == events
