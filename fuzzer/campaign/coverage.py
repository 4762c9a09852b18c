"""Coverage: what a run has tried, seen from outside. No instrumentation of the kernel is needed.

Four kinds, each a set of short texts per run: `overlaps`, pairs of ops that were under way at one time
on one object; `arguments`, which values their parameters had, in powers of two; `log`, the shapes of
what the device got to see; and how ops ended (`outcomes.py`). What overlaps is a matter of timing, so two
runs of one workload need not agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from fuzzer.campaign.execute import Execution
from fuzzer.state.history import Event, History
from fuzzer.workload.model import SETUP, Op
from fuzzer.workload.ops import DIRECT_ALIGN_BYTES, Kind, Role
from fuzzer.workload.pairs import is_on_everything, pair_name
from fuzzer.workload.text import format_size
from fuzzer.writelog.crash import LogData
from fuzzer.writelog.metadata import is_commit, is_metadata
from fuzzer.writelog.model import Entry, Flag

GROUPS = ("overlaps", "arguments", "log")

_WINDOW = 5
"""Length of a log shape: a commit of btrfs is four steps, one of xfs two."""


def coverage_of(execution: Execution) -> dict[str, dict[str, int]]:
    """What one run covered, by group, each text with the count 1: sums count runs."""
    fs, history, log = execution.workload.fs, execution.history, execution.log
    found = {
        "overlaps": overlaps(history),
        "arguments": arguments(event.op for event in history.events),
        "log": log_shapes(log, log.entries[log.start :], fs),
    }
    return {group: {f"{fs} {text}": 1 for text in sorted(texts)} for group, texts in found.items()}


def describe_coverage(covered: Mapping[str, Collection[str]], seen_before: Collection[str]) -> str:
    """For people: what a session covered, and how many pairs had not overlapped earlier."""
    new = set(covered["overlaps"]) - set(seen_before)
    return (
        f"covered: {len(covered['overlaps'])} pairs of ops on one object ({len(new)} for the first time), "
        f"{len(covered['arguments'])} partitions of arguments, {len(covered['log'])} log shapes"
    )


# ------------------------------------------------------------------------------------- overlapping


def overlaps(history: History) -> set[str]:
    """Pairs of ops of two actors that ran at one time on one inode; some work on all of them at once."""
    found: set[str] = set()
    running: list[Event] = []
    for event in history.events:
        if event.actor == SETUP or event.op.spec.role is Role.CONTROL:
            continue
        running = [other for other in running if other.end_ns >= event.begin_ns]
        found |= {pair_name(event.op.name, other.op.name) for other in running if _meet(event, other)}
        running.append(event)
    return found


def _meet(one: Event, other: Event) -> bool:
    if one.actor == other.actor:
        return False
    if is_on_everything(one.op.name) or is_on_everything(other.op.name):
        return True
    return bool(_objects(one) & _objects(other))


def _objects(event: Event) -> set[int]:
    return {event.subject, event.other, event.directory, event.directory2} - {0}


# --------------------------------------------------------------------------------------- arguments


def arguments(ops: Iterable[Op]) -> set[str]:
    """`write len 4K`, `write len 2K+ odd`, `fallocate mode=punch`: each op's parameters, in partitions."""
    return {f"{op.name} {text}" for op in ops for text in _partitions(op)}


def _partitions(op: Op) -> Iterator[str]:
    for param, (name, value) in zip(op.spec.params, op.args, strict=True):
        if param.kind is Kind.CHOICE:
            yield f"{name}={value}"
        elif param.kind in (Kind.BYTES, Kind.NUMBER) and isinstance(value, int):
            yield f"{name} {_partition(value)}"


def _partition(value: int) -> str:
    """Zero, the power of two, or the one below; `odd` if no block begins there."""
    floor = 1 << value.bit_length() - 1 if value else 0
    text = format_size(floor) + ("+" if value > floor else "")
    return text + (" odd" if value > DIRECT_ALIGN_BYTES and value % DIRECT_ALIGN_BYTES else "")


# -------------------------------------------------------------------------------------- log shapes


def log_shapes(log: LogData, entries: Iterable[Entry], fs: str) -> set[str]:
    """Runs of `D`ata, `M`etadata, `C`ommits (a superblock or log record), `F`lushes and `T`rims, repeats
    taken together: all pieces of some length, such as `DMFCF`. A forced write has a `!`."""
    steps: list[str] = []
    for entry in entries:
        step = _step(log, entry, fs)
        if step and step != (steps[-1] if steps else ""):
            steps.append(step)
    return {"".join(steps[i : i + _WINDOW]) for i in range(max(1, len(steps) - _WINDOW + 1))} - {""}


def _step(log: LogData, entry: Entry, fs: str) -> str:
    if entry.flags & Flag.DISCARD:
        return "T"
    if not entry.is_write:
        return "F" if entry.is_flush else ""
    payload = log.payload(entry)
    kind = "C" if is_commit(fs, payload) else "M" if is_metadata(fs, payload) else "D"
    return ("F" if entry.is_flush else "") + kind + ("!" if entry.flags & Flag.FUA else "")
