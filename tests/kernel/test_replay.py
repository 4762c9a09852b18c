"""`powercut replay`: logs of real mounts, healthy, damaged, cut short, and no logs at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fuzzer.campaign.execute import execute
from fuzzer.campaign.lane import open_lane
from fuzzer.cli import main
from fuzzer.workload.text import parse
from fuzzer.writelog.format import Log, parse_log, read_log, times_path, write_log
from fuzzer.writelog.joined import write_joined
from fuzzer.writelog.model import MARK_MKFS, Entry

pytestmark = pytest.mark.kernel

_WORKLOAD = """powercut 1

setup
  mkdir d
  sync

actor one loop=3
  create d/a
  write d/a 0 65536
  fsync d/a
  rename d/a b
  fsync d

actor two loop=3
  create c
  write c 0 16384
  fsync c
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The log of one small workload per file system, recorded when first asked for."""
    directory = tmp_path_factory.mktemp("logs")

    def record(fs: str) -> Path:
        path = directory / f"{fs}.log"
        if not path.exists():
            with open_lane("fuse") as lane:
                execution = execute(lane, parse(_WORKLOAD).with_fs(fs))
                write_joined(path, execution.log)
        return path

    return record


@pytest.fixture
def log(recorded: Callable[[str], Path], tmp_path: Path, fs: str) -> Path:
    """A copy of that log, to be damaged."""
    path = tmp_path / "writes.log"
    shutil.copy(recorded(fs), path)
    shutil.copy(times_path(recorded(fs)), times_path(path))
    return path


def _replay(*args: str | Path) -> Result:
    result = CliRunner().invoke(main, ["replay", *map(str, args)])
    assert not isinstance(result.exception, AssertionError), result.output
    return result


def _lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("points", ["flush", "fua"])
def test_a_healthy_log_has_no_findings(log: Path, fs: str, points: str, tmp_path: Path) -> None:
    result = _replay(log, "--points", points, "--json", "--dir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (summary,) = _lines(result)
    assert summary["event"] == "summary"
    assert summary["findings"] == 0
    assert summary["dir"] == str(tmp_path / "out")
    states, unique = summary["crash_states"], summary["unique_states"]
    assert isinstance(states, int)
    assert isinstance(unique, int)
    assert 5 < unique < states
    assert (tmp_path / "out/replay.jsonl").read_text() == result.stdout


def test_a_damaged_log_is_a_finding(log: Path, fs: str) -> None:
    """The bytes at which the root tree, or the root inode's cluster, is written are not as they were."""
    _corrupt_metadata(log, fs)
    result = _replay(log, "--json")
    assert result.exit_code == 1, result.output
    *findings, summary = _lines(result)
    assert summary["findings"] == len(findings) > 0
    rules = {str(found["rule"]) for found in findings}
    assert rules & {"mountable", "readable", "kernel-log", "fsck"}
    text = _replay(log)
    assert text.exit_code == 1
    assert len(text.stdout.splitlines()) == len(findings)
    assert "power cut after log entry" in text.stdout


def _corrupt_metadata(path: Path, fs: str) -> None:
    """Flip bits in the workload's superblock (btrfs) or inode cluster writes (xfs, magic `IN`)."""
    log = read_log(path, mapped=False)
    data = bytearray(path.read_bytes())
    start = next(e.index for e in log.entries if e.mark == MARK_MKFS)
    hits = 0
    for entry in log.entries[start:]:
        payload = log.payload(entry)
        if (fs == "btrfs" and entry.offset == 65536) or (fs == "xfs" and bytes(payload[:2]) == b"IN"):
            at = entry.data_at + 200
            data[at : at + 8] = bytes(byte ^ 0xFF for byte in data[at : at + 8])
            hits += 1
    assert hits
    path.write_bytes(data)


def test_a_log_cut_short_is_refused_with_its_place(log: Path, fs: str) -> None:
    size = log.stat().st_size
    with log.open("r+b") as file:
        file.truncate(size // 2)
    result = _replay(log)
    assert result.exit_code == 2
    assert re.search(rf"{log}:\d+: the file ends inside .*entry \d+", result.stderr)


@pytest.mark.parametrize("content", [b"", b"garbage\n" * 1000, None])
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "no.log"
    if content is not None:
        path.write_bytes(content)
    for given in (path, tmp_path):
        result = _replay(given, "--json")
        assert result.exit_code == 2, result.output
        assert f"{given}:0: " in result.stderr
        assert result.stdout == ""


def test_without_history_fsync_points_need_marks(log: Path, fs: str) -> None:
    result = _replay(log, "--points", "fsync")
    assert result.exit_code == 2
    assert "--points flush" in result.stderr


def test_sync_marks_are_points(log: Path, fs: str) -> None:
    whole = read_log(log, mapped=False)
    flush = [entry for entry in whole.entries if entry.is_flush][-2]
    _insert_mark(log, whole, flush.index + 1, "sync:1:5")
    result = _replay(log, "--points", "fsync", "--json")
    assert result.exit_code == 0, result.output
    assert _lines(result)[-1]["crash_states"] == 3  # worst and best of one point, and the end


def _insert_mark(path: Path, log: Log, index: int, text: str) -> None:
    mkfs = next(entry for entry in log.entries if entry.mark == MARK_MKFS)
    mark: Entry = replace(mkfs, mark=text)
    write_log(path, [(log, [*log.entries[:index], mark, *log.entries[index:]])])


def test_a_log_without_the_mark_mkfs_is_refused(log: Path, fs: str) -> None:
    whole = read_log(log, mapped=False)
    write_log(log, [(whole, [entry for entry in whole.entries if entry.mark != MARK_MKFS])])
    result = _replay(log)
    assert result.exit_code == 2
    assert "no mark `mkfs`" in result.stderr


def test_the_device_must_hold_the_log(log: Path, fs: str) -> None:
    result = _replay(log, "--size", "1048576")
    assert result.exit_code == 2
    assert "does not fit" in result.stderr
    assert _replay(log, "--size", str((320 << 20) + 1)).exit_code == 2
    assert _replay(log, "--size", str(400 << 20)).exit_code == 0


def test_a_log_of_another_file_system_needs_fs(tmp_path: Path, fs: str, log: Path) -> None:
    whole = parse_log(log.read_bytes())
    first = [entry for entry in whole.entries if entry.is_write][:1]
    mkfs = next(entry for entry in whole.entries if entry.mark == MARK_MKFS)
    empty = tmp_path / "other.log"
    write_log(empty, [(whole, [replace(first[0], offset=1 << 20), mkfs])])
    result = _replay(empty)
    assert result.exit_code == 2
    assert "no btrfs or xfs" in result.stderr
