"""Every op of the table works on a real mount of every file system that has it.

What an op does is tested elsewhere; here nobody may add one that was never seen to succeed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fuzzer.kernel.actors import run_workload
from fuzzer.kernel.memcg import memory_cgroup
from fuzzer.kernel.workarea import RunArea
from fuzzer.workload.model import Actor, Op, Workload
from fuzzer.workload.ops import OPS
from fuzzer.workload.options import FILE_SYSTEMS
from tests.kernel.fresh import fresh_file_system, op

pytestmark = pytest.mark.kernel("memcg")

K, M = 1 << 10, 1 << 20
MKFS = {"btrfs": "", "xfs": "-d size=300m"}

NAMES = (
    op("create", path="a"),
    op("create", path="b"),
    op("mkdir", path="d"),
    op("symlink", target="a", path="s"),
    op("mknod", path="fifo"),
    op("tmplink", path="t", off=0, len=8),
    op("link", source="a", to="d/a"),
    op("rename", source="d/a", to="d/c"),
    op("unlink", path="d/c"),
    op("rmdir", path="d"),
)
DATA = (
    op("write", path="a", off=0, len=64 * K),
    op("append", path="a", len=8 * K),
    op("splice", path="a", off=0, len=8 * K),
    op("fault_write", path="a", off=0, len=64 * K, good=8 * K),
    op("dwrite", path="a", off=0, len=8 * K),
    op("awrite", path="a", off=0, len=64 * K),
    op("mwrite", path="a", off=0, len=8 * K),
    op("mapped_write", path="a", src=0, off=32 * K, len=8 * K, direct="yes"),
    op("read", path="a", off=0, len=8 * K),
    op("clone", source="a", to="b", src=0, off=0, len=4 * K),
    op("copy_range", source="a", to="b", src=0, off=4 * K, len=4 * K),
    op("dedupe", source="a", to="b", src=0, off=0, len=4 * K),
    op("fallocate", path="a", off=M, len=8 * K),
    op("truncate", path="a", size=16 * K),
)
SYNCS = (
    op("fsync", path="a"),
    op("fdatasync", path="a"),
    op("msync", path="a", off=0, len=4 * K),
    op("sync_file_range", path="a", off=0, len=0),
    op("sync"),
    op("syncfs"),
    op("freeze"),
    op("remount_ro"),
)
ATTRIBUTES = (
    op("chmod", path="a", mode=0o600),
    op("chown", path="a", uid=1, gid=1),
    op("utimes", path="a"),
    op("chattr", path="a", flag="append"),
    op("chattr", path="a", flag="append", to="off"),
    op("setxattr", path="a", name="x"),
    op("removexattr", path="a", name="x"),
    op("acl", path="a", uid=1000, kind="access"),
    op("otrunc", path="b"),
)
ENVIRONMENT = (
    op("drop_caches", level="3"),
    op("reclaim", bytes=M),
    op("squeeze", limit=24 * M, hold_ms=1),
    op("label"),
    op("remount"),
    op("compact"),
    op("fstrim"),
    op("evict", path="a"),
    op("look", path="a", how="stat"),
    op("knob", name="swappiness", value=60),
    op("sleep", us=1),
    op("spin", us=1),
    op("barrier", name="alone"),
)
OWN = {
    "btrfs": (
        op("subvol_create", path="v"),
        op("snapshot", source="v", path="w", access="ro"),
        op("send", path="w"),
        op("subvol_delete", path="v"),
        op("balance", type="metadata"),
        op("scrub"),
        op("defrag", path="a"),
        op("quota", action="enable"),
        op("resize", to="smaller"),
    ),
    "xfs": (op("create", path="e"), op("extsize", path="e", size=64 * K), op("growfs", blocks=256)),
}
ELSEWHERE = {"balance_ctl", "exchange_range"}
"""One needs a balance to run beside it (test_environment_actions.py), the other an xfs that the installed
mkfs may not be able to make (test_exchange.py)."""


def wanted(fs: str) -> set[str]:
    return {
        name
        for name, spec in OPS.items()
        if all(need == fs for need in spec.requires if need in FILE_SYSTEMS)
    }


def tried(fs: str) -> tuple[Op, ...]:
    return (*NAMES, *DATA, *SYNCS, *ATTRIBUTES, *ENVIRONMENT, *OWN[fs])


def test_every_op_is_tried(fs: str) -> None:
    """The table may grow; then this file has to."""
    assert {op.name for op in tried(fs)} == wanted(fs) - ELSEWHERE


def test_every_op_succeeds(area: RunArea, image: Path, fs: str) -> None:
    with fresh_file_system(area, image, fs, MKFS[fs]) as fresh, memory_cgroup(area, 64 * M) as cgroup:
        workload = Workload(actors=(Actor("one", tried(fs)),), memory=64 * M)
        history = run_workload(workload, fresh.path, fs=fs, cgroup=cgroup, deadline_s=60)
        found = {(event.op.brief, os.strerror(event.errno)) for event in history.events if event.failed}
        assert not found
        assert {event.op.name for event in history.events} == wanted(fs) - ELSEWHERE
