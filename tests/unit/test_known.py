"""Known bugs: the table, the facts its rows ask for, and that a match never takes in something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from oracle_cases import Has, Script, judge_case, make_tree

from fuzzer.campaign import guestlane
from fuzzer.errors import InputError
from fuzzer.state.history import History
from fuzzer.state.stamps import encode, file_tag
from fuzzer.triage.bucket import Label, label
from fuzzer.triage.facts import Crash, Evidence, find_facts
from fuzzer.triage.known import Known, describe_known, load_known, match_known
from fuzzer.workload.model import SETUP, op_id
from fuzzer.writelog.crash import LIVE, Cut
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.model import Entry, Flag
from oracles import Violation, build_versions

CRASHES = Path(__file__).resolve().parents[2] / "crashes"
SUPER = 65536
CUT = Cut(50, 50)


@dataclass(frozen=True)
class FakeLog(RunLog):
    """A log whose payloads are given: by offset on the device."""

    data: Mapping[int, bytes] = field(default_factory=dict)

    def payload(self, entry: Entry) -> memoryview:
        return memoryview(self.data.get(entry.offset, bytes(entry.length)))


def write(arrived: int, done: int, offset: int = 1 << 20, length: int = 4096) -> Entry:
    return Entry(0, Flag(0), offset, length, arrived_ns=arrived, done_ns=done)


def flush(arrived: int, done: int) -> Entry:
    return Entry(0, Flag.FLUSH, arrived_ns=arrived, done_ns=done)


def fua(arrived: int, done: int, offset: int = SUPER) -> Entry:
    return Entry(0, Flag.FUA, offset, 4096, arrived_ns=arrived, done_ns=done)


def make_log(*entries: Entry, data: Mapping[int, bytes] | None = None) -> RunLog:
    """A log in order of completion, with one request before everything so that it has times."""
    numbered = [replace(e, index=i) for i, e in enumerate((write(1, 1, 9 << 20), *entries))]
    return FakeLog(tuple(numbered), 0, (), data or {})


def file_under(
    script: Script,
    fs: str,
    names: str,
    *,
    log: RunLog | None = None,
    replay: bool = True,
    without: str = "",
    **inodes: Has,
) -> Label:
    """The label of what a mount shows if power goes at 50 ns, when all have returned who will."""
    tree = make_tree(script, fs, names, **inodes)
    violations = judge_case(script, fs, tree, CUT.returned_before_ns).violations
    assert violations, "nothing is wrong with this tree"
    evidence = Evidence(fs, build_versions(script.history), log, without)
    return label(violations, evidence, Crash(CUT, replay), load_known())


# ------------------------------------------------------------------------------------- the table


def test_every_reviewed_finding_has_a_row() -> None:
    reviewed = {path.name[:4] for path in CRASHES.iterdir() if re.match(r"\d{4}-", path.name)}
    assert {bug.id for bug in load_known()} == reviewed


def test_a_known_bug_is_described() -> None:
    assert describe_known("0001").startswith("known 0001: fsync returns while another")
    assert describe_known("0001").endswith("no fix known")
    fixed = Known("x", "title", "btrfs", "abc123", frozenset(), {})
    assert fixed.describe() == "known x: title; fix abc123, missing in this kernel"
    assert describe_known("9999") == "known 9999"


@pytest.mark.parametrize("bug", load_known(), ids=lambda bug: bug.id)
def test_a_match_needs_every_fact(bug: Known) -> None:
    """With one fact missing or another value, on another file system or promise, it is not this bug."""
    rule, kind = min(bug.breaks).split("/", 1)
    violation = Violation(rule=rule, kind=kind, subject="", promised="", found="", source="")
    facts = {name: min(values) for name, values in bug.facts.items()}
    assert match_known((bug,), bug.fs, violation, facts) == bug.id
    for name in facts:
        without = {key: value for key, value in facts.items() if key != name}
        assert not bug.matches(bug.fs, violation, without), name
        assert not bug.matches(bug.fs, violation, facts | {name: "else"}), name
    assert not bug.matches("btrfs" if bug.fs == "xfs" else "xfs", violation, facts)
    assert not bug.matches(bug.fs, replace(violation, kind="else"), facts)


_ROW = '[[known]]\nid = "1"\ntitle = "t"\nfs = "xfs"\nfix = ""\nbreaks = ["data/old-data"]\n'
_GOOD = _ROW + '[known.facts]\nsync = ["fsync"]\n'


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "known = 3",
        "other = 1\n" + _GOOD,
        _ROW,
        _ROW + "[known.facts]\n",
        _ROW + '[known.facts]\nsync = "fsync"\n',
        _GOOD + _GOOD,
        _GOOD.replace('"xfs"', '"ext4"'),
        _GOOD.replace('"data/old-data"', '"data"'),
        _GOOD.replace('title = "t"', 'title = ""'),
        _GOOD.replace('fix = ""', "fix = 3"),
        "\x00",
    ],
)
def test_a_bad_table_is_refused_with_its_place(text: str, tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(_GOOD)
    assert len(load_known(path)) == 1
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_known(path)
    assert caught.value.place.startswith(str(path))


def test_no_table_is_no_known_bug(tmp_path: Path) -> None:
    assert load_known(tmp_path / "nothing.toml") == ()


# ------------------------------------------------------------------------- 0001: an early return

EARLY = "0-1 create a\n2-3 sync\n4-5 write a 0 4096\n10-90 fsync a\n20-30 fsync a"


def test_an_fsync_that_returns_before_its_peer_is_0001() -> None:
    label = file_under(Script(EARLY), "btrfs", "a", log=make_log(write(12, 14)), replay=False)
    assert (label.bucket, label.facts["commit"], label.facts["peer"]) == ("btrfs/known/0001", "none", "same")


@pytest.mark.parametrize(
    ("why", "history", "entries"),
    [
        ("the log was committed before it returned", EARLY, (write(12, 13, SUPER), flush(14, 15))),
        ("the log was committed by a forced write", EARLY, (fua(12, 15),)),
        ("nobody else is in fsync", EARLY.replace("10-90", "10-19"), ()),
        ("the other fsync is of another file", EARLY.replace("10-90 fsync a", "10-90 fsync b"), ()),
        ("the recorder has no times", EARLY, None),
    ],
)
def test_what_is_not_0001(why: str, history: str, entries: tuple[Entry, ...] | None) -> None:
    script = Script("0-1 create b\n" + history)
    label = file_under(script, "btrfs", "a b", log=None if entries is None else make_log(*entries))
    assert not label.known, why


def test_a_flush_without_a_superblock_commits_nothing() -> None:
    log = make_log(write(12, 14), flush(15, 16))
    assert file_under(Script(EARLY), "btrfs", "a", log=log).known == "0001"


def test_what_came_after_the_barrier_of_a_commit_does_not_belong_to_it() -> None:
    """Its superblock is on the way while the broken write is made: that is not in there."""
    script = Script(EARLY)
    early = make_log(flush(2, 3), write(12, 14, SUPER), flush(15, 16))
    assert file_under(script, "btrfs", "a", log=early).known == "0001"
    own = make_log(flush(11, 12), write(12, 14, SUPER), flush(15, 16))
    assert file_under(script, "btrfs", "a", log=own).known == ""


def test_a_commit_beside_another_call_may_be_that_ones() -> None:
    """A third process commits the log of another file in between: the early return is one all the same."""
    script = Script("0-1 create b\n" + EARLY + "\n11-40 fsync b")
    label = file_under(script, "btrfs", "a b", log=make_log(fua(15, 25)))
    assert (label.known, label.facts["commit"]) == ("0001", "shared")


@pytest.mark.parametrize(("beside", "left"), [("snapshot . w", "a b"), ("unlink b fsync=yes", "a")])
def test_a_commit_beside_an_op_that_commits_may_be_that_ones(beside: str, left: str) -> None:
    """What came into the next transaction meanwhile is not in it."""
    script = Script(f"0-1 create b\n{EARLY}\n11-40 {beside}")
    label = file_under(script, "btrfs", left, log=make_log(fua(15, 25)))
    assert (label.known, label.facts["commit"]) == ("0001", "shared")


def test_fsync_of_a_directory_may_log_what_is_in_it() -> None:
    script = Script("0-1 mkdir e\n2-3 create e/a\n10-90 fsync .\n20-30 fsync e/a")
    label = file_under(script, "btrfs", "", log=make_log())
    assert (label.known, label.facts["peer"]) == ("0001", "kin")


# ------------------------------------------------------------------- 0002: sync without a flush

OVERWRITE = "0-1 create a\nu: 2-3 write a 0 4096\n4-5 sync\nv: 6-7 write a 0 4096\n10-30 {call}"


def _words(script: Script, name: str) -> bytes:
    return encode(script.ops[name].id, file_tag(script.inodes["a"]), 0, 4096)


@pytest.mark.parametrize(
    ("call", "entries", "data", "known"),
    [
        ("syncfs", (write(12, 14),), "unflushed", "0002"),
        ("sync", (write(12, 14),), "unflushed", "0002"),
        ("syncfs", (flush(11, 13), write(12, 14)), "unflushed", "0002"),
        ("syncfs", (write(12, 14), flush(15, 16)), "durable", ""),
        ("syncfs", (fua(12, 14, 1 << 20),), "durable", ""),
        ("syncfs", (), "absent", ""),
        ("fsync a", (write(12, 14),), "unflushed", ""),
    ],
)
def test_a_sync_that_sends_no_flush_is_0002(
    call: str, entries: tuple[Entry, ...], data: str, known: str
) -> None:
    script = Script(OVERWRITE.format(call=call))
    log = make_log(*entries, data={1 << 20: _words(script, "v")})
    label = file_under(script, "xfs", "a", log=log, a=Has("u:0-4096"))
    assert (label.facts["data"], label.known) == (data, known)


@pytest.mark.parametrize(
    ("between", "known"),
    [
        ((), "0002"),
        ((Entry(0, Flag(0), 1 << 20, 4096),), "0002"),
        ((Entry(0, Flag.FLUSH),), ""),
        ((Entry(0, Flag.FUA, 0, 4096),), ""),
    ],
)
def test_without_times_marks_tell_that_no_flush_was_sent(between: tuple[Entry, ...], known: str) -> None:
    """The flush before the actor's last sync call is not this one's."""
    script = Script(OVERWRITE.format(call="syncfs"))
    earlier, last = (event.id for event in script.history.events if "sync" in event.op.name)
    marks = [Entry(0, Flag.MARK, mark=f"sync:{op}:1") for op in (earlier, last)]
    entries = (Entry(0, Flag.FLUSH), marks[0], *between, marks[1])
    numbered = tuple(replace(entry, index=n) for n, entry in enumerate(entries))
    log = FakeLog(numbered, 0, (), {})
    assert file_under(script, "xfs", "a", log=log, a=Has("u:0-4096")).known == known


@pytest.mark.parametrize(
    ("ops", "between", "known"),
    [
        ("awrite a 0 4096 sync=dsync parts=1", (Entry(0, Flag.FUA, 1 << 20, 4096),), "0032"),
        (
            "awrite a 0 4096 sync=dsync parts=1",
            (Entry(0, Flag(0), 9 << 20, 4096), Entry(0, Flag.FUA, 1 << 20, 4096)),
            "0032",
        ),
        ("awrite a 0 4096 sync=dsync parts=1", (Entry(0, Flag.FUA, SUPER, 4096),), ""),
        ("awrite a 0 4096 sync=dsync parts=1", (Entry(0, Flag.FUA, 1 << 20, 4096), Entry(0, Flag.FLUSH)), ""),
        ("awrite a 0 4096 sync=dsync parts=1", (Entry(0, Flag(0), 1 << 20, 4096),), ""),
        ("dwrite a 0 4096 sync=dsync", (Entry(0, Flag.FUA, 1 << 20, 4096),), ""),
    ],
)
def test_a_write_that_is_not_waited_for_and_only_forced_is_0032(
    ops: str, between: tuple[Entry, ...], known: str
) -> None:
    """What stands before the last mark of the setup is not this call's."""
    script = Script(f"0-1 create a\n2-3 sync\n10-30 {ops}")
    last = script.history.events[-1].id
    marks = [Entry(0, Flag.MARK, mark=f"sync:{op}:1") for op in (op_id(SETUP, 1), last)]
    entries = (Entry(0, Flag.FUA, SUPER, 4096), Entry(0, Flag.FLUSH), marks[0], *between, marks[1])
    log = FakeLog(tuple(replace(entry, index=n) for n, entry in enumerate(entries)), 0, (), {})
    assert file_under(script, "btrfs", "a", log=log, a=Has("")).known == known


