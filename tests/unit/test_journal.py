"""The journal as a sweep reads it, and mountinfo."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fuzzer.kernel import journal
from fuzzer.kernel.journal import parse_journal
from fuzzer.kernel.procfs import mount_namespaces, parse_mountinfo, start_ticks


def _head(**changes: object) -> str:
    head = {
        "run": "0a0b0c0d",
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pid_namespace": str(Path("/proc/self/ns/pid").readlink()),
        "mount_namespace": str(Path("/proc/self/ns/mnt").readlink()),
        "pid": os.getpid(),
        "start_ticks": start_ticks(os.getpid()),
    }
    return json.dumps(head | changes) + "\n"


def test_what_was_given_back_is_not_held() -> None:
    text = _head() + '{"take": "loop", "value": 100}\n{"take": "loop", "value": 101}\n'
    text += '{"give": "loop", "value": 100}\n{"take": "loop", "val'
    left = parse_journal("0a0b0c0d", text, 0)
    assert left.held == (("loop", 101),)
    assert left.values("loop") == (101,)


def test_owner_is_known_by_pid_and_start() -> None:
    assert parse_journal("a", _head(), 0).alive
    assert not parse_journal("a", _head(start_ticks=1), 0).alive
    assert not parse_journal("a", _head(boot="other"), 0).alive
    assert parse_journal("a", _head(pid_namespace="pid:[1]", start_ticks=1), 0).alive


def test_a_run_that_died_in_a_container_that_lives_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "mount_namespaces", lambda: frozenset({"mnt:[2]"}))
    assert parse_journal("a", _head(start_ticks=1, mount_namespace="mnt:[2]"), 0).alive
    assert not parse_journal("a", _head(start_ticks=1, mount_namespace="mnt:[3]"), 0).alive


def test_we_live_in_a_mount_namespace() -> None:
    assert str(Path("/proc/self/ns/mnt").readlink()) in mount_namespaces()


def test_headless_journal_dies_of_age() -> None:
    assert parse_journal("a", "", 1).alive
    assert not parse_journal("a", "", 3600).alive


def test_mountinfo() -> None:
    (found,) = parse_mountinfo("36 35 0:41 / /mnt/a\\040b rw,noatime shared:1 - fuse.rec src rw,user_id=0\n")
    assert (found.path, found.fs, found.source, found.minor) == (Path("/mnt/a b"), "fuse.rec", "src", 41)


def test_start_ticks_of_nobody() -> None:
    assert start_ticks(2**22 + 1) is None
