"""Coverage from outside, and the generator that is steered by it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from oracle_cases import Script

from fuzzer.campaign.coverage import arguments, describe_coverage, log_shapes, overlaps
from fuzzer.campaign.source import Generated
from fuzzer.state.history import History
from fuzzer.workload.generate import generate
from fuzzer.workload.model import make_op
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.pairs import pair_name, pairs_of, unseen_pairs
from fuzzer.workload.text import format, parse
from fuzzer.writelog.model import Entry, Flag


def by_actors(text: str, actors: list[int]) -> History:
    """The history of a script, each op by another actor."""
    events = Script(text).history.events
    return History(tuple(replace(e, actor=a) for e, a in zip(events, actors, strict=True)), 2)


def test_ops_overlap_on_one_inode_only() -> None:
    text = """
    1-2 create a
    3-4 create b
    5-20 write a 0 8
    6-10 fsync a
    7-9 fsync b
    12-? chmod a 600
    15-16 write a 0 8
    30-31 truncate a 0
    """
    found = overlaps(by_actors(text, [0, 0, 1, 2, 3, 2, 1, 3]))
    assert found == {"fsync+write", "chmod+write", "chmod+truncate"}


def test_some_ops_are_on_everything_and_sleeping_is_nothing() -> None:
    text = """
    1-2 create a
    5-20 write a 0 8
    6-30 sync
    7-40 sleep 1
    """
    assert overlaps(by_actors(text, [0, 1, 2, 3])) == {"sync+write"}
    assert overlaps(by_actors(text, [0, 1, 1, 1])) == set()


def test_arguments_come_in_powers_of_two() -> None:
    ops = [
        make_op("write", {"path": "a", "off": 0, "len": 4096, "sync": "dsync"}),
        make_op("truncate", {"path": "a", "size": 5000}),
    ]
    wanted = {
        "write off 0",
        "write len 4K",
        "write sync=dsync",
        "write rwf=none",
        "write buffers 1",
        "truncate size 4K+ odd",
        "truncate flags=none",
    }
    assert arguments(ops) == wanted


class FakeLog:
    """Entries whose payload is what their name in `text` stands for: `C`ommit, `D`ata, `F`lush, `T`rim."""

    sector_bytes = 512

    def __init__(self, text: str) -> None:
        self._text = text
        kinds = {"F": Flag.FLUSH, "T": Flag.DISCARD}
        self.entries = tuple(
            Entry(i, kinds.get(kind, Flag(0)), 0, 0 if kind == "F" else 512, 0, "")
            for i, kind in enumerate(text)
        )

    def payload(self, entry: Entry) -> memoryview:
        return memoryview(b"\xfe\xed\xba\xbe" if self._text[entry.index] == "C" else b"data").cast("B")


def test_log_shapes_are_windows_without_repeats() -> None:
    log = FakeLog("DDDFCCFDT")
    assert log_shapes(log, log.entries, "xfs") == {"DFCFD", "FCFDT"}
    short = FakeLog("DF")
    assert log_shapes(short, short.entries, "xfs") == {"DF"}
    assert log_shapes(short, (), "xfs") == set()


@pytest.mark.parametrize("fs", FILE_SYSTEMS)
def test_what_was_seen_is_not_steered_to(fs: str) -> None:
    everything = pairs_of(fs)
    assert len(everything) == len(set(everything)) > 500
    assert all(pair == pair_name(*pair.split("+")) for pair in everything)
    assert unseen_pairs(fs, ()) == everything
    assert unseen_pairs(fs, {f"{fs} {pair}" for pair in everything[1:]}) == everything[:1]
    assert "mkdir+write" not in everything
    assert {"fsync+write", "rename+write", "sync+write"} <= set(everything)


@pytest.mark.parametrize("fs", FILE_SYSTEMS)
def test_every_pair_can_be_brought_together(fs: str) -> None:
    for index, pair in enumerate(pairs_of(fs)[:: 1 + len(pairs_of(fs)) // 60]):
        workload = generate(5, index, fs, pair=pair)
        assert workload.title.endswith(f" with {pair}")
        assert parse(format(workload)) == workload
        meeting = [actor for actor in workload.actors if actor.name.startswith("pair-")]
        assert pair_name(*(actor.ops[1].name for actor in meeting)) == pair
        assert {actor.ops[0] for actor in meeting} == {make_op("barrier", {"name": "pair"})}
    made = [generate(5, index, fs, pair="fsync+write") for index in range(20)]
    met = [{a.ops[1]["path"] for a in w.actors if a.name.startswith("pair-")} for w in made]
    assert sum(len(paths) == 1 for paths in met) > 10, "the others fsync a directory, or by a symbolic link"


def test_only_feedback_makes_workloads_depend_on_the_past() -> None:
    plain = Generated(9, FILE_SYSTEMS)
    steered = replace(plain, feedback=True)
    everything = {f"{fs} {pair}" for fs in FILE_SYSTEMS for pair in pairs_of(fs)}
    for index in range(20):
        assert plain.workload(index) == plain.workload(index, everything)
        assert steered.workload(index, everything) == plain.workload(index)
        assert steered.workload(index) == steered.workload(index)
    assert sum(steered.workload(i) != plain.workload(i) for i in range(20)) == 10


def test_coverage_in_words() -> None:
    covered = {"overlaps": {"xfs a+b", "xfs b+c"}, "arguments": {"x"}, "log": set[str]()}
    text = describe_coverage(covered, {"xfs a+b"})
    assert "2 pairs of ops on one object (1 for the first time), 1 partitions of arguments, 0 log" in text
