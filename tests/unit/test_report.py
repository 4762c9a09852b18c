"""Reports: complete pages that nothing untrusted can break out of, and short mails."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from dossiers import EVIL, make_dossier

from fuzzer.campaign.finding import Finding, write_facts
from fuzzer.campaign.index import open_index
from fuzzer.cli.triage import triage_group
from fuzzer.triage.campaignreport import html_campaign
from fuzzer.triage.dossier import Dossier
from fuzzer.triage.html import Html, element, escape
from fuzzer.triage.report import MAX_MAIL_LINES, html_report, mail_report, sentence
from fuzzer.workload.pairs import pairs_of
from oracles import Tally

_VOID = {"meta"}
_CALLS = {"src", "href", "action", "data", "srcset", "poster"}
"""Attributes that make a browser fetch something."""


class _Page(HTMLParser):
    """Checks that what is opened is closed in order, and collects what there is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"a handler: {name}"
            assert name not in _CALLS, f"{name}={value} is fetched"
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.words)


@pytest.fixture
def dossier(tmp_path: Path) -> Dossier:
    lines = ["XFS (loop0): Mounting V5", f"WARNING: CPU: 0 at {EVIL}.c:1 </pre><script>alert(1)</script>"]
    (tmp_path / "kmsg.txt").write_text("\n".join(lines) + "\n")
    return make_dossier(directory=tmp_path)


def test_the_page_has_everything_and_needs_nothing(dossier: Dossier) -> None:
    page = _Page(html_report(dossier))
    assert "script" not in page.tags
    assert {"svg", "table", "style", "h1"} <= set(page.tags)
    for part in (
        sentence(dossier),
        "power was cut here",
        f'data of {EVIL} at 0..4096 by `write "{EVIL}" 0 4K` (actor 1, op 2)',
        "or later, by `fsync",
        "lost",
        "WARNING: CPU: 0",
        "triage repro btrfs-data-0123",
        "31 of 40 runs",
        "6.18.0",
    ):
        assert part in page.text, part
    assert "Mounting V5" not in page.text, "what every mount logs helps nobody"


def test_the_check_itself_can_fail() -> None:
    for bad in ("<p>", "<p></b>", "<a href='x'></a>", "<p onclick='x'></p>"):
        with pytest.raises(AssertionError):
            _Page(bad)
    assert "script" in _Page("<script></script>").tags


def test_without_log_and_tree_there_is_still_a_page(dossier: Dossier) -> None:
    bare = Dossier(dossier.saved, None, None)
    assert "not kept" in _Page(html_report(bare)).text
    live = Dossier(replace(dossier.saved, state=None), None, None)
    assert "on the live mount" in _Page(html_report(live)).text


def test_text_is_escaped_and_markup_is_not() -> None:
    assert escape("<&\"'\x1b") == "&lt;&amp;&quot;&#x27;\\x1b"
    assert element("p", "<", Html("<b></b>"), class_='"') == '<p class="&quot;">&lt;<b></b></p>'


def test_a_mail_is_short_and_plain(dossier: Dossier) -> None:
    text = mail_report(dossier)
    lines = text.splitlines()
    assert len(lines) <= MAX_MAIL_LINES
    assert all(len(line) <= 76 and line.isprintable() for line in lines)
    assert lines[0].startswith("Subject: btrfs: ")
    for part in ("fsync", "31 of 40 runs", "actor one", "[lost]", "WARNING"):
        assert part in text, part
    assert "bucket" not in text


def test_amplifiers_are_told(dossier: Dossier) -> None:
    """Without what held I/O back, squeezed memory or disturbed the scheduler, nobody sees it again."""
    workload = replace(dossier.saved.workload, delay="data 5ms 1/4", memory=64 << 20)
    workload = replace(workload, actors=(replace(workload.actors[0], sched="idle"), *workload.actors[1:]))
    amplified = Dossier(replace(dossier.saved, workload=workload), dossier.log, dossier.tree)
    for plain, text in (
        (mail_report(dossier), mail_report(amplified)),
        (html_report(dossier), html_report(amplified)),
    ):
        words = " ".join(text.split())
        for part in ("I/O held back: data 5ms 1/4", "64 MiB of memory", "actors scheduled", "sched=idle"):
            assert part in words
            assert part not in plain


def test_a_long_workload_does_not_make_a_long_mail(dossier: Dossier) -> None:
    workload = dossier.saved.workload
    actors = (replace(workload.actors[0], ops=workload.actors[0].ops * 40),)
    saved = replace(dossier.saved, workload=replace(workload, actors=actors))
    lines = mail_report(Dossier(saved, dossier.log, dossier.tree)).splitlines()
    assert len(lines) <= MAX_MAIL_LINES
    assert any("more lines" in line for line in lines)


COVERED = {
    "overlaps": {"xfs fsync+write": 3},
    "arguments": {"xfs write len 4K": 4},
    "log": {"xfs DFCFD": 5},
    "ops": {"write/ENOSPC": 6},
}


def _campaign(directory: Path) -> None:
    for number, known in enumerate(("", "0001", "")):
        finding = Finding(
            id=f"xfs-{number}",
            bucket=f"xfs/{EVIL}",
            fs="xfs",
            oracle="data",
            title=EVIL,
            known=known,
            created="nonsense" if number == 2 else f"2026-01-02T03:04:0{number}+00:00",
        )
        place = directory / "findings" / finding.id
        place.mkdir(parents=True)
        write_facts(place, finding)
    tally = Tally()
    tally.judged = 7
    tally.skip(EVIL)
    tally.done("data")
    with open_index(directory, create=True) as index:
        index.add_counts({"workloads": 2, "crash_states": 30, "seconds": 1.5, **COVERED, **tally.to_json()})
        index.count_hit(f"xfs/{EVIL}")


def test_the_campaign_page(tmp_path: Path) -> None:
    _campaign(tmp_path)
    with open_index(tmp_path) as index:
        page = _Page(html_campaign(index))
    assert "script" not in page.tags
    assert "svg" in page.tags
    for part in (
        "2 workloads, 30 crash states",
        "20.0 per second",
        f"1 of {len(pairs_of('xfs'))}",
        pairs_of("xfs")[0],
        "xfs write len 4K",
        "xfs DFCFD",
        "write/ENOSPC",
        f"xfs/{EVIL}",
        f"data: {EVIL}",
        "3 findings",
    ):
        assert part in page.text, part


def test_an_empty_campaign_has_a_page(tmp_path: Path) -> None:
    with open_index(tmp_path, create=True) as index:
        assert "Nothing was found yet" in _Page(html_campaign(index)).text


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    _campaign(tmp_path)
    done = CliRunner().invoke(triage_group, ["report", "--json", "--dir", str(tmp_path)])
    assert json.loads(done.stdout) == {"report": str(tmp_path / "report.html")}
    _Page((tmp_path / "report.html").read_text())
    assert CliRunner().invoke(triage_group, ["report", "--mail", "--dir", str(tmp_path)]).exit_code == 2
