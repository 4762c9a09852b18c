"""Forced writes in logs of dm-log-writes stand where they were carried out, as far as that can be told."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from oracle_cases import Script

from fuzzer.state.history import History
from fuzzer.state.stamps import encode
from fuzzer.writelog.forced import is_discard, settle, told_by_stamps
from fuzzer.writelog.format import Log
from fuzzer.writelog.image import BLOCK_BYTES, Image
from fuzzer.writelog.joined import RunLog, full_image
from fuzzer.writelog.model import SECTOR_BYTES, Entry, Flag

TAG = 7


def run_log(words: list[str], script: Script) -> RunLog:
    """`a0` writes the words of op `a` to block 0, `A0` does so with FUA, `z0` and `Z0` zeroes, `-0` discards
    it, `f` flushes, `.` marks."""
    entries, data = [], b""
    for index, word in enumerate(words):
        flags = {"f": Flag.FLUSH, ".": Flag.MARK, "-": Flag.DISCARD}.get(word[0], Flag(0))
        if word[0] in "f.":
            entries.append(Entry(index, flags))
            continue
        flags |= Flag.FUA if word[0].isupper() else Flag(0)
        offset = int(word[1:]) * BLOCK_BYTES
        entries.append(Entry(index, flags, offset, BLOCK_BYTES, len(data)))
        op = script.ops.get(word[0].lower())
        data += bytes(encode(op.id, TAG, offset, BLOCK_BYTES)) if op else bytes(BLOCK_BYTES)
    return RunLog(tuple(entries), 0, (Log(SECTOR_BYTES, tuple(entries), False, len(data), data),))


WRITES = Script(
    "create: 1-2 create x\n"
    + "\n".join(f"{name}: {10 * n}-{10 * n + 5} write x 0 4096" for n, name in enumerate("abcdeghi", 1))
)


def settled(text: str) -> str:
    words = text.split()
    log = run_log(words, WRITES)
    after = settle(log, told_by_stamps(log, WRITES.history))
    assert [entry.index for entry in after.entries] == list(range(len(words)))
    place = {id_: words[n] for n, id_ in enumerate(map(key, log.entries))}
    return " ".join(place[key(entry)] for entry in after.entries)


def key(entry: Entry) -> tuple[object, ...]:
    return entry.flags, entry.offset, entry.length, entry.data_at, entry.mark


def test_what_came_first_goes_first() -> None:
    assert settled("B0 . a0 f") == "a0 B0 . f"
    assert settled("A0 . b0 f") == "A0 . b0 f"
    assert settled("A0 -0 f") == "-0 A0 f"


def test_what_completed_before_that_goes_along() -> None:
    assert settled("C0 . a5 b0 d6 f") == "a5 b0 C0 . d6 f"
    assert settled("B0 D1 a0 c1 f") == "a0 B0 c1 D1 f"


def test_what_is_not_known_stays() -> None:
    assert settled("Z0 a0 f") == "Z0 a0 f", "a forced write without a word of ours"
    assert settled("B0 f a0 f") == "B0 f a0 f", "the flush came between"
    assert settled("B0 a1 f") == "B0 a1 f", "at another place"
    assert settled("B0 z0 f") == "z0 B0 f", "zeroes are what was there before"


def test_logs_with_times_are_in_order() -> None:
    log = run_log(["B0", "a0", "f"], WRITES)
    timed = replace(log, entries=tuple(replace(e, arrived_ns=1, done_ns=2) for e in log.entries))
    assert settle(timed, told_by_stamps(timed, WRITES.history)) is timed


def test_without_a_history_discards_still_go_first() -> None:
    log = run_log(["A0", "-0", "b0", "f"], WRITES)
    assert [int(e.flags & Flag.DISCARD) for e in settle(log, is_discard).entries] == [4, 0, 0, 0]


steps = st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.booleans()), min_size=1, max_size=8)


@given(steps)
def test_replay_makes_what_was_on_the_device(ops: list[tuple[bool, int, bool]]) -> None:
    """Ops one after the other, some forced, some followed by a flush: the kernel's log of them, settled,
    gives at each flush the image there was."""
    truth: list[str] = []
    log: list[str] = []
    held: list[str] = []
    for name, (forced, block, flushes) in zip("abcdeghi", ops, strict=False):
        word = f"{name.upper() if forced else name}{block}"
        truth.append(word)
        (log if forced else held).append(word)
        if flushes:
            truth.append("f")
            log += [*held, "f"]
            held = []
    real, logged = run_log(truth, WRITES), run_log([*log, *held], WRITES)
    after = settle(logged, told_by_stamps(logged, WRITES.history))
    assert images(after, WRITES.history) == images(real, WRITES.history)


def images(log: RunLog, history: History) -> list[int]:
    """Digests at each flush, and at the end."""
    cuts = [n + 1 for n, entry in enumerate(log.entries) if entry.is_flush]
    blank = Image(4 * BLOCK_BYTES)
    return [full_image(blank, log.entries[:cut], log.payload).digest for cut in (*cuts, len(log.entries))]
