"""Ops on the surroundings of the files: memory, knobs, readers, and the whole file system."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzer.kernel.knobs import kept_knobs, set_knobs_back
from fuzzer.kernel.usable import empty
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.history import Event
from fuzzer.workload.model import Actor, Op, Workload
from fuzzer.workload.ops import KNOBS, LOOKS
from tests.kernel.fresh import Fresh, fresh_file_system, op

pytestmark = pytest.mark.kernel

K, M = 1024, 1 << 20
A = (op("create", path="A"), op("write", path="A", off=0, len=64 * K), op("fsync", path="A"))


@pytest.fixture
def fresh(area: RunArea, image: Path, fs: str) -> Iterator[Fresh]:
    with fresh_file_system(area, image, fs) as fresh:
        yield fresh


@pytest.fixture
def btrfs(area: RunArea, image: Path) -> Iterator[Fresh]:
    with fresh_file_system(area, image, "btrfs") as fresh:
        yield fresh


def run(fresh: Fresh, *ops: Op) -> tuple[Event, ...]:
    """Run ops that must all succeed."""
    events = fresh.run_ops(*ops, setup=A)
    assert [(str(event.op), os.strerror(event.errno)) for event in events if not event.succeeded] == []
    return events


def knobs() -> dict[str, str]:
    """Their values while no run turns them; a campaign may be running beside this."""
    with kept_knobs():
        return {name: Path("/proc/sys/vm", name).read_text() for name in KNOBS}


def test_memory_and_caches(fresh: Fresh) -> None:
    compact, evict = run(fresh, op("compact"), op("evict", path="A"))
    assert compact.subject == 0 != evict.subject


def test_every_way_to_look(fresh: Fresh) -> None:
    """bulkstat is xfs's own."""
    events = fresh.run_ops(*(op("look", path="A", how=how) for how in LOOKS), setup=A)
    wanted = {how: errno.ENOTTY if how == "bulkstat" and fresh.fs == "btrfs" else 0 for how in LOOKS}
    assert {event.op.text("how"): event.errno for event in events} == wanted
    assert {event.subject for event in events} == {events[0].subject}


def test_growfs_takes_what_the_device_has(area: RunArea, image: Path) -> None:
    with fresh_file_system(area, image, "xfs", "-d size=300m") as xfs:
        grown, too_much = xfs.run_ops(op("growfs", blocks=256), op("growfs", blocks=1 << 20), setup=A)
        assert (grown.errno, too_much.errno) == (0, errno.ENOSPC)
        geometry = os.statvfs(xfs.path)
        grown_again, *_ = xfs.run_ops(op("growfs", blocks=1000))
        assert grown_again.errno == 0
        assert os.statvfs(xfs.path).f_blocks == geometry.f_blocks + 1000


def test_spin_keeps_the_cpu(fresh: Fresh) -> None:
    (spin,) = run(fresh, op("spin", us=20_000))
    assert spin.end_ns - spin.begin_ns >= 20_000_000


def test_label(fresh: Fresh) -> None:
    _, second = run(fresh, op("label"), op("label"))
    label = bytearray(256)
    fd = os.open(fresh.path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0x81009431, label)  # FS_IOC_GETFSLABEL
    finally:
        os.close(fd)
    assert bytes(label).rstrip(b"\0") == f"op{second.id % 10**9}".encode()


def test_fstrim(fresh: Fresh) -> None:
    run(fresh, op("fstrim"))


# Knobs.


def test_knobs_are_turned_for_one_run(fresh: Fresh) -> None:
    before = knobs()
    watch = (
        "import time; from pathlib import Path\n"
        "knob, end = Path('/proc/sys/vm/swappiness'), time.time() + 10\n"
        "while time.time() < end and knob.read_text() != '13\\n': pass\n"
        "print(knob.read_text(), end='')"
    )
    watcher = subprocess.Popen([sys.executable, "-c", watch], stdout=subprocess.PIPE, text=True)
    run(fresh, op("knob", name="swappiness", value=13), op("sleep", us=1_500_000))
    assert watcher.communicate(timeout=20)[0] == "13\n"
    assert knobs() == before


