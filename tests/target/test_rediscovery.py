"""Documented races are found with their fix taken out, and nothing is said with it in. Takes minutes each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fuzzer.campaign.hunt import Trial, hunt
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.scoreboard import SEED
from fuzzer.errors import PowercutError
from fuzzer.target.build import KNOWN_BUGS
from fuzzer.target.kernels import find_kernel
from fuzzer.target.targets import target_of

pytestmark = [pytest.mark.target, pytest.mark.rediscovery]


@pytest.mark.parametrize(
    ("bug", "fs"),
    [
        ("failed-write-vs-mmap-store", "xfs"),
        ("nocow-write-vs-balance", "btrfs"),
        ("page-release-vs-fast-fsync", "btrfs"),
    ],
)
def test_found_on_and_silent_off(bug: str, fs: str, tmp_path: Path) -> None:
    try:
        target = target_of(find_kernel(KNOWN_BUGS))
    except PowercutError as error:
        pytest.skip(f"{error} ({error.hint})")
    on = Trial(bugs=(bug,), fs=fs, origin=SEED, time_s=600)
    with open_lane("auto") as lane:
        (found,) = hunt(lane, target, on, directory=tmp_path, say=print)
        off = replace(on, on=False, time_s=found.seconds + 60)
        (silent,) = hunt(lane, target, off, directory=tmp_path, say=print)
    assert found.found
    assert found.hits
    assert silent.runs
    assert (silent.found, silent.hits, silent.lost) == (0, 0, "")
