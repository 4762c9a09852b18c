"""Which states are drawn: only legal ones, all of them in the end, the interesting ones first.

What a device may show after a power cut is defined here once more, in another way: per sector, from every
choice of what survived of what no flush and no FUA made durable.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzer.errors import InputError
from fuzzer.state.history import History
from fuzzer.writelog.crash import CrashState, Kept, StateBuilder
from fuzzer.writelog.image import BLOCK_BYTES, Image
from fuzzer.writelog.model import SECTOR_BYTES, Entry, Flag
from fuzzer.writelog.points import SAMPLED_STATES, Plan, Points, crash_points, parse_plan
from fuzzer.writelog.sample import choose_states

SECTORS = 16
PER_BLOCK = BLOCK_BYTES // SECTOR_BYTES
NOBODY = History(())


@dataclass
class SectorLog:
    """Writes of two sectors, forced if the letter is large; `-` discards a block."""

    entries: tuple[Entry, ...]
    letters: str
    sector_bytes: int = SECTOR_BYTES

    def payload(self, entry: Entry) -> memoryview:
        return memoryview(self.letters[entry.index].encode() * entry.length if entry.is_write else b"")


def parse_log(text: str) -> SectorLog:
    """`a3` writes a to sectors 3 and 4, `A3` with FUA, `f` flushes, `F3` flushes and writes, `-1` discards.

    `@arrived-done` gives times; by default entry n arrives at 10n+1 and is done at 10n+2.
    """
    entries = []
    for index, word in enumerate(text.split()):
        word, _, times = word.partition("@")
        arrived, done = map(int, times.split("-")) if times else (10 * index + 1, 10 * index + 2)
        place = int(word[1:] or 0)
        flags = {"f": Flag.FLUSH, "F": Flag.FLUSH | Flag.FUA, "-": Flag.DISCARD}.get(
            word[0], Flag.FUA if word[0].isupper() else Flag(0)
        )
        size = {"f": 0, "-": PER_BLOCK}.get(word[0], 2)
        offset = place * (BLOCK_BYTES if word[0] == "-" else SECTOR_BYTES)
        entries.append(
            Entry(index, flags, offset, size * SECTOR_BYTES, arrived_ns=arrived, done_ns=done)
        )  # fmt: skip
    return SectorLog(tuple(entries), "".join(word[0] for word in text.split()))


def shown(image: Image) -> str:
    return image.read(0, SECTORS * SECTOR_BYTES)[::SECTOR_BYTES].decode().replace("\0", ".")


def image_of(log: SectorLog, state: CrashState) -> str:
    return shown(StateBuilder(Image(SECTORS * SECTOR_BYTES), log).at(state))


def legal(log: SectorLog, point: int, *, torn: bool) -> set[str]:
    """All a device may show when power goes after `point` entries: the definition."""
    seen = log.entries[:point]
    durable = {
        e.index
        for e in seen
        if e.length
        and (
            e.flags & Flag.FUA
            or any(f.is_flush and f.index > e.index and e.done_ns <= f.arrived_ns for f in seen)
        )
    }
    free = [e for e in seen if e.length and e.index not in durable]
    choices: list[list[tuple[int, ...]]] = []
    for entry in free:
        sectors = tuple(range(entry.offset // SECTOR_BYTES, (entry.offset + entry.length) // SECTOR_BYTES))
        parts = torn and entry.is_write
        choices.append(
            [c for n in range(len(sectors) + 1) for c in combinations(sectors, n)] if parts else [(), sectors]
        )
    return {_content(log, seen, durable, free, choice) for choice in product(*choices)}


def _content(
    log: SectorLog,
    seen: tuple[Entry, ...],
    durable: set[int],
    free: list[Entry],
    choice: tuple[tuple[int, ...], ...],
) -> str:
    survived = {(e.index, sector) for e, sectors in zip(free, choice, strict=True) for sector in sectors}
    result = ""
    for sector in range(SECTORS):
        value = "."
        for entry in seen:
            first = entry.offset // SECTOR_BYTES
            covers = first <= sector < first + entry.length // SECTOR_BYTES
            if covers and (entry.index in durable or (entry.index, sector) in survived):
                value = "." if entry.flags & Flag.DISCARD else log.letters[entry.index]
        result += value
    return result


LOGS = (
    "a0 b1",
    "a0 b1 f c0 D1 e0",
    "a0 B0 c1 d4 f e5",
    "a0 b2 -0 c0 f d0",
    "a0 f -0 b1 c3",
    "a0 -0 -1 b9 f c9",
    "a0 F1 b1 C2 d2",
    "a0@1-5 b1@2-8 f@6-9 c1 d0",
    "a0@1-5 B1@2-8 c1@3-9 f@6-10 d0",
    "a0 b0 c0 d1",
)


def drawn(log: SectorLog, modes: tuple[Points, ...], seed: int, each: int = 40) -> tuple[CrashState, ...]:
    return choose_states(log, NOBODY, Plan(modes, each=each), random.Random(seed), fs="btrfs")


@pytest.mark.parametrize("text", LOGS)
@pytest.mark.parametrize("mode", [mode for mode in Points if mode is not Points.RECOVERY])
def test_every_state_is_legal(text: str, mode: Points) -> None:
    log = parse_log(text)
    for seed in range(10):
        states = drawn(log, (mode,), seed)
        assert bool(states) == bool(crash_points(log, NOBODY, mode))
        assert len(set(states)) == len(states)
        assert [s.point for s in states] == sorted(s.point for s in states), "built forward only"
        for state in states:
            assert image_of(log, state) in legal(log, state.point, torn=mode is Points.TORN), state


@pytest.mark.parametrize("text", LOGS)
@pytest.mark.parametrize(("modes", "torn"), [((Points.SUBSET,), False), ((Points.SUBSET, Points.TORN), True)])
def test_every_legal_state_is_reached(text: str, modes: tuple[Points, ...], torn: bool) -> None:
    """Also at points that are not cut at: what can be left there is left by the next barrier, too."""
    log = parse_log(text)
    reached: set[str] = set()
    wanted = {s for point in range(1, len(log.entries) + 1) for s in legal(log, point, torn=torn)}
    for seed in range(60):
        reached |= {image_of(log, state) for state in drawn(log, modes, seed, 400)}
        if reached == wanted:
            return
    assert reached == wanted


WORDS = st.one_of(
    st.just("f"),
    st.tuples(st.sampled_from("abcdeABCDEF"), st.integers(0, SECTORS - 2)).map(lambda t: f"{t[0]}{t[1]}"),
    st.sampled_from(["-0", "-1"]),
)


@settings(max_examples=60)
@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(0, 1 << 30))
def test_states_of_any_log_are_legal(words: list[str], seed: int) -> None:
    log = parse_log(" ".join(words))
    for mode in (Points.SUBSET, Points.TORN):
        for state in drawn(log, (mode,), seed, 20):
            assert image_of(log, state) in legal(log, state.point, torn=mode is Points.TORN)


def test_discards_run_ahead_and_lag_behind() -> None:
    """With every discard done and no write, and the other way round; also just before the forced write."""
    log = parse_log("a0 f b1 -0 c9 -1 F3")
    states = {(s.point, s.kept) for s in drawn(log, (Points.SUBSET,), 1)}
    assert (6, (3, 5)) in states
    assert (6, (2, 4)) in states
    assert image_of(log, CrashState(6, (3, 5))) == "." * SECTORS


def test_the_same_seed_gives_the_same_states() -> None:
    log = parse_log("a0 b3 c5 d7 e9 f a1")
    modes = (Points.FUA, Points.SUBSET, Points.TORN)
    assert drawn(log, modes, 7) == drawn(log, modes, 7) != drawn(log, modes, 8)


def test_budgets() -> None:
    log = parse_log(" ".join([f"a{n}" for n in range(14)] + ["f"] + [f"b{n}" for n in range(14)]))
    rng = random.Random(1)
    for plan, simple in ((Plan((Points.WRITE, Points.SUBSET), 40), 20), (Plan((Points.WRITE,), 40), 40)):
        states = choose_states(log, NOBODY, plan, rng, fs="xfs")
        assert 36 <= len(states) <= 40
        assert sum(isinstance(s.kept, Kept) for s in states) >= simple
    plan = Plan((Points.WRITE, Points.SUBSET, Points.TORN))
    assert len(choose_states(log, NOBODY, plan, rng, fs="xfs")) == 29 * 2 + 2 * SAMPLED_STATES
    assert Plan((Points.RECOVERY,), 10).recovery_states(4) == 6
    assert Plan((Points.RECOVERY,)).recovery_states(1000) == SAMPLED_STATES
    assert Plan((Points.SUBSET,)).recovery_states(1) == 0


def test_metadata_is_lost_rather_than_data() -> None:
    """One write in twenty is a log write of xfs; it is the one that is lost alone most of the time."""
    log = parse_log(" ".join(f"{'x' if n == 7 else 'a'}0" for n in range(20)))

    class XfsLog(SectorLog):
        def payload(self, entry: Entry) -> memoryview:
            return memoryview(
                b"\xfe\xed\xba\xbe" + bytes(entry.length - 4) if entry.index == 7 else b"a" * 1024
            )

    states = [
        state
        for seed in range(20)
        for state in choose_states(
            XfsLog(log.entries, log.letters),
            NOBODY,
            Plan((Points.SUBSET,), each=20),
            random.Random(seed),
            fs="xfs",
        )
    ]
    without = [
        set(range(20)) - set(s.kept) for s in states if not isinstance(s.kept, Kept) and len(s.kept) == 19
    ]
    assert sum(lost == {7} for lost in without) > 0.2 * sum(lost != {7} for lost in without)


def test_plans_are_written_as_they_are_parsed() -> None:
    assert str(parse_plan("subset,fsync")) == "fsync,subset"
    assert parse_plan("torn", 5) == Plan((Points.TORN,), 5)
    assert Plan((Points.RECOVERY,)).simple == (Points.FSYNC,)
    assert parse_plan("subset,recovery").simple == ()
    for text in ("", "fsync,", "all", "FSYNC", "fsync subset"):
        with pytest.raises(InputError):
            parse_plan(text)


def test_points_of_sampled_modes_are_around_barriers() -> None:
    assert crash_points(parse_log("a0 b0 f c0 D0 e0"), NOBODY, Points.SUBSET) == (2, 3, 4, 5, 6)
