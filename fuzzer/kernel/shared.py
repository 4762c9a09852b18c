"""Memory that actors and their parent share: the log of ops, flags, barrier counts.

Everything is one aligned store by one writer, so there are no locks, logging costs no system call, and
a killed actor leaves a log that is right up to its last store.
"""

from __future__ import annotations

import mmap
import struct
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fuzzer.state.history import RECORD, SEEN
from fuzzer.state.stamps import Words
from fuzzer.workload.model import MAX_ACTORS, MAX_SEQUENCE, Actor, Workload, op_id

FREE_RUNNING_ROWS = 20_000
"""An actor without a loop count stops after this many ops: its log has to have a size."""

MAX_SEEN = 1 << 13
"""Runs recorded of what one actor's reads return; what comes later is not recorded."""

_ACTORS = MAX_ACTORS + 1
_CRASH_BYTES = 4096
_WORD = 8

BEGIN, END, RESULT, SUBJECT, OTHER = range(5)
"""Index of a field among the 8-byte words of a row; RECORD starts with these."""

BODY_OFFSET = SUBJECT * _WORD
BODY = struct.Struct("<4Q6I")
"""From `subject` to the end of RECORD: what is known of an op before it begins."""

GENERATIONS_OFFSET = BODY_OFFSET + 4 * _WORD
ERRNO_OFFSET = RECORD.itemsize - 4

ROW_WORDS = RECORD.itemsize // _WORD

assert BODY_OFFSET + BODY.size == RECORD.itemsize
assert (RECORD.names or ())[:5] == ("begin_ns", "end_ns", "result", "subject", "other")


def shared_memory(size: int) -> mmap.mmap:
    """Zeroed memory that stays shared after a fork.

    Populated by the parent, so that it is charged to the parent's memory cgroup: an actor under
    pressure must not wait for memory in order to log.
    """
    return mmap.mmap(-1, max(size, 1), mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)


def row_capacity(workload: Workload, number: int) -> int:
    """Rows the log of actor `number` needs."""
    ops = len(workload.block(number))
    actor: Actor | None = workload.actors[number - 1] if number else None
    if actor is None or ops == 0:
        return ops
    wanted = FREE_RUNNING_ROWS if actor.loop is None else actor.loop * ops
    return min(wanted, MAX_SEQUENCE)


class Rows:
    """One actor's log: RECORD rows, of which the actor writes the first, second, third …"""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._memory = shared_memory(capacity * RECORD.itemsize)
        self.bytes = memoryview(self._memory)
        self.words = self.bytes[: capacity * RECORD.itemsize].cast("Q")

    def records(self) -> NDArray[np.void]:
        """A copy of the rows that were begun."""
        rows = np.frombuffer(self._memory, dtype=RECORD, count=self.capacity)
        begun: NDArray[np.void] = rows[rows["begin_ns"] != 0]
        # A generation is stored before its number; an actor killed between the two knew nothing yet.
        for field in ("subject", "other"):
            begun[field + "_gen"][begun[field] == 0] = 0
        return begun

    def close(self) -> None:
        self.words.release()
        self.bytes.release()
        self._memory.close()