def test_zeroes_are_found_where_the_old_words_are() -> None:
    script = Script(
        OVERWRITE.format(call="syncfs").replace("write a 0 4096\n10", "fallocate a 0 512 mode=zero\n10")
    )
    old = _words(script, "u")
    log = make_log(write(3, 4, 2 << 20), write(12, 14), data={2 << 20: old, 1 << 20: old})
    assert file_under(script, "xfs", "a", log=log, a=Has("u:0-4096")).facts["data"] == "absent"
    data = {2 << 20: old}
    log = make_log(write(3, 4, 2 << 20), write(12, 14, (2 << 20) - 4096, 8192), data=data)
    assert file_under(script, "xfs", "a", log=log, a=Has("u:0-4096")).known == "0002"


# ------------------------------------------------------------ 0004, 0005, 0007, 0008: names of btrfs

UNDONE = """0-1 mkdir d
2-3 create d/b
4-5 create x
4-5 create y
4-5 create w
6-7 sync
8-9 rename d/b c
10-11 rename y d/b
12-13 fsync d/b
14-15 {change}
16-17 fsync x"""


@pytest.mark.parametrize(
    ("change", "names"),
    [("rename d/b c", "d d/b x w c=y"), ("unlink d/b", "d d/b x w"), ("rename w d/b", "d d/b x w")],
)
def test_an_undone_name_is_0004(change: str, names: str) -> None:
    script = Script(UNDONE.format(change=change))
    assert file_under(script, "btrfs", names).known == "0004"
    assert not file_under(script, "btrfs", names, replay=False).known


