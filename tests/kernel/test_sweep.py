"""The sweep: everything of a killed run goes, nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fuzzer.errors import LeakError
from fuzzer.kernel import procfs
from fuzzer.kernel import sweep as sweeping
from fuzzer.kernel.journal import RUN_ROOT, journal_path, read_journals
from fuzzer.kernel.loop import private_minor
from fuzzer.kernel.mkfs import make_fs
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.sweep import sweep
from fuzzer.kernel.workarea import RunArea, run_area

pytestmark = pytest.mark.kernel

_HOLD_EVERYTHING = """
import os, sys, time
from pathlib import Path
from fuzzer.kernel import procfs
from fuzzer.kernel import sweep as sweeping
from fuzzer.kernel.workarea import run_area
from fuzzer.kernel.loop import private_minor
from fuzzer.kernel.mkfs import make_fs
from fuzzer.kernel.mount import mounted

with run_area() as area:
    image = area.path / "image"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    groups = [m.path / (area.mark + "-w") for m in procfs.mounts() if m.fs in ("cgroup", "cgroup2")]
    for group in groups:
        group.mkdir()
    with private_minor(area) as minor, private_minor(area), minor.attached(image) as device:
        make_fs(device, sys.argv[1])
        with mounted(device, area.mkdir("mnt"), sys.argv[1]):
            child = os.fork()
            if child == 0:
                os.chdir(area.path / "mnt")
                time.sleep(600)
            print(area.run_id, minor.number, child, groups[0] if groups else "/none", flush=True)
            time.sleep(600)
