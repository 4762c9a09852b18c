"""The campaign's database: an index that can be rebuilt, and that refuses what it does not know."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from fuzzer.campaign.finding import Finding, load_facts, write_facts
from fuzzer.campaign.index import SCHEMA_VERSION, open_index
from fuzzer.errors import InputError
from oracles import Tally


def _finding(name: str) -> Finding:
    return Finding(
        id=name,
        bucket="xfs/data/old-data",
        fs="xfs",
        oracle="data",
        title=f"title of {name}",
        reproduced=(2, 5),
    )


def _save(directory: Path, finding: Finding) -> None:
    place = directory / "findings" / finding.id
    place.mkdir(parents=True)
    write_facts(place, finding)


def test_findings_on_disk_are_adopted(tmp_path: Path) -> None:
    _save(tmp_path, _finding("xfs-data-1"))
    with open_index(tmp_path) as index:
        (row,) = index.list_findings()
    assert row == _finding("xfs-data-1").summary()


def test_a_draft_that_a_killed_worker_left_is_no_finding(tmp_path: Path) -> None:
    _save(tmp_path, _finding("xfs-data-1"))
    (tmp_path / "findings" / "xfs-data-1").rename(tmp_path / "findings" / ".draft-xfs-data-1")
    with open_index(tmp_path) as index:
        assert index.list_findings() == []


def test_a_lost_database_is_rebuilt(tmp_path: Path) -> None:
    _save(tmp_path, _finding("xfs-data-1"))
    with open_index(tmp_path):
        pass
    (tmp_path / "campaign.db").unlink()
    with open_index(tmp_path) as index:
        assert [row["id"] for row in index.list_findings()] == ["xfs-data-1"]


def test_a_newer_database_is_refused_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "campaign.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE future (x)")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match="newer") as caught, open_index(tmp_path):
        pass
    assert caught.value.place == str(path)
    assert path.read_bytes() == before


def test_garbage_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "campaign.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(InputError, match="not a campaign database"), open_index(tmp_path):
        pass


def test_no_campaign(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no campaign"), open_index(tmp_path / "nothing"):
        pass


def test_find_by_prefix(tmp_path: Path) -> None:
    for name in ("xfs-data-12", "xfs-data-13", "xfs-data-1"):
        _save(tmp_path, _finding(name))
    with open_index(tmp_path) as index:
        assert index.find("xfs-data-13").name == "xfs-data-13"
        assert index.find("xfs-data-1").name == "xfs-data-1", "an exact id wins"
        for wrong in ("xfs-data", "btrfs", "%"):
            with pytest.raises(InputError):
                index.find(wrong)


def test_settings_totals_and_hits_last(tmp_path: Path) -> None:
    with open_index(tmp_path, create=True) as index:
        assert index.setting("seed", "5") == "5"
        for _ in range(2):
            index.add_counts({"workloads": 3, "crash_states": 35, "seconds": 2.5, **_tally().to_json()})
        assert [index.count_hit("b"), index.count_hit("b")] == [1, 2]
    with open_index(tmp_path) as index:
        assert index.setting("seed", "6") == "5"
        assert index.totals() == {
            **{"workloads": 6, "crash_states": 70, "unique_states": 0, "judged": 12, "no_promise": 6},
            "busy_ms": 5000,
            **{"judged_by_rule/data": 4, "judged_by_rule/size": 8},
            **{"no_promise_reasons/data: it moved": 2, "no_promise_reasons/size: no reason given": 4},
        }


def _tally() -> Tally:
    tally = Tally()
    tally.judged += 2
    tally.skip("it moved")
    tally.done("data")
    tally.judged += 4
    tally.no_promise += 2
    tally.done("size")
    return tally


def test_tally_by_rule_and_reason() -> None:
    tally = _tally()
    assert (tally.judged, dict(tally.rules)) == (6, {"data": 2, "size": 4})
    assert (tally.no_promise, dict(tally.reasons)) == (
        3,
        {"data: it moved": 1, "size: no reason given": 2},
    )
    both = Tally()
    for _ in range(2):
        both.add_json(json.loads(json.dumps(tally.to_json())))
    assert both.words() == ("judged 12 objects, 6 not promised (4 size: no reason given, 2 data: it moved)")
    assert Tally().words() == "judged 0 objects, 0 not promised"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"finding": 1}', '{"finding": 2, "id": "x"}', '{"finding": 1, "id": 3, "no": 1}']
)
def test_damaged_facts_name_their_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "finding.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_facts(tmp_path)
    assert caught.value.place == str(tmp_path / "finding.json")
