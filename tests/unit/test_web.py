"""The site of a campaign: it shows findings, escapes what they say, and changes nothing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzzer.campaign.finding import Finding
from fuzzer.campaign.index import open_index
from fuzzer.errors import MissingCapabilityError
from fuzzer.triage.web import LOOPBACK, make_site


def _get(directory: Path, *paths: str) -> list[Any]:
    async def get() -> list[Any]:
        site = make_site(directory)
        return [await site.client.get(path) for path in paths]

    return asyncio.run(get())


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    finding = Finding(id="xfs-1", bucket="b", fs="xfs", oracle="data", title="<script>alert(1)</script>")
    with open_index(tmp_path, create=True) as index:
        index.put_finding(finding)
    return tmp_path


def test_findings_are_shown_and_escaped(campaign: Path) -> None:
    pytest.importorskip("datasette")
    page, data = _get(campaign, "/campaign/findings", "/campaign/findings.json?_shape=objects")
    assert page.status_code == 200
    assert "<script>alert(1)" not in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert [row["id"] for row in data.json()["rows"]] == ["xfs-1"]


def test_nothing_can_be_changed(campaign: Path) -> None:
    pytest.importorskip("datasette")
    delete, download = _get(campaign, "/campaign.json?sql=delete+from+findings", "/campaign.db")
    assert delete.status_code == 400
    assert download.status_code == 403
    with open_index(campaign) as index:
        assert len(index.list_findings()) == 1


def test_only_this_machine_can_ask() -> None:
    assert LOOPBACK == "127.0.0.1"


def test_without_datasette_it_says_what_to_install(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasette.app", None)
    with pytest.raises(MissingCapabilityError) as caught:
        make_site(campaign)
    assert "pip install" in caught.value.hint
