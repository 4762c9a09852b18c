"""`powercut bench` measures every thing once within its time; what numbers come out is the machine's."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

from fuzzer.campaign.bench import PHASES, Comparison
from fuzzer.cli import main
from fuzzer.kernel.load import fsync_rate, sequential_rate
from fuzzer.kernel.workarea import RunArea

pytestmark = pytest.mark.kernel


def test_every_line_is_there_and_adds_up(fs: str) -> None:
    started = time.monotonic()
    result = CliRunner().invoke(main, ["bench", "--fs", fs, "--time", "4s", "--json"])
    assert result.exit_code == 0, result.output
    assert time.monotonic() - started < 60
    *comparisons, costs, sequential, rate = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["name"] for one in comparisons] == [
        "recorded fsync, 1 writer",
        "recorded fsync, 4 writers",
        "recorded 1 MiB writes",
        "crash state without fsck",
    ]
    for one in comparisons:
        assert one["fs"] == fs
        assert one["value"] > 0
        assert one["base"] > 0
        assert one["met"] in ({None} if one["target"] is None else {True, False})
    assert costs["fs"] == fs
    assert costs["unique"] >= costs["workloads"] >= 1
    assert set(costs["phase_ms"]) == {*PHASES, "other"}
    assert all(costs["phase_ms"][name] > 0 for name in ("mount", "walk", "unmount", "fsck"))
    assert sum(costs["phase_ms"].values()) == pytest.approx(1000 / costs["per_s"])
    assert sequential["event"] == "sequential-costs"
    assert sequential["fs"] == fs
    assert {"actors", "live mount", "mount", "judge"} < set(sequential["phase_ms"])
    assert sum(sequential["phase_ms"].values()) == pytest.approx(1000 / sequential["per_s"])
    assert rate["event"] == "sequential-small"
    assert rate["fs"] == fs
    assert rate["workloads"] > 1
    assert rate["met"] == (rate["per_s"] >= rate["target_per_s"])
    assert costs["per_s_of_all"] < costs["per_s"] < costs["per_s_without_fsck"]


def test_people_see_whether_a_target_is_met() -> None:
    result = CliRunner().invoke(main, ["bench", "--fs", "btrfs", "--time", "1s"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum(line.endswith((": met", ": NOT MET")) for line in lines) == 4
    assert any("ms per unique state: build " in line for line in lines)


@pytest.mark.parametrize(
    ("ratio", "target", "at_most", "met"),
    [(0.3, 0.3, False, True), (0.2, 0.3, False, False), (2.0, 3.0, True, True), (9.0, None, True, None)],
)
def test_targets(ratio: float, target: float | None, at_most: bool, met: bool | None) -> None:
    one = Comparison(
        name="x", fs="xfs", value=1, base=1, unit="ms", ratio=ratio, target=target, at_most=at_most
    )
    assert one.met is met


def test_loads_leave_what_they_wrote(area: RunArea) -> None:
    directory = area.mkdir("load")
    assert fsync_rate(directory, 2, 0.05) > 0
    assert sequential_rate(directory, 2 << 20) > 0
    sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
    assert sizes == {"fsync-0": 1 << 20, "fsync-1": 1 << 20, "stream": 2 << 20}
