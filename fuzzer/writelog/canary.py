"""Canaries: damage planted into a recorded log or its recovery, which the oracles must find.

They prove that the whole pipe can see a bug. A canary knows nothing of the oracles and they nothing
of it: it only changes what reaches the device. Which request it hits is drawn from a seeded stream,
so the same log and seed give the same damage.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fuzzer.state.stamps import Words, decode
from fuzzer.writelog.crash import NO_FAULTS, Faults
from fuzzer.writelog.image import BLOCK_BYTES
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.metadata import is_commit
from fuzzer.writelog.model import Entry, Flag

_SUPER_OFFSET = {"btrfs": 65536, "xfs": 0}
"""Byte offset of the primary superblock (BTRFS_SUPER_INFO_OFFSET; xfs AG 0)."""

_MAX_BLOCKS_LOOKED_AT = 4096


@dataclass(frozen=True, slots=True)
class Scene:
    """What a canary may look at: the log, the crash points about to be tried, the valid op ids."""

    log: RunLog
    points: Sequence[int]
    fs: str
    known: Words
    rng: random.Random

    def run_entries(self, end: int) -> tuple[Entry, ...]:
        """Entries of the workload before position `end`."""
        return self.log.entries[self.log.start : end]


def plan_faults(name: str, scene: Scene) -> Faults:
    """The damage of canary `name` on this log; `NO_FAULTS` if it offers no place for it."""
    return CANARIES[name](scene) if scene.points else NO_FAULTS


def _last_flush(scene: Scene) -> tuple[Entry, Sequence[Entry]] | None:
    """(a flush some sync call waited for, the writes between it and the flush before)."""
    entries = scene.run_entries(scene.rng.choice(scene.points))
    flushes = [e for e in entries if e.is_flush]
    for position in range(len(flushes) - 1, -1, -1):
        since = flushes[position - 1].index if position else scene.log.start - 1
        writes = [e for e in entries if since < e.index < flushes[position].index and e.is_write]
        if writes:
            return flushes[position], writes
    return None


def _drop_flush(scene: Scene) -> Faults:
    """A flush the device acknowledged and did not do."""
    found = _last_flush(scene)
    return Faults(dead_flushes=frozenset({found[0].index})) if found else NO_FAULTS


def _weak_flush(scene: Scene) -> Faults:
    """Flushes ahead of a superblock or log write do nothing, those behind it do all their work.

    When a sync call returns all is well; only between the two is there a state that has the new
    superblock or log record and not what it stands for. A flush between two of them is left alone.
    """
    entries = scene.log.entries[scene.log.start :]
    commits = {e.index for e in entries if is_commit(scene.fs, scene.log.payload(e))}
    ahead = {i - 1 for i in commits if i - 2 not in commits}
    return Faults(dead_flushes=frozenset(e.index for e in entries if e.is_flush and e.index in ahead))


def _drop_fua(scene: Scene) -> Faults:
    """A forced write that never arrived: the FUA write, or where the device has no FUA and the block
    layer sends write and flush instead, the write that flush was sent for."""
    point = scene.rng.choice(scene.points)
    forced = [e for e in scene.run_entries(point) if e.flags & Flag.FUA and e.is_write]
    if forced:
        return Faults(pieces={forced[-1].index: ()})
    found = _last_flush(scene)
    return Faults(pieces={found[1][-1].index: ()}) if found else NO_FAULTS


def _lose_block(scene: Scene) -> Faults:
    """One 4 KiB block of file data keeps its old content."""
    blocks = _data_blocks(scene)
    if not blocks:
        return NO_FAULTS
    entry, skip = scene.rng.choice(blocks)
    data = bytes(scene.log.payload(entry))
    return Faults(
        pieces={
            entry.index: (
                (entry.offset, data[:skip]),
                (entry.offset + skip + BLOCK_BYTES, data[skip + BLOCK_BYTES :]),
            )
        }
    )


def _swap_blocks(scene: Scene) -> Faults:
    """Two blocks of file data change places."""
    blocks = _data_blocks(scene)
    if len(blocks) < 2:
        return NO_FAULTS
    (first, skip_1), (second, skip_2) = scene.rng.sample(blocks, 2)
    contents = {e.index: bytearray(scene.log.payload(e)) for e in (first, second)}
    here, there = slice(skip_1, skip_1 + BLOCK_BYTES), slice(skip_2, skip_2 + BLOCK_BYTES)
    one, two = bytes(contents[first.index][here]), bytes(contents[second.index][there])
    contents[first.index][here], contents[second.index][there] = two, one
    return Faults(pieces={e.index: ((e.offset, bytes(contents[e.index])),) for e in (first, second)})


def _data_blocks(scene: Scene) -> list[tuple[Entry, int]]:
    """(entry, byte offset in it) of whole blocks of stamps written before the last crash point."""
    found: list[tuple[Entry, int]] = []
    for entry in scene.run_entries(scene.points[-1]):
        if not entry.is_write:
            continue
        data = scene.log.payload(entry)
        for skip in range(0, entry.length - BLOCK_BYTES + 1, BLOCK_BYTES):
            if len(found) >= _MAX_BLOCKS_LOOKED_AT:
                return found
            runs = decode(data[skip : skip + BLOCK_BYTES], 0, scene.known)
            if all(run.op > 0 for run in runs):
                found.append((entry, skip))
    return found


def _stale_super(scene: Scene) -> Faults:
    """The superblock goes back to an older version and stays there."""
    offset = _SUPER_OFFSET[scene.fs]
    writes = [e for e in scene.log.entries if e.is_write and e.offset <= offset < e.offset + e.length]
    versions: dict[bytes, Entry] = {}
    for entry in writes:
        content = bytes(scene.log.payload(entry)[offset - entry.offset :][:BLOCK_BYTES])
        if any(content):
            versions.setdefault(content, entry)
    if len(versions) < 2:
        return NO_FAULTS
    stale, entry = scene.rng.choice(list(versions.items())[:-1])
    later = [e for e in writes if e.index > max(entry.index, scene.log.start - 1)]
    pieces = {e.index: _around(scene.log, e, offset, len(stale)) for e in later}
    base = ((offset, stale),) if entry.index < scene.log.start else ()
    return Faults(pieces=pieces, base=base)


def _around(log: RunLog, entry: Entry, offset: int, length: int) -> tuple[tuple[int, bytes], ...]:
    """What `entry` writes except [offset, offset + length)."""
    data, skip = bytes(log.payload(entry)), offset - entry.offset
    return ((entry.offset, data[:skip]), (offset + length, data[skip + length :]))


def _truncate_size(scene: Scene) -> Faults:
    """A file comes back shorter than it was."""
    return Faults(truncate_seed=scene.rng.randrange(1 << 30))


CANARIES: dict[str, Callable[[Scene], Faults]] = {
    "drop-flush": _drop_flush,
    "weak-flush": _weak_flush,
    "drop-fua": _drop_fua,
    "lose-block": _lose_block,
    "swap-blocks": _swap_blocks,
    "stale-super": _stale_super,
    "truncate-size": _truncate_size,
}
"""Canaries by the name the command line knows them by."""
