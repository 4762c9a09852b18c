"""Recorders against the real kernel: the log is the whole truth, and a dead recorder says so."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from fuzzer.errors import InfrastructureError, LostWorkerError
from fuzzer.kernel.loop import PrivateMinor
from fuzzer.kernel.mkfs import make_fs
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.probe import missing
from fuzzer.kernel.process import run
from fuzzer.kernel.procfs import loop_backing_files, mounts_under
from fuzzer.kernel.recorder import Recorder, open_recorder
from fuzzer.kernel.recorder.base import check_recorder
from fuzzer.kernel.recorder.dm import DmRecorder, _finish, dm_recorder
from fuzzer.kernel.recorder.fuse import FuseRecorder, fuse_recorder
from fuzzer.kernel.workarea import RunArea, run_area
from fuzzer.writelog.format import Log, read_log
from fuzzer.writelog.model import MARK_END, Flag

pytestmark = pytest.mark.kernel

FS_BYTES = 320 << 20
SMALL_BYTES = 1 << 20
CHUNK = 1 << 20


@pytest.fixture
def area() -> Iterator[RunArea]:
    with run_area() as area:
        yield area


@pytest.fixture(params=["fuse", "dm"])
def recorder(area: RunArea, request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """Both kinds; where there is no device-mapper, tests/target runs the dm half in a guest."""
    kind = request.param
    lacking = missing(["dm-log-writes" if kind == "dm" else "fuse"])
    if lacking:
        pytest.skip(lacking[0].reason)
    with open_recorder(kind, area) as recorder:
        assert recorder.name == kind
        yield recorder


@pytest.fixture
def fuse(area: RunArea) -> Iterator[FuseRecorder]:
    with fuse_recorder(area) as recorder:
        yield recorder


@pytest.fixture
def dm(area: RunArea) -> Iterator[DmRecorder]:
    lacking = missing(["dm-log-writes"])
    if lacking:
        pytest.skip(lacking[0].reason)
    with dm_recorder(area) as recorder:
        yield recorder


def make_image(path: Path, size: int) -> Path:
    with path.open("xb") as file:
        file.truncate(size)
    return path


def replay(log: Log, image: Path, size: int) -> None:
    """Naive replay: every write, in log order, onto zeroes."""
    with make_image(image, size).open("r+b") as file:
        for entry in log.entries:
            if not entry.is_mark:
                zeroes = entry.flags & Flag.DISCARD
                file.seek(entry.offset)
                file.write(bytes(entry.length) if zeroes else log.payload(entry))


def same_bytes(one: Path, other: Path) -> bool:
    assert one.stat().st_size == other.stat().st_size
    with one.open("rb") as a, other.open("rb") as b:
        while chunk := a.read(CHUNK):
            if chunk != b.read(CHUNK):
                return False
    return True


def write_files(directory: Path) -> None:
    for number in range(20):
        with (directory / f"file-{number}").open("xb", buffering=0) as file:
            file.write(os.urandom(5000 * (number + 1)))
            if number % 3 == 0:
                os.fsync(file.fileno())
    (directory / "file-1").rename(directory / "renamed")
    (directory / "file-2").unlink()


@pytest.mark.parametrize("fs", ["btrfs", "xfs"])
def test_full_replay_is_the_image(area: RunArea, recorder: Recorder, fs: str) -> None:
    image, log_path = make_image(area.path / "image", FS_BYTES), area.path / "log"
    with recorder.record(image, log_path) as recorded:
        make_fs(recorded.device, fs)
        recorded.mark("mkfs")
        with mounted(recorded.device, area.mkdir("mnt"), fs) as directory:
            write_files(directory)
            recorded.mark("written")
        recorded.mark("unmounted")
    log = read_log(log_path)
    assert [entry.mark for entry in log.entries if entry.is_mark] == [
        "mkfs",
        "written",
        "unmounted",
        MARK_END,
    ]
    assert sum(entry.is_flush for entry in log.entries) > 10
    replay(log, area.path / "replayed", FS_BYTES)
    assert same_bytes(image, area.path / "replayed")
    assert log.size_bytes == log_path.stat().st_size


def test_a_lost_entry_would_show(area: RunArea, recorder: Recorder) -> None:
    """The comparison above can fail: without one of the writes the images differ."""
    image, log_path = make_image(area.path / "image", SMALL_BYTES), area.path / "log"
    with recorder.record(image, log_path) as recorded:
        write_blocks(recorded.device, 8)
    log = read_log(log_path)
    kept = tuple(entry for entry in log.entries if entry.offset != 4 * 4096)
    assert len(kept) < len(log.entries)
    replay(Log(log.sector_bytes, kept, True, log.size_bytes, log._bytes), area.path / "replayed", SMALL_BYTES)
    assert not same_bytes(image, area.path / "replayed")


def write_blocks(device: str, count: int, *, sync: bool = True) -> None:
    fd = os.open(device, os.O_RDWR)
    try:
        for number in range(count):
            os.pwrite(fd, bytes([number + 1]) * 4096, number * 4096)
            if sync:
                os.fsync(fd)
    finally:
        os.close(fd)


def test_times_enclose_the_call(area: RunArea, fuse: FuseRecorder) -> None:
    image, log_path = make_image(area.path / "image", SMALL_BYTES), area.path / "log"
    returned = []
    with fuse.record(image, log_path) as recorded:
        for _ in range(5):
            begin = time.monotonic_ns()
            write_blocks(recorded.device, 1)
            returned.append((begin, time.monotonic_ns()))
    log = read_log(log_path)
    assert log.timed
    stamps = [stamp for entry in log.entries for stamp in (entry.arrived_ns, entry.done_ns)]
    assert stamps == sorted(stamps)
    for begin, end in returned:
        inside = [entry for entry in log.entries if begin <= entry.arrived_ns and entry.done_ns <= end]
        assert [entry.is_flush for entry in inside][:2] == [False, True]


def test_marks_work_after_fork(area: RunArea, recorder: Recorder) -> None:
    image, log_path = make_image(area.path / "image", SMALL_BYTES), area.path / "log"
    with recorder.record(image, log_path) as recorded:
        recorded.mark("parent-1")
        child = os.fork()
        if child == 0:
            try:
                recorded.mark("child")
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        recorded.mark("parent-2")
    marks = [entry.mark for entry in read_log(log_path).entries if entry.is_mark]
    assert marks == ["parent-1", "child", "parent-2", MARK_END]


def test_recordings_are_independent(area: RunArea, recorder: Recorder) -> None:
    for number in range(3):
        image, log_path = make_image(area.path / f"i{number}", SMALL_BYTES), area.path / f"l{number}"
        with recorder.record(image, log_path) as recorded:
            write_blocks(recorded.device, number + 1)
        offsets = [entry.offset for entry in read_log(log_path).entries if entry.is_write]
        assert offsets == [4096 * block for block in range(number + 1)]


def test_device_offers_no_discard(area: RunArea, fuse: FuseRecorder) -> None:
    with fuse.record(make_image(area.path / "image", SMALL_BYTES), area.path / "log") as recorded:
        queue = Path("/sys/block", Path(recorded.device).name, "queue")
        assert (queue / "discard_max_bytes").read_text().strip() == "0"


def test_a_full_log_fails_the_recording(area: RunArea) -> None:
    with fuse_recorder(area, log_limit_bytes=64 << 10) as recorder:
        image = make_image(area.path / "image", SMALL_BYTES)
        with (
            pytest.raises(InfrastructureError, match="log is full"),
            recorder.record(image, area.path / "log") as recorded,
            pytest.raises(OSError, match="Input/output error"),
        ):
            write_blocks(recorded.device, 100)
        check_recorder(recorder, area.path)


def test_an_existing_log_is_not_overwritten(area: RunArea, fuse: FuseRecorder) -> None:
    image = make_image(area.path / "image", SMALL_BYTES)
    (area.path / "log").write_text("precious")
    with (
        pytest.raises(InfrastructureError, match="FileExistsError"),
        fuse.record(image, area.path / "log"),
    ):
        pytest.fail("must not start")
    assert (area.path / "log").read_text() == "precious"


def server_pid(recorder: FuseRecorder) -> int:
    return int(recorder._client.ask("hello")["pid"])


def kill_while_recording(area: RunArea, kill: int) -> None:
    with (
        fuse_recorder(area) as recorder,
        recorder.record(make_image(area.path / "image", SMALL_BYTES), area.path / "log") as recorded,
    ):
        write_blocks(recorded.device, 1)
        os.kill(server_pid(recorder), kill)
        if kill == signal.SIGKILL:
            with pytest.raises(OSError, match="Input/output error"):
                write_blocks(recorded.device, 1)


@pytest.mark.parametrize(("kill", "says"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "hangs")])
def test_lost_server_is_a_clear_error_and_leaks_nothing(kill: int, says: str) -> None:
    with run_area() as area:
        with pytest.raises(LostWorkerError, match=f"the recorder {says}"):
            kill_while_recording(area, kill)
        assert [mount.path for mount in mounts_under(area.path)] == [area.path]
        assert not [path for path in loop_backing_files().values() if path.startswith(str(area.path))]
        assert {path.name for path in area.path.iterdir()} == {"image", "log"}


def test_server_killed_between_recordings_is_noticed() -> None:
    with (
        run_area() as area,
        pytest.raises(LostWorkerError, match="ended with status -9"),
        fuse_recorder(area) as recorder,
    ):
        os.kill(server_pid(recorder), signal.SIGKILL)


def test_abort_ends_a_hang(area: RunArea) -> None:
    with pytest.raises(LostWorkerError, match=r"hangs|died"):
        abort_a_hang(area)


def abort_a_hang(area: RunArea) -> None:
    with (
        fuse_recorder(area) as recorder,
        recorder.record(make_image(area.path / "image", SMALL_BYTES), area.path / "log") as recorded,
    ):
        os.kill(server_pid(recorder), signal.SIGSTOP)
        watchdog = threading.Timer(0.5, recorder.abort)
        watchdog.start()
        begin = time.monotonic()
        with pytest.raises(OSError, match="Input/output error"):
            write_blocks(recorded.device, 1)
        assert 0.4 < time.monotonic() - begin < 5
        watchdog.join()


@pytest.mark.parametrize("fs", ["btrfs", "xfs"])
def test_dm_logs_the_kernels_flags(area: RunArea, dm: DmRecorder, fs: str) -> None:
    """What only this recorder can see: FUA and metadata writes."""
    image, log_path = make_image(area.path / "image", FS_BYTES), area.path / "log"
    with dm.record(image, log_path) as recorded:
        make_fs(recorded.device, fs)
        with mounted(recorded.device, area.mkdir("mnt"), fs) as directory:
            write_files(directory)
    log = read_log(log_path)
    assert not log.timed
    assert any(entry.flags & Flag.FUA for entry in log.entries)
    assert any(entry.flags & Flag.METADATA for entry in log.entries)


def test_dm_logs_discards(area: RunArea, dm: DmRecorder) -> None:
    image, log_path = make_image(area.path / "image", SMALL_BYTES), area.path / "log"
    with dm.record(image, log_path) as recorded:
        write_blocks(recorded.device, 8)
        run(["blkdiscard", "--offset", "4096", "--length", "8192", recorded.device], timeout_s=10)
    log = read_log(log_path)
    discards = [(e.offset, e.length) for e in log.entries if e.flags & Flag.DISCARD]
    assert discards == [(4096, 8192)]
    replay(log, area.path / "replayed", SMALL_BYTES)
    assert same_bytes(image, area.path / "replayed")


def test_dm_that_stopped_logging_is_an_error(
    area: RunArea, dm: DmRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzzer.kernel.recorder.dm.LOG_BYTES", 64 << 10)
    image = make_image(area.path / "image", SMALL_BYTES)
    with (
        pytest.raises(InfrastructureError, match="stopped logging"),
        dm.record(image, area.path / "log") as recorded,
    ):
        write_blocks(recorded.device, 100)
    check_recorder(dm, area.path)


def test_dm_log_without_a_super_is_an_error(tmp_path: Path) -> None:
    """What is left if the target stopped before it wrote its super for the first time."""
    log = tmp_path / "log"
    log.write_bytes(bytes(64 << 10))
    with pytest.raises(InfrastructureError, match="stopped logging: the log has nothing"):
        _finish(log)


def test_swallowed_flushes_fail_the_self_test(area: RunArea, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a left-over "write through" that nobody checked for."""
    monkeypatch.setattr(PrivateMinor, "attached", _write_through(PrivateMinor.attached))
    with pytest.raises(InfrastructureError, match="no flush reaches the fuse recorder"), fuse_recorder(area):
        pytest.fail("must not open")


Attached = Callable[..., AbstractContextManager[str]]


def _write_through(attached: Attached) -> Attached:
    @contextmanager
    def lying(minor: PrivateMinor, path: Path, **options: bool) -> Iterator[str]:
        with attached(minor, path, **options) as device:
            (minor.sysfs / "queue/write_cache").write_text("write through")
            yield device

    return lying
