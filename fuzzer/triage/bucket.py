"""Buckets: the group of findings that are probably one bug, as one line of text.

A known bug has a bucket of its own, whatever promise it breaks. A call that had the device commit nothing is
to blame itself: the bucket says its sort and the rule, and which op it was to save says nothing. Else the
commit or recovery lost something: the line says rule and kind (with the kernel's or the checker's message for
those rules), what was done by the op whose effect is missing and, on btrfs, whether a file's log or a
transaction was to keep it and whether a log had been replayed. Numbers, names and times are left out: they
change from run to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fuzzer.triage.facts import Crash, Evidence, Facts, find_facts
from fuzzer.triage.known import Known, match_known
from oracles import RULES, Violation

_SORTS = {"fdatasync": "fsync", "syncfs": "sync", "freeze": "sync", "remount_ro": "sync", "msync": "dsync"}
"""Calls that go the same way through the kernel: what is synced is a file, everything, or a range."""

_KEEPERS = {"fsync": "fsync", "dsync": "fsync", "sync": "sync"}
"""What keeps it on btrfs: the log of the file, be a range of it synced or all (generic_write_sync and msync
call vfs_fsync_range), or the transaction. xfs has one journal for all."""

_OPS = {
    **dict.fromkeys(("append", "dwrite", "awrite", "mwrite", "fault_write"), "write"),
    "otrunc": "truncate",
}
"""Ops whose effect is the same, once it is on its way to the disk."""

_MADE = {"mkdir": "made-dir", "link": "made-link"}
"""What a new name was made for; all sorts of files that are no directory are one."""

_RANKS = {rule.name: rank for rank, rule in enumerate(RULES)}


@dataclass(frozen=True, slots=True)
class Label:
    """What a forbidden state is filed under. `violation` is the promise that gives it its title."""

    violation: Violation
    facts: Facts
    known: str
    bucket: str


def label(violations: Sequence[Violation], evidence: Evidence, crash: Crash, known: Sequence[Known]) -> Label:
    """File a state by the first promise no known bug explains, or else by the first of all.

    So what a known bug breaks beside it does not hide a new one. First is what was promised first:
    the rest is often only a consequence, and rules may name what they find in any order.
    """
    first: Label | None = None
    for violation in sorted(violations, key=lambda v: _order(v, evidence)):
        facts = find_facts(violation, evidence, crash)
        bug = match_known(known, evidence.fs, violation, facts)
        named = Label(violation, facts, bug, bucket_of(evidence.fs, violation, facts, bug))
        if not bug:
            return named
        first = first or named
    assert first is not None, "a forbidden state breaks a promise"
    return first


def _order(violation: Violation, evidence: Evidence) -> tuple[int, int, int, bool, str]:
    sync, op = evidence.event(violation.sync), evidence.event(violation.op)
    times = (sync.begin_ns if sync else 0, op.begin_ns if op else 0)
    rank = _RANKS.get(violation.rule, len(_RANKS))
    # What contradicts itself says more than what is old: no state of the past explains it.
    return -1 if violation.rule == "structure" else rank, *times, not violation.name, violation.subject


def bucket_of(fs: str, violation: Violation, facts: Facts, known: str) -> str:
    """`btrfs/known/0001`, `xfs/uncommitted/fsync/data`, `btrfs/names/missing-name/moved-to/fsync/replay`."""
    if known:
        return f"{fs}/known/{known}"
    call = _SORTS.get(facts.get("sync", ""), facts.get("sync", ""))
    if call in _KEEPERS and facts.get("commit") == "none" and facts.get("settled") == "no":
        return f"{fs}/uncommitted/{call}/{violation.rule}"
    through = f"@{facts['view']}" if "view" in facts else ""
    # xfs replays its log after nearly every crash, so there it tells nothing.
    keeper = _KEEPERS.get(call, "") if fs == "btrfs" else ""
    replay = "replay" if fs == "btrfs" and facts.get("replay") == "yes" else ""
    parts = (fs, violation.rule, violation.kind + through, _done(facts), keeper, replay)
    return "/".join(part for part in parts if part)


def _done(facts: Facts) -> str:
    """What the op whose effect is missing had done; of bytes nobody wrote, whether anybody was to."""
    op = facts.get("op", "")
    if facts.get("promised") == "made":
        return _MADE.get(op, "made")
    unwritten = "unwritten" if facts.get("written") == "no" else ""
    return facts.get("promised") or _OPS.get(op, op) or unwritten


def planted(fs: str, violation: Violation, facts: Facts, canary: str) -> str:
    """The bucket of what `canary` did: never one of a known bug, and two canaries never share one."""
    return f"{bucket_of(fs, violation, facts, known='')}/planted:{canary}"