def test_knobs_are_set_back_after_a_killed_actor(fresh: Fresh) -> None:
    before = knobs()
    actor = Actor("one", (op("knob", name="swappiness", value=1), op("sleep", us=9_000_000)))
    history = fresh.run(Workload(actors=(actor,)), deadline_s=0.5)
    assert history.killed == ("one",)
    assert knobs() == before


def test_knobs_of_a_killed_run_are_set_back_by_the_next() -> None:
    before = knobs()
    pid = os.fork()
    if pid == 0:
        with kept_knobs():
            Path("/proc/sys/vm/swappiness").write_text("17")
            Path("/proc/sys/vm/dirty_ratio").write_text("9")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    set_knobs_back()
    assert knobs() == before
    assert not set_knobs_back()


# btrfs.


def test_balance_filters_by_place_and_profile(btrfs: Fresh) -> None:
    nothing, something, dup, single = run(
        btrfs,
        op("balance", type="all", vend=M),
        op("balance", type="all", vend=1 << 35),
        op("balance", type="metadata", convert="single"),
        op("balance", type="metadata", convert="dup"),
    )
    assert nothing.result == 0
    assert min(e.result for e in (something, dup, single)) >= 1


def test_balance_is_paused_and_resumed(btrfs: Fresh) -> None:
    """Alone there is nothing to pause; beside a loop of balances some call finds one under way."""
    events = btrfs.run_ops(*(op("balance_ctl", action=a) for a in ("pause", "cancel", "resume")))
    assert [event.errno for event in events] == [errno.ENOTCONN] * 3
    balancer = Actor("b", (op("balance", type="all"),), loop=20)
    actions = (op("balance_ctl", action=a) for a in ("pause", "resume", "cancel"))
    controller = Actor("c", tuple(o for action in actions for o in (action, op("sleep", us=300))), loop=None)
    history = btrfs.run(Workload(setup=A, actors=(balancer, controller)), deadline_s=60)
    assert history.killed == ()
    worked = {e.op.text("action") for e in history.events if e.op.name == "balance_ctl" and e.succeeded}
    assert worked & {"pause", "cancel"}
    btrfs.run_ops(op("balance_ctl", action="cancel"))


def test_scrub_quota_resize(btrfs: Fresh) -> None:
    run(
        btrfs,
        op("scrub"),
        op("quota", action="enable"),
        op("sleep", us=300_000),
        op("quota", action="rescan"),
        op("resize", to="smaller", by=16 * M),
        op("resize", to="max"),
        op("sleep", us=300_000),
        op("quota", action="disable"),
    )


def test_resize_changes_the_size(btrfs: Fresh) -> None:
    before = os.statvfs(btrfs.path).f_blocks
    run(btrfs, op("resize", to="smaller", by=16 * M))
    assert before - os.statvfs(btrfs.path).f_blocks == 16 * M // 4096
    run(btrfs, op("resize", to="max"))
    assert os.statvfs(btrfs.path).f_blocks == before


@pytest.mark.parametrize("compress", ["none", "zlib", "lzo", "zstd"])
def test_defrag(btrfs: Fresh, compress: str) -> None:
    before = run(btrfs, op("defrag", path="A", compress=compress))[0]
    assert before.subject
    assert (btrfs.path / "A").stat().st_size == 64 * K


def test_send_takes_read_only_snapshots(btrfs: Fresh) -> None:
    _, sent = run(btrfs, op("snapshot", source=".", path="s", access="ro"), op("send", path="s"))
    assert sent.result > 64 * K
    written, refused = btrfs.run_ops(op("create", path="s/x"), op("send", path="."))
    assert (written.errno, refused.errno) == (errno.EROFS, errno.EPERM)
    assert empty(btrfs.path) == ()
    assert list(btrfs.path.iterdir()) == []
