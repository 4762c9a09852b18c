"""The pipe inside one process: what a finding keeps, and what happens when the machinery fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzzer.campaign import execute as execute_module
from fuzzer.campaign.examine import examine
from fuzzer.campaign.execute import execute
from fuzzer.campaign.finding import load_finding, make_finding, save_finding
from fuzzer.campaign.hang import save_hang
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.run import has_state, recheck
from fuzzer.campaign.session import origin
from fuzzer.errors import HangError, InputError
from fuzzer.kernel.imagefile import store_image
from fuzzer.state.history import History
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.text import parse
from fuzzer.writelog.image import BLOCK_BYTES, Image
from fuzzer.writelog.joined import full_image
from fuzzer.writelog.points import Plan

pytestmark = pytest.mark.kernel

_WORKLOAD = """powercut 1
setup
  create a
  write a 0 64K
  sync
actor one
  write a 0 16K
  fsync a
"""


def test_a_finding_survives_its_campaign(fs: str, tmp_path: Path) -> None:
    """Saved, read back and judged again from its own log, it is the same finding."""
    workload = parse(_WORKLOAD).with_fs(fs)
    facts = origin(points="fsync", canary="lose-block", recorder="fuse")
    with open_lane("fuse") as lane:
        execution = execute(lane, workload)
        (forbidden, *_) = examine(lane, execution, Plan(), facts.canary).forbidden
        finding = make_finding(execution, forbidden, facts)
        place = save_finding(tmp_path / "findings", finding, execution, forbidden)
    saved = load_finding(place)
    assert saved.finding == finding
    assert saved.history == execution.history
    assert format_workload(saved.workload) == format_workload(workload)
    assert {path.name for path in place.iterdir()} == {
        *("finding.json", "repro.workload", "crash.json", "history.jsonl", "kmsg.txt"),
        *("tree.json", "writes.log.gz", "writes.log.times.gz"),
    }
    assert has_state(saved)
    with open_lane("fuse") as lane:
        again = recheck(lane, saved)
    assert again is not None
    assert again.rule_and_kind == forbidden.rule_and_kind
    assert list((tmp_path / "findings").glob(".draft-*")) == []


def test_the_log_is_the_whole_truth(fs: str) -> None:
    """mkfs log plus run log, applied to zeroes, is the device byte for byte."""
    workload = parse(_WORKLOAD).with_fs(fs)
    with open_lane("fuse") as lane:
        execution = execute(lane, workload)
        log = execution.log
        replayed = full_image(Image(workload.size), log.entries, log.payload)
        scratch = lane.scratch
        store_image(replayed, scratch)
        with lane.disk.open("rb") as disk, scratch.open("rb") as built:
            while block := disk.read(256 * BLOCK_BYTES):
                assert block == built.read(256 * BLOCK_BYTES)
            assert built.read(1) == b""


def test_a_hang_is_reported_and_releases_everything(
    fs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leak check of this directory sees to it that nothing stays."""
    stacks = {"one": "[<0>] wait_on_page_bit+0x1/0x2\n[<0>] fsync+0x3/0x4"}

    def hang(*_: object, **__: object) -> History:
        raise HangError("one does not die", stacks=stacks, pids=(), history=History(()))

    workload = parse(_WORKLOAD).with_fs(fs)
    with open_lane("fuse") as lane:
        monkeypatch.setattr(execute_module, "run_workload", hang)
        with pytest.raises(HangError) as caught:
            execute(lane, workload)
    facts = origin(points="fsync", canary="", recorder="fuse")
    finding = save_hang(tmp_path / "findings", workload, caught.value, facts)
    saved = load_finding(tmp_path / "findings" / finding.id)
    assert saved.finding.bucket == f"{fs}/hang/wait_on_page_bit"
    assert not has_state(saved)
    assert "wait_on_page_bit" in saved.kernel_lines()[0]


def test_a_damaged_finding_names_its_file(tmp_path: Path) -> None:
    place = tmp_path / "x"
    place.mkdir()
    for name in ("finding.json", "crash.json"):
        (place / name).write_text("{}")
    with pytest.raises(InputError) as caught:
        load_finding(place)
    assert str(place) in caught.value.place
