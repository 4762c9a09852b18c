"""Crash states: where to cut, what is durable there, and the images that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracle_cases import Script

from fuzzer.errors import InputError
from fuzzer.state.history import FOREVER
from fuzzer.workload.model import make_op, op_id
from fuzzer.writelog.crash import (
    CrashState,
    Cut,
    Faults,
    Kept,
    StateBuilder,
    Torn,
    cut_at,
    states_at,
)
from fuzzer.writelog.image import BLOCK_BYTES, Image
from fuzzer.writelog.model import SECTOR_BYTES, Entry, Flag
from fuzzer.writelog.points import Points, crash_points

BLOCKS = 4
WORST, BEST = Kept.NOTHING, Kept.EVERYTHING


@dataclass
class FakeLog:
    """Entries whose data is one letter per block."""

    entries: tuple[Entry, ...]
    letters: str
    sector_bytes: int = SECTOR_BYTES

    def payload(self, entry: Entry) -> memoryview:
        return memoryview(self.letters[entry.index].encode() * entry.length)


def parse_log(text: str, *, timed: bool = True) -> FakeLog:
    """`a0` writes letter a to block 0, `A0` does so with FUA, `f` flushes, `-0` discards, `.x` marks.

    `@arrived-done` gives times; by default entry n arrives at 10n+1 and is done at 10n+2.
    """
    entries, letters = [], ""
    for index, word in enumerate(text.split()):
        word, _, times = word.partition("@")
        arrived, done = map(int, times.split("-")) if times else (10 * index + 1, 10 * index + 2)
        entry = Entry(index, Flag(0), arrived_ns=arrived * timed, done_ns=done * timed)
        letter = word[0]
        if letter == "f":
            entry = replace(entry, flags=Flag.FLUSH)
        elif letter == ".":
            entry = replace(entry, flags=Flag.MARK, mark=word[1:])
        else:
            flags = Flag.DISCARD if letter == "-" else Flag.FUA if letter.isupper() else Flag(0)
            entry = replace(entry, flags=flags, offset=int(word[1]) * BLOCK_BYTES, length=BLOCK_BYTES)
        entries.append(entry)
        letters += letter
    return FakeLog(tuple(entries), letters)


def letters(image: Image) -> str:
    """One letter per block; `.` for zeroes."""
    return image.read(0, image.size_bytes)[::BLOCK_BYTES].decode().replace("\0", ".")


def state(log: FakeLog, point: int, kept: Kept, faults: Faults | None = None) -> str:
    builder = StateBuilder(Image(BLOCKS * BLOCK_BYTES), log, faults=faults or Faults())
    return letters(builder.at(CrashState(point, kept)))


@pytest.mark.parametrize(
    ("text", "worst", "best"),
    [
        ("a0", "....", "a..."),
        ("a0 f", "a...", "a..."),
        ("a0 f b0", "a...", "b..."),
        ("a0 b1 f c2", "ab..", "abc."),
        ("A0", "A...", "A..."),
        ("a0 A1", ".A..", "aA.."),
        ("a0 B0", "B...", "B..."),
        ("a0 B0 f", "B...", "B..."),
        ("a0 B0 c0", "B...", "c..."),
        ("a0 B0 c0 f", "c...", "c..."),
        ("a0 f -0", "a...", "...."),
        ("a0 f -0 f", "....", "...."),
        ("a0 -0 b0 f", "b...", "b..."),
        (".mark a0 .mark f .mark", "a...", "a..."),
        # the flush arrived before the write was completed: it promises nothing about it
        ("a0@1-5 f@4-8", "....", "a..."),
        ("a0@1-5 f@5-8", "a...", "a..."),
        ("a0@1-5 f@4-8 f@9-10", "a...", "a..."),
        # a newer FUA write may complete while the flush of the older one is under way
        ("a0@1-5 B0@2-8 f@6-9", "B...", "B..."),
        ("a0@1-5 b1@2-8 f@6-9", "a...", "ab.."),
    ],
)
def test_worst_and_best_state(text: str, worst: str, best: str) -> None:
    log = parse_log(text)
    end = len(log.entries)
    assert (state(log, end, WORST), state(log, end, BEST)) == (worst, best)


def test_states_go_forward_and_stay_as_they_are() -> None:
    log = parse_log("a0 f b0 b1 f c0")
    builder = StateBuilder(Image(BLOCKS * BLOCK_BYTES), log)
    kept = [builder.at(s) for s in states_at(range(7))]
    shown = [letters(image) for image in kept]
    assert shown == [
        *("....", "...."),
        *("....", "a..."),
        *("a...", "a..."),
        *("a...", "b..."),
        *("a...", "bb.."),
        *("bb..", "bb.."),
        *("bb..", "cb.."),
    ]
    with pytest.raises(AssertionError, match="forward only"):
        builder.at(CrashState(5, WORST))


def test_a_choice_of_the_open_entries() -> None:
    """In log order, over what is durable; a forced write stays whatever else does."""
    log = parse_log("a0 f b0 c0 D1 e1 -2")

    def kept(*indexes: int) -> str:
        builder = StateBuilder(Image(BLOCKS * BLOCK_BYTES), log)
        return letters(builder.at(CrashState(7, indexes)))

    assert kept() == "aD.."
    assert kept(2) == "bD.."
    assert kept(3) == "cD.."
    assert kept(2, 3) == "cD.."
    assert kept(2, 5) == "be.."
    # the older write to a block that was forced does not come back
    older = parse_log("a0 B0 c1")
    builder = StateBuilder(Image(BLOCKS * BLOCK_BYTES), older)
    assert letters(builder.at(CrashState(3, (0, 2)))) == "Bc.."


def test_a_torn_write() -> None:
    log = parse_log("a0 f b0 C1")
    image = StateBuilder(Image(BLOCKS * BLOCK_BYTES), log).at(
        CrashState(4, (2,), (Torn(2, ((512, 1024), (2048, 4096))),))
    )
    assert image.read(0, BLOCK_BYTES) == b"a" * 512 + b"b" * 512 + b"a" * 1024 + b"b" * 2048
    assert image.read(BLOCK_BYTES, 1) == b"C"


@pytest.mark.parametrize(
    "crash",
    [
        pytest.param(CrashState(6, (0,)), id="durable"),
        pytest.param(CrashState(3, (3,)), id="not written yet"),
        pytest.param(CrashState(6, (4,)), id="forced"),
        pytest.param(CrashState(6, (2,), (Torn(4, ((0, 512),)),)), id="a forced write is never torn"),
        pytest.param(CrashState(6, (2,), (Torn(3, ((0, 512),)),)), id="torn and lost"),
        pytest.param(CrashState(6, (2,), (Torn(2, ((0, 8192),)),)), id="torn behind its end"),
        pytest.param(CrashState(6, (5,), (Torn(5, ((0, 512),)),)), id="a torn discard"),
        pytest.param(CrashState(7, Kept.NOTHING), id="behind the end of the log"),
    ],
)
def test_states_the_log_cannot_leave_are_refused(crash: CrashState) -> None:
    builder = StateBuilder(Image(BLOCKS * BLOCK_BYTES), parse_log("a0 f b0 c0 D1 -2"))
    with pytest.raises(InputError, match="no crash state of this log"):
        builder.at(crash)


def test_base_is_not_touched() -> None:
    base = Image(BLOCKS * BLOCK_BYTES)
    base.write(0, b"z" * BLOCK_BYTES)
    log = parse_log("a0 f")
    assert letters(StateBuilder(base, log).at(CrashState(2, WORST))) == "a..."
    assert letters(base) == "z..."


def test_start_leaves_out_what_the_base_has() -> None:
    base = Image(BLOCKS * BLOCK_BYTES)
    base.write(0, b"a" * BLOCK_BYTES)
    builder = StateBuilder(base, parse_log("a0 f b1 f"), start=2)
    assert letters(builder.at(CrashState(2, WORST))) == "a..."
    assert letters(builder.at(CrashState(4, WORST))) == "ab.."


def test_planted_damage() -> None:
    log = parse_log("a0 f b1 c2 f")
    assert state(log, 5, WORST, Faults(dead_flushes=frozenset({4}))) == "a..."
    assert state(log, 5, BEST, Faults(dead_flushes=frozenset({4}))) == "abc."
    assert state(log, 5, WORST, Faults(pieces={2: ()})) == "a.c."
    assert state(log, 5, WORST, Faults(pieces={2: ((3 * BLOCK_BYTES, b"x" * BLOCK_BYTES),)})) == "a.cx"
    assert state(log, 0, WORST, Faults(base=((0, b"y" * BLOCK_BYTES),))) == "y..."


REQUESTS = st.lists(
    st.tuples(st.sampled_from("wwwFf"), st.integers(0, BLOCKS - 1), st.integers(1, 30), st.integers(0, 9)),
    max_size=12,
)


def random_log(requests: list[tuple[str, int, int, int]]) -> FakeLog:
    """Requests with an arrival and a duration, logged when they are done."""
    timed = sorted((arrived + takes, arrived, n, what, block)
                   for n, (what, block, arrived, takes) in enumerate(requests))  # fmt: skip
    words = []
    for number, (done, arrived, _, what, block) in enumerate(timed):
        letter = chr(ord("A" if what == "F" else "a") + number + (number >= 5))
        words.append(f"f@{arrived}-{done}" if what == "f" else f"{letter}{block}@{arrived}-{done}")
    return parse_log(" ".join(words))


@given(REQUESTS)
@example([("w", 0, 1, 4), ("F", 0, 2, 6), ("f", 0, 6, 3)])
def test_states_are_those_of_the_definition(requests: list[tuple[str, int, int, int]]) -> None:
    """Durable: completed before a completed flush arrived, or FUA. The newest of a block counts."""
    log = random_log(requests)
    for point in range(len(log.entries) + 1):
        seen = log.entries[:point]
        flushes = [e for e in seen if e.is_flush]
        worst, best = ["."] * BLOCKS, ["."] * BLOCKS
        for entry in seen:
            if not entry.is_write:
                continue
            block = entry.offset // BLOCK_BYTES
            best[block] = log.letters[entry.index]
            flushed = any(f.index > entry.index and entry.done_ns <= f.arrived_ns for f in flushes)
            if flushed or entry.flags & Flag.FUA:
                worst[block] = log.letters[entry.index]
        assert state(log, point, WORST) == "".join(worst)
        assert state(log, point, BEST) == "".join(best)


HISTORY = Script(
    "1-2 create a\n3-25 fsync a\n12-44 sync\n30-? fsync a\n31-33 fsync a !EIO\n46-47 chmod a 600"
).history


@pytest.mark.parametrize(
    ("mode", "points"),
    [
        (Points.FSYNC, (3, 5)),
        (Points.FLUSH, (2, 5)),
        (Points.FUA, (2, 4, 5)),
        (Points.WRITE, (1, 2, 4, 5)),
        (Points.MARK, (3,)),
        (Points.SUBSET, (1, 2, 3, 4, 5)),
        (Points.TORN, (1, 2, 3, 4, 5)),
    ],
)
def test_points_of_a_timed_log(mode: Points, points: tuple[int, ...]) -> None:
    """Entries are done at 2, 12, 22, 32 and 42; the calls returned at 25 and 44."""
    log = parse_log("a0 f .m A1 f")
    assert crash_points(log, HISTORY, mode) == points
    assert crash_points(log, HISTORY, mode, start=2) == tuple(p for p in points if p > 2)


def test_two_calls_at_one_place_are_one_point() -> None:
    history = Script("1-2 create a\n3-13 fsync a\n3-14 fsync a").history
    assert crash_points(parse_log("a0 f b0"), history, Points.FSYNC) == (2,)


def test_cut_of_a_timed_log() -> None:
    log = parse_log("a0 f b0")
    assert cut_at(log.entries, 0, HISTORY) == Cut(2, 0)
    assert cut_at(log.entries, 1, HISTORY) == Cut(12, 2)
    assert cut_at(log.entries, 3, HISTORY) == Cut(FOREVER, 22)


def test_a_sync_point_keeps_the_promise_of_its_call() -> None:
    log = parse_log("a0 f .m A1 f b2")
    for event in HISTORY.events:
        if event.succeeded and event.op.is_crash_point:
            points = crash_points(log, HISTORY, Points.FSYNC)
            kept = [p for p in points if event.end_ns < cut_at(log.entries, p, HISTORY).returned_before_ns]
            assert kept
            # nothing that was logged after its return is in the state, so nothing else can explain it
            assert log.entries[kept[0] - 1].done_ns <= event.end_ns


def test_points_and_cuts_of_a_log_with_marks_only() -> None:
    first, second = op_id(1, 1), op_id(2, 0)
    log = parse_log(f"a0 f .sync:{first}:25 b0 .sync:{second}:44 c0 .end", timed=False)
    history = Script("1-2 create a\n3-25 fsync a\n30-40 write a 0 8").history
    assert crash_points(log, history, Points.FSYNC) == (3, 5)
    assert cut_at(log.entries, 2, history) == Cut(0, 30)
    assert cut_at(log.entries, 3, history) == Cut(26, 30)
    assert cut_at(log.entries, 4, history) == Cut(26, FOREVER)
    assert cut_at(log.entries, 5, history) == Cut(45, FOREVER)
    assert cut_at(log.entries, 7, history) == Cut(45, FOREVER)


def test_marks_only_means_every_flush_counts() -> None:
    log = parse_log("a0 b1 f c2", timed=False)
    assert (state(log, 4, WORST), state(log, 4, BEST)) == ("ab..", "abc.")


def test_setup_mark_bounds_the_actors() -> None:
    """After the last op of the setup nothing of the actors can have begun."""
    script = Script("1-2 create a\n3-25 fsync a")
    setup = tuple(replace(e, actor=0, id=op_id(0, e.sequence)) for e in script.events)
    first = replace(setup[0], actor=1, id=op_id(1, 0), op=make_op("sync"), begin_ns=50, end_ns=60)
    history = replace(script.history, events=(*setup, first))
    log = parse_log(f"a0 .sync:{setup[1].id}:25 b0", timed=False)
    assert cut_at(log.entries, 2, history) == Cut(26, 50)