def test_an_old_name_that_nobody_changed_again_is_new() -> None:
    script = Script(UNDONE.format(change="chmod x 600"))
    assert not file_under(script, "btrfs", "d d/b x w c=d/b").known


LINKED = (
    "0-1 mkdir d\n2-3 create a\n4-5 create d/a\n6-7 link a f\n8-9 sync\n10-11 rename d/a f\n12-13 fsync {0}"
)
OVER = """0-1 mkdir d
2-3 create x
4-5 create c
4-5 create k
6-7 sync
8-9 rename c d/b
10-11 fsync d
14-15 rename k d/b
16-17 fsync {0}"""


@pytest.mark.parametrize(
    ("history", "call", "names", "known"),
    [
        (LINKED, "a", "d a d/a", "0005"),
        (LINKED, "f", "d a", ""),
        (OVER, "x", "d x k", "0007"),
        (OVER, "d/b", "d x k", ""),
    ],
)
def test_a_name_lost_to_a_rename_over_it(history: str, call: str, names: str, known: str) -> None:
    label = file_under(Script(history.format(call)), "btrfs", names)
    assert label.known == known


def test_a_name_that_is_just_missing_is_new() -> None:
    script = Script("0-1 create a\n2-3 sync\n4-5 create b\n6-7 fsync b")
    assert file_under(script, "btrfs", "a").bucket == "btrfs/names/missing-name/made/fsync/replay"


