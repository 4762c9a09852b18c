"""What must hold after fsync of a name: the table of the maintainers' own tests, by hand.

The same rows run on real kernels in tests/kernel/test_namespace_table.py. The words are explained in
oracle_cases.py.
"""

from __future__ import annotations

import pytest
from oracle_cases import Has, Row, check_row, each_fs, show

BTRFS, XFS = ("btrfs",), ("xfs",)
AB = "1-2 create a\n3-4 create b\n5-6 sync\n"
DE = "1-2 mkdir d\n3-4 mkdir e\n"
MOVES = (
    DE + "5-6 create d/f\n7-8 create e/m\n9-10 sync\n11-12 link d/f d/g\n13-14 rename e/m d/m\n"
    "15-16 fsync d/g"
)
CIRCLE = (
    "1-2 create a\n3-4 link a b\n5-6 sync\n7-8 rename a q\n9-10 rename b a\n"
    "11-12 create b as=n\n13-14 fsync b"
)

ROWS = (
    Row(
        "create, fsync file: with its data and new ancestors (generic/321, 322)",
        "1-2 mkdir d\n3-4 create d/f\nw: 5-6 write d/f 0 4096\n7-8 fsync d/f",
        (show("d d/f", d_f=Has("w:0-4096")),),
        (
            ("names missing-name", show("d")),
            ("names missing-name", show()),
            ("size size-too-small", show("d d/f")),
        ),
    ),
    Row(
        "create, fsync directory: no data (generic/065, 348)",
        "1-2 mkdir d\n3-4 create d/f\nw: 5-6 write d/f 0 4096\n7-8 fsync d",
        (show("d d/f"), show("d d/f", d_f=Has("w:0-4096"))),
        (("names missing-name", show("d")),),
    ),
    Row(
        "mkdir, fsync it (generic/321)",
        "1-2 mkdir d\n3-4 fsync d",
        (show("d"),),
        (("names missing-name", show()),),
    ),
    Row(
        "mkdir, create in it, fsync parent: btrfs goes into a new directory (generic/785)",
        "1-2 mkdir d\n3-4 create d/x\n5-6 fsync .",
        (show("d d/x"),),
        (("names missing-name", show("d")), ("names missing-name", show())),
        fs=BTRFS,
    ),
    Row(
        "mkdir, create in it, fsync parent: on xfs only the parent's own changes",
        "1-2 mkdir d\n3-4 create d/x\n5-6 fsync .",
        (show("d d/x"), show("d")),
        (("names missing-name", show()),),
        fs=XFS,
    ),
    Row(
        "change in a directory that was there, fsync parent",
        "1-2 mkdir d\n3-4 sync\n5-6 create d/x\n7-8 fsync .",
        (show("d"), show("d d/x")),
        (("names missing-name", show()),),
    ),
    *(
        Row(
            f"link, fsync {by}: both names (generic/520)",
            f"1-2 create f\n3-4 sync\n5-6 link f g\n7-8 fsync {by}",
            (show("f g=f"),),
            (
                ("names missing-name", show("f")),
                ("names missing-name", show("g=f")),
                ("structure nlink", show("f g=f", f=Has(nlink=1))),
            ),
        )
        for by in "fg"
    ),
    Row(
        "link, fsync of its directory: synced data stays (generic/065, 498, 782, 789)",
        "1-2 mkdir d\n3-4 create f\nw: 5-6 write f 0 4096\n7-8 fsync f\n9-10 link f d/g\n11-12 fsync d",
        (show("d f d/g=f", f=Has("w:0-4096")),),
        (
            ("names missing-name", show("d f", f=Has("w:0-4096"))),
            ("size size-too-small", show("d f d/g=f")),
        ),
    ),
    Row(
        "link, fsync of another file: synced data stays (generic/056, 057)",
        "1-2 create f\n3-4 create h\nw: 5-6 write f 0 4096\n7-8 fsync f\n9-10 link f g\n11-12 fsync h",
        (show("f h", f=Has("w:0-4096")), show("f g=f h", f=Has("w:0-4096"))),
        (("size size-too-small", show("f h")), ("names missing-name", show("f", f=Has("w:0-4096")))),
    ),
    Row(
        "rename over a file, fsync: the new content only (generic/322, 534, 552)",
        AB + "w: 7-8 write a 0 4096\n9-10 rename a b\n11-12 fsync b",
        (show("b=a", a=Has("w:0-4096")),),
        (
            ("names resurrected-name", show("a b=a", a=Has("w:0-4096"))),
            ("names old-binding", show("b")),
            ("names missing-name", show("")),
            ("data lost-to-zero", show("b=a", a=Has("0:0-4096"))),
        ),
    ),
    Row(
        "move, fsync new directory (generic/321)",
        DE + "5-6 create d/a\n7-8 sync\n9-10 rename d/a e/b\n11-12 fsync e",
        (show("d e e/b=d/a"),),
        (("names missing-name", show("d e")), ("names missing-name", show("d e d/a"))),
    ),
    Row(
        "move, fsync new directory and file: only there (generic/321)",
        DE + "5-6 create d/a\n7-8 sync\n9-10 rename d/a e/b\n11-12 fsync e\n13-14 fsync e/b",
        (show("d e e/b=d/a"),),
        (
            ("names resurrected-name", show("d e d/a e/b=d/a")),
            ("names missing-name", show("d e d/a")),
        ),
    ),
    Row(
        "a link, a move into its directory, fsync of the link: only there on xfs (generic/343)",
        MOVES,
        (show("d e d/f d/g=d/f d/m=e/m"), show("d e d/f d/g=d/f e/m")),
        (
            ("names missing-name", show("d e d/f d/m=e/m")),
            ("names lost-inode", show("d e d/f d/g=d/f")),
            ("names rename-both", show("d e d/f d/g=d/f d/m=e/m e/m")),
        ),
        fs=XFS,
    ),
    Row(
        "a link, a move into its directory, fsync of the link: never lost on btrfs (generic/343)",
        MOVES,
        (show("d e d/f d/g=d/f d/m=e/m"), show("d e d/f d/g=d/f e/m")),
        (
            ("names missing-name", show("d e d/f d/m=e/m")),
            ("names lost-inode", show("d e d/f d/g=d/f")),
        ),
        fs=BTRFS,
    ),
    Row(
        "move, fsync old directory: at one of both, never lost (generic/335)",
        DE + "5-6 create d/a\n7-8 sync\n9-10 rename d/a e/b\n11-12 fsync d",
        (show("d e e/b=d/a"),),
        (("names lost-inode", show("d e")),),
        unordered=(show("d e d/a"),),
    ),
    Row(
        "renamed, new file at its name, fsync of that: both (generic/342)",
        "1-2 create a\n3-4 sync\n5-6 rename a b\n7-8 create a as=n\n9-10 fsync a",
        (show("b=a a=n"),),
        (
            ("names lost-inode", show("a=n")),
            ("names missing-name", show("b=a")),
            ("names old-binding", show("a")),
        ),
    ),
    Row(
        "directory renamed, new one at its name, fsync of that: nothing in it is lost (generic/341)",
        "1-2 mkdir x\n3-4 create x/f\n5-6 sync\n7-8 rename x y\n9-10 mkdir x as=n\n11-12 fsync x",
        (show("y=x y/f=x/f x=n"),),
        (
            ("names lost-inode", show("x=n")),
            ("names missing-name", show("y=x x=n")),
            ("names missing-name", show("y=x y/f=x/f")),
        ),
    ),
    Row(
        "renamed, new file at its name, fsync of the renamed: both on btrfs (generic/376)",
        "1-2 create a\n3-4 sync\n5-6 rename a b\n7-8 create a as=n\n9-10 fsync b",
        (show("b=a a=n"),),
        (("names missing-name", show("b=a")), ("names missing-name", show("a=n"))),
        fs=BTRFS,
    ),
    Row(
        "renamed, new file at its name, fsync of the renamed: on xfs what it had changed itself",
        "1-2 create a\n3-4 sync\n5-6 rename a b\n7-8 create a as=n\n9-10 fsync b",
        (show("b=a a=n"), show("b=a")),
        (("names missing-name", show("a=n")),),
        fs=XFS,
    ),
    Row(
        "two links renamed in a row, new file at the last name, fsync of that (generic/502)",
        CIRCLE,
        (show("q=a a b=n"),),
        (("names missing-name", show("q=a a")), ("names lost-inode", show("b=n"))),
    ),
    Row(
        "the same: on btrfs the file has all its new names",
        CIRCLE,
        (show("q=a a b=n"),),
        (("names missing-name", show("a b=n")), ("names missing-name", show("q=a b=n"))),
        fs=BTRFS,
    ),
    Row(
        "renamed and linked over an unlinked name, new file, fsync of that (generic/527)",
        "1-2 create p\n3-4 create q\n5-6 sync\n7-8 rename p r\n9-10 unlink q\n11-12 link r q\n"
        "13-14 create p as=n\n15-16 fsync p",
        (show("p=n r=p q=p"),),
        (("names missing-name", show("p=n q=p")), ("names old-binding", show("p=n r=p q"))),
        fs=BTRFS,
    ),
    Row(
        "directory moved, a file at its name fsynced, moved, fsynced (generic/784)",
        "1-2 mkdir d\n3-4 mkdir e\n5-6 sync\n7-8 rename d e/d\n9-10 create d as=n\n11-12 fsync d\n"
        "13-14 rename d e/f\n15-16 fsync e/f",
        (show("e e/d=d e/f=n"),),
        (("names missing-name", show("e e/d=d")), ("names lost-inode", show("e e/f=n"))),
    ),
    Row(
        "new file with a link at the name of a removed directory (generic/790)",
        "1-2 mkdir o\n3-4 sync\n5-6 rmdir o\n7-8 mkdir d\n9-10 mkdir e\n11-12 create o as=n\n"
        "13-14 link o e/l\n15-16 fsync e\n17-18 fsync .",
        (show("d e o=n e/l=n"),),
        (
            ("names missing-name", show("e o=n e/l=n")),
            ("names missing-name", show("d e o=n")),
            ("names missing-name", show("d e e/l=n")),
        ),
    ),
    Row(
        "rename over, data never synced: either binding, content may be missing",
        AB + "7-8 fsync a\nw: 9-10 write a 0 4096\n11-12 rename a b",
        (show("a b"), show("b=a"), show("b=a", a=Has("w:0-4096"))),
        (("names rename-both", show("a b=a")), ("names lost-inode", show("b"))),
        unordered=(show("b=a", a=Has("0:0-4096")),),
    ),
    Row(
        "fsync a new file, rename it over the old: complete old or complete new",
        "1-2 create f\nv: 3-4 write f 0 8192\n5-6 sync\n7-8 create t\nw: 9-10 write t 0 4096\n11-12 fsync t\n"
        "13-14 rename t f",
        (
            show("f t", f=Has("v:0-8192"), t=Has("w:0-4096")),
            show("f=t", t=Has("w:0-4096")),
        ),
        (
            ("size size-too-small", show("f=t")),
            ("names missing-name", show("t", t=Has("w:0-4096"))),
            ("names rename-both", show("f=t t", t=Has("w:0-4096"))),
        ),
    ),
    Row(
        "exchange, fsync one side: both or none (btrfs/341)",
        AB + "7-8 rename a b flags=exchange\n9-10 fsync a",
        (show("a b"), show("a=b b=a")),
        (
            ("names rename-both", show("a b=a")),
            ("names rename-both", show("a=b b")),
            ("names missing-name", show("a=b")),
        ),
    ),
    Row(
        "unlink, fsync directory (generic/557)",
        "1-2 mkdir d\n3-4 create d/f\n5-6 sync\n7-8 unlink d/f\n9-10 fsync d",
        (show("d"),),
        (("names resurrected-name", show("d d/f")), ("names missing-name", show())),
    ),
    Row(
        "unlink one of two links, fsync by the other: gone, nlink right (generic/039, 106, 107)",
        "1-2 mkdir d\n3-4 create f\n5-6 link f d/g\n7-8 sync\n9-10 unlink d/g\n11-12 fsync f",
        (show("d f"),),
        (
            ("names resurrected-name", show("d f d/g=f")),
            ("names missing-name", show("d")),
            ("structure nlink", show("d f", f=Has(nlink=2))),
        ),
    ),
    Row(
        "unlink the last link, fsync of the open file: gone (generic/764, 771, 792)",
        "1-2 create f\n3-4 sync\n5-6 unlink f\n7-8 fsync f subject=f",
        (show(),),
        (("names resurrected-name", show("f")),),
    ),
    Row(
        "symlink, fsync directory: with its target (generic/348, 690, 779)",
        "1-2 mkdir d\n3-4 sync\n5-6 symlink t d/s\n7-8 fsync d",
        (show("d d/s"),),
        (("names missing-name", show("d")), ("names wrong-target", show("d d/s", d_s=Has(target="")))),
    ),
    Row(
        "snapshot made and deleted, fsync parent: gone (btrfs/118, 120)",
        "1-2 subvol_create v\n3-4 snapshot v w\n5-6 sync\n7-8 subvol_delete w\n9-10 fsync .",
        (show("v"),),
        (("names resurrected-name", show("v w")),),
        fs=BTRFS,
    ),
    Row(
        "chmod and truncate, fsync (generic/101, 489)",
        "1-2 create f\nv: 3-4 write f 0 8192\n5-6 sync\n7-8 chmod f 600\n9-10 truncate f 4104\n11-12 fsync f",
        (show("f", f=Has("v:0-4104", mode=0o600)),),
        (
            ("mode old-mode", show("f", f=Has("v:0-4104"))),
            ("size size-too-large", show("f", f=Has("v:0-8192", mode=0o600))),
        ),
    ),
    Row(
        "always: one parent, nlink is the number of names (generic/034, 040, 104, 481)",
        "1-2 mkdir d\n3-4 create f\n5-6 link f d/g",
        (show(), show("d f"), show("d f d/g=f")),
        (
            ("structure nlink", show("d f d/g=f", f=Has(nlink=3))),
            ("structure two-parents", show("d f d/d=d")),
        ),
    ),
    *(
        Row(
            "any of these after eviction: the same (generic/552, 557, 640)",
            f"1-2 mkdir d\n3-4 create d/f\n5-6 sync\n7-8 {change}\n9-10 drop_caches\n11-12 fsync d",
            (show(good),),
            ((f"names {kind}", show(bad)),),
        )
        for change, good, bad, kind in (
            ("unlink d/f", "d", "d d/f", "resurrected-name"),
            ("rename d/f d/g", "d d/g=d/f", "d d/f", "missing-name"),
            ("create d/x", "d d/f d/x", "d d/f", "missing-name"),
        )
    ),
)  # fmt: skip


@pytest.mark.parametrize(("row", "on"), each_fs(*ROWS))
def test_row(row: Row, on: str) -> None:
    check_row(row, on)
