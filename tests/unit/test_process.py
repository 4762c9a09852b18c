"""The door for subprocesses: output, deadline, and nothing left behind."""

from __future__ import annotations

import time

import pytest

from fuzzer.errors import InfrastructureError, MissingCapabilityError
from fuzzer.kernel.process import run, wait_until
from fuzzer.kernel.procfs import start_ticks


def test_output_and_status() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=10, check=False)
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_failure_names_the_command_and_its_words() -> None:
    with pytest.raises(InfrastructureError, match=r"status 3 from sh -c 'echo no >&2; exit 3': no"):
        run(["sh", "-c", "echo no >&2; exit 3"], timeout_s=10)


def test_environment_is_ours() -> None:
    names = {line.split("=")[0] for line in run(["env"], timeout_s=10).stdout.splitlines()}
    assert names == {"PATH", "LANG", "LC_ALL"}


def test_nothing_on_standard_input() -> None:
    assert run(["cat"], timeout_s=10).stdout == ""


def test_deadline_kills_the_whole_group() -> None:
    start = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"no end after 0\.2 s: sh -c") as caught:
        run(["sh", "-c", "sleep 61 & echo $!; wait"], timeout_s=0.2)
    assert time.monotonic() - start < 5
    assert "sleep 61" in str(caught.value)
    assert wait_until(lambda: run(["pgrep", "-fx", "sleep 61"], timeout_s=10, check=False).status == 1, 2)


def test_background_child_does_not_outlive_the_run() -> None:
    done = run(["sh", "-c", "sleep 62 >/dev/null 2>&1 & echo $!"], timeout_s=10)
    assert wait_until(lambda: start_ticks(int(done.stdout)) is None, 2)


def test_large_output_is_cut_and_drained() -> None:
    done = run(["head", "-c", "5000000", "/dev/zero"], timeout_s=10)
    assert len(done.stdout) == 1 << 20


def test_missing_program_is_a_missing_capability() -> None:
    with pytest.raises(MissingCapabilityError, match="no-such-program is not installed"):
        run(["no-such-program"], timeout_s=10)


def test_death_by_signal_is_a_negative_status() -> None:
    assert run(["sh", "-c", "kill -9 $$"], timeout_s=10, check=False).status == -9