BACK = """0-1 mkdir e
2-3 create e/a
4-5 sync
{0}
8-9 link {1}/a c
10-11 fsync {1}/a
12-13 unlink {1}/a
14-15 fsync c"""


def test_an_unlinked_name_is_back_only_if_its_directory_moved() -> None:
    moved = Script(BACK.format("6-7 rename e d", "d"))
    assert file_under(moved, "btrfs", "d=e d/a=e/a c=e/a").known == "0008"
    stayed = Script(BACK.format("6-7 chmod e 700", "e"))
    assert (
        file_under(stayed, "btrfs", "e e/a c=e/a").bucket
        == "btrfs/names/resurrected-name/removed/fsync/replay"
    )


@pytest.mark.parametrize(
    ("before", "known"),
    [("fsync .", "0017"), ("unlink c fsync=yes", "0017"), ("unlink c", ""), ("chmod . 700", "")],
)
def test_an_unlinked_name_is_back_only_if_its_directory_was_logged(before: str, known: str) -> None:
    history = (
        f"0-1 mkdir e\n2-3 create b\n4-5 link b e/a\n0-2 create c\n6-7 sync\n8-9 {before}\n10-11 unlink b\n"
    )
    names = "b e e/a=b" if before.startswith("unlink") else "b c e e/a=b"
    label = file_under(Script(history + "12-13 fsync e/a"), "btrfs", names)
    assert (label.violation.kind, label.known) == ("resurrected-name", known)


@pytest.mark.parametrize(("beside", "known"), [("fsync f2", "0019"), ("fsync c", ""), ("chmod f2 700", "")])
def test_an_unlinked_name_is_back_if_a_renamed_sibling_was_logged(beside: str, known: str) -> None:
    history = "0-1 mkdir e\n2-3 create b\n4-5 link b e/a\n6-7 create f\n7-8 create c\n8-9 sync\n"
    history += f"10-11 rename f f2\n12-20 {beside}\n13-14 unlink b\n21-22 fsync e/a"
    label = file_under(Script(history), "btrfs", "b e e/a=b c f2=f")
    assert (label.violation.kind, label.known) == ("resurrected-name", known)


@pytest.mark.parametrize(
    ("before", "synced", "known"),
    [("fsync d", "d/bar", "0020"), ("chmod d 700", "d/bar", ""), ("fsync d", "d/foo", "")],
)
def test_a_file_at_an_old_name_is_lost_only_if_the_directory_was_logged(
    before: str, synced: str, known: str
) -> None:
    """And only by the promise of the renamed file: its own fsync saves it."""
    history = f"0-1 mkdir d\n2-3 create d/foo\n4-5 sync\n6-7 {before}\n"
    history += f"8-9 rename d/foo d/bar\n10-11 create d/foo as=n\n12-13 fsync {synced}"
    label = file_under(Script(history), "btrfs", "d d/bar=d/foo")
    assert (label.violation.kind, label.known) == ("missing-name", known)


