"""The table of reviewed findings is what the command makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from fuzzer.campaign.finding import load_finding
from fuzzer.cli.triage import triage_group
from fuzzer.errors import InputError
from fuzzer.triage.catalog import CRASHES, entries, with_table
from fuzzer.triage.known import load_known


def test_the_table_is_current() -> None:
    text = (CRASHES / "README.md").read_text()
    assert text == with_table(text, list(entries(CRASHES, load_known()))), "run `powercut triage index`"


def test_runs_that_are_kept_are_of_their_bugs() -> None:
    """None of 0003: it took the machine down."""
    places = [path.parent for path in CRASHES.glob("0*-*/finding.json")]
    assert len(places) >= 11
    for place in places:
        saved = load_finding(place)
        assert saved.finding.known == place.name[:4]
        # What a guest that went down had done is lost with it.
        assert saved.history.events or saved.finding.oracle == "kernel-log"
        assert saved.finding.id in (place / "report.html").read_text()


def test_the_command_replaces_only_the_table(tmp_path: Path) -> None:
    copy = tmp_path / "crashes"
    shutil.copytree(CRASHES, copy)
    place = next(copy.glob("0005-*"))
    facts = json.loads((place / "finding.json").read_text())
    (place / "finding.json").write_text(json.dumps(facts | {"reproduced": [7, 9]}))
    readme = copy / "README.md"
    readme.write_text(readme.read_text() + "\nThe end.\n")
    before = readme.read_text().splitlines()
    CliRunner().invoke(triage_group, ["index", str(copy)], catch_exceptions=False)
    changed = [new for old, new in zip(before, readme.read_text().splitlines(), strict=True) if old != new]
    (line,) = changed
    assert line.startswith("| [0005](")
    assert line.endswith("| 7/9 |")


@pytest.mark.parametrize("name", ["0005-btrfs-x", "notes", "0099-xfs-x"])
def test_what_is_not_whole_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    if name.startswith("0099"):
        for needed in ("finding.md", "repro.workload"):
            (tmp_path / name / needed).write_text("{}")
    with pytest.raises(InputError):
        list(entries(tmp_path, load_known()))
