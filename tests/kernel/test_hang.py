"""A file system that never answers: a finding, and the campaign goes on. The device under it is a FUSE
file whose server has stopped; aborting the FUSE connection is what ends the hang."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from fuzzer.campaign import lane as lane_module
from fuzzer.campaign import recover as recover_module
from fuzzer.campaign.finding import load_finding
from fuzzer.campaign.fuzz import Totals, fuzz
from fuzzer.campaign.index import open_index
from fuzzer.campaign.lane import Lane, mount_options
from fuzzer.campaign.monitor import Monitor
from fuzzer.campaign.queue import Queue, set_aside
from fuzzer.campaign.recover import Depth, Look
from fuzzer.campaign.run import has_state
from fuzzer.campaign.session import origin
from fuzzer.campaign.source import Generated
from fuzzer.campaign.worker import FuzzOptions
from fuzzer.kernel import libc
from fuzzer.kernel.beacon import Beacon
from fuzzer.kernel.mount import split_options
from fuzzer.state.recovery import Recovery
from fuzzer.workload.text import parse
from fuzzer.writelog.points import Plan, Points

pytestmark = pytest.mark.kernel


def _stop_recorder() -> None:
    (server,) = (
        child
        for child in psutil.Process().children()
        if "fuzzer.kernel.recorder.fuse_server" in child.cmdline()
    )
    server.send_signal(signal.SIGSTOP)


def _hang_in_mount(lane: Lane, device: str, look: Look, depth: Depth) -> Recovery:
    with (
        lane.recorder.record(lane.scratch, lane.directory / "hang.log") as recorded,
        lane.times.phase("mount"),
    ):
        _stop_recorder()
        libc.mount(recorded.device, str(lane.crash_mount), look.fs, *split_options(mount_options(look.fs)))
    raise AssertionError("the mount came back")


def _hang_in_umount(lane: Lane, device: str, look: Look, depth: Depth) -> Recovery:
    with lane.recorder.record(lane.scratch, lane.directory / "hang.log") as recorded:
        libc.mount(recorded.device, str(lane.crash_mount), look.fs, *split_options(mount_options(look.fs)))
        (lane.crash_mount / "new").write_bytes(bytes(8192))
        with lane.times.phase("unmount"):
            _stop_recorder()
            libc.umount(str(lane.crash_mount))
    raise AssertionError("the umount came back")


def _fuzz(directory: Path, fs: str, seconds: float) -> Totals:
    options = FuzzOptions(
        directory=directory,
        filesystems=(fs,),
        source=Generated(5, (fs,), ()),
        first=0,
        jobs=1,
        deadline=time.monotonic() + seconds,
        recorder="fuse",
        plan=Plan((Points.FSYNC,)),
        canary="",
        origin=origin(points="fsync", canary="", recorder="fuse"),
    )
    with open_index(directory, create=True) as index:
        return fuzz(options, index, Monitor())


@pytest.mark.parametrize(("hang", "kind"), [(_hang_in_mount, "mount-hang"), (_hang_in_umount, "umount-hang")])
def test_a_hang_is_a_finding_and_the_campaign_goes_on(
    hang: object, kind: str, fs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover_module, "_mount_and_look", hang)
    monkeypatch.setattr(lane_module, "HANG_S", 1.0)
    totals = _fuzz(tmp_path, fs, 12)
    assert totals.hits[f"{fs}/hang/{kind}"] >= 1
    saved = load_finding(next((tmp_path / "findings").iterdir()))
    assert saved.finding.oracle == "hang"
    assert saved.finding.violations[0]["kind"] == kind
    assert has_state(saved), "the crash state that hung was not kept"
    text = "\n".join(saved.kernel_lines())
    assert "[<0>]" in text
    assert {"mount-hang": "sys_mount+", "umount-hang": "cleanup_mnt+"}[kind] in text


def test_a_beacon_is_overdue_only_past_its_deadline() -> None:
    beacon = Beacon()
    assert beacon.overdue() is None
    beacon.enter("mount", 60.0)
    assert beacon.overdue() is None
    pid = os.fork()
    if pid == 0:
        beacon.enter("unmount", -1.0)
        os._exit(0)
    os.waitpid(pid, 0)
    doing = beacon.overdue()
    assert doing is not None
    assert doing.step == "unmount"
    beacon.leave()
    assert beacon.overdue() is None


def test_a_queue_of_a_dead_session_is_kept(tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    directory.mkdir()
    queue = Queue(directory, 0)
    assert set_aside(directory) is None
    queue.begin(parse("powercut 1\nactor one\n  create a\n").with_fs("xfs"))
    execution, place = queue.load()
    assert place.state is None
    assert execution.workload.fs == "xfs"
    kept = set_aside(directory)
    assert kept is not None
    assert [path.name for path in kept.iterdir()] == ["lane-0.workload"]
    assert not directory.exists()