@pytest.mark.parametrize(
    ("beside", "known"), [("fsync e/a", "0021"), ("fsync e/c", ""), ("chmod e/a 700", "")]
)
def test_a_renamed_file_is_lost_beside_the_fsync_of_an_unlinked_one(beside: str, known: str) -> None:
    history = "0-1 mkdir e\n2-3 create e/a\n4-5 link e/a b\n6-7 create f\n8-9 create e/c\n10-11 sync\n"
    history += f"12-13 unlink b\n14-20 {beside}\n15-16 rename f g"
    label = file_under(Script(history), "btrfs", "e e/a e/c")
    assert (label.violation.kind, label.known) == ("lost-inode", known)


@pytest.mark.parametrize(
    ("history", "known"),
    [
        ("11-12 exchange_range a b 0 0 4096\nz: 13-14 dwrite a 0 4096", "0030"),
        ("11-12 exchange_range b a 0 0 4096\nz: 13-14 dwrite a 0 4096", "0030"),
        ("z: 11-12 dwrite a 0 4096\n13-14 fsync b", ""),
        ("11-12 exchange_range a b 4096 4096 4096\nz: 13-14 dwrite a 0 4096", ""),
    ],
)
def test_words_of_the_file_it_was_exchanged_with(history: str, known: str) -> None:
    """Written there after the exchange, at that very place."""
    script = Script(
        f"0-1 create a\n2-3 create b\nw: 5-6 write b 0 8192\nv: 7-8 write a 0 8192\n9-10 sync\n{history}"
    )
    label = file_under(script, "xfs", "a b", a=Has("z:0-4096 v:4096-8192"), b=Has("z/a@0:0-4096 w:4096-8192"))
    assert (label.violation.kind, label.known) == ("misplaced-data", known)


@pytest.mark.parametrize(
    ("direct", "known"),
    [
        ("mapped_write f 0 0 4096 direct=yes", "0028"),
        ("mapped_write f 0 0 4096 direct=no", ""),
        ("mapped_write f 0 4096 4096 direct=yes", ""),
        ("mapped_write g 0 0 4096 direct=yes", ""),
    ],
)
def test_what_was_written_before_a_faulting_direct_write_is_lost(direct: str, known: str) -> None:
    history = "0-1 create f\n0-2 create g\n3-4 sync\n5-6 write f 0 4096\n"
    history += f"7-8 {direct} other=f at=4096\n9-10 fsync f"
    label = file_under(Script(history), "btrfs", "f g", f=Has(runs="0:0-4096"))
    assert (label.violation.kind, label.known) == ("lost-to-zero", known)


@pytest.mark.parametrize(("before", "known"), [("fsync .", "0023"), ("chmod . 700", "0024")])
def test_a_file_is_back_after_it_was_unlinked_and_fsynced(before: str, known: str) -> None:
    history = f"0-1 create a\n2-3 create b\n4-5 sync\n6-7 {before}\n8-9 unlink a fsync=yes"
    label = file_under(Script(history), "btrfs", "a b")
    assert (label.violation.kind, label.known) == ("resurrected-name", known)


def test_what_was_fsynced_before_the_unlink_is_undone() -> None:
    history = "0-1 create a\n2-3 sync\n4-5 fsync .\n6-7 chmod a 600\n8-9 fsync a\n10-20 unlink a fsync=yes"
    script = Script(history)
    tree = make_tree(script, "btrfs", "a", a=Has(mode=0o644))
    violations = judge_case(script, "btrfs", tree, 15).violations
    assert [v.kind for v in violations] == ["old-mode"]
    evidence, crash = Evidence("btrfs", build_versions(script.history), None), Crash(Cut(15, 15), replay=True)
    assert label(violations, evidence, crash, load_known()).known == "0023"


@pytest.mark.parametrize(
    ("first", "known"), [("5-20 fsync f", "0022"), ("5-20 fsync c", "0022"), ("5-20 chmod c 700", "")]
)
def test_an_attribute_is_not_logged_if_a_sync_call_ran_beside_it(first: str, known: str) -> None:
    history = f"0-1 create f\n2-3 create c\n4-4 sync\n{first}\n7-14 setxattr f x\n24-30 fsync f"
    label = file_under(Script(history), "xfs", "f c")
    assert (label.violation.kind, label.known) == ("missing-xattr", known)


