"""The files a version 2 memory cgroup is driven by, on plain files: most test machines have version 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzzer.kernel.memcg import CgroupV2

M = 1 << 20


@pytest.fixture
def cgroup(tmp_path: Path) -> CgroupV2:
    (tmp_path / "memory.current").write_text(f"{3 * M}\n")
    (tmp_path / "memory.events").write_text("low 0\nhigh 5\nmax 0\noom 1\noom_kill 2\n")
    return CgroupV2(tmp_path, 64 * M)


def content(cgroup: CgroupV2, name: str) -> str:
    return (cgroup.path / name).read_text()


def test_limits(cgroup: CgroupV2) -> None:
    cgroup.prepare()
    assert content(cgroup, "memory.max") == str(64 * M)
    cgroup.lower_limit(M)
    assert content(cgroup, "memory.high") == str(M)
    cgroup.squeeze(M, 0)
    assert content(cgroup, "memory.high") == "max"
    assert content(cgroup, "memory.max") == str(64 * M)


def test_no_limit(tmp_path: Path) -> None:
    CgroupV2(tmp_path, 0).prepare()
    assert (tmp_path / "memory.max").read_text() == "max"


def test_reclaim_and_counters(cgroup: CgroupV2) -> None:
    assert cgroup.reclaim(M) == 0, "the usage of plain files does not fall"
    assert content(cgroup, "memory.reclaim") == str(M)
    assert cgroup.oom_kills == 2
    cgroup.drop_charges()
    assert content(cgroup, "memory.reclaim") == str(3 * M)
