"""The walk-through of the docs: its commands, in its order, and what it says they print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzer.errors import ExitCode

pytestmark = pytest.mark.kernel

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_COMMAND_S = 600.0
_LONG, _SHORT = "--time 3m", "--time 5s"
"""People may wait for a minimization to end."""

_BY_CHANCE = ("minimize", "repro.sh", "--mail")
"""What these print depends on how far the minimization came."""


def _steps(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command, and the lines it is said to print."""
    for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = step.splitlines()
            yield command, [line for line in lines if line and line != "..."]


def _shape(line: str) -> str:
    """The line without what changes from run to run: numbers, ids, and how many blanks are between."""
    line = re.sub(r"-[0-9a-f]{8}\b", "-ID", line)
    return " ".join(re.sub(r"-?\d+", "N", line).split())


def test_the_walkthrough_works(tmp_path: Path) -> None:
    shutil.copytree(_DOCS, tmp_path / "docs")
    program = tmp_path / "bin" / "powercut"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m fuzzer "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    steps = list(_steps((_DOCS / "walkthrough.md").read_text()))
    words = [command.split() for command, _ in steps]
    assert [w[2] if w[1] == "triage" else w[1] for w in words] == [
        *("run", "list", "show", "minimize", "repro", "export", "repro.sh", "report", "report")
    ]
    for command, lines in steps:
        done = subprocess.run(
            ["bash", "-c", command.replace(_LONG, _SHORT)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        said = f"{command}\n{done.stdout}{done.stderr}"
        if "powercut run" in command and done.returncode == ExitCode.NOTHING_FOUND:
            pytest.skip("this kernel does not have the bug")
        assert done.returncode in (ExitCode.NOTHING_FOUND, ExitCode.FINDING), said
        if command.startswith("bash"):
            assert done.returncode == ExitCode.FINDING, said
        if not any(word in command for word in _BY_CHANCE):
            printed = {_shape(line) for line in said.splitlines()}
            assert not [line for line in lines if _shape(line) not in printed], said
