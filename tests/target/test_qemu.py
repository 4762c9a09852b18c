"""QEMU guests with the kernel `known-bugs`: they do all that other guests do, and can switch bugs on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzer.errors import InfrastructureError, LostWorkerError, PowercutError
from fuzzer.target.build import KNOWN_BUGS
from fuzzer.target.kernels import find_kernel
from fuzzer.target.machine import Guest, Plan, open_guest

BOOT_S, RUN_S = 300.0, 300.0
"""An emulated CPU is slow, and others may want the real ones."""


@pytest.fixture(scope="module")
def plan() -> Plan:
    try:
        return find_kernel(KNOWN_BUGS).plan(cpus=2, memory_mib=3072)
    except PowercutError as error:
        pytest.skip(f"{error} ({error.hint})")


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exchange")


@pytest.fixture(scope="module")
def guest(plan: Plan, exchange: Path) -> Iterator[Guest]:
    """One for all tests that leave it alive."""
    with open_guest(plan, exchange=exchange, boot_s=BOOT_S) as booted:
        yield booted


pytestmark = pytest.mark.target


def test_commands_run_and_files_come_back(guest: Guest, exchange: Path) -> None:
    script = """
import os, sys, numpy, pyfuse3
from pathlib import Path
Path('made').write_text(os.uname().release)
print(len(os.sched_getaffinity(0)), Path.cwd(), numpy.arange(5).sum())
try:
    Path('/etc/powercut-test').touch()
except OSError as error:
    print(error.strerror)
sys.exit(7)
"""
    result = guest.run([sys.executable, "-c", script], timeout_s=RUN_S)
    assert (result.status, result.stderr) == (7, "")
    assert result.stdout.splitlines() == [f"2 {exchange} 10", "Read-only file system"]
    assert (exchange / "made").read_text() == find_kernel(KNOWN_BUGS).release
    with pytest.raises(InfrastructureError, match="cannot start /nonexistent"):
        guest.run(["/nonexistent"], timeout_s=RUN_S)
    with pytest.raises(LostWorkerError, match="not done in time"):
        guest.run(["sleep", "1000"], timeout_s=2)
    assert guest.run(["pgrep", "sleep"], timeout_s=RUN_S).stdout == ""


def test_guest_has_what_a_campaign_needs(guest: Guest) -> None:
    needed = ("loop", "fuse", "dm-log-writes", "btrfs", "xfs", "kmsg", "drop_caches", "memcg")
    script = f"from fuzzer.kernel.probe import require; require(*{needed})"
    result = guest.run([sys.executable, "-c", script], timeout_s=RUN_S)
    assert (result.status, result.stderr) == (0, "")


def test_bugs_are_switched_on_for_one_command(guest: Guest) -> None:
    bugs = find_kernel(KNOWN_BUGS).bugs
    script = "cat /sys/module/*/parameters/powercut_* | grep -c Y"
    on = guest.run(["sh", "-c", script], timeout_s=RUN_S, switches=dict.fromkeys(bugs, "1"))
    off = guest.run(["sh", "-c", script], timeout_s=RUN_S)
    assert (on.stdout, off.stdout) == (f"{len(bugs)}\n", "0\n")
    assert dict(on.hits) == dict.fromkeys(bugs, 0)
    with pytest.raises(InfrastructureError, match="has no switch nothing"):
        guest.run(["true"], timeout_s=RUN_S, switches={"nothing": "1"})


def test_an_oops_is_a_lost_guest_with_its_words(plan: Plan, tmp_path: Path) -> None:
    script = "open('/proc/sysrq-trigger', 'w').write('c')"
    with (
        pytest.raises(LostWorkerError, match="Kernel panic") as caught,
        open_guest(plan, exchange=tmp_path, boot_s=BOOT_S) as booted,
    ):
        booted.run([sys.executable, "-c", script], timeout_s=RUN_S)
    assert "sysrq" in caught.value.hint
    assert not list(tmp_path.iterdir())
