"""Drafts, mutations and entries do what they say on a real mount: their ops succeed, on one object."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fuzzer.campaign.corpus import load_entries
from fuzzer.campaign.execute import execute
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.outcomes import count_outcomes
from fuzzer.drafts.read import read_drafts
from fuzzer.kernel.probe import missing
from fuzzer.workload.model import Workload
from fuzzer.workload.mutate import mutate
from fuzzer.workload.ops import Role

pytestmark = pytest.mark.kernel

_DOCUMENTS = sorted((Path(__file__).parents[1] / "unit" / "documents").glob("*.txt"))


def _short(workload: Workload) -> Workload:
    """At most four rounds of each actor: whether ops succeed does not need more."""
    actors = tuple(replace(a, loop=min(a.loop, 4) if a.loop else None) for a in workload.actors)
    return replace(workload, actors=actors)


def test_drafts_of_all_documents_run_and_meet() -> None:
    with open_lane("fuse") as lane:
        for path in _DOCUMENTS:
            ((draft,), _) = read_drafts(path.read_bytes(), path.name)
            if missing(draft.workload.capabilities):
                continue
            history = execute(lane, _short(draft.workload)).history
            assert history.killed == (), path.name
            # What works on the machine may be refused by it, or cut off at the end; files must take theirs.
            on_files = [e for e in history.events if e.op.spec.role in (Role.DATA, Role.SYNC) and e.returned]
            vain = {e.op.name for e in on_files} - {e.op.name for e in on_files if e.succeeded}
            assert vain == set(), path.name
            met = {event.actor for event in history.events if "d/a" in dict(event.op.args).values()}
            assert len(met - {0}) >= 2, f"{path.name}: fewer than two actors work on the file"


def test_mutations_run() -> None:
    """Names may be missing where an op was put to another object, so only that most ops succeed is asked."""
    seeds = tuple(
        entry.workload for entry in load_entries(["rename-vs-directory-logging", "append-fsync-rename"])
    )
    outcomes: Counter[str] = Counter()
    with open_lane("fuse") as lane:
        for number in range(4):
            rng = random.Random(f"run/{number}")
            mutation = mutate(rng, seeds[number % 2], seeds, "btrfs")
            if not missing(mutation.capabilities):
                outcomes += count_outcomes(execute(lane, _short(mutation)).history)
    good = sum(count for key, count in outcomes.items() if key.endswith("/ok"))
    assert good > sum(outcomes.values()) / 2


def test_corpus_run_tells_of_each_entry(tmp_path: Path) -> None:
    names = ["special-file-renamed-and-linked", "clone-of-an-inline-extent"]
    command = [sys.executable, "-m", "fuzzer", "corpus", "run", *names, "--json", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path)
    assert done.returncode in (0, 1), done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    ran = Counter(event["fs"] for event in events if event["event"] == "workload")
    assert ran == {"btrfs": 2, "xfs": 1}
    assert "2 entries: 2 ran, 0 skipped, 0 lost" in done.stderr
    assert events[-1]["workloads"] == 3
