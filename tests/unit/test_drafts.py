"""Imports: prose, git logs, J-lang and fsx logs give what they say; the rest is told with its line."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fuzzer.cli.corpus import corpus_group
from fuzzer.drafts import clues, parts
from fuzzer.drafts.draft import Draft
from fuzzer.drafts.read import read_drafts
from fuzzer.errors import ExitCode, InputError
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format, format_op, parse
from fuzzer.workload.validate import validate

_DOCUMENTS = Path(__file__).parent / "documents"


def _one(text: str, name: str = "x") -> Draft:
    (draft,), others = read_drafts(text.encode(), name)
    assert others == ()
    validate(draft.workload)
    assert parse(format(draft.workload)) == draft.workload
    return draft


def _document(name: str) -> Workload:
    return _one((_DOCUMENTS / f"{name}.txt").read_text(), name).workload


def _names(workload: Workload) -> set[str]:
    return {actor.name for actor in workload.actors}


@pytest.mark.parametrize(
    ("name", "fs", "actors", "expect"),
    [
        ("release-vs-fsync", "btrfs", {"fsync", "release", "writeback"}, "data"),
        ("relocation-vs-nocow", "btrfs", {"balance", "direct", "write", "writeback"}, "data"),
        ("readahead-vs-release", "btrfs", {"readahead", "release", "metadata"}, "guest-lost"),
        ("delalloc-punch", "xfs", {"failing", "mmap", "writeback", "punch"}, "data"),
        ("mail-about-write", "btrfs", {"writeback", "release", "readahead", "metadata"}, "silence"),
    ],
)
def test_documents(name: str, fs: str, actors: set[str], expect: str) -> None:
    workload = _document(name)
    assert workload.fs == fs
    assert actors <= _names(workload)
    assert expect in workload.expect
    assert any(op.is_durability_point for actor in workload.actors for op in actor.ops)
    assert all("d/a" in format_op(op) for a in workload.actors for op in a.ops if op.name.endswith("write"))


def test_what_the_documents_do_not_say_is_not_there() -> None:
    assert not {"rename", "punch", "truncate", "balance"} & _names(_document("release-vs-fsync"))
    assert not {"fsync", "mmap", "rename"} & _names(_document("relocation-vs-nocow"))
    assert not {"balance", "direct", "rename"} & _names(_document("delalloc-punch"))


def test_documents_set_the_stage() -> None:
    release = _document("release-vs-fsync")
    assert "commit=300" in release.mount
    assert any(op.name == "truncate" and op.number("size") > 16 << 20 for op in release.setup)
    nocow = _document("relocation-vs-nocow")
    assert (nocow.mkfs, nocow.mount) == ("-m single", "nodatacow")
    assert nocow.source.startswith("Linux commit f78c436c3931, ")
    assert _document("readahead-vs-release").mkfs == "-n 4K"
    writes = [op.name for actor in nocow.actors for op in actor.ops]
    assert {"dwrite", "write"} <= set(writes)


def test_reasons_name_line_and_words() -> None:
    why = _document("release-vs-fsync").why.split("\n")
    assert any(line.startswith('  part release: line 2, "btrfs: a page') for line in why)
    assert '  symptom data: line 18, "After a power failure the data is lost although it was fsynced."' in why
    assert all(len(line) <= 140 for line in why)


def test_a_long_text_keeps_what_it_speaks_of_most() -> None:
    words = ["fsync", "truncate", "mmap", "punch", "dedupe", "rename", "snapshot", "send", "defrag"]
    text = "btrfs: clone races eviction\n\n" + "".join(f"Here {word} is named.\n" for word in words)
    draft = _one(text + "And scrub again. And scrub once more.\n")
    assert {"clone", "evict", "scrub"} <= _names(draft.workload)
    assert len(draft.notes) == 1
    assert "left out: " in draft.notes[0]


def test_sentences_without_a_clue_are_told() -> None:
    text = "btrfs: rename races fsync\n\nThe rename meets fsync.\nNothing of note is said in this.\n"
    assert [(one.line, one.text) for one in _one(text).unread] == [(4, "Nothing of note is said in this.")]


def test_the_head_of_a_mail_is_not_prose() -> None:
    head = "Received: from a.example.org\n        by b (truncate, punch) with ESMTP\nTo: x@example.org\n"
    subject = "Subject: [PATCH 1/2] btrfs: a rename races\n    with fsync of balance.c\n"
    draft = _one(f"{head}{subject}Date: now\n\nA rename loses to fsync.\n")
    assert draft.workload.title == "btrfs: a rename races with fsync of balance.c"
    assert not {"truncate", "punch"} & _names(draft.workload)


def test_a_saved_page() -> None:
    page = (
        "<!DOCTYPE html>\n<html><head><script>\nvar scrub = 1;\n</script></head><body>\n"
        f"<p>Skip to content</p>\n\n<a href='x'>https://git.example.org/commit/{'b' * 40}</a>\n\n"
        "<pre>btrfs: rename races &quot;fsync&quot;\n\nA rename loses to <b>fsync</b>.</pre>\n"
        "</body></html>\n"
    )
    draft = _one(page)
    assert draft.workload.title == 'btrfs: rename races "fsync"'
    assert draft.workload.source.startswith("Linux commit bbbbbbbbbbbb, ")
    assert _names(draft.workload) == {"fsync", "rename"}
    assert "line 9" in draft.workload.why


def test_prose_about_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="only rename"):
        read_drafts(b"btrfs: clean up rename\n\nA cosmetic change.\n", "f")
    with pytest.raises(InputError, match="nothing"):
        read_drafts(b"hello world\n", "f")


def test_every_part_can_be_composed_alone_and_together() -> None:
    names = tuple(clue.what for clue in clues.PARTS)
    for fs in ("btrfs", "xfs"):
        options = frozenset(clue.what for clue in clues.OPTIONS)
        for chosen in [*((name,) for name in names), names[::2], names[1::2]]:
            workload = parts.compose(fs, chosen, options, title="t", why="w", source="s", expect=("data",))
            validate(workload)


GIT_LOG = f"""\
commit {"1" * 40} (HEAD)
Author: A <a@example.org>
Date:   Mon

    btrfs: fix race between rename and fsync

    A rename in parallel with an fsync loses the name.

 fs/btrfs/inode.c | 2 +-