# ------------------------------------------------------------------------ 0009: an evicted directory

EVICTED = """1-2 mkdir A
3-4 create A/foo
5-6 create A/bar
7-8 {0}
10-20 fsync A/foo
30-40 fsync A"""


@pytest.mark.parametrize(
    ("before", "committed", "known"),
    [
        ("drop_caches level=2", False, "0009"),
        ("reclaim", False, "0009"),
        ("drop_caches level=1", False, ""),
        ("chmod A/bar 700", False, ""),
        ("drop_caches level=2", True, ""),
    ],
)
def test_a_directory_is_not_logged_after_its_eviction(before: str, committed: bool, known: str) -> None:
    """Only where inodes were asked to be evicted, and the call sent nothing."""
    again = (flush(31, 32), fua(32, 34), flush(35, 36)) if committed else ()
    log = make_log(fua(12, 14), flush(15, 16), *again)
    found = file_under(Script(EVICTED.format(before)), "btrfs", "A A/foo", log=log)
    assert found.known == known


def test_a_file_that_was_renamed_is_not_logged_after_its_eviction() -> None:
    history = "1-2 create b\n3-4 sync\n5-6 rename b h\n7-8 drop_caches level=2\n30-40 fsync h"
    log = make_log(fua(2, 3), flush(3, 4))
    assert file_under(Script(history), "btrfs", "b", log=log).known == "0009"


# ------------------------------------------------------------------- 0010: what a truncate cut off

GROWN = """0-1 create a
u: 2-3 write a 0 8192
4-5 sync
6-7 truncate a {0}
8-9 fsync a
10-11 {1}"""


@pytest.mark.parametrize(
    ("size", "then", "shown", "known"),
    [
        (8, "truncate a 8192", "u:0-4096 0:4096-8192", "0010"),
        (8, "fallocate a 4096 4096", "u:0-4096 0:4096-8192", "0010"),
        (8, "truncate a 8192\n12-13 fsync a", "u:0-4096 0:4096-8192", ""),
        (8, "truncate a 8192", "u:0-8 0:8-4096 u:4096-8192", ""),
        (4096, "truncate a 8192", "u:0-8192", ""),
        (8, "chmod a 600", "u:0-4096", ""),
    ],
)
def test_what_was_cut_off_is_back_in_the_last_block(size: int, then: str, shown: str, known: str) -> None:
    """Only until the growth is synced: the zeroes are in the cache by then."""
    script = Script(GROWN.format(size, then))
    assert file_under(script, "btrfs", "a", replay=False, a=Has(shown)).known == known


# ---------------------------------------------------------------------------- 0011: old memory


@pytest.mark.parametrize(("shown", "known"), [("w:0-8 ?:8-4096", "0011"), ("?:0-4096", "")])
def test_old_memory_is_behind_the_end_of_a_short_write(shown: str, known: str) -> None:
    script = Script("0-1 create a\n2-3 truncate a 8192\nw: 4-5 fault_write a 0 8192 8\n6-7 fsync a")
    assert file_under(script, "xfs", "a", a=Has(shown, size=8192)).known == known


# --------------------------------------------------------------------- 0006: blocks let go of (xfs)

SHARED = """0-1 create a
2-3 create b
u: 4-5 write a 0 8192
6-7 clone a b 4096 0 4096
8-9 sync
10-11 {0}
v: 12-13 write b 0 4096
14-15 fdatasync b"""


@pytest.mark.parametrize(
    ("op", "shown", "known"),
    [
        ("truncate a 0", "u:0-4096 v/b@0:4096-8192", "0006"),
        ("otrunc a", "u:0-4096 v/b@0:4096-8192", "0006"),
        ("unlink a", "u:0-4096 v/b@0:4096-8192", "0006"),
        ("mwrite a 0 8", "u:0-4096 v/b@0:4096-8192", "0006"),
        ("chmod a 600", "u:0-4096 v/b@0:4096-8192", ""),
        ("truncate a 0", "v/b@0:0-4096 u:4096-8192", ""),
    ],
)
def test_a_block_let_go_of_shows_foreign_words(op: str, shown: str, known: str) -> None:
    script = Script(SHARED.format(op))
    label = file_under(script, "xfs", "a b", a=Has(shown), b=Has("v:0-4096"))
    assert (label.violation.kind, label.known) == ("misplaced-data", known)


# ------------------------------------------------------------------------- 0013: counting quotas