class SeenRuns:
    """What one actor's reads returned: SEEN rows behind a count of those that are complete."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._memory = shared_memory(_WORD + capacity * SEEN.itemsize)

    def add(self, rows: NDArray[np.void]) -> None:
        """Append all rows, or none if there is no room for all. The count is stored last."""
        count = int.from_bytes(self._memory[:_WORD], "little")
        if count + len(rows) > self.capacity:
            return
        at = _WORD + count * SEEN.itemsize
        self._memory[at : at + rows.nbytes] = rows.tobytes()
        self._memory[:_WORD] = (count + len(rows)).to_bytes(_WORD, "little")

    def rows(self) -> NDArray[np.void]:
        """A copy of the complete rows."""
        count = int.from_bytes(self._memory[:_WORD], "little")
        return np.frombuffer(self._memory, dtype=SEEN, count=count, offset=_WORD).copy()

    def close(self) -> None:
        self._memory.close()


def _seen_capacity(workload: Workload, number: int) -> int:
    return MAX_SEEN if any(op.name == "read" for op in workload.block(number)) else 0


class Board:
    """Flags and counts all actors of a run see. Actor numbers are the workload's."""

    def __init__(self, barriers: tuple[str, ...]) -> None:
        self._barriers = barriers
        self._flags = shared_memory(1 + 2 * _ACTORS)
        self._counts_memory = shared_memory(_ACTORS * max(len(barriers), 1) * _WORD)
        self._counts = memoryview(self._counts_memory).cast("Q")
        self._crashes = shared_memory(_ACTORS * _CRASH_BYTES)

    def open_gate(self) -> None:
        self._flags[0] = 1

    def close_gate(self) -> None:
        self._flags[0] = 0

    def gate_is_open(self) -> bool:
        return self._flags[0] == 1

    def mark_started(self, actor: int) -> None:
        self._flags[1 + actor] = 1

    def mark_ended(self, actor: int) -> None:
        self._flags[1 + _ACTORS + actor] = 1

    def all_started(self, actors: tuple[int, ...]) -> bool:
        """True if each of `actors` has started (or has ended before it could)."""
        return all(self._flags[1 + actor] or self._flags[1 + _ACTORS + actor] for actor in actors)

    def all_ended(self, actors: tuple[int, ...]) -> bool:
        return all(self._flags[1 + _ACTORS + actor] for actor in actors)

    def arrive(self, actor: int, barrier: str) -> int:
        """Count an arrival; returns how many times `actor` has arrived."""
        place = self._place(actor, barrier)
        self._counts[place] += 1
        return self._counts[place]

    def all_arrived(self, actors: tuple[int, ...], barrier: str, times: int) -> bool:
        """True if each of `actors` has arrived `times` times or has ended."""
        return all(
            self._counts[self._place(actor, barrier)] >= times or self._flags[1 + _ACTORS + actor]
            for actor in actors
        )

    def _place(self, actor: int, barrier: str) -> int:
        return actor * len(self._barriers) + self._barriers.index(barrier)

    def write_crash(self, actor: int, text: str) -> None:
        """Leave the reason an actor could not go on, for the parent to raise."""
        raw = text.encode(errors="replace")[-_CRASH_BYTES:]
        self._crashes[actor * _CRASH_BYTES : actor * _CRASH_BYTES + len(raw)] = raw

    def crash(self, actor: int) -> str:
        raw = self._crashes[actor * _CRASH_BYTES : (actor + 1) * _CRASH_BYTES]
        return raw.rstrip(b"\0").decode(errors="replace")

    def close(self) -> None:
        self._counts.release()
        for memory in (self._flags, self._counts_memory, self._crashes):
            memory.close()


_NO_IDS: Words = np.zeros(0, dtype=np.uint64)


def _possible_ids(rows: tuple[Rows, ...]) -> Words:
    firsts = ((op_id(number, 0), log.capacity) for number, log in enumerate(rows))
    return np.concatenate([np.arange(first, first + count, dtype=np.uint64) for first, count in firsts])


class SharedRun:
    """All shared memory of one run of a workload."""

    def __init__(self, workload: Workload) -> None:
        ops = workload.iter_ops()
        names = {op.text("name") for op in ops if op.name == "barrier"}
        self.board = Board(tuple(sorted(names)))
        numbers = range(len(workload.actors) + 1)
        self.rows = tuple(Rows(row_capacity(workload, n)) for n in numbers)
        self.seen = tuple(SeenRuns(_seen_capacity(workload, n)) for n in numbers)
        self.ids = _possible_ids(self.rows) if any(seen.capacity for seen in self.seen) else _NO_IDS
        """Ids of all ops the run may come to, sorted: what a read can tell apart from foreign words."""

    def __enter__(self) -> SharedRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.board.close()
        for rows in self.rows:
            rows.close()
        for seen in self.seen:
            seen.close()