commit {"2" * 40}
Author: A <a@example.org>
Date:   Mon

    btrfs: remove an unused argument

commit {"3" * 40}
Author: A <a@example.org>
Date:   Mon

    xfs: direct writes race with truncate

    A truncate concurrent with a direct IO write shows stale data.
"""


def test_git_log() -> None:
    drafts, others = read_drafts(GIT_LOG.encode(), "log")
    assert [draft.workload.fs for draft in drafts] == ["btrfs", "xfs"]
    assert [draft.workload.source[:25] for draft in drafts] == ["Linux commit " + c * 12 for c in "13"]
    assert {"rename", "fsync"} <= _names(drafts[0].workload)
    assert {"direct", "truncate"} <= _names(drafts[1].workload)
    assert [(one.line, one.text) for one in others] == [(11, "222222222222 btrfs: remove an unused argument")]


def test_a_commit_a_message_mentions_is_not_the_message() -> None:
    text = 'btrfs: rename races fsync\n\nFixes: 0123456789ab ("x")\n'
    assert _one(text, "f").workload.source == "f"
    assert _one(f"commit {'a' * 40} upstream.\n\n{text}").workload.source.startswith(
        "Linux commit aaaaaaaaaaaa,"
    )


JLANG = """\
# define
A
B
A/foo
B/bar

# declare
local_checkpoint

# setup
mkdir A 0777
open Afoo O_RDWR|O_CREAT 0777