@pytest.mark.parametrize(
    ("history", "known"),
    [
        ("1-2 create a\n3-4 quota", "0013"),
        ("1-2 create a\n3-4 quota action=rescan", "0013"),
        ("1-2 create a\n3-4 quota action=disable", ""),
        ("1-2 create a", ""),
        ("1-2 create a\n60-70 quota", ""),
    ],
)
def test_wrong_counts_are_known_where_quotas_were_counted(history: str, known: str) -> None:
    kind = "Counts for qgroup id: N/N are different"
    violation = Violation(rule="fsck", kind=kind, subject="", promised="", found="", source="")
    evidence = Evidence("btrfs", build_versions(Script(history).history), None)
    facts = find_facts(violation, evidence, Crash(CUT))
    assert match_known(load_known(), "btrfs", violation, facts) == known


# ------------------------------------------------------------------- 0015: reserved space, written


@pytest.mark.parametrize(
    ("before", "replay", "known"),
    [
        ("fallocate a 0 65536 mode=keep", False, "0015"),
        ("fallocate a 0 65536 mode=zero_keep", False, "0015"),
        ("fallocate a 0 65536 mode=keep", True, ""),
        ("fallocate a 0 65536 mode=punch", False, ""),
    ],
)
def test_a_size_lost_in_reserved_space(before: str, replay: bool, known: str) -> None:
    history = f"1-2 create a\n3-4 {before}\nw: 5-6 write a 0 8192\n7-8 sync"
    label = file_under(Script(history), "btrfs", "a", replay=replay, a=Has("w:0-4096"))
    assert (label.violation.kind, label.known) == ("size-too-small", known)


# ----------------------------------------------------------- 0016: an inode that is logged once more


@pytest.mark.parametrize(
    ("then", "names", "known"),
    [
        ("rename a b", "b=a", "0016"),
        ("link a b", "a b=a", "0016"),
        ("create b", "a b", ""),
    ],
)
def test_a_new_name_undoes_what_was_fsynced(then: str, names: str, known: str) -> None:
    script = Script(
        f"0-1 create a\n2-3 sync\n4-5 chmod a 600\n6-7 fsync a\n8-9 {then}\n10-11 create c\n12-13 fsync c"
    )
    label = file_under(script, "btrfs", f"{names} c", a=Has(mode=0o644))
    assert (label.violation.kind, label.known) == ("old-mode", known)


# ------------------------------------------------------------------------------ 0018: growing


@pytest.mark.parametrize(
    ("history", "replay", "known"),
    [
        ("1-2 create a\n3-4 growfs", True, "0018"),
        ("1-2 create a\n3-4 growfs", False, ""),
        ("1-2 create a\n60-70 growfs", True, ""),
        ("1-2 create a", True, ""),
    ],
)
def test_a_failed_mount_is_known_only_after_growing(history: str, replay: bool, known: str) -> None:
    violation = Violation(
        rule="mountable", kind="mount-EUCLEAN", subject="", promised="", found="", source=""
    )
    evidence = Evidence("xfs", build_versions(Script(history).history), None)
    facts = find_facts(violation, evidence, Crash(CUT, replay))
    assert match_known(load_known(), "xfs", violation, facts) == known


# ------------------------------------------------------------------------------ 0003: the kernel log


def test_an_oops_is_told_by_where_it_was() -> None:
    lines = tuple((CRASHES / "0003-btrfs-balance-resume-oops" / "kmsg.txt").read_text().splitlines())
    kind = "BUG: kernel NULL pointer dereference, address: N"
    violation = Violation(rule="kernel-log", kind=kind, subject="", promised="", found="", source="")
    evidence = Evidence("btrfs", build_versions(Script("0-1 create a").history), None)

    def known(kernel_log: tuple[str, ...]) -> str:
        crash = Crash(Cut(9, 9), False, kernel_log)
        return match_known(load_known(), "btrfs", violation, find_facts(violation, evidence, crash))

    assert known(lines) == "0003"
    assert not known(tuple(line.replace("btrfs_root_node", "other") for line in lines))
    assert not known(tuple(line.replace("balance_kthread", "other") for line in lines))


# --------------------------------------------- 0025 and on: kernels with a fix taken out, and only those

LOST_STORE = "failed-write-vs-mmap-store"


