"""Documented races are found with their fix taken out, and nothing is said with it in. Takes minutes each."""

from __future__ import annotations

import pytest

from fuzzer.campaign.corpus import workload_of
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.score import score
from fuzzer.errors import PowercutError
from fuzzer.target.build import KNOWN_BUGS
from fuzzer.target.kernels import find_kernel

pytestmark = [pytest.mark.target, pytest.mark.rediscovery]


@pytest.mark.parametrize(
    ("bug", "fs"),
    [
        ("failed-write-vs-mmap-store", "xfs"),
        ("nocow-write-vs-balance", "btrfs"),
        ("page-release-vs-fast-fsync", "btrfs"),
    ],
)
def test_found_on_and_silent_off(bug: str, fs: str) -> None:
    try:
        plan = find_kernel(KNOWN_BUGS).plan(cpus=2, memory_mib=3072)
    except PowercutError as error:
        pytest.skip(f"{error} ({error.hint})")
    workload = workload_of(bug)
    with open_lane("auto") as lane:
        on = score(lane, plan, workload, fs=fs, on=True, time_s=600, enough=1, say=print)
        off = score(lane, plan, workload, fs=fs, on=False, time_s=on.seconds + 60, enough=1, say=print)
    assert on.found
    assert on.hits
    assert off.runs
    assert (off.found, off.hits, off.lost) == (0, 0, "")
