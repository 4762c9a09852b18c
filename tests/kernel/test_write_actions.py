"""Ways to write other than write(2): out of a pipe, and with flags of pwritev2(2)."""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fuzzer.kernel.aio import AsyncWrites
from fuzzer.kernel.imagefile import store_image
from fuzzer.kernel.recorder import open_recorder
from fuzzer.kernel.recorder.base import DelayedIO
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.history import Event
from fuzzer.state.stamps import Run, decode, file_tag
from fuzzer.workload.model import Actor, Workload
from fuzzer.writelog.image import Image
from tests.kernel.fresh import Fresh, fresh_file_system, op

pytestmark = pytest.mark.kernel

K, M = 1024, 1 << 20
A = (op("create", path="A"), op("write", path="A", off=0, len=64 * K), op("fsync", path="A"))


@pytest.fixture
def fresh(area: RunArea, image: Path, fs: str) -> Iterator[Fresh]:
    with fresh_file_system(area, image, fs) as fresh:
        yield fresh


def shows(fresh: Fresh, event: Event) -> bool:
    """Whether the file holds, where the op wrote, what it wrote, for as many bytes as it said."""
    offset = event.op.number("off")
    data = (fresh.path / "A").read_bytes()[offset : offset + event.result]
    runs = decode(data, offset, np.array([event.id], dtype=np.uint64))
    return runs == (Run(offset, offset + event.result, event.id, file_tag(event.subject), 0),)


def test_splice_writes_what_the_pipe_held(fresh: Fresh) -> None:
    small, large = fresh.run_ops(
        op("splice", path="A", off=4096, len=24 * K), op("splice", path="A", off=M, len=4 * M), setup=A
    )
    assert (small.errno, small.result) == (0, 24 * K)
    assert shows(fresh, small)
    assert large.errno == 0
    assert 0 < large.result <= M
    fresh.remount()
    assert shows(fresh, small)
    assert shows(fresh, large)


def test_an_append_says_where_it_began(fresh: Fresh) -> None:
    """Its stamps are those of offset 0, wherever it ended up."""
    events = fresh.run_ops(
        op("append", path="A", len=8),
        op("append", path="A", len=24 * K, sync="dsync"),
        op("append", path="A", len=4 * K, sync="rwf_dsync"),
        setup=A,
    )
    assert [(e.errno, e.result) for e in events] == [(0, 64 * K), (0, 64 * K + 8), (0, 88 * K + 8)]
    fresh.remount()
    found = decode((fresh.path / "A").read_bytes(), 0, np.array([e.id for e in events], dtype=np.uint64))
    tag = file_tag(events[0].subject)
    starts = [64 * K, 64 * K + 8, 88 * K + 8, 92 * K + 8]
    wanted = [
        Run(start, end, e.id, tag, start) for e, start, end in zip(events, starts, starts[1:], strict=False)
    ]
    assert list(found[-3:]) == wanted


def test_appends_of_two_actors_do_not_meet(fresh: Fresh) -> None:
    """Each has a place of its own, the one it said."""
    actors = tuple(Actor(name, (op("append", path="A", len=8 * K),), loop=50) for name in ("one", "two"))
    history = fresh.run(Workload(setup=(op("create", path="A"),), actors=actors))
    events = [e for e in history.events if e.op.name == "append"]
    assert sorted(e.result for e in events) == [8 * K * n for n in range(100)]
    found = decode((fresh.path / "A").read_bytes(), 0, history.known_ids())
    assert {(run.op, run.start, run.shift) for run in found} == {(e.id, e.result, e.result) for e in events}


def test_buffered_flags(fresh: Fresh) -> None:
    """nowait may be refused at any time, and dontcache be unknown (pwritev2(2)); what they write is there."""
    events = fresh.run_ops(
        *(op("write", path="A", off=4096 * n, len=8 * K, rwf="nowait") for n in range(4)),
        op("write", path="A", off=40 * K, len=8 * K, rwf="dontcache"),
        setup=A,
    )
    assert {event.errno for event in events} <= {0, errno.EAGAIN, errno.EOPNOTSUPP}
    fresh.remount()
    for event in events[3:]:
        assert event.failed or shows(fresh, event)


