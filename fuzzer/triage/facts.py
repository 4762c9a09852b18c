"""Facts: what the records of a run say about one broken promise, as short words.

They are read off the history and the log *as recorded*: damage planted while crash states are built
does not show in them. The same bug gives the same facts whatever the seed, so known bugs are told by
them (`known.py`) and findings grouped (`bucket.py`). Every value is a word of a small set; a fact that
cannot be told is left out, and then matches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fuzzer.state.history import Event
from fuzzer.state.stamps import encode, file_tag
from fuzzer.triage.endfacts import short_facts, tail_facts
from fuzzer.triage.markfacts import forced_facts, marked_facts
from fuzzer.triage.namefacts import name_facts, named_since, relatives, unlinked_facts
from fuzzer.triage.racefacts import faulted_facts, race_facts
from fuzzer.triage.sharefacts import share_facts
from fuzzer.workload.ops import WORD_BYTES
from fuzzer.writelog.crash import Cut
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.model import Entry, Flag
from fuzzer.writelog.superblock import BTRFS_SUPER_OFFSET
from oracles import Violation
from oracles.file_versions import own_shift
from oracles.kernel_log import is_alarm
from oracles.versions import Versions

Facts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Span:
    """Times of one or more requests: when the first arrived, when the last was done."""

    arrived_ns: int
    done_ns: int


def _btrfs_commits(entries: Sequence[Entry]) -> Iterator[Span]:
    """Commits of a transaction or of the log tree begin with a barrier and end in a superblock that is
    forced to the disk (write_all_supers and barrier_all_devices in fs/btrfs/disk-io.c); what was written is
    not found without it, whatever was flushed, and what came after the barrier does not belong to it."""
    flushes: list[Entry] = []
    written: tuple[Entry, int] | None = None
    for entry in entries:
        if entry.is_flush and written is not None and entry.arrived_ns >= written[0].done_ns:
            yield Span(written[1], entry.done_ns)
            written = None
        if entry.is_write and entry.offset <= BTRFS_SUPER_OFFSET < entry.offset + entry.length:
            barriers = [flush.arrived_ns for flush in flushes if flush.done_ns <= entry.arrived_ns]
            begin_ns = max(barriers, default=entry.arrived_ns)
            if entry.flags & Flag.FUA:
                yield Span(begin_ns, entry.done_ns)
            else:
                written = (entry, begin_ns)
        if entry.is_flush:
            flushes.append(entry)


def _xfs_commits(entries: Sequence[Entry]) -> Iterator[Span]:
    """Any flush or forced write may be the journal's, or that of a sync call without one."""
    for entry in entries:
        if entry.done_ns and (entry.is_flush or entry.flags & Flag.FUA):
            yield Span(entry.arrived_ns, entry.done_ns)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The records of one run on file system `fs` that facts are read off.

    `log` is None where it was not kept. `without` are the known bugs that were switched on in the kernel.
    """

    fs: str
    versions: Versions
    log: RunLog | None
    without: str = ""
    syncs: tuple[Event, ...] = field(init=False)
    flushes: tuple[Span, ...] = field(init=False)
    commits: tuple[Span, ...] = field(init=False)
    """When the file system made its state durable, as far as the device saw."""

    def __post_init__(self) -> None:
        events = self.versions.history.events
        entries = self.log.entries[self.log.start :] if self.log else ()
        flushes = tuple(Span(e.arrived_ns, e.done_ns) for e in entries if e.done_ns and e.is_flush)
        commits = _btrfs_commits(entries) if self.fs == "btrfs" else _xfs_commits(entries)
        object.__setattr__(self, "syncs", tuple(e for e in events if e.op.is_durability_point))
        object.__setattr__(self, "flushes", flushes)
        object.__setattr__(self, "commits", tuple(commits))

    @property
    def timed(self) -> bool:
        """True if the recorder knew when requests arrived and were done."""
        return self.log is not None and any(entry.done_ns for entry in self.log.entries)

    def event(self, op: int) -> Event | None:
        return self.versions.history.by_id.get(op)


@dataclass(frozen=True, slots=True)
class Crash:
    """The state a promise was broken in. `replay`: recovery had a log to replay (None: not known).

    `view`: how the running file system was looked at, if otherwise than programs do.
    """

    cut: Cut
    replay: bool | None = None
    kernel_log: tuple[str, ...] = ()
    view: str = ""


def find_facts(violation: Violation, evidence: Evidence, crash: Crash) -> Facts:
    """All facts of one broken promise."""
    return dict(_facts(violation, evidence, crash))


def _facts(violation: Violation, evidence: Evidence, crash: Crash) -> Iterator[tuple[str, str]]:
    if crash.replay is not None:
        yield "replay", "yes" if crash.replay else "no"
    if crash.view:
        yield "view", crash.view
    if evidence.without:
        yield "without", evidence.without
    if violation.rule == "kernel-log":
        yield from _trace_facts(crash.kernel_log)
    if violation.rule == "fsck":
        yield "quota", _asked(evidence, crash.cut, "quota", but="disable")
    if violation.rule in ("data", "fsck"):
        yield from faulted_facts(violation, evidence.versions, crash.cut)
    if violation.rule in ("mountable", "kernel-log"):
        yield "growfs", _asked(evidence, crash.cut, "growfs")
    op, sync = evidence.event(violation.op), evidence.event(violation.sync)
    if op is not None:
        yield "op", op.op.name
    if sync is not None:
        yield "sync", _call(sync)
        yield "peer", _peer(sync, evidence)
        yield "evict", _evict(sync, evidence)
    if sync is not None and sync.returned and evidence.log is not None and not evidence.timed:
        yield from forced_facts(sync, evidence.log)
    if sync is not None and evidence.timed and sync.returned:
        yield "commit", _commit(op, sync, evidence)
        yield "settled", _settled(op, sync, evidence)
    if op is not None and violation.rule == "data":
        yield from race_facts(violation, op, sync, evidence.versions)
    if op is not None and sync is not None and violation.rule == "data":
        yield from _data_facts(violation, op, sync, evidence)
    if sync is not None and violation.rule in ("mode", "owner", "times"):
        yield "named-since", named_since(sync, evidence.versions, crash.cut)
    if op is not None and op.op.name in ("truncate", "otrunc") and violation.rule == "data":
        yield from tail_facts(violation, op, evidence.versions, crash.cut)
    if op is not None and violation.rule == "size":
        yield "reserved", _reserved(op, evidence)
    if op is not None and violation.rule == "xattr":
        yield "sync-beside", _sync_beside(op, evidence)
    yield from unlinked_facts(violation, evidence.versions, crash.cut)
    if violation.name or violation.kind == "lost-inode":
        yield from name_facts(violation, evidence.versions, crash.cut)
    if violation.kind in ("misplaced-data", "foreign-data"):
        yield from short_facts(violation, evidence.versions)
    if violation.kind == "misplaced-data":
        yield from share_facts(violation, evidence.versions)


def _call(sync: Event) -> str:
    """The call that promised: `dsync` for a write that is durable by itself."""
    if sync.op.name == "mwrite":
        return "msync"
    return "dsync" if sync.op.name in ("write", "append", "dwrite", "awrite") else sync.op.name


# ------------------------------------------------------------------------------------- sync calls


def _peer(sync: Event, evidence: Evidence) -> str:
    """Another sync call that was still under way when the one that promised returned: of the same inode,
    or of one that may be logged together with it (`kin`); else `none`."""
    peers = _peers(sync, evidence)
    if any(peer.subject == sync.subject for peer in peers):
        return "same"
    return "kin" if peers else "none"


def _evict(sync: Event, evidence: Evidence) -> str:
    """Whether the workload had `asked` for inodes to be evicted before the call returned, else `no`."""
    before = [e for e in evidence.versions.history.events if e.begin_ns < sync.end_ns]
    slab = any(e.op.name == "drop_caches" and e.op.text("level") != "1" for e in before)
    return "asked" if slab or any(e.op.name in ("reclaim", "squeeze") for e in before) else "no"


def _asked(evidence: Evidence, cut: Cut, name: str, *, but: str = "") -> str:
    """Whether the workload had `asked` for the op (its action not `but`) before the crash, else `no`."""
    before = [e for e in evidence.versions.history.events if e.begin_ns < cut.invoked_before_ns]
    asked = any(e.op.name == name and not (but and e.op.text("action") == but) for e in before)
    return "asked" if asked else "no"


def _reserved(op: Event, evidence: Evidence) -> str:
    """Whether space behind the end of the op's file may have been reserved (`yes`) before the op was done."""
    events = evidence.versions.history.events
    asked = (e for e in events if e.op.name == "fallocate" and e.op.text("mode").endswith("keep"))
    return "yes" if any(e.subject == op.subject and e.begin_ns < op.end_ns for e in asked) else "no"


