"""Oracles: what btrfs and xfs promise, one promise per file. Pure; knows nothing of devices.

A false alarm is a bug of the same rank as a missed one: a rule may only speak where a source says
what is promised, and what maintainers declared open is left open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fuzzer.state.history import History
from fuzzer.state.recovery import Recovery
from fuzzer.writelog.crash import Cut
from oracles import (
    acls,
    attributes,
    blocks,
    cases,
    data,
    extension,
    fsck,
    kernel_log,
    live,
    mountable,
    names,
    order,
    prealloc,
    read_only,
    renames,
    scrub,
    size,
    space,
    structure,
    times,
    usable,
    writable,
)
from oracles.case import Case, Rule, Tally
from oracles.contract import CONTRACTS, MAX_CONTRACT_BYTES, OWN, parse_contract, profile_for
from oracles.floors import compute_floors
from oracles.profile import PROFILES, Profile
from oracles.races import build_versions
from oracles.related import add_related
from oracles.verdict import Judgement, Outcome, Violation
from oracles.versions import Versions

RULES: tuple[Rule, ...] = (
    *mountable.RULES,
    *names.RULES,
    *renames.RULES,
    *cases.RULES,
    *data.RULES,
    *blocks.RULES,
    *size.RULES,
    *extension.RULES,
    *attributes.RULES,
    *acls.RULES,
    *times.RULES,
    *prealloc.RULES,
    *order.RULES,
    *structure.RULES,
    *usable.RULES,
    *read_only.RULES,
    *scrub.RULES,
    *writable.RULES,
    *kernel_log.RULES,
    *fsck.RULES,
    *space.RULES,
)
"""Every rule, the most telling first: the first violation of a state gives the finding its title."""

__all__ = [
    "CONTRACTS",
    "MAX_CONTRACT_BYTES",
    "OWN",
    "PROFILES",
    "RULES",
    "History",
    "Judgement",
    "Outcome",
    "Profile",
    "Tally",
    "Violation",
    "build_versions",
    "judge",
    "judge_reads",
    "parse_contract",
    "profile_for",
]


def judge(
    profile: Profile,
    recovery: Recovery,
    versions: Versions | None = None,
    cut: Cut | None = None,
) -> Judgement:
    """Ask every rule about one state.

    Without `versions` and `cut` (a log whose workload is unknown) only the rules that need no history
    are asked.
    """
    tally = Tally()
    known = None
    if versions is not None and cut is not None:
        floors = compute_floors(versions, cut, profile)
        add_related(floors)
        known = (versions, floors)
    case = Case(profile, recovery, tally, known)
    violations: list[Violation] = []
    for rule in RULES:
        if (rule.needs_tree and recovery.tree is None) or (rule.needs_history and known is None):
            continue
        violations += rule.check(case)
        tally.done(rule.name)
    return _judgement(profile, violations, tally)


def _judgement(profile: Profile, violations: Iterable[Violation], tally: Tally) -> Judgement:
    """Drop what the profile leaves open, and say whose promise the rest breaks."""
    kept: list[Violation] = []
    for violation in violations:
        if profile.promises(violation.rule, violation.kind):
            kept.append(replace(violation, profile=profile.name))
        else:
            tally.skip("left open by the contract")
            tally.done(violation.rule)
    return Judgement(tuple(kept), tally.judged, tally.no_promise, tally.rules, tally.reasons)


def judge_reads(profile: Profile, versions: Versions) -> Judgement:
    """Judge what the reads of a run returned while it ran: no crash, no tree, the same for every state."""
    tally = Tally()
    violations = list(live.check_reads(versions, tally))
    tally.done("read")
    return _judgement(profile, violations, tally)
