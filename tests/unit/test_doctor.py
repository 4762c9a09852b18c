"""The command's shell: doctor, and how errors become exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import fuzzer.cli
from fuzzer.cli import doctor, main
from fuzzer.errors import ExitCode, InputError, MissingCapabilityError
from fuzzer.kernel import probe
from fuzzer.kernel.probe import NAMES, Capability, fuzz_blockers, missing, require


def _everything(*absent: str) -> tuple[Capability, ...]:
    return tuple(Capability(name, name not in absent, "because", "do this") for name in NAMES)


def _run(*argv: str) -> Result:
    return CliRunner().invoke(main, argv)


def test_json_has_the_agreed_shape() -> None:
    lines = [json.loads(line) for line in _run("doctor", "--json").stdout.splitlines()]
    assert [line["capability"] for line in lines] == list(NAMES)
    for line in lines:
        assert set(line) == {"capability", "ok", "reason"}
        assert isinstance(line["ok"], bool)
        assert line["reason"]


def test_table_has_one_line_each() -> None:
    lines = _run("doctor").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert {line.split()[1] for line in lines} <= {"yes", "no"}


@pytest.mark.parametrize(
    ("absent", "blocked"),
    [
        ((), False),
        (("kvm", "uml", "qemu", "memcg-v2", "device-mapper", "dm-log-writes"), False),
        (("pyfuse3",), False),
        (("pyfuse3", "dm-log-writes"), True),
        (("btrfs", "mkfs.btrfs"), False),
        (("btrfs-check", "mkfs.xfs"), True),
        (("root",), True),
        (("loop",), True),
    ],
)
def test_exit_code_says_whether_fuzz_can_run(
    absent: tuple[str, ...], blocked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "probe_all", lambda: _everything(*absent))
    result = _run("doctor")
    assert result.exit_code == (ExitCode.CANNOT_RUN_HERE if blocked else ExitCode.NOTHING_FOUND)
    assert ("cannot run here" in result.stderr) == blocked
    assert bool(fuzz_blockers(_everything(*absent))) == blocked


def test_memcg_means_either_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for absent, lacking in (("memcg-v1",), 0), (("memcg-v2",), 0), (("memcg-v1", "memcg-v2"), 1):
        found = {one.name: one for one in _everything(*absent)}
        monkeypatch.setattr(probe, "probe", found.__getitem__)
        assert len(missing(["memcg", "btrfs"])) == lacking


def test_require_names_everything_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {one.name: one for one in _everything("kvm", "qemu")}
    monkeypatch.setattr(probe, "probe", found.__getitem__)
    require("root", "loop")
    with pytest.raises(MissingCapabilityError, match=r"kvm \(because\); qemu") as caught:
        require("kvm", "root", "qemu")
    assert "kvm: do this" in caught.value.hint


def test_every_command_of_the_table_loads() -> None:
    for name in main.list_commands(click.Context(main)):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert command.name == name
        assert command.help, f"{name} has no help"
        assert _run(name, "--help").exit_code == 0


@pytest.mark.parametrize("argv", [["nope"], ["doctor", "--nope"], ["doctor", "surplus"]])
def test_usage_errors_are_2(argv: list[str]) -> None:
    result = _run(*argv)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("no such op", place="a:1:2"), 2, "powercut: error: a:1:2: no such op"),
        (MissingCapabilityError("no loop", hint="be root"), 3, "hint: be root"),
        (ZeroDivisionError("oops"), 4, "Traceback"),
        (click.FileError("log"), 2, "Could not open file"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(sys.modules[__name__], "failing", failing, raising=False)
    monkeypatch.setitem(fuzzer.cli._COMMANDS, "failing", f"{__name__}:failing")
    result = _run("failing")
    assert result.exit_code == status
    assert words in result.stderr
    assert result.stdout == ""


def test_as_a_program_in_a_closed_pipe() -> None:
    root = Path(__file__).resolve().parents[2]
    script = f"{sys.executable} -m fuzzer doctor --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_format_of_nothing() -> None:
    assert doctor.format_table(()) == []