def _sync_beside(op: Event, evidence: Evidence) -> str:
    """Whether a sync call, of whatever, ran beside the op (`yes`) and may have committed half of it."""
    beside = (s for s in evidence.syncs if s.begin_ns < op.end_ns and s.end_ns > op.begin_ns)
    return "yes" if any(beside) else "no"


def _peers(sync: Event, evidence: Evidence) -> list[Event]:
    kin = relatives(sync.subject, evidence.versions)
    return [
        other
        for other in evidence.syncs
        if other.id != sync.id
        and other.subject in kin
        and other.op.name not in ("sync", "syncfs")
        and other.begin_ns <= sync.end_ns < other.end_ns
    ]


_COMMITTERS = frozenset({"snapshot", "balance", "scrub", "quota", "resize", "send"})
"""Ops that commit btrfs transactions and promise nothing (create_snapshot, relocate_block_group,
scrub_enumerate_chunks, btrfs_quota_enable, btrfs_shrink_device, ensure_commit_roots_uptodate)."""


def _commits_too(event: Event) -> bool:
    """True for an op that has the device commit something, and promises nothing of what others did."""
    fsyncs = event.op.name in ("unlink", "tmplink") and event.op.text("fsync") == "yes"
    return fsyncs or event.op.name in _COMMITTERS


