"""scripts/container: what it does without an engine, and with one that only says what it was asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "container"


def _call(directory: Path, engine: str, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CONTAINER_ENGINE": engine}
    return subprocess.run(
        [str(SCRIPT), *argv], env=environment, cwd=directory, capture_output=True, text=True, check=False
    )


def test_without_an_engine_it_says_so(tmp_path: Path) -> None:
    done = _call(tmp_path, "no-such-engine", "build")
    assert (done.returncode, "CONTAINER_ENGINE" in done.stderr) == (3, True)


def test_without_a_verb_it_says_what_there_is(tmp_path: Path) -> None:
    done = _call(tmp_path, "no-such-engine")
    assert done.returncode == 2
    assert "scripts/container run" in done.stderr


def test_the_engine_is_asked_to_build_from_the_checkout(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\n[ "$1" = info ] || echo "$@"\n')
    engine.chmod(0o755)
    done = _call(tmp_path, str(engine), "build")
    containerfile = SCRIPT.with_name("Containerfile")
    assert done.stdout.split() == [
        *("build", "--tag", "powercut", "--file", str(containerfile), str(SCRIPT.parents[1]))
    ]
    assert containerfile.is_file()
