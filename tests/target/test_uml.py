"""The UML guest: it runs our Python, tells how it ended, and leaves nothing; the dm recorder works in it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from fuzzer.errors import InfrastructureError, InputError, LostWorkerError
from fuzzer.kernel.journal import read_journals
from fuzzer.kernel.probe import missing
from fuzzer.kernel.process import wait_until
from fuzzer.kernel.sweep import sweep
from fuzzer.kernel.workarea import RunArea, run_area
from fuzzer.target import machine, uml
from fuzzer.target.machine import open_guest
from fuzzer.target.uml import run_in_uml, uml_plan

pytestmark = [
    pytest.mark.target,
    pytest.mark.skipif(bool(missing(["uml"])), reason="package user-mode-linux is not installed"),
]

PROJECT = Path(__file__).parents[2]
BOOT_S = 120.0


@pytest.fixture(autouse=True)
def areas(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Where this test's guests keep their files. By this they are told from those of others."""
    found: list[Path] = []

    @contextmanager
    def noted() -> Iterator[RunArea]:
        with run_area() as area:
            found.append(area.path)
            yield area

    monkeypatch.setattr(machine, "run_area", noted)
    yield found
    assert not [pid for area in found for pid in guests(area)]
    assert not [area for area in found if area.exists()]


def guests(area: Path) -> list[int]:
    """Processes of the guest in `area`; dead ones, still to be reaped by process 1, have no command line."""
    found = psutil.process_iter(["name", "cmdline"])
    return [p.pid for p in found if p.info["name"] == uml.PROGRAM and str(area) in str(p.info["cmdline"])]


def test_status_output_and_files_come_back(tmp_path: Path) -> None:
    script = """
import os, sys, numpy, pyfuse3
from pathlib import Path
Path('made').write_text(os.uname().release)
print('value', os.environ['GIVEN'], Path.cwd(), numpy.arange(5).sum())
print('problem', file=sys.stderr)
try:
    Path('/etc/powercut-test').touch()
except OSError as error:
    print(error.strerror)
sys.exit(7)
"""
    result = run_in_uml(
        [sys.executable, "-c", script], exchange=tmp_path, timeout_s=BOOT_S, environment={"GIVEN": "a b"}
    )
    assert result.status == 7
    assert result.stdout.splitlines() == [f"value a b {tmp_path} 10", "Read-only file system"]
    assert result.stderr == "problem\n"
    assert f"Linux version {(tmp_path / 'made').read_text()} " in result.console
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_guest_has_what_a_campaign_needs(tmp_path: Path) -> None:
    needed = ("loop", "fuse", "dm-log-writes", "btrfs", "xfs", "kmsg", "drop_caches", "memcg")
    script = f"from fuzzer.kernel.probe import require; require(*{needed})"
    result = run_in_uml([sys.executable, "-c", script], exchange=tmp_path, timeout_s=BOOT_S)
    assert (result.status, result.stderr) == (0, "")


def test_a_panic_is_a_lost_guest_with_its_words(tmp_path: Path) -> None:
    script = "open('/proc/sysrq-trigger', 'w').write('c')"
    with pytest.raises(LostWorkerError, match="Kernel panic") as caught:
        run_in_uml([sys.executable, "-c", script], exchange=tmp_path, timeout_s=BOOT_S)
    assert "Kernel panic" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_guest_that_does_not_end_is_killed(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(LostWorkerError, match="not done in time"):
        run_in_uml(["sleep", "1000"], exchange=tmp_path, timeout_s=8)
    assert time.monotonic() - begin < 20


def test_one_guest_runs_several_commands(tmp_path: Path) -> None:
    """Also after one that failed, one that was not there and one that had to be killed with its children."""
    with open_guest(uml_plan(), exchange=tmp_path) as running:
        first = running.run(["cat", "/proc/sys/kernel/random/boot_id"], timeout_s=30)
        assert running.run(["sh", "-c", "echo no >&2; exit 9"], timeout_s=30).stderr == "no\n"
        with pytest.raises(InfrastructureError, match="cannot start"):
            running.run(["/nonexistent"], timeout_s=30)
        with pytest.raises(LostWorkerError, match="not done in time"):
            running.run(["sh", "-c", "setsid sleep 1000 & sleep 1000"], timeout_s=2)
        assert running.run(["pgrep", "sleep"], timeout_s=30).stdout == ""
        with pytest.raises(InfrastructureError, match="no switch nothing"):
            running.run(["true"], timeout_s=30, switches={"nothing": "1"})
        again = running.run(["cat", "/proc/sys/kernel/random/boot_id"], timeout_s=30)
    assert (first.status, first.stdout) == (0, again.stdout)


def test_a_killed_caller_takes_its_guest_along(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from fuzzer.target.uml import run_in_uml
run_in_uml(["sh", "-c", "touch booted; sleep 1000"], exchange=Path({str(tmp_path)!r}), timeout_s=500)
"""
    caller = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT)
    try:
        assert wait_until((tmp_path / "booted").exists, BOOT_S)
        left = next(journal for journal in read_journals() if journal.owner_pid == caller.pid)
        assert guests(left.directory)
    finally:
        caller.kill()
        caller.wait(10)
    assert wait_until(lambda: not guests(left.directory), 5)
    sweep()
    assert not left.directory.exists()


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="cannot start /nonexistent"):
        run_in_uml(["/nonexistent"], exchange=tmp_path, timeout_s=BOOT_S)


def test_paths_the_kernel_would_split_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/a b/python")
    with pytest.raises(InputError, match="a b"):
        run_in_uml(["true"], exchange=tmp_path, timeout_s=BOOT_S)


def test_dm_recorder_in_the_guest(tmp_path: Path) -> None:
    """The dm half of the recorder tests: full replay equality, marks, flags, discards, a full log."""
    tests = PROJECT / "tests/kernel/test_recorder.py"
    result = run_in_uml(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-k", "dm", str(tests)],
        exchange=tmp_path,
        timeout_s=300,
    )
    assert result.status == 0, result.stdout + result.stderr
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed
    assert int(passed[1]) >= 9
    assert "skipped" not in result.stdout
