"""The corpus: its entries have what an entry must have, and the lint that says so can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fuzzer.campaign.corpus import corpus_paths, lint, load_corpus, load_entries
from fuzzer.cli.corpus import corpus_group
from fuzzer.errors import ExitCode, InputError

_ENTRY = """\
powercut 1
title: one thing races another
why: The first thing looks before the second one
  leaps, and neither is what it was.
source: Linux commit 0123456789ab, fs: fix a race
kernels: 5.1 to 6.2
expect: data kernel-log
sure: not yet
fs: btrfs

actor one
  fsync .
"""


def _write(directory: Path, name: str, text: str) -> Path:
    path = directory / f"{name}.workload"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_entry_is_sound() -> None:
    assert [f"{c.path}: {c.message}" for c in lint(corpus_paths())] == []


def test_a_sound_entry(tmp_path: Path) -> None:
    assert list(lint([_write(tmp_path, "btrfs/a-b", _ENTRY)])) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("btrfs/a", "fsync .", "fsink .", "unknown op"),
        ("btrfs/a", "  fsync .", "   fsync  .", "not as powercut would write it"),
        ("btrfs/A_b", "", "", "lower-case words"),
        ("generic/a", "", "", "in the directory generic"),
        ("btrfs/a", "title: one thing races another\n", "", "no title"),
        ("btrfs/a", "\n  leaps, and neither is what it was.", "", "why is one line"),
        ("btrfs/a", "0123456789ab", "01234567", "names no fix"),
        ("btrfs/a", "0123456789ab", "0123456789abcdef", "names no fix"),
        ("btrfs/a", "5.1 to 6.2", "old", "kernels: 'old'"),
        ("btrfs/a", "data kernel-log", "data loss", "'loss' is none"),
        ("btrfs/a", "not yet", "surely", "sure: 'surely'"),
        ("btrfs/a", "not yet", "rediscovered 0/0", "sure: 'rediscovered 0/0'"),
        ("btrfs/a", "fs: btrfs", "descends: btrfs/b\nfs: btrfs", "descends is for mutations"),
    ],
)
def test_what_lint_refuses(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    assert old in _ENTRY
    complaints = list(lint([_write(tmp_path, name, _ENTRY.replace(old, new) if old else _ENTRY)]))
    assert len(complaints) == 1
    assert message in complaints[0].message


def test_lint_sees_duplicates(tmp_path: Path) -> None:
    first = _write(tmp_path, "btrfs/a", _ENTRY)
    second = _write(tmp_path, "btrfs/b", _ENTRY)
    told = {complaint.message for complaint in lint([first, second])}
    assert told == {f"the same {what} as btrfs/a" for what in ("title", "ops", "fix")}


def test_lint_command(tmp_path: Path) -> None:
    path = _write(tmp_path, "btrfs/a", _ENTRY.replace("  fsync .", "  fsync   ."))
    runner = CliRunner()
    assert runner.invoke(corpus_group, ["lint", str(path)], standalone_mode=False).return_value == (
        ExitCode.BAD_INPUT
    )
    assert not runner.invoke(corpus_group, ["lint", "--fix", str(path)], standalone_mode=False).return_value
    assert path.read_text() == _ENTRY


def test_names_and_slugs_find_entries() -> None:
    by_name = load_entries(["rename-vs-directory-logging"])
    assert by_name == load_entries(["btrfs/rename-vs-directory-logging"])
    assert by_name[0].commits == ("3ca864de852b",)
    with pytest.raises(InputError):
        load_entries(["rename-vs-nothing"])


def test_a_workload_of_the_corpus_descends_from_its_entry() -> None:
    assert "btrfs/rename-vs-directory-logging" in {workload.descends for workload in load_corpus()}
