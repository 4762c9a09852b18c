"""I/O jitter: what its text says, what is refused, and that a schedule draws the same each time."""

from __future__ import annotations

import pytest

from fuzzer.errors import InputError
from fuzzer.workload.delay import KINDS, MAX_RULES, Delay, Schedule, delay_defect, parse_delays
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format, parse

ACTOR = "\nactor one\n  sync\n"


def test_every_part_of_a_rule() -> None:
    rules = parse_delays("data 20ms 1/8 size=4K..64K at=1M..2G, read 50us nth=3, write 1ms, metadata 2000ms")
    assert rules == (
        Delay("data", 20_000, 8, size=(4096, 65536), at=(1 << 20, 2 << 30)),
        Delay("read", 50, nth=3),
        Delay("write", 1000),
        Delay("metadata", 2_000_000),
    )


@pytest.mark.parametrize(
    "text",
    [
        "data",
        "flush 1ms",
        "data 1s",
        "data 0ms",
        "data 2001ms",
        "data 1ms 1/0",
        "data 1ms 1/2 nth=1",
        "data 1ms size=8..4",
        "data 1ms size=4 at=1",
        "data 1ms size=1..2 size=1..2",
        "data  1ms",
        "data 1ms,read 1ms",
        "data 1ms\\",
        ", ".join(["data 1ms"] * (MAX_RULES + 1)),
    ],
)
def test_bad_rules_are_refused(text: str) -> None:
    assert delay_defect(text)
    with pytest.raises(InputError, match="delay") as error:
        parse(f"powercut 1\ndelay: {text}\n{ACTOR}")
    assert ":2:8" in str(error.value.place)


def test_the_header_round_trips() -> None:
    text = f"powercut 1\ndelay: data 20ms 1/8, metadata 1ms nth=2\nseed: 5\n{ACTOR}"
    assert format(parse(text)) == text
    assert Workload().delay == ""


def test_a_rule_is_about_its_kind_size_and_place() -> None:
    about = Delay("write", 1, size=(4096, 8192), at=(0, 4096))
    assert [about.is_about(kind, 4096, 8192) for kind in ("data", "metadata", "read")] == [True, True, False]
    assert not about.is_about("data", 4096, 512)
    assert not about.is_about("data", 8192, 4096)
    assert [Delay(kind, 1).is_about("read", 0, 1) for kind in KINDS] == [False, False, False, True]


def test_schedules_draw_from_the_seed() -> None:
    def drawn(seed: int) -> list[int]:
        schedule = Schedule(parse_delays("data 1ms 1/4"), seed)
        return [schedule.hold_us("data", 0, 512) for _ in range(400)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert set(drawn(1)) == {0, 1000}
    assert 50 < drawn(1).count(1000) < 160


def test_the_nth_is_counted_among_those_the_rule_is_about() -> None:
    schedule = Schedule(parse_delays("metadata 1ms nth=2, data 2ms, write 3ms nth=1"), 1)
    kinds = ("data", "metadata", "data", "metadata", "read", "metadata")
    assert [schedule.hold_us(kind, 0, 512) for kind in kinds] == [3000, 0, 2000, 1000, 0, 0]