def _commit(op: Event | None, sync: Event, evidence: Evidence) -> str:
    """Commits that may have carried out the promise, as far as the device saw.

    Looked at is the time since the broken op returned and since the call, or a peer still under way when
    it returned, began. `shared`: each of them ran beside another sync call, or an op that commits as
    well, which may have sent it.
    """
    peers = _peers(sync, evidence)
    begin_ns = min([sync.begin_ns, *(peer.begin_ns for peer in peers)])
    if op is not None and op.returned and op.id != sync.id:
        begin_ns = max(begin_ns, op.end_ns)
    found = [b for b in evidence.commits if b.arrived_ns >= begin_ns and b.done_ns <= sync.end_ns]
    if not found:
        return "none"
    family = {sync.id, *(peer.id for peer in peers)}
    committers = (e for e in evidence.versions.history.events if _commits_too(e))
    others = [*(other for other in evidence.syncs if other.id not in family), *committers]
    shared = all(
        any(other.begin_ns <= b.arrived_ns and b.done_ns <= other.end_ns for other in others) for b in found
    )
    return "shared" if shared else "own"


def _settled(op: Event | None, sync: Event, evidence: Evidence) -> str:
    """Whether a commit came between the broken op and the call (`yes`), which then may have nothing to do."""
    if op is None or not op.returned:
        return "no"
    found = any(b.arrived_ns >= op.end_ns and b.done_ns <= sync.begin_ns for b in evidence.commits)
    return "yes" if found else "no"


# ------------------------------------------------------------------------------------ file data


def _data_facts(
    violation: Violation, op: Event, sync: Event, evidence: Evidence
) -> Iterator[tuple[str, str]]:
    """How far the first missing word came before the sync call returned.

    `absent`: it was not written (or compressed, or into a metadata block, which shifts words);
    `unflushed`: written, and no flush came after; `durable`: as far as the device goes it is.
    """
    log, tag = evidence.log, file_tag(violation.inode)
    if log is None or not sync.returned:
        return
    if not evidence.timed:
        yield from marked_facts(sync, log)
        return
    entries = [e for e in log.entries[log.start :] if e.is_write and e.done_ns <= sync.end_ns]
    since = [e for e in entries if e.arrived_ns >= op.begin_ns]
    if op.op.name in ("write", "append", "splice", "dwrite", "awrite", "mwrite", "fault_write"):
        word = encode(op.id, tag, violation.offset - (own_shift(op) or 0), WORD_BYTES)
        written = [e for e in since if _find(log, e, word) >= 0]
    elif op.op.name == "fallocate" and violation.seen:
        # What should be there is zeroes, which have no name. Where the old words are, they were to go.
        old = encode(violation.seen, tag, violation.offset, WORD_BYTES)
        places = {e.offset + at for e in entries if (at := _find(log, e, old)) >= 0}
        written = [e for e in since if any(_is_zero_at(log, e, place) for place in places)]
    else:
        return
    if not written:
        yield "data", "absent"
    else:
        durable = any(_is_durable(entry, sync, evidence) for entry in written)
        yield "data", "durable" if durable else "unflushed"


def _find(log: RunLog, entry: Entry, word: bytes) -> int:
    """Where in the entry the word stands, in bytes; -1: nowhere."""
    words = np.frombuffer(log.payload(entry), dtype=np.uint64)
    found = np.flatnonzero(words == np.frombuffer(word, dtype=np.uint64)[0])
    return int(found[0]) * WORD_BYTES if len(found) else -1


def _is_zero_at(log: RunLog, entry: Entry, place: int) -> bool:
    at = place - entry.offset
    return 0 <= at < entry.length and not any(log.payload(entry)[at : at + WORD_BYTES])


def _is_durable(entry: Entry, sync: Event, evidence: Evidence) -> bool:
    return bool(entry.flags & Flag.FUA) or any(
        b.arrived_ns >= entry.done_ns and b.done_ns <= sync.end_ns for b in evidence.flushes
    )


# ----------------------------------------------------------------------------------- kernel log

_RIP = re.compile(r"RIP: \S*?:?(\w[\w.]*)\+0x")
_FRAME = re.compile(r"^\s*([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
_ENTRIES = ("kthread", "ret_from_fork", "do_syscall_64", "entry_SYSCALL_64_after_hwframe")
"""Bottom frames that every stack has."""


def _trace_facts(lines: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Where the first complaint came from: `at` the function, `entry` the outermost of its callers."""
    first = next((number for number, line in enumerate(lines) if is_alarm(line)), len(lines))
    at = next((match[1] for line in lines[first:] if (match := _RIP.search(line))), "")
    frames = [match[1] for line in lines[first:] if (match := _FRAME.match(line))]
    callers = [name for name in frames if not name.startswith(_ENTRIES)]
    if at:
        yield "at", at
    if callers:
        yield "entry", callers[-1]
