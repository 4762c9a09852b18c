"""Exports that need device-mapper, run in a guest: tests for xfstests, and scripts with dm-log-writes.

The suite itself is not there: `xfstests/` has functions with the names of its own, and a `run`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))
from dossiers import make_dossier

from fuzzer.kernel.probe import missing
from fuzzer.target.uml import run_in_uml
from fuzzer.triage.export import export
from fuzzer.writelog.crash import Kept

pytestmark = [
    pytest.mark.target,
    pytest.mark.skipif(bool(missing(["uml"])), reason="package user-mode-linux is not installed"),
]

_STUBS = Path(__file__).parent / "xfstests"
_GUEST_S = 500.0

_SCRIPT = """
export PATH=$(dirname $1):$PATH TMPDIR=/dev/shm
cd $2
for name in sh-lost sh-synced; do
    bash $name > $name.output 2>&1; echo $name $?
done
for name in flakey-lost flakey-synced log-lost log-synced; do
    $3/run btrfs $PWD/$name/999 > $name.output 2>&1; echo $name $?
done
"""


def _lost(text: str, mnt: str, fsync: str) -> tuple[str, str]:
    """The text with the file made longer before the sync, and the same without the fsync of it."""
    assert text.count(f"> {mnt}/a\n") == text.count(fsync) == 1, text
    longer = text.replace(f"> {mnt}/a\n", f"> {mnt}/a; truncate -s 4K {mnt}/a\n")
    return longer, longer.replace(fsync, "")


def _write(place: Path, kind: str, kept: Kept) -> None:
    files = export(make_dossier(name="a", kept=kept), "xfstests")
    fsync = '$XFS_IO_PROG -c "fsync" $SCRATCH_MNT/a\n'
    for how, text in zip(("synced", "lost"), _lost(files["999"], "$SCRATCH_MNT", fsync), strict=True):
        directory = place / f"{kind}-{how}"
        directory.mkdir()
        (directory / "999").write_text(text)
        (directory / "999.out").write_text(files["999.out"])


def test_a_cut_takes_what_was_not_synced_and_nothing_else(tmp_path: Path) -> None:
    script = export(make_dossier(name="a", kept=Kept.NOTHING), "sh")["repro.sh"]
    synced, lost = _lost(script, "$mnt", '    xfs_io -c "fsync" $mnt/a\n')
    (tmp_path / "sh-synced").write_text(synced)
    (tmp_path / "sh-lost").write_text(lost)
    _write(tmp_path, "flakey", Kept.EVERYTHING)
    _write(tmp_path, "log", Kept.NOTHING)
    argv = ["bash", "-c", _SCRIPT, "bash", sys.executable, str(tmp_path), str(_STUBS)]
    result = run_in_uml(argv, exchange=tmp_path, timeout_s=_GUEST_S)
    said = {path.stem: path.read_text() for path in tmp_path.glob("*.output")}
    statuses = dict(line.split() for line in result.stdout.splitlines())
    for name in ("sh", "flakey", "log"):
        assert (statuses[f"{name}-lost"], statuses[f"{name}-synced"]) == ("1", "0"), said
        assert "a bytes 0..4096: promised data durable" in said[f"{name}-lost"], said
