"""Quotas of xfs on a kernel that has them: silent after a crash, and a wrong count is found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fuzzer.target.uml import run_in_uml

pytestmark = pytest.mark.target("uml", "xfs", "mkfs.xfs", "xfs_repair")

_PROGRAM = Path(__file__).with_name("quota_counts.py")


def test_quota_counts_survive_and_a_wrong_one_is_found(tmp_path: Path) -> None:
    done = run_in_uml([sys.executable, str(_PROGRAM)], exchange=tmp_path, timeout_s=170.0)
    assert done.status == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["healthy"] == []
    [[rule, kind, found]] = said["damaged"]
    assert (rule, kind) == ("fsck", "user quota id N has bcount N, expected N")
    assert "user quota id 65534 has bcount 8," in found