"""


@contextmanager
def _program(*argv: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A Python program that prints one line when it is ready, killed at the end."""
    program = subprocess.Popen([sys.executable, "-c", *argv], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    try:
        yield program, program.stdout.readline().split()
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
        program.stdout.close()


def _swept(run_id: str) -> list[str]:
    """Sweep; what was removed of this run (other sessions' dead runs may be swept along)."""
    return [line for line in sweep() if line.startswith(f"run {run_id}: ")]


def test_killed_run_leaves_nothing_after_a_sweep(fs: str) -> None:
    with _program(_HOLD_EVERYTHING, fs) as (_, words):
        run_id, minor, child, group = words[0], int(words[1]), int(words[2]), Path(words[3])
        assert _swept(run_id) == [], "a living run was touched"
        assert minor in procfs.loop_backing_files()
    assert procfs.start_ticks(child) is not None, "the forked child must outlive its parent here"
    removed = "\n".join(_swept(run_id))
    area = RUN_ROOT / run_id
    for what in (f"process {child}", f"loop{minor} of", f"loop number {minor}", f"mount {area}/mnt"):
        assert what in removed
    assert procfs.start_ticks(child) is None
    assert minor not in procfs.loop_backing_files()
    assert not Path(f"/sys/block/loop{minor}").exists()
    assert not group.exists()
    assert not procfs.mounts_under(area)
    assert not area.exists()
    assert not journal_path(run_id).exists()
    assert _swept(run_id) == []


_HUNG_FUSE = """
import os, sys, trio, pyfuse3, errno
from fuzzer.kernel.workarea import run_area

class Root(pyfuse3.Operations):
    async def getattr(self, inode, ctx=None):
        os.kill(os.getpid(), 19)  # SIGSTOP in the middle of a request
    async def lookup(self, parent, name, ctx):
        await trio.sleep(600)

with run_area() as area:
    pyfuse3.init(Root(), str(area.mkdir("fuse")), set())
    print(area.run_id, flush=True)
    trio.run(pyfuse3.main)
"""


def test_requests_to_a_stopped_fuse_server_are_aborted() -> None:
    with _program(_HUNG_FUSE) as (server, (run_id,)):
        directory = RUN_ROOT / run_id / "fuse"
        with _program(f"import os; print(flush=True); os.stat('{directory}/x')") as (client, _):
            time.sleep(0.2)
            assert client.poll() is None
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            assert f"run {run_id}: FUSE connection of {directory}" in _swept(run_id)
            assert client.wait(10) != 0
    assert not procfs.mounts_under(RUN_ROOT / run_id)


_HOLD_BEHIND_FUSE = """
import os, subprocess, trio, pyfuse3
from fuzzer.kernel import libc
from fuzzer.kernel.workarea import run_area

with run_area() as area:
    libc.mount("tmpfs", str(area.mkdir("held")), "tmpfs")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("POWERCUT")}
    holder = subprocess.Popen(["sleep", "600"], cwd=area.path / "held", env=environment)
    pyfuse3.init(pyfuse3.Operations(), str(area.mkdir("fuse")), set())
    print(area.run_id, holder.pid, flush=True)
    trio.run(pyfuse3.main)
"""


def test_a_run_that_hangs_in_the_kernel_is_told_once_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with _program(_HOLD_BEHIND_FUSE) as (program, (run_id, holder)):
        program.kill()
    area = RUN_ROOT / run_id
    try:
        with monkeypatch.context() as hanging:
            # What does not die and what the kernel does not let go of: a stranger does for the latter.
            hanging.setattr(sweeping, "_hanging", lambda dead: iter(["process 1 in down"]))
            assert _swept(run_id) == [f"run {run_id}: hangs until this machine restarts: process 1 in down"]
            assert [mount.fs for mount in procfs.mounts_under(area)] == ["tmpfs", "tmpfs"]
            assert _swept(run_id) == []
            (left,) = [journal for journal in read_journals() if journal.run_id == run_id]
            assert left.hangs == "process 1 in down"
    finally:
        os.kill(int(holder), signal.SIGKILL)
    assert f"run {run_id}: journal" in _swept(run_id)
    assert not area.exists()


def test_a_living_run_and_strangers_stay(image: Path, tmp_path: Path, area: RunArea) -> None:
    strange = tmp_path / "strange"
    with strange.open("wb") as file:
        file.truncate(320 << 20)
    device = subprocess.run(
        ["losetup", "--find", "--show", str(strange)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        make_fs(device, "btrfs")
        (tmp_path / "mnt").mkdir()
        with private_minor(area) as minor, minor.attached(image), mounted(device, tmp_path / "mnt", "btrfs"):
            assert not any(strange.name in line or area.run_id in line for line in sweep())
            assert procfs.loop_backing_files()[minor.number] == str(image)
            assert procfs.mounts_under(tmp_path / "mnt")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_an_area_gone_in_order_leaves_no_journal() -> None:
    with run_area() as area:
        assert [left.alive for left in read_journals() if left.run_id == area.run_id] == [True]
        assert procfs.comm(os.getpid()) == f"pc-{area.run_id}"
    assert not journal_path(area.run_id).exists()
    assert not area.path.exists()
    assert not procfs.comm(os.getpid()).startswith("pc-")


def test_an_error_in_the_block_still_cleans_up() -> None:
    with pytest.raises(ZeroDivisionError), run_area() as area:
        raise ZeroDivisionError
    assert not journal_path(area.run_id).exists()
    assert not procfs.mounts_under(area.path)


def test_a_mount_left_in_the_area_is_named() -> None:
    with ExitStack() as stack:
        area = stack.enter_context(run_area())
        inner = area.mkdir("inner")
        subprocess.run(["mount", "-t", "tmpfs", "none", str(inner)], check=True)
        with pytest.raises(LeakError, match="inner"):
            stack.pop_all().close()
    assert journal_path(area.run_id).exists()
    subprocess.run(["umount", str(inner)], check=True)
    subprocess.run(["umount", str(area.path)], check=True)
    area.path.rmdir()
    journal_path(area.run_id).unlink()


def test_a_journal_of_an_earlier_boot_is_dead(area: RunArea) -> None:
    text = journal_path(area.run_id).read_text()
    fake = RUN_ROOT / "00000000.jsonl"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    fake.write_text(
        text.replace(boot, "00000000-0000-0000-0000-000000000000").replace(area.run_id, "00000000")
    )
    assert sweep() == ["run 00000000: journal"]
    assert journal_path(area.run_id).exists()