@pytest.mark.parametrize(
    ("without", "beside", "known"),
    [
        (LOST_STORE, "6-9 fault_write a 4096 8192 8", "0025"),
        (LOST_STORE, "12-14 fault_write a 4096 8192 8", "0025"),
        ("", "6-9 fault_write a 4096 8192 8", ""),
        ("page-release-vs-fast-fsync", "6-9 fault_write a 4096 8192 8", ""),
        (LOST_STORE, "2-3 fault_write a 4096 8192 8", ""),
        (LOST_STORE, "16-18 fault_write a 4096 8192 8", ""),
        (LOST_STORE, "6-9 fault_write a 12288 4096 8", ""),
        (LOST_STORE, "6-9 fault_write b 4096 8192 8", ""),
        (LOST_STORE, "6-9 chmod a 600", ""),
    ],
)
def test_a_mapped_store_is_lost_beside_a_failed_write(without: str, beside: str, known: str) -> None:
    history = f"0-1 create a\n0-1 create b\n1-2 truncate a 16384\nu: 4-10 mwrite a 0 16384\n{beside}"
    script = Script(f"{history}\n11-15 fsync a")
    label = file_under(script, "xfs", "a b", without=without, a=Has("u:0-8192 0:8192-12288 u:12288-16384"))
    assert (label.violation.kind, label.known) == ("lost-to-zero", known)


RELEASED = "page-release-vs-fast-fsync"


@pytest.mark.parametrize(
    ("without", "beside", "replay", "known"),
    [
        (RELEASED, "8-12 reclaim", True, "0026"),
        (RELEASED, "8-12 squeeze", True, "0026"),
        ("", "8-12 reclaim", True, ""),
        (LOST_STORE, "8-12 reclaim", True, ""),
        (RELEASED, "8-12 reclaim", False, ""),
        (RELEASED, "8-9 reclaim", True, ""),
        (RELEASED, "21-22 reclaim", True, ""),
        (RELEASED, "8-12 drop_caches", True, ""),
    ],
)
def test_a_write_is_missed_by_fsync_beside_reclaim(
    without: str, beside: str, replay: bool, known: str
) -> None:
    script = Script(f"0-1 create a\n2-3 fsync a\n4-5 write a 0 4096\n{beside}\n10-20 fsync a")
    label = file_under(script, "btrfs", "a", replay=replay, without=without, a=Has("0:0-4096"))
    assert (label.violation.kind, label.known) == ("lost-to-zero", known)


MOVED = "nocow-write-vs-balance"


@pytest.mark.parametrize(
    ("without", "op", "beside", "known"),
    [
        (MOVED, "dwrite", "8-20 balance", "0027"),
        (MOVED, "dwrite", "2-6 balance", "0027"),
        ("", "dwrite", "8-20 balance", ""),
        (RELEASED, "dwrite", "8-20 balance", ""),
        (MOVED, "write", "8-20 balance", ""),
        (MOVED, "dwrite", "2-3 balance", ""),
        (MOVED, "dwrite", "11-20 balance", ""),
        (MOVED, "dwrite", "8-20 scrub", ""),
    ],
)
def test_a_write_in_place_is_lost_beside_a_balance(without: str, op: str, beside: str, known: str) -> None:
    history = f"0-1 create a\nu: 1-1 write a 0 8192\n1-2 sync\n4-10 {op} a 0 4096\n{beside}\n22-23 fsync a"
    label = file_under(Script(history), "btrfs", "a", replay=False, without=without, a=Has("u:0-8192"))
    assert (label.violation.kind, label.known) == ("old-data", known)


@pytest.mark.parametrize(
    ("without", "function", "known"),
    [
        ("readahead-vs-page-release", "btrfs_release_extent_buffer_pages", "0029"),
        ("readahead-vs-page-release", "btrfs_free_extent", ""),
        ("", "btrfs_release_extent_buffer_pages", ""),
        (MOVED, "btrfs_release_extent_buffer_pages", ""),
    ],
)
def test_a_guest_that_went_down_is_told_by_where(without: str, function: str, known: str) -> None:
    log = (CRASHES / "0029-btrfs-readahead-of-a-released-tree-block" / "kmsg.txt").read_text()
    lines = tuple(log.replace("btrfs_release_extent_buffer_pages", function).splitlines())
    violation = guestlane._violation("the guest panicked", lines)
    evidence = Evidence("btrfs", build_versions(History(())), None, without)
    facts = find_facts(violation, evidence, Crash(LIVE, kernel_log=lines))
    assert match_known(load_known(), "btrfs", violation, facts) == known


# ------------------------------------------------------------------------- a known one hides nothing


def test_a_state_is_filed_under_what_no_known_bug_explains() -> None:
    """The early return breaks the promise on `a`; that `b` is gone is something else."""
    script = Script("0-1 create b\n0-1 sync\n" + EARLY)
    label = file_under(script, "btrfs", "a", log=make_log())
    assert (label.known, label.violation.name) == ("", "b")
    assert file_under(script, "btrfs", "a b", log=make_log()).known == "0001"