# run
write Afoo 0 32768
opendir A 0777
fsync A
checkpoint 1
mkdir B 0777
rename Afoo Bbar
falloc Bbar FALLOC_FL_KEEP_SIZE 32768 8000
truncate Bbar 2500
open Bbar O_RDWR|O_CREAT 0777
mmapwrite Bbar 0 4100
frobnicate Bbar
write Bbar zero 1
fsetxattr Bbar
remove Bbar
rmdir B
fsync test
close Bbar
sync
checkpoint 2
"""


def test_jlang() -> None:
    draft = _one(JLANG, "j-lang7")
    assert [format_op(op) for op in draft.workload.setup] == [
        "mkdir A mode=0777",
        "create A/foo mode=0777",
        "sync",
    ]
    assert [format_op(op) for op in draft.workload.actors[0].ops] == [
        "write A/foo 0 32K",
        "fsync A",
        "mkdir B mode=0777",
        "rename A/foo B/bar",
        "fallocate B/bar 32K 8000 mode=keep",
        "truncate B/bar 2496",
        "fallocate B/bar 0 4K",
        "mwrite B/bar 0 4K msync=sync",
        "setxattr B/bar xattr1",
        "unlink B/bar",
        "rmdir B",
        "fsync .",
        "sync",
    ]
    assert [(one.line, one.text) for one in draft.unread] == [
        (25, "frobnicate Bbar"),
        (26, "write Bbar zero 1"),
    ]
    assert draft.notes == ("2 numbers rounded to multiples of 8 or 4096",)


def test_jlang_of_many_workloads_is_refused() -> None:
    with pytest.raises(InputError, match="J2-Lang"):
        read_drafts(b"# J2-Lang\nfile1 foo\n", "f")


FSX = """\
write 0x0 0x4000 0x0
truncate 0x0 0x2804 0x4000
skip read 0x0 0x0 0x2804
mapwrite 0x2000 0x2000 0x2804 close_open
punch_hole 0x1000 0x800 0x4000 keep_size
zero_range 0x0 0x1000 0x4000 keep_size *
collapse_range 0x1000 0x1000 0x4000
clone_range 0x0 0x1000 0x2000 0x3000
exchange_range 0x0 0x1000 0x2000 0x3000
fallocate 0x0 0x10000 0x3000 keep_size
nonsense
fsync 0x0 0x0 0x3000
"""


def test_fsx() -> None:
    draft = _one(FSX)
    assert [format_op(op) for op in draft.workload.actors[0].ops] == [
        "write a 0 16K",
        "truncate a 10K",
        "truncate a 16K",
        "mwrite a 8K 8K msync=sync",
        "fallocate a 4K 2K mode=punch",
        "fallocate a 0 4K mode=zero_keep",
        "fallocate a 4K 4K mode=collapse",
        "clone a a 0 8K 4K",
        "fallocate a 0 64K mode=keep",
        "fsync a",
    ]
    assert [(one.line, one.text.split()[0]) for one in draft.unread] == [
        (9, "exchange_range"),
        (11, "nonsense"),
    ]


def _import(*argv: str | Path) -> Result:
    return CliRunner().invoke(corpus_group, ["import", *map(str, argv)], standalone_mode=False)


def test_command_writes_one_file_each(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(GIT_LOG)
    assert isinstance(_import(log).exception, InputError), "two drafts need a directory"
    done = _import(
        log,
        _DOCUMENTS / "mail-about-write.txt",
        _DOCUMENTS / "readahead-vs-release.txt",
        "--output",
        f"{tmp_path}/out/",
        "--json",
    )
    assert done.return_value == ExitCode.NOTHING_FOUND, done.output
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({fact["output"] for fact in facts}) == 4, "the mail is called like the patch"
    for fact in facts:
        assert parse(Path(fact["output"]).read_text()).title == fact["title"]
    assert f"{log}:11: no race recognized" in done.stderr


def test_command_goes_on_after_a_bad_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("hello\n")
    done = _import(bad, _DOCUMENTS / "delalloc-punch.txt")
    assert done.return_value == ExitCode.BAD_INPUT
    assert done.stdout.startswith("powercut 1\n")
    assert f"{bad}:1: nothing is recognized" in done.stderr


@pytest.mark.parametrize("seed", range(60))
def test_any_bytes_give_a_draft_or_an_input_error(seed: int) -> None:
    rng = random.Random(seed)
    texts = [path.read_text() for path in sorted(_DOCUMENTS.iterdir())] + [GIT_LOG, JLANG, FSX]
    lines = [line for text in rng.sample(texts, 2) for line in text.splitlines()]
    rng.shuffle(lines)
    data = bytearray("\n".join(lines[: rng.randrange(len(lines))]).encode())
    for _ in range(rng.randrange(20)):
        data.insert(rng.randrange(len(data) + 1), rng.randrange(256))
    with suppress(InputError):
        drafts, _ = read_drafts(bytes(data), "f")
        assert all(parse(format(draft.workload)) == draft.workload for draft in drafts)
