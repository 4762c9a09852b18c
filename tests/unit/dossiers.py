"""A finding made by hand: an fsync that returned before what it wrote was flushed."""

from __future__ import annotations

import struct
from pathlib import Path

from oracle_cases import Has, Script, make_tree

from fuzzer.campaign.examiner import Forbidden
from fuzzer.campaign.execute import Execution
from fuzzer.campaign.finding import Finding, Saved, save_finding
from fuzzer.state.recovery import Recovery
from fuzzer.state.stamps import encode, file_tag
from fuzzer.triage.dossier import Dossier
from fuzzer.workload.model import Actor, Workload
from fuzzer.writelog.crash import CrashState, Kept, cut_of
from fuzzer.writelog.format import format_entry, format_super, parse_log
from fuzzer.writelog.image import Image
from fuzzer.writelog.joined import RunLog, split_log
from fuzzer.writelog.model import MARK_END, MARK_MKFS, SECTOR_BYTES, Flag
from oracles import Judgement, build_versions, judge, profile_for

EVIL = "<script>x"
LOG_OWNER = (1 << 64) - 6

Piece = tuple[Flag, int, bytes, int, int]
"""Flags, byte offset on the device, what is written, arrival and completion."""


def make_log(*pieces: Piece, timed: bool = True) -> RunLog:
    """A log of a run whose mkfs wrote nothing."""
    body, times = format_entry(Flag.MARK, mark=MARK_MKFS), [(1, 1)]
    for flags, offset, payload, arrived_ns, done_ns in pieces:
        sectors = len(payload) // SECTOR_BYTES
        body += format_entry(flags, offset // SECTOR_BYTES, sectors) + payload
        times.append((arrived_ns, done_ns))
    body += format_entry(Flag.MARK, mark=MARK_END)
    times.append(times[-1])
    raw = b"".join(struct.pack("<QQ", *pair) for pair in times) if timed else None
    return split_log(parse_log(format_super(len(times)) + body, times=raw))


def btrfs_super(generation: int, log_root: int) -> bytes:
    head = bytes(64) + b"_BHRfS_M" + struct.pack("<QQQQ", generation, 1 << 20, 1 << 20, log_root)
    return head.ljust(4096, b"\0")


def btrfs_leaf(owner: int, *inodes: int) -> bytes:
    """A leaf with the inode items of these inodes."""
    items = b"".join(struct.pack("<QBQII", inode, 1, 0, 0, 0) for inode in inodes)
    head = struct.pack("<48xQQ16xQQIB", 1 << 20, 0, 8, owner, len(inodes), 0)
    return (head + items).ljust(16384, b"\0")


def make_dossier(
    *,
    kept: Kept = Kept.NOTHING,
    log: bool = True,
    tree: bool = True,
    name: str = EVIL,
    directory: Path = Path("nowhere"),
) -> Dossier:
    """`write` is lost although `fsync` returned; the file `name` was made after the cut."""
    script = Script(
        f"""
        1-2 create {name}
        3-4 sync
        lost: 10-20 write {name} 0 4096
        sync: 30-40 fsync {name}
        45-46 create b
        """
    )
    inode = script.inodes[name]
    data = encode(script.ops["lost"].id, file_tag(inode), 0, 4096)
    run_log = make_log(
        (Flag.FLUSH, 0, b"", 3, 3),
        (Flag(0), 1 << 20, data, 32, 33),
        (Flag(0), 2 << 20, btrfs_leaf(LOG_OWNER, inode, 9999), 34, 35),
        (Flag.FLUSH, 0, b"", 50, 51),
        (Flag.FUA, 65536, btrfs_super(7, 2 << 20), 52, 53),
    )
    found = make_tree(script, "btrfs", name, **{name: Has(runs="0:0-4096")})
    state = CrashState(run_log.start + 3, kept)
    versions = build_versions(script.history)
    cut = cut_of(run_log.entries, state, script.history)
    judged = judge(profile_for("btrfs"), Recovery(tree=found), versions, cut)
    first = judged.violations[0]
    finding = Finding(
        id="btrfs-data-0123",
        bucket="btrfs/data/lost-to-zero/write/fsync",
        fs="btrfs",
        oracle=first.rule,
        title=first.sentence,
        reproduced=(31, 40),
        violations=tuple(v.to_json() for v in judged.violations),
        kernel="6.18.0",
        command="powercut fuzz --fs btrfs",
        points="fsync",
        created="2026-01-02T03:04:05+00:00",
    )
    ops = tuple(event.op for event in script.history.events)
    workload = Workload(fs="btrfs", descends="btrfs/a-race", actors=(Actor("one", ops),))
    saved = Saved(finding, workload, state, script.history, directory)
    return Dossier(saved, run_log if log else None, found if tree else None)


def save(dossier: Dossier, campaign: Path) -> Path:
    """Write the finding the way a campaign does."""
    saved = dossier.saved
    assert dossier.log is not None
    execution = Execution(saved.workload, saved.history, Image(0), dossier.log, Recovery())
    forbidden = Forbidden(saved.state, Judgement((), 0, 0), Recovery(tree=dossier.tree))
    return save_finding(campaign / "findings", saved.finding, execution, forbidden)