def test_direct_flags(fresh: Fresh) -> None:
    nowait, atomic, crooked = fresh.run_ops(
        op("dwrite", path="A", off=8 * K, len=4 * K, rwf="nowait"),
        op("dwrite", path="A", off=16 * K, len=4 * K, rwf="atomic"),
        op("dwrite", path="A", off=4 * K, len=12 * K, rwf="atomic"),
        setup=A,
    )
    assert nowait.errno in (0, errno.EAGAIN)
    assert atomic.errno in (0, errno.EOPNOTSUPP, errno.EINVAL)
    assert crooked.errno in (errno.EINVAL, errno.EOPNOTSUPP)
    for event in (nowait, atomic):
        assert event.failed or shows(fresh, event)


def test_one_write_of_several_buffers(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Actors are forked, so they call what stands here: a write of one buffer is refused."""
    pwritev = os.pwritev

    def of_several(fd: int, buffers: list[memoryview], offset: int, flags: int) -> int:
        if len(buffers) == 1:
            raise OSError(errno.ENOTSUP, "one buffer")
        return pwritev(fd, buffers, offset, flags)

    fresh.run_ops(*A)
    monkeypatch.setattr(os, "pwritev", of_several)
    events = fresh.run_ops(
        op("write", path="A", off=8, len=10 * K + 8, buffers=3),
        op("dwrite", path="A", off=16 * K, len=12 * K, buffers=64),
    )
    assert [(e.errno, e.result) for e in events] == [(0, 10 * K + 8), (0, 12 * K)]
    fresh.remount()
    assert all(shows(fresh, event) for event in events)


@pytest.mark.parametrize("sync", ["none", "dsync", "sync", "rwf_dsync"])
def test_writes_under_way_at_once(fresh: Fresh, sync: str) -> None:
    """More parts than blocks, parts that are no whole blocks, and one part."""
    events = fresh.run_ops(
        op("awrite", path="A", off=4 * K, len=4 * K, parts=64, sync=sync),
        op("awrite", path="A", off=64 * K, len=3 * K, parts=2, sync=sync),
        op("awrite", path="A", off=M, len=256 * K, parts=16, sync=sync),
        op("awrite", path="A", off=8 * K, len=4 * K, parts=1, sync=sync),
        setup=A,
    )
    assert [(e.errno, e.result) for e in events] == [(0, 4 * K), (0, 3 * K), (0, 256 * K), (0, 4 * K)]
    fresh.remount()
    assert all(shows(fresh, event) for event in events)


def test_parts_are_in_flight_together(area: RunArea) -> None:
    """The device holds each for 0.3 s: one behind the other they would take 1.2."""
    disk, log = area.path / "disk.img", area.path / "run.log"
    with open_recorder("fuse", area) as recorder:
        store_image(Image(1 << 26), disk)
        with recorder.record(disk, log, DelayedIO("xfs", "data 300ms 1/1", 1)) as recorded:
            fd = os.open(recorded.device, os.O_RDWR | os.O_DIRECT)
            with mmap.mmap(-1, 64 * K) as memory:
                parts = [memoryview(memory)[start : start + 16 * K] for start in range(0, 64 * K, 16 * K)]
                began = time.monotonic()
                assert AsyncWrites().write(fd, parts, 0) == [16 * K] * 4
                assert 0.3 <= time.monotonic() - began < 1.0
                del parts
            os.close(fd)


def test_what_the_kernel_refuses(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(OSError, match="io_submit") as caught:
        AsyncWrites().write(fd, [memoryview(bytearray(512))], 0)
    assert caught.value.errno == errno.EBADF
    os.close(fd)
