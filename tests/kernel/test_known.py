"""Known bugs on this kernel: reviewed workloads are recognized, planted bugs are not taken for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fuzzer.campaign.examine import examine
from fuzzer.campaign.execute import execute
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.run import attempts
from fuzzer.workload.generate import generate
from fuzzer.workload.model import Workload
from fuzzer.workload.text import parse_bytes
from fuzzer.writelog.canary import CANARIES
from fuzzer.writelog.points import Plan

pytestmark = pytest.mark.kernel

_CRASHES = Path(__file__).resolve().parents[2] / "crashes"
_RUNS = 3
_REPRODUCIBLE = (
    "0001", "0002", "0004", "0005", "0006", "0007", "0008", "0009", "0012", "0015", "0017", "0020",
)  # fmt: skip
"""0003 would take the machine down."""


@pytest.mark.parametrize("bug", _REPRODUCIBLE)
def test_what_a_reviewed_workload_shows_is_known(bug: str) -> None:
    """A kernel with the bug fixed shows nothing; whatever shows is this bug and no other."""
    (path,) = _CRASHES.glob(f"{bug}-*/repro.workload")
    workload = parse_bytes(path.read_bytes(), str(path))
    with open_lane("fuse") as lane:
        runs = list(attempts(lane, workload, _RUNS, Plan()))
    assert {bucket for run in runs for bucket in run.buckets} <= {f"{workload.fs}/known/{bug}"}


def test_planted_bugs_are_not_taken_for_known_ones(fs: str) -> None:
    """One actor cannot race with itself, so nothing of the kernel's own is in the way."""
    with open_lane("fuse") as lane:
        for index in range(_RUNS):
            workload = _one_actor(index, fs)
            execution = execute(lane, workload)
            honest = {f.bucket for f in examine(lane, execution, Plan()).forbidden}
            for canary in CANARIES:
                planted = {f.bucket for f in examine(lane, execution, Plan(), canary).forbidden}
                assert not {name for name in planted - honest if "/known/" in name}, (index, canary)


def _one_actor(index: int, fs: str) -> Workload:
    workload = generate(11, index, fs)
    return replace(workload, actors=workload.actors[:1], memory=0)
