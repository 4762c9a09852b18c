"""What must hold after fsync of a name: the table of the maintainers' own tests, on real kernels.

Each row is run as it is, and with all caches dropped before each fsync (fstests generic/552, 557, 640:
what was evicted must not be forgotten). It gives no finding, and every crash state after its last op
shows the names the row asks for, whatever our judge thinks of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fuzzer.campaign.lane import Lane, open_lane
from fuzzer.writelog.points import Points
from tests.kernel.watched import watch

pytestmark = pytest.mark.kernel("drop_caches")

BOTH = ("btrfs", "xfs")


@dataclass(frozen=True)
class Row:
    """`setup` is made durable by sync. `must` lists `path` or `path=other`, where `other` is what the
    inode was called at the end of the workload; `gone` paths that must not be there."""

    title: str
    setup: str
    ops: str
    must: str = ""
    gone: str = ""
    fs: tuple[str, ...] = BOTH


ROWS = (
    Row(
        "create, fsync file: with new ancestors (generic/321)", "", "mkdir d; create d/f; fsync d/f", "d d/f"
    ),
    Row(
        "create, fsync directory (generic/065, 348)", "mkdir d", "create d/f; write d/f 0 4K; fsync d", "d/f"
    ),
    Row("mkdir, fsync it (generic/321)", "", "mkdir d; fsync d", "d"),
    Row("mkdir, create in it, fsync parent", "", "mkdir d; create d/x; fsync .", "d"),
    Row(
        "new directory, rename beside it, fsync parent (generic/785)",
        "create f",
        "write f 0 1000; fsync f; mkdir d; create d/x; rename f g; fsync .",
        "d d/x g",
        "f",
    ),
    Row(
        "new directory, link in it, fsync parent (generic/782)",
        "create f",
        "mkdir d; write f 0 64K; fsync f; link f d/g; fsync .",
        "d f",
    ),
    Row("change in a directory that was there", "mkdir d; mkdir d/e", "create d/e/x; fsync d", "d d/e"),
    Row("link, fsync file by the old name (generic/520)", "create f", "link f g; fsync f", "f=f g=f"),
    Row("link, fsync file by the new name (generic/520)", "create f", "link f g; fsync g", "f=f g=f"),
    Row(
        "link, fsync of its directory (generic/065, 498)",
        "mkdir d; create f",
        "write f 0 4K; fsync f; link f d/g; fsync d",
        "f=d/g d/g=d/g",
    ),
    Row(
        "link, fsync of another file (generic/056, 057)",
        "create f; create h",
        "write f 0 4K; fsync f; link f g; write h 0 4K; fsync h",
        "f h",
    ),
    Row("rename, fsync file (generic/322)", "create a", "write a 0 4K; rename a b; fsync b", "b", "a"),
    Row("rename over a file, fsync (generic/322)", "create a; create b", "rename a b; fsync b", "b=b", "a"),
    Row(
        "move, fsync new directory, fsync file (generic/321)",
        "mkdir d; create a",
        "rename a d/a; fsync d; fsync d/a",
        "d/a",
        "a",
    ),
    Row("move, fsync new directory: it is there", "mkdir d; create a", "rename a d/a; fsync d", "d/a"),
    Row(
        "a link, moves into its directory, fsync of the link (generic/343)",
        "mkdir x; mkdir y; create x/foo; mkdir y/z; create y/foo2",
        "link x/foo x/bar; rename y/z x/z; rename y/foo2 x/foo2; fsync x/bar",
        "x/foo=x/bar x/bar=x/bar x/z x/foo2",
        "y/z y/foo2",
    ),
    Row("move, fsync old directory (generic/335)", "mkdir d; mkdir e; create d/a", "rename d/a e/b; fsync d"),
    Row(
        "directory renamed, new one at its name, fsync of that (generic/341)",
        "mkdir a; mkdir a/x; create a/x/foo; create a/x/bar",
        "rename a/x a/y; mkdir a/x; fsync a/x",
        "a/x=a/x a/y=a/y a/y/foo a/y/bar",
        "a/x/foo",
    ),
    Row(
        "renamed, new file at its name, fsync of that (generic/342)",
        "create foo; write foo 0 16K",
        "rename foo bar; create foo; write foo 0 8K; fsync foo",
        "foo=foo bar=bar",
    ),
    Row(
        "renamed, new file at its name, fsync of the renamed (generic/376)",
        "mkdir d; create d/foo",
        "rename d/foo d/bar; create d/foo; fsync d/bar",
        "d/foo=d/foo d/bar=d/bar",
    ),
    Row(
        "links renamed in a circle, fsync of the new file (generic/502)",
        "mkdir t; create t/foo; link t/foo t/bar",
        "rename t/foo t/qwerty; rename t/bar t/foo; create t/bar; fsync t/bar",
        "t/bar=t/bar t/foo=t/foo t/qwerty=t/foo",
    ),
    Row(
        "renames, a link and a new file at old names, fsync of the new file (generic/526)",
        "mkdir t; create t/f1; create t/f2",
        "rename t/f1 t/f3; rename t/f2 t/f4; link t/f3 t/f2; create t/f1; fsync t/f1",
        "t/f1=t/f1 t/f2=t/f2 t/f3=t/f2 t/f4=t/f4",
    ),
    Row(
        "the same with an unlink (generic/527)",
        "mkdir t; create t/f1; create t/f2",
        "rename t/f1 t/f3; unlink t/f2; link t/f3 t/f2; create t/f1; fsync t/f1",
        "t/f1=t/f1 t/f2=t/f2 t/f3=t/f2",
    ),
    Row(
        "two files change places by renames (generic/527)",
        "mkdir t; create t/zz; link t/zz t/zl; create t/a",
        "rename t/a t/tmp; rename t/zl t/a; rename t/tmp t/zl; rename t/zz t/a2; create t/zz; fsync t/zz",
        "t/a=t/a t/a2=t/a t/zl=t/zl t/zz=t/zz",
        "t/tmp",
    ),
    Row(
        "a directory moved, a file at its name fsynced, moved and fsynced (generic/784)",
        "mkdir dir1; mkdir dir2",
        "rename dir1 dir2/dir1; create dir1; fsync dir1; rename dir1 dir2/foo; fsync dir2/foo",
        "dir2/dir1 dir2/foo",
        "dir1",
    ),
    Row(
        "a file at the name of a removed directory, with a link (generic/790)",
        "mkdir foo",
        "rmdir foo; mkdir dir1; mkdir dir2; create foo; link foo dir2/link; fsync dir2; fsync .",
        "dir1 dir2 foo=dir2/link dir2/link=dir2/link",
    ),
    Row(
        "rename over, data never synced: a binding",
        "create a; create b",
        "write a 0 4K; rename a b; fsync .",
        "b=b",
    ),
    Row(
        "fsync a new file, rename it over the old: one of both",
        "create f; write f 0 16K",
        "create tmp; write tmp 0 8K; fsync tmp; rename tmp f; chmod . 0700",
        "f",
    ),
    Row("exchange, fsync one side", "create a; create b", "rename a b flags=exchange; fsync a", "a b"),
    Row(
        "directories exchange places, one holds a subvolume (btrfs/341)",
        "mkdir d1; create d1/foo; mkdir d2; subvol_create d2/v; create d2/v/x",
        "rename d1/foo d1/bar; rename d1 d2 flags=exchange; fsync d2/bar",
        "d1 d1/v d1/v/x d2 d2/bar",
        "d1/bar d2/v d1/foo d2/foo",
        fs=("btrfs",),
    ),
    Row("unlink, fsync directory (generic/557)", "mkdir d; create d/f", "unlink d/f; fsync d", "d", "d/f"),
    Row(
        "unlink one of two links, fsync by the other (generic/039, 106, 107)",
        "mkdir d; create f; link f d/g",
        "unlink d/g; fsync f",
        "f d",
        "d/g",
    ),
    Row(
        "unlink one of two links, a new file at its name, fsync of that",
        "create f; link f g",
        "unlink g; create g; fsync g",
        "f=f g=g",
    ),
    Row("symlink, fsync directory (generic/348, 690, 779)", "mkdir d", "symlink t d/s; fsync d", "d/s"),
    Row("fifo, fsync directory", "mkdir d", "mknod d/f; mknod d/n kind=null; fsync d", "d/f d/n"),
    Row(
        "snapshot made and deleted, fsync parent (btrfs/118, 120)",
        "subvol_create v; create v/x; snapshot v w",
        "subvol_delete w; fsync .",
        "v v/x",
        "w",
        fs=("btrfs",),
    ),
    Row(
        "attributes and size, fsync (generic/066, 101, 489, 535)",
        "create f; write f 0 16K; setxattr f x; setxattr f y",
        "chmod f 0600; removexattr f x; setxattr f y size=100; truncate f 4104; fsync f",
        "f",
    ),
)


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with open_lane("fuse") as lane:
        yield lane


_RUNS = [
    pytest.param(row, on, evicted, id=f"{on}: {row.title}{', evicted' * evicted}")
    for row in ROWS
    for on in row.fs
    for evicted in (False, True)
]


def _text(row: Row, *, evicted: bool) -> str:
    def lines(ops: str) -> str:
        return "".join(f"  {op.strip()}\n" for op in ops.split(";") if op.strip())

    ops = row.ops.replace("fsync", "drop_caches level=3; fsync") if evicted else row.ops
    return f"setup\n{lines(row.setup)}  sync\nactor one\n{lines(ops)}"


@pytest.mark.parametrize(("row", "on", "evicted"), _RUNS)
def test_row_holds(monkeypatch: pytest.MonkeyPatch, lane: Lane, row: Row, on: str, evicted: bool) -> None:
    seen = watch(monkeypatch, lane, _text(row, evicted=evicted), on, Points.FSYNC)
    assert [e.op.name for e in seen.execution.history.events if not e.succeeded] == []
    assert [(f.bucket, f.judgement.violations[0]) for f in seen.examination.forbidden] == []
    wanted = {word for word in row.must.split() if "=" in word}
    for shown in seen.after:
        assert wanted <= shown.entries()
        assert [path for path in row.must.split() if "=" not in path and not shown.has(path)] == []
        assert [path for path in row.gone.split() if shown.has(path)] == []
