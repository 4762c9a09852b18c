"""Exported programs, run: one shows what a power cut takes, and nothing once it is synced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))
from dossiers import make_dossier

from fuzzer.campaign.finding import Origin
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.run import run_and_keep
from fuzzer.triage.dossier import load_dossier
from fuzzer.triage.export import export
from fuzzer.workload.text import parse_bytes
from fuzzer.writelog.crash import Kept
from fuzzer.writelog.points import Plan

pytestmark = pytest.mark.kernel

_CRASHES = Path(__file__).resolve().parents[2] / "crashes"
_RUN_S = 300.0
_TRIES = 5
"""A sync(2) of anybody's, between the write and the cut, saves what the cut was to take."""

_ORIGIN = Origin(
    points="fsync", canary="", contract="own", recorder="fuse", kernel="6", created="", command=""
)

UNSYNCED = {
    "sh": (("> $mnt/a", "> $mnt/a; truncate -s 4K $mnt/a"), ('    xfs_io -c "fsync" $mnt/a\n', "")),
    "c": (('0644, 0);\n', '0644, 0);\n\tdo_fsync("a", 0);\n\tsh("truncate -s 4K $mnt/a");\n'),
          ('\n\tdo_fsync("a", 0);\n\tsh("cut', '\n\tsh("cut')),
}  # fmt: skip
"""The file is made longer before the sync, and the write to it not synced: a cut must take that."""


def _run(text: str, place: Path, name: str, runs: int) -> tuple[int, str]:
    program = place / name
    program.write_text(text)
    argv = ["bash", str(program)]
    if name.endswith(".c"):
        argv = [str(place / "program")]
        subprocess.run(["cc", "-pthread", "-o", argv[0], program], check=True)
    work = place / "work"
    work.mkdir(exist_ok=True)
    argv.append(str(runs))
    environment = os.environ | {"TMPDIR": str(work)}
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=_RUN_S, check=False, cwd=place
    )
    assert list(work.iterdir()) == [], "it left something behind"
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("format_name", ["sh", "c"])
def test_a_cut_takes_what_was_not_synced_and_nothing_else(format_name: str, tmp_path: Path) -> None:
    if format_name == "c" and shutil.which("cc") is None:
        pytest.skip("no C compiler")
    ((name, text),) = export(make_dossier(name="a", kept=Kept.EVERYTHING), format_name).items()
    (lengthen, leave_out) = UNSYNCED[format_name]
    assert text.count(lengthen[0]) == 1
    longer = text.replace(*lengthen)
    status, output = _run(longer, tmp_path, name, 1)
    assert (status, "showed in 0 of 1" in output) == (0, True), output
    assert longer.count(leave_out[0]) == 1
    status, output = _run(longer.replace(*leave_out), tmp_path, name, _TRIES)
    assert (status, "BUG: a bytes 0..4096" in output) == (1, True), output


def test_a_live_bug_shows_without_powercut(tmp_path: Path) -> None:
    (path,) = _CRASHES.glob("0005-*/repro.workload")
    workload = parse_bytes(path.read_bytes(), str(path))
    with open_lane("fuse") as lane:
        found = run_and_keep(lane, workload, 1, Plan(), _ORIGIN, tmp_path, lambda attempt: None)
    if not found:
        pytest.skip("this kernel does not have the bug")
    dossier = load_dossier(tmp_path / "findings" / found[0].id)
    text = export(dossier, "sh")["repro.sh"]
    status, output = _run(text, tmp_path, "repro.sh", _TRIES)
    assert (status, "BUG: " in output) == (1, True), output
    synced = text.replace("    cut_power\n", "    sync; cut_power\n")
    status, output = _run(synced, tmp_path, "repro.sh", 1)
    assert (status, "showed in 0 of 1" in output) == (0, True), output
