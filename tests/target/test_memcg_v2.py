"""Memory pressure through a real cgroup version 2: the guest has one, most test machines do not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fuzzer.kernel.probe import missing
from fuzzer.target.uml import run_in_uml

pytestmark = [
    pytest.mark.target,
    pytest.mark.skipif(bool(missing(["uml"])), reason="package user-mode-linux is not installed"),
]

SCRIPT = """
import json, subprocess
from pathlib import Path
from fuzzer.kernel.actors import run_workload
from fuzzer.kernel.libc import mount
from fuzzer.kernel.memcg import memory_cgroup
from fuzzer.workload.model import Actor, Workload, make_op

M = 1 << 20
Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")
area, path = Path("/run/area"), Path("/run/mnt")
area.mkdir(), path.mkdir()
mount("none", str(area), "tmpfs")
subprocess.run(["truncate", "-s", "320M", area / "image"], check=True)
subprocess.run(["mkfs.xfs", "-q", area / "image"], check=True)
subprocess.run(["mount", "-o", "loop", area / "image", path], check=True)
writes = tuple(make_op("write", {"path": "A", "off": k * M, "len": M}) for k in range(32))
pressure = (make_op("squeeze", {"limit": 8 * M, "hold_ms": 50}), make_op("reclaim", {"bytes": 4 * M}))
workload = Workload(
    setup=(make_op("create", {"path": "A"}),),
    actors=(Actor("writer", writes, loop=2), Actor("pressure", pressure, loop=None)),
    memory=64 * M,
)
with memory_cgroup("powercut-test", 64 * M) as group:
    history = run_workload(workload, path, fs="xfs", cgroup=group, deadline_s=60)
    found = {
        "kind": type(group).__name__,
        "killed": [*history.killed, group.oom_kills],
        "errnos": sorted({event.errno for event in history.events}),
        "reclaimed": max(event.result for event in history.events if event.op.name == "reclaim"),
        "squeezes": sum(event.op.name == "squeeze" for event in history.events),
        "limits": [(group.path / name).read_text().strip() for name in ("memory.high", "memory.max")],
    }
print(json.dumps(found | {"gone": not group.path.exists()}))
"""


def test_pressure_kills_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    result = run_in_uml([sys.executable, "-c", SCRIPT], exchange=tmp_path, timeout_s=120)
    assert result.status == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.pop("reclaimed") > 1 << 20
    assert found.pop("squeezes") > 0
    assert found == {
        "kind": "CgroupV2",
        "killed": [0],
        "errnos": [0],
        "limits": ["max", str(64 << 20)],
        "gone": True,
    }
