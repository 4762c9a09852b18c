"""The triage commands on a campaign without a kernel: filters, marks, and how long they take."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from dossiers import make_dossier, save

from fuzzer.campaign.finding import Finding, load_facts, load_finding, write_facts
from fuzzer.campaign.index import open_index
from fuzzer.cli.triage import triage_group
from fuzzer.errors import InputError
from fuzzer.triage.dossier import Dossier, load_dossier, load_smallest
from fuzzer.triage.treediff import diff_tree

_MANY, _STATES = 5_000, 100_000
_LIMIT_S = 1.0


def _save(directory: Path, name: str, **more: object) -> None:
    facts = Finding(
        **{"bucket": "xfs/data/old-data", "fs": "xfs", "oracle": "data", "title": "t", **more}, id=name
    )  # type: ignore[arg-type]
    place = directory / "findings" / name
    place.mkdir(parents=True)
    write_facts(place, facts)


def _run(directory: Path, *words: str) -> list[str]:
    done = CliRunner().invoke(triage_group, [*words, "--dir", str(directory)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    _save(tmp_path, "xfs-1", reproduced=(1, 10), ops=9)
    _save(tmp_path, "xfs-2", reproduced=(9, 10), ops=3, bucket="xfs/names/gone")
    _save(tmp_path, "btrfs-1", fs="btrfs", known="0001", reproduced=(5, 10), ops=5, bucket="btrfs/known/0001")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("", "btrfs-1 xfs-1 xfs-2"),
        ("--fs xfs", "xfs-1 xfs-2"),
        ("--bucket names", "xfs-2"),
        ("--known", "btrfs-1"),
        ("--new --fs xfs", "xfs-1 xfs-2"),
        ("--new --fs btrfs", ""),
        ("--status new", "xfs-1 xfs-2"),
        ("--status known", "btrfs-1"),
        ("--status fixed", ""),
        ("--sort rate", "xfs-2 btrfs-1 xfs-1"),
        ("--sort ops", "xfs-2 btrfs-1 xfs-1"),
        ("--sort bucket", "btrfs-1 xfs-1 xfs-2"),
    ],
)
def test_list_filters_and_sorts(campaign: Path, words: str, ids: str) -> None:
    rows = [json.loads(line) for line in _run(campaign, "list", "--json", *words.split())]
    assert [row["id"] for row in rows] == ids.split()


def test_findings_are_filed_anew_by_what_is_known_today(tmp_path: Path) -> None:
    dossier = make_dossier(name="a")
    for number, changed in enumerate(
        ({"facts": {"replay": "no"}}, {"facts": {"replay": "no"}, "canary": "x"}, {})
    ):
        finding = replace(dossier.saved.finding, id=f"f{number}", bucket="old", **changed)
        save(Dossier(replace(dossier.saved, finding=finding), dossier.log, dossier.tree), tmp_path)
    assert _run(tmp_path, "refile") == ["f0: old is now btrfs/uncommitted/fsync/data"]
    assert load_facts(tmp_path / "findings/f0").facts["commit"] == "none"
    assert [row.split()[3] for row in _run(tmp_path, "list")] == [
        "btrfs/uncommitted/fsync/data",
        "old",
        "old",
    ]
    assert _run(tmp_path, "refile") == []


def test_a_known_bug_is_not_called_new(campaign: Path) -> None:
    """It was, beside its number; in JSON the mark and the number stay apart."""
    (line,) = _run(campaign, "list", "--known")
    assert line.startswith("btrfs-1  known 0001  5/10  btrfs/known/0001  fsync returns while another")
    (row,) = (json.loads(line) for line in _run(campaign, "list", "--known", "--json"))
    assert (row["status"], row["known"]) == ("new", "0001")
    _run(campaign, "mark", "btrfs-1", "duplicate")
    (line,) = _run(campaign, "list", "--status", "duplicate")
    assert line.startswith("btrfs-1  duplicate  5/10  btrfs/known/0001")
    assert _run(campaign, "list", "--status", "known") == []


def test_a_mark_survives_a_lost_database(campaign: Path) -> None:
    assert _run(campaign, "mark", "xfs-2", "duplicate", "--reason", "as xfs-1") == ["xfs-2: duplicate"]
    assert not [line for line in _run(campaign, "list", "--new") if "xfs-2" in line]
    (campaign / "campaign.db").unlink()
    (line,) = _run(campaign, "list", "--status", "duplicate")
    assert line.startswith("xfs-2  duplicate")
    shown = json.loads(_run(campaign, "show", "xfs-2", "--json")[0])
    assert (shown["status"], shown["reason"]) == ("duplicate", "as xfs-1")


@pytest.mark.parametrize(
    "violation",
    [{"rule": "data"}, {"surprise": 1}, {"sync": "x"}, 5],
)
def test_a_damaged_violation_is_refused(campaign: Path, violation: object) -> None:
    place = campaign / "findings" / "xfs-1"
    data = json.loads((place / "finding.json").read_text())
    data["violations"] = [violation]
    (place / "finding.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="not a finding"):
        load_facts(place)


@pytest.mark.parametrize("name", ["repro.workload", "crash.json", "history.jsonl"])
def test_a_finding_that_lacks_a_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """Without its workload it was called a bug of ours."""
    place = save(make_dossier(name="a"), tmp_path)
    (place / name).unlink()
    with pytest.raises(InputError, match=f"damaged finding.*{name}") as caught:
        load_finding(place)
    assert caught.value.place == str(place)


def test_a_finding_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    dossier = make_dossier(name="a")
    again = load_dossier(save(dossier, tmp_path))
    assert again.tree == dossier.tree
    assert (again.cut, again.saved.state) == (dossier.cut, dossier.saved.state)
    assert [r.decoded for r in again.requests] == [r.decoded for r in dossier.requests]
    assert diff_tree(again) == diff_tree(dossier)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("show", "promised: data durable by completed `fsync a`"),
        ("show", "descends from btrfs/a-race"),
        ("show --timeline", "promised: fsync a"),
        ("show --log", "data of a at 0..4096 by `write a 0 4K` (actor 1, op 2)  [lost]"),
        ("diff", "! a 0..4096"),
        ("diff --json", '"broken": true'),
        ("report --mail", "Subject: btrfs"),
        ("report", "report.html"),
    ],
)
def test_every_command_shows_it(tmp_path: Path, words: str, shown: str) -> None:
    save(make_dossier(name="a"), tmp_path)
    command, *options = words.split()
    assert any(shown in line for line in _run(tmp_path, command, "btrfs-data", *options))


def test_a_report_is_about_the_minimized_run(tmp_path: Path) -> None:
    place = save(make_dossier(name="large"), tmp_path)
    assert load_smallest(place).saved.directory == place
    save(make_dossier(name="small"), tmp_path / "other").rename(place / "minimized")
    _run(tmp_path, "mark", "btrfs-data", "known", "--reason", "seen before")
    small = load_smallest(place)
    assert (small.saved.finding.id, small.saved.finding.reason) == (place.name, "seen before")
    text = "\n".join(_run(tmp_path, "report", "--mail", "btrfs-data"))
    assert "fsync small" in text
    assert "large" not in text


def test_a_damaged_tree_is_refused_by_name(tmp_path: Path) -> None:
    place = save(make_dossier(name="a"), tmp_path)
    (place / "tree.json").write_text("[]")
    with pytest.raises(InputError, match="not a tree") as caught:
        load_dossier(place)
    assert caught.value.place == str(place / "tree.json")


def test_large_campaigns_answer_in_a_second(tmp_path: Path) -> None:
    """Processor time: the machine may be busy with something else."""
    findings = tmp_path / "findings"
    for number in range(_MANY):
        place = findings / f"xfs-data-{number:05}"
        place.mkdir(parents=True)
        text = json.dumps({**_facts(number), "id": place.name})
        (place / "finding.json").write_text(text)
    with open_index(tmp_path, create=True) as index:
        index.add_counts({"crash_states": _STATES})
    for words in (["list", "--json"], ["list", "--sort", "rate"], ["show", "xfs-data-04999", "--json"]):
        began = time.process_time()
        _run(tmp_path, *words)
        assert time.process_time() - began < _LIMIT_S, words


def _facts(number: int) -> dict[str, object]:
    return {
        "finding": 1,
        "bucket": f"xfs/data/{number % 50}",
        "fs": "xfs",
        "oracle": "data",
        "title": "a bytes 0..4096: promised data durable by completed `fsync a`; found zeros",
        "reproduced": [number % 7, 10],
        "known": "0001" if number % 3 else "",
        "violations": [],
        "created": f"2026-01-02T03:{number % 60:02}:00+00:00",
    }
