"""I/O jitter: a held request lets others pass, and the log stays the truth about when things completed."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fuzzer.campaign.examine import examine
from fuzzer.campaign.execute import execute
from fuzzer.campaign.lane import Lane, open_lane
from fuzzer.kernel.recorder.base import DelayedIO
from fuzzer.kernel.recorder.fuse import FuseRecorder, fuse_recorder
from fuzzer.kernel.recorder.reactor import MAX_HELD
from fuzzer.kernel.workarea import RunArea, run_area
from fuzzer.state.stamps import decode
from fuzzer.workload.text import parse
from fuzzer.writelog.crash import OpenEntries
from fuzzer.writelog.format import Log, read_log
from fuzzer.writelog.model import Entry
from fuzzer.writelog.points import Plan

pytestmark = pytest.mark.kernel

BLOCK, BYTES = 4096, 1 << 20
ATTEMPTS = 8


@pytest.fixture
def area() -> Iterator[RunArea]:
    with run_area() as area:
        yield area


@pytest.fixture
def fuse(area: RunArea) -> Iterator[FuseRecorder]:
    with fuse_recorder(area) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with open_lane("fuse") as lane:
        yield lane


def write_block(device: str, number: int) -> None:
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, BLOCK) as block:
        block[:] = bytes([number + 1]) * BLOCK
        os.pwrite(fd, block, number * BLOCK)
    os.close(fd)


def flush(device: str) -> None:
    fd = os.open(device, os.O_RDWR)
    os.fsync(fd)
    os.close(fd)


def image_of(log: Log) -> bytes:
    image = bytearray(BYTES)
    for entry in log.entries:
        image[entry.offset : entry.offset + entry.length] = log.payload(entry)
    return bytes(image)


def record_held(area: RunArea, fuse: FuseRecorder, attempt: int) -> tuple[Log, Path]:
    """Block 0 is held while block 1 and a flush are on their way."""
    image, path = area.path / f"image-{attempt}", area.path / f"log-{attempt}"
    with image.open("xb") as file:
        file.truncate(BYTES)
    delay = DelayedIO("xfs", f"write {100 << attempt // 2}ms at=0..0", 1)
    with fuse.record(image, path, delay) as recorded:
        first = threading.Thread(target=write_block, args=(recorded.device, 0))
        first.start()
        threading.Event().wait(0.02)
        write_block(recorded.device, 1)
        flush(recorded.device)
        first.join()
    return read_log(path), image


def test_a_held_write_lets_others_and_a_flush_pass(area: RunArea, fuse: FuseRecorder) -> None:
    """Whoever passes whom, the log is in order of completion and makes the image."""
    for attempt in range(ATTEMPTS):
        log, image = record_held(area, fuse, attempt)
        done = [entry.done_ns for entry in log.entries]
        assert done == sorted(done)
        assert image_of(log) == image.read_bytes()
        held, other = (next(e for e in log.entries if e.is_write and e.offset == at) for at in (0, BLOCK))
        assert held.done_ns - held.arrived_ns >= 100_000_000
        flushes = [e for e in log.entries if e.is_flush and e.arrived_ns > other.done_ns]
        if held.arrived_ns < other.arrived_ns and flushes and flushes[0].index < held.index:
            break
    else:
        pytest.fail(f"nothing passed the held write in {ATTEMPTS} attempts")
    opened = OpenEntries()
    for entry in log.entries[: flushes[0].index + 1]:
        durable = opened.advance(entry)
    assert [entry.index for entry in durable] == [other.index]
    opened.advance(held)
    assert opened.may_be_lost == (held,)


def test_more_than_can_be_held_are_not(area: RunArea, fuse: FuseRecorder) -> None:
    """All writes are chosen: those beyond the limit go on, and nothing is lost."""
    image, path = area.path / "image", area.path / "log"
    with image.open("xb") as file:
        file.truncate(BYTES)
    with fuse.record(image, path, DelayedIO("btrfs", "write 30ms", 1)) as recorded:
        writers = [
            threading.Thread(target=write_block, args=(recorded.device, n)) for n in range(3 * MAX_HELD)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    log = read_log(path)
    assert sorted(e.offset for e in log.entries if e.is_write) == [n * BLOCK for n in range(3 * MAX_HELD)]
    assert image_of(log) == image.read_bytes()


@pytest.mark.parametrize("fs", ["btrfs", "xfs"])
def test_one_actor_is_held_and_the_other_goes_on(lane: Lane, fs: str) -> None:
    """Told apart by the size of what they write: while a write of one is held, those of the other pass."""
    text = """powercut 1
delay: data 200ms size=8K..8K

setup
  create a
  create b
  fallocate a 0 8K
  fallocate b 0 4K
  sync

actor held loop=4
  dwrite a 0 8K

actor free loop=others
  dwrite b 0 4K
"""
    execution = execute(lane, parse(text).with_fs(fs))
    log, history = execution.log, execution.history
    ids = {number: [e.id for e in history.events if e.actor == number] for number in (1, 2)}

    def written_by(actor: int) -> list[Entry]:
        known = np.array(sorted(ids[actor]), dtype=np.uint64)
        writes = [entry for entry in log.entries if entry.is_write]
        return [e for e in writes if any(run.op > 0 for run in decode(log.payload(e), 0, known))]

    held, free = written_by(1), written_by(2)
    assert len(held) == 4
    assert all(entry.done_ns - entry.arrived_ns >= 200_000_000 for entry in held)
    passed = [o for h in held for o in free if h.arrived_ns < o.arrived_ns and o.done_ns < h.done_ns]
    assert passed


@pytest.mark.parametrize("fs", ["btrfs", "xfs"])
def test_a_delayed_workload_is_sound(lane: Lane, fs: str) -> None:
    """Requests of every kind are held in a whole run; it ends as promised and its log makes the device."""
    text = """powercut 1
delay: data 5ms 1/2, metadata 3ms 1/3, read 2ms

setup
  create a
  create b
  sync

actor one loop=4
  write a rand(0,60K,4K) 4K
  fsync a

actor two loop=4
  dwrite b rand(0,60K,4K) 4K sync=dsync
"""
    workload = parse(text).with_fs(fs)
    execution = execute(lane, workload)
    assert all(event.succeeded for event in execution.history.events)
    done = [entry.done_ns for entry in execution.log.entries]
    assert done == sorted(done)
    assert any(entry.done_ns - entry.arrived_ns > 2_900_000 for entry in execution.log.entries)
    assert not examine(lane, execution, Plan()).forbidden
    assert execute(lane, replace(workload, delay="")).history.events
