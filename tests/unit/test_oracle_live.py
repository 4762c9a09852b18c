"""Reads of the running file system: what they may return, by hand and against the model."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from oracle_bugs import flip_bit, shift_block
from oracle_cases import Script, make_run
from oracle_disk import PAGE
from oracle_runner import Runner

from fuzzer.state.history import History
from oracles import PROFILES, build_versions, judge_reads

A = "1-2 create a\n"
V = A + "v: 3-4 write a 0 8192\n"


@dataclass(frozen=True)
class Row:
    """`history` has one read labelled `r`; `passes` and `fails` are what it returned, as `Has.runs`."""

    name: str
    history: str
    passes: tuple[str, ...]
    fails: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return self.name


ROWS = (
    Row(
        "a write that returned",
        V + "r: 5-6 read a 0 8192",
        ("v:0-8192",),
        (
            ("lost-to-zero", "v:0-4096 0:4096-8192"),
            ("misplaced-data", "v@4096:0-4096 v:4096-8192"),
            ("foreign-data", "v:0-512 ?:512-1024 v:1024-8192"),
            ("short-read", "v:0-4096"),
            ("short-read", ""),
        ),
    ),
    Row(
        "an overwrite that returned",
        V + "w: 5-6 write a 4096 8\nr: 7-8 read a 0 8192",
        ("v:0-4096 w:4096-4104 v:4104-8192",),
        (("old-data", "v:0-8192"),),
    ),
    Row(
        "an overwrite under way: word by word",
        V + "w: 5-8 write a 0 8192\nr: 6-7 read a 0 8192",
        ("v:0-8192", "w:0-8192", "v:0-4096 w:4096-8192", "w:0-8 v:8-8192"),
        (("lost-to-zero", "0:0-8192"),),
    ),
    Row(
        "an overwrite that comes later",
        V + "r: 5-6 read a 0 8192\nw: 7-8 write a 0 8192",
        ("v:0-8192",),
        (("misplaced-data", "w:0-8192"),),
    ),
    Row(
        "an overwrite that never returned",
        V + "w: 5-? write a 0 8192\nr: 50-60 read a 0 8192",
        ("v:0-8192", "w:0-8192"),
        (("lost-to-zero", "0:0-8192"),),
    ),
    Row(
        "an append under way: the end of file is before it or behind it",
        V + "w: 5-8 write a 8192 4096\nr: 6-7 read a 0 65536",
        ("v:0-8192", "v:0-8192 w:8192-12288"),
        (("read-past-end", "v:0-8192 w:8192-12288 0:12288-16384"), ("short-read", "v:0-4096")),
    ),
    Row(
        "a truncate that returned",
        V + "5-6 truncate a 4096\nr: 7-8 read a 0 8192",
        ("v:0-4096",),
        (("old-data", "v:0-8192"), ("read-past-end", "v:0-4096 0:4096-8192"), ("short-read", "v:0-8")),
    ),
    Row(
        "a truncate under way",
        V + "5-8 truncate a 4096\nr: 6-7 read a 0 8192",
        ("v:0-4096", "v:0-8192", "v:0-4096 0:4096-8192"),
        (("short-read", "v:0-8"), ("read-past-end", "v:0-8192 0:8192-8200")),
    ),
    Row(
        "grown again after a truncate: zeroes in between",
        V + "5-6 truncate a 8\n7-8 truncate a 8192\nr: 9-10 read a 0 8192",
        ("v:0-8 0:8-8192",),
        (("old-data", "v:0-8192"), ("short-read", "v:0-8")),
    ),
    Row(
        "a hole that was punched",
        V + "5-6 fallocate a 0 4096 mode=punch\nr: 7-8 read a 0 8192",
        ("0:0-4096 v:4096-8192",),
        (("old-data", "v:0-8192"),),
    ),
    Row(
        "a store through a mapping, read past the cache",
        V + "w: 5-6 mwrite a 0 4096\nr: 7-8 read a 0 4096 direct=yes",
        ("w:0-4096",),
        (("old-data-direct", "v:0-4096"),),
    ),
    Row(
        "a direct write that raced a store through a mapping promises nothing",
        V + "w: 5-8 dwrite a 0 4096\nm: 6-7 mwrite a 0 8\nr: 9-10 read a 0 4096",
        ("m:0-8 v:8-4096", "m:0-8 w:8-4096", "w:0-4096"),
        (("lost-to-zero", "m:0-8 0:8-4096"),),
    ),
    Row(
        "a clone that returned",
        V + "5-6 create b\nu: 7-8 write b 0 4096\n9-10 clone a b 4096 0 4096\nr: 11-12 read b 0 4096",
        ("v/a@4096:0-4096",),
        (("old-data", "u:0-4096"), ("misplaced-data", "v/a@0:0-4096")),
    ),
    Row(
        "a sync call lost data: what was written before may be gone",
        V + "5-6 fsync a !EIO\nr: 7-8 read a 0 8192",
        ("v:0-8192", "v:0-4096 0:4096-8192"),
        (),
    ),
    Row(
        "collapse moves data: only that it is somebody's",
        V + "w: 5-6 write a 8192 4096\n7-8 fallocate a 0 4096 mode=collapse\nr: 9-10 read a 0 4096",
        ("v@4096:0-4096", "w@8192:0-4096"),
        (("foreign-data", "?:0-4096"),),
    ),
)


def violations(history: History) -> list[str]:
    return [violation.kind for violation in judge_reads(PROFILES["xfs"], build_versions(history)).violations]


def seen(row: Row, returned: str) -> History:
    """The history, with what the read labelled `r` returned."""
    script = Script(row.history)
    read = script.ops["r"]
    runs = tuple(make_run(script, read.subject, word) for word in returned.split())
    result = runs[-1].end - read.op.number("off") if runs else 0
    changed = [replace(e, seen=runs, result=result) if e is read else e for e in script.history.events]
    return replace(script.history, events=tuple(changed))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_reads_that_are_right(row: Row) -> None:
    for returned in row.passes:
        assert violations(seen(row, returned)) == [], returned


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_reads_that_are_wrong(row: Row) -> None:
    for kind, returned in row.fails:
        assert kind in violations(seen(row, returned)), returned


def test_words_of_an_op_that_never_began_are_foreign() -> None:
    history = seen(ROWS[3], "w:0-8192")
    assert violations(replace(history, events=history.events[:-1])) == ["foreign-data"]


def test_damage_is_no_answer() -> None:
    for number, expected in ((errno.EIO, ["read-error"]), (errno.ENOMEM, []), (errno.EINVAL, [])):
        script = Script(ROWS[0].history)
        events = (*script.history.events[:-1], replace(script.ops["r"], errno=number))
        assert violations(replace(script.history, events=events)) == expected


def test_what_was_not_recorded_is_counted() -> None:
    script = Script(ROWS[0].history)
    events = (*script.history.events[:-1], replace(script.ops["r"], result=8192))
    judgement = judge_reads(PROFILES["xfs"], build_versions(replace(script.history, events=events)))
    assert (judgement.violations, judgement.judged, judgement.no_promise) == ((), 1, 1)


# Against the model: legal reads pass, and planted bugs are found.

HISTORIES = 300
Page = Callable[[Runner, int, int], bytes]


def run(seed: int, fs: str) -> Runner:
    runner = Runner(seed, fs, actors=2 + seed % 3, ops=6 + seed % 17, readers=1)
    runner.run()
    return runner


def test_reads_of_the_model_are_allowed(fs: str) -> None:
    reads = 0
    for seed in range(HISTORIES):
        history = run(seed, fs).history()
        judgement = judge_reads(PROFILES["xfs"], build_versions(history))
        assert not judgement.violations, (seed, judgement.violations[0])
        reads += judgement.judged
    assert reads > HISTORIES


def _from_disk(runner: Runner, inode: int, page: int) -> bytes:
    """The cache is dropped while it is dirty."""
    block = runner.disk.world.inodes[inode].blocks.get(page)
    return bytes(PAGE) if block is None else runner.disk.read_block(block)


def _damaged(damage: Callable[[bytes, random.Random], bytes]) -> Page:
    def page_for_read(runner: Runner, inode: int, page: int) -> bytes:
        found = runner.core.cached(inode).page(page)
        return damage(found, runner.rng) if any(found[:512]) else found

    return page_for_read


@pytest.mark.parametrize(
    ("page_for_read", "expected"),
    [
        (_from_disk, {"lost-to-zero"}),
        (_damaged(flip_bit), {"foreign-data"}),
        (_damaged(shift_block), {"misplaced-data"}),
        (_damaged(lambda found, _: bytes(len(found))), {"lost-to-zero"}),
        (_damaged(lambda found, _: found[:-1024]), {"short-read"}),
    ],
    ids=["dirty-dropped", "bit", "shifted", "zeroed", "short"],
)
def test_planted_read_bugs_are_found(
    fs: str, page_for_read: Page, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, "page_for_read", page_for_read)
    found: set[str] = set()
    for seed in range(HISTORIES):
        found |= set(violations(run(seed, fs).history()))
        if expected <= found:
            return
    pytest.fail(f"saw {sorted(found)} of {sorted(expected)}")


def test_thousands_of_reads_take_seconds_at_most() -> None:
    """As many as can be recorded, beside as many writes as a long workload has."""
    lines = ["1-2 create a"]
    for n in range(4000):
        lines.append(f"w{n}: {10 * n + 3}-{10 * n + 4} write a {n % 16 * 4096} 4096")
        lines.append(f"r{n}: {10 * n + 5}-{10 * n + 6} read a 0 65536")
    script = Script("\n".join(lines))
    last: dict[int, str] = {}
    events = {event.id: event for event in script.history.events}
    for n in range(4000):
        last[n % 16] = f"w{n}:{n % 16 * 4096}-{n % 16 * 4096 + 4096}"
        read = script.ops[f"r{n}"]
        runs = tuple(make_run(script, read.subject, word) for _, word in sorted(last.items()))
        events[read.id] = replace(read, seen=runs, result=runs[-1].end)
    history = replace(script.history, events=tuple(events.values()))
    started = time.process_time()
    assert violations(history) == []
    assert time.process_time() - started < 10
