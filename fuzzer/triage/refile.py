"""Refile: which bug a finding is of, by the known bugs and the facts of this version of powercut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fuzzer.campaign.finding import Finding
from fuzzer.triage.bucket import label
from fuzzer.triage.dossier import Dossier
from fuzzer.triage.facts import Crash, Evidence
from fuzzer.triage.known import Known
from oracles import Violation


def refile(dossier: Dossier, known: Sequence[Known]) -> Finding:
    """The finding as it would be filed today; its violations are not judged anew.

    As it was: a finding of a planted bug, one that was not filed by facts (a hang, a dead guest), and one
    whose log was not kept, so that nobody knows what had returned before the crash.
    """
    saved, cut = dossier.saved, dossier.cut
    finding = saved.finding
    if finding.canary or not finding.facts or cut is None:
        return finding
    facts = finding.facts
    evidence = Evidence(finding.fs, dossier.versions, dossier.log, facts.get("without", ""))
    replay = facts["replay"] == "yes" if "replay" in facts else None
    crash = Crash(cut, replay, tuple(saved.kernel_lines()), facts.get("view", ""))
    violations = [Violation(**violation) for violation in finding.violations]  # type: ignore[arg-type]
    named = label(violations, evidence, crash, known)
    first = named.violation
    others = (v for v in violations if v != first)
    return replace(
        finding,
        bucket=named.bucket,
        known=named.known,
        facts=named.facts,
        oracle=first.rule,
        title=first.sentence,
        violations=tuple(violation.to_json() for violation in (first, *others)),
    )
