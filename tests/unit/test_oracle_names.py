"""Names, modes and xattrs, by hand: what must pass and what must not.

The words are explained in oracle_cases.py.
"""

from __future__ import annotations

import pytest
from oracle_cases import Has, Row, Script, check_row, each_fs, judge_case, make_tree, show

from fuzzer.state.xattr_value import xattr_value

NAMES = (
    Row(
        "nothing synced: anything it ever was",
        "1-2 create a\n3-4 rename a b",
        (show(), show("a"), show("b=a")),
        (("names rename-both", show("a b=a")), ("names name-from-nowhere", show("c=a"))),
    ),
    Row("create, fsync file", "1-2 create a\n3-4 fsync a", (show("a"),), (("names missing-name", show()),)),
    Row(
        "create, fsync file: with its new ancestors",
        "1-2 mkdir d\n3-4 mkdir d/e\n5-6 create d/e/f\n7-8 fsync d/e/f",
        (show("d d/e d/e/f"),),
        (("names missing-name", show("d d/e")), ("names missing-name", show())),
    ),
    Row(
        "moved out of a new directory after fsync: the directory stays",
        "1-2 mkdir d\n3-4 create d/f\n5-6 fsync d/f\n7-8 rename d/f f\n9-10 fsync f",
        (show("d f=d/f"),),
        (("names lost-inode", show("f=d/f")), ("names rename-both", show("d d/f f=d/f"))),
    ),
    Row(
        "fsync of the directory: its entries, not its subdirectories'",
        "1-2 mkdir d\n3-4 sync\n5-6 create x\n7-8 create d/y\n9-10 fsync .",
        (show("d x"), show("d x d/y")),
        (("names missing-name", show("d d/y")),),
    ),
    Row(
        "link into another directory, fsync of that: the first name and its directory are open",
        "1-2 mkdir d\n3-4 mkdir e\n5-6 create d/f\n7-8 link d/f e/g\n9-10 fsync e",
        (show("d e d/f e/g=d/f"),),
        (("names missing-name", show("d e d/f")), ("names missing-name", show("d d/f"))),
        unordered=(show("d e e/g=d/f"), show("e e/g=d/f"),),
    ),
    Row(
        "link into another directory, fdatasync of the file: where it was made is there",
        "1-2 mkdir d\n3-4 mkdir e\n5-6 create d/f\n7-8 link d/f e/g\n9-10 fsync e\n11-12 fdatasync e/g",
        (show("d e d/f e/g=d/f"),),
        (("names missing-name", show("e e/g=d/f")),),
    ),
    Row(
        "a create beside an unlink worked, so it came second",
        "1-2 create a\n3-4 sync\n6-7 unlink a\n5-9 create a as=n\n10-11 fsync a",
        (show("a=n"),),
        (("names old-binding", show("a")), ("names missing-name", show())),
    ),
    Row(
        "of two creates and two unlinks that overlap any may have been last",
        "1-2 create a\n3-4 sync\n5-30 unlink a\n6-31 create a as=n\n7-32 unlink a\n8-33 create a as=m",
        (show("a"), show("a=n"), show("a=m"), show()),
        (("names name-from-nowhere|names old-binding", show("c=a")),),
    ),
    Row(
        "unlink of the only name, fsync of what has none: it is gone",
        "1-2 create a\n3-4 sync\n5-6 unlink a fsync=yes",
        (show(),),
        (("names resurrected-name", show("a")),),
    ),
    Row(
        "unlink of one of two names, fsync: nobody says so",
        "1-2 create a\n3-4 link a b\n5-6 sync\n7-8 unlink a fsync=yes",
        (show("b=a"),),
        (("names missing-name", show()), ("names missing-name", show("a"))),
        unordered=(show("a b=a"),),
    ),
    Row(
        "unlink beside a rename to the name, fsync: whose name it was is open",
        "1-2 create a\n3-4 create b\n5-6 sync\n7-20 rename b a\n8-19 unlink a fsync=yes",
        (show("a=b"), show("b"), show()),
        (("names name-from-nowhere", show("a b c=a")),),
        unordered=(show("a b"),),
    ),
    Row("symlink, fsync directory", "1-2 symlink t s\n3-4 fsync .", (show("s"),), (
        ("names missing-name", show()),
        ("names wrong-target", show("s", s=Has(target=""))),
        ("names wrong-type", show("s", s=Has(kind="file"))),
    )),
    Row(
        "link, fsync file: both names",
        "1-2 create a\n3-4 link a b\n5-6 fsync a",
        (show("a b=a"),),
        (("names missing-name", show("a")), ("names missing-name", show("b=a"))),
    ),
    Row(
        "link into a new directory, removed again: the directory need not exist",
        "1-2 create a\n3-4 sync\n5-6 mkdir d\n7-8 link a d/a\n9-10 unlink d/a\n11-12 fsync a",
        (show("a d"),),
        (("names resurrected-name", show("a d d/a=a")),),
        unordered=(show("a"),),
    ),
    Row(
        "rename, fsync file",
        "1-2 create a\n3-4 sync\n5-6 rename a b\n7-8 fsync b",
        (show("b=a"),),
        (("names missing-name", show("a")), ("names lost-inode", show())),
    ),
    Row(
        "rename over a file, fsync",
        "1-2 create a\n3-4 create b\n5-6 sync\n7-8 rename a b\n9-10 fsync b",
        (show("b=a"),),
        (("names old-binding", show("a b")), ("names rename-both", show("a b=a"))),
    ),
    Row(
        "rename, fsync of the new directory",
        "1-2 mkdir d\n3-4 create a\n5-6 sync\n7-8 rename a d/a\n9-10 fsync d",
        (show("d d/a=a"),),
        (("names missing-name", show("d a")),),
    ),
    Row(
        "rename, fsync of the old directory: not lost, but no promise where",
        "1-2 mkdir d\n3-4 create d/a\n5-6 sync\n7-8 rename d/a a\n9-10 fsync d",
        (show("d a=d/a"),),
        (("names lost-inode", show("d")),),
        unordered=(show("d d/a"),),
    ),
    Row(
        "new file moved out of its directory, fsync of that: it was in nothing that was logged",
        "1-2 mkdir d\n3-4 sync\n5-6 create a\n7-8 rename a d/a\n9-10 fsync .",
        (show("d"), show("d a"), show("d d/a=a")),
        fs=("btrfs",),
    ),
    Row(
        "new file moved out of its directory, fsync of that: xfs has moved it",
        "1-2 mkdir d\n3-4 sync\n5-6 create a\n7-8 rename a d/a\n9-10 fsync .",
        (show("d d/a=a"),),
        (("names lost-inode", show("d")), ("names missing-name", show("d a"))),
        fs=("xfs",),
    ),
    Row(
        "move to another directory, fsync of that: xfs shows it whole",
        "1-2 mkdir d\n3-4 create a\n5-6 sync\n7-8 rename a d/a\n9-10 fsync d",
        (show("d d/a=a"),),
        (("names rename-both", show("d a d/a=a")),),
        fs=("xfs",),
    ),
    Row(
        "move to another directory, fsync of that: btrfs may show the old name too",
        "1-2 mkdir d\n3-4 create a\n5-6 sync\n7-8 rename a d/a\n9-10 fsync d",
        (show("d d/a=a"), show("d a d/a=a")),
        fs=("btrfs",),
    ),
    Row(
        "move to another directory, fsync of the file: at the new place only",
        "1-2 mkdir d\n3-4 create a\n5-6 sync\n7-8 rename a d/a\n9-10 fsync d/a",
        (show("d d/a=a"),),
        (("names rename-both", show("d a d/a=a")), ("names resurrected-name", show("d a d/a=a"))),
    ),
    Row(
        "moved twice, fsync of the directory in between: it is not lost",
        "1-2 mkdir d\n3-4 create a\n5-6 sync\n7-8 rename a d/a\n9-10 rename d/a b\n11-12 fsync d",
        (show("d a"), show("d b=a")),
        (("names lost-inode", show("d")),),
        fs=("btrfs",),
    ),
    Row(
        "moved twice, fsync of the directory in between: xfs has done both",
        "1-2 mkdir d\n3-4 create a\n5-6 sync\n7-8 rename a d/a\n9-10 rename d/a b\n11-12 fsync d",
        (show("d b=a"),),
        (("names lost-inode", show("d")), ("names missing-name", show("d d/a=a"))),
        fs=("xfs",),
    ),
    Row(
        "unlink, new file, rename away, fsync of it: the first file may show again",
        "1-2 mkdir d\n3-4 create a\n5-6 sync\n7-8 unlink a\n9-10 symlink t b\n11-12 rename b a\n"
        "13-14 rename a d/b\n15-16 fsync d",
        (show("d d/b=b"), show("d a d/b=b")),
        (("names missing-name", show("d")),),
        fs=("btrfs",),
    ),
    Row(
        "unlink, new file, rename away, fsync of it: on xfs all of it was done",
        "1-2 mkdir d\n3-4 create a\n5-6 sync\n7-8 unlink a\n9-10 symlink t b\n11-12 rename b a\n"
        "13-14 rename a d/b\n15-16 fsync d",
        (show("d d/b=b"),),
        (("names missing-name", show("d")), ("names resurrected-name", show("d a d/b=b"))),
        fs=("xfs",),
    ),
    Row(
        "one name, renamed over another again and again, fsync of the last: the first may be where it was",
        "1-2 create a\n3-4 sync\n5-6 rename a b\n7-8 create a as=n\n9-10 rename a b\n11-12 fsync b",
        (show("b=n"),),
        (("names missing-name|names half-rename", show("a")),),
        unordered=(show("a b=n"),),
    ),
    Row(
        "rename a to b, new a, fsync new a",
        "1-2 create a\n3-4 sync\n5-6 rename a b\n7-8 symlink t s\n"
        "9-10 create c\n11-12 rename c a\n13-14 fsync a",
        (show("a=c b=a s"),),
        (("names lost-inode", show("a=c")), ("names missing-name", show("b=a"))),
        unordered=(show("a=c b=a"),),
    ),
    Row(
        "exchange, fsync of one side: both or none",
        "1-2 create a\n3-4 create b\n5-6 sync\n7-8 rename a b flags=exchange\n9-10 fsync a",
        (show("a b"), show("a=b b=a")),
        (
            ("names rename-both", show("a b=a")),
            ("names lost-inode", show("a b=a")),
            ("names missing-name", show("a")),
        ),
    ),
    Row(
        "exchange, sync",
        "1-2 create a\n3-4 create b\n5-6 sync\n7-8 rename a b flags=exchange\n9-10 sync",
        (show("a=b b=a"),),
        (("names old-binding", show("a b")),),
    ),
    Row(
        "noreplace that failed changes nothing",
        "1-2 create a\n3-4 create b\n5-6 sync\n7-8 rename a b flags=noreplace !EEXIST",
        (show("a b"),),
        (("names missing-name", show("b=a")),),
    ),
    Row(
        "rename between two names of one inode does nothing",
        "1-2 create a\n3-4 link a b\n5-6 sync\n7-8 rename a b other=a\n9-10 fsync b",
        (show("a b=a"),),
        (("names missing-name", show("b=a")),),
    ),
    Row(
        "a rename that does nothing while fsync runs takes nothing of what was promised",
        "1-2 create a\n3-4 link a b\n5-8 fsync a\n6-7 rename a b other=a",
        (show("a b=a"),),
        (("names missing-name", show("b=a")), ("names missing-name", show("a"))),
    ),
    Row(
        "a create cut short cannot have taken a name that was there all the while",
        "1-2 create a\n3-4 sync\n5-6 create b\n7-? create b as=c\n",
        (show("a"), show("a b")),
        (("names name-from-nowhere", show("a b=c")),),
        cut_ns=9,
    ),
    Row(
        "it can if the name may have been free for a while",
        "1-2 create b\n3-4 sync\n5-? create b as=c\n6-? unlink b",
        (show("b=c"), show("b"), show()),
        cut_ns=9,
    ),
    *(
        Row(
            f"nor can a {op}, cut short",
            f"1-2 create a\n3-4 create b\n5-6 sync\n7-? {op}",
            (show("a b"),),
            (("names name-from-nowhere|names missing-name", show(names)),),
            cut_ns=9,
        )
        for op, names in (("link a b", "a b=a"), ("rename a b flags=noreplace", "b=a"))
    ),
    Row(
        "unlink, fsync of the directory",
        "1-2 create a\n3-4 sync\n5-6 unlink a\n7-8 fsync .",
        (show(),),
        (("names resurrected-name", show("a")),),
    ),
    Row(
        "unlink one of two links, fsync by the other",
        "1-2 mkdir d\n3-4 create a\n5-6 link a d/b\n7-8 sync\n9-10 unlink d/b\n11-12 fsync a",
        (show("a d"),),
        (("names resurrected-name", show("a d d/b=a")), ("names missing-name", show("d"))),
    ),
    Row(
        "unlink without sync: there or not",
        "1-2 create a\n3-4 sync\n5-6 unlink a",
        (show(), show("a")),
    ),
    Row(
        "unlink of another file does not excuse a lost one",
        "1-2 create a\n3-4 create b\n5-6 sync\n7-8 unlink a",
        (show("b"), show("a b")),
        (("names lost-inode", show("a")),),
    ),
    Row(
        "a rename in flight: old or new, never neither, never both",
        "1-2 create a\n3-4 sync\n5-? rename a b",
        (show("a"), show("b=a")),
        (("names lost-inode", show()), ("names rename-both", show("a b=a"))),
    ),
    Row(
        "a rename shows at both names or at neither, also where the file has a third",
        "1-2 create a\n3-4 link a c\n5-6 sync\n7-8 rename a b",
        (show("a c=a"), show("b=a c=a")),
        (("names half-rename", show("c=a")), ("names half-rename", show("a b=a c=a"))),
        fs=("xfs",),
    ),
    Row(
        "a rename, a removal: what is durably gone was renamed before",
        "1-2 create a\n3-4 link a c\n5-6 sync\n7-8 rename a b\n9-10 unlink b\n11-12 fsync .",
        (show("c=a"),),
        (("names half-rename|names resurrected-name", show("a c=a")),),
        fs=("xfs",),
    ),
    Row(
        "renamed twice, another file at the name in between, that one durable: none of the renames need show",
        "1-2 create a\n3-4 create c\n5-6 sync\n7-8 rename a b\n9-10 rename b d\n11-12 rename c b\n"
        "13-14 fsync b",
        (show("a b=c"), show("b=c d=a")),
        fs=("btrfs",),
    ),
    Row(
        "a rename cut short binds only what was at its old name",
        "1-2 create a\n3-4 create b\n5-6 sync\n7-? rename a c subject=-",
        (show("a b"), show("b c=a")),
        (("names name-from-nowhere", show("a b c=b")), ("names half-rename", show("a b c=a"))),
    ),
    Row(
        "a create cut short binds no file another op made",
        "1-2 create a\n3-4 rename a b\n5-6 fsync b\n7-? create a subject=-",
        (show("b=a"),),
        (("names rename-both", show("a b=a")), ("names resurrected-name", show("a b=a"))),
    ),
    Row(
        "create in flight at the crash",
        "1-2 mkdir d\n3-4 fsync d\n5-? create d/a",
        (show("d"), show("d d/a")),
        (("names missing-name", show()),),
    ),
    Row(
        "op that began after the crash cannot show",
        "1-2 create a\n3-4 sync\n5-6 create b",
        (show("a"),),
        (("names name-from-nowhere", show("a b")),),
        cut_ns=5,
    ),
    Row(
        "fsync that had not returned at the crash promises nothing",
        "1-2 create a\n3-9 fsync a",
        (show(), show("a")),
        cut_ns=8,
    ),
    Row(
        "create that overlaps fsync: in or out",
        "1-2 mkdir d\n3-4 sync\n5-8 create d/a\n7-10 fsync d",
        (show("d"), show("d d/a")),
    ),
    Row(
        "rename raced with unlink of its target",
        "1-2 create a\n3-4 create b\n5-6 sync\n7-12 unlink b\n8-11 rename a b other=b\n13-14 fsync .",
        (show("b=a"), show()),
    ),
    Row(
        "rename raced with unlink of its source",
        "1-2 create a\n3-4 sync\n5-10 rename a b\n6-9 unlink a !ENOENT\n11-12 fsync .",
        (show("b=a"),),
        (("names missing-name", show("a")),),
    ),
    Row(
        "mkdir raced with rename: the inode it looked up is not its own",
        "1-2 create x\n3-4 mkdir e\n5-6 sync\n7-16 mkdir d subject=e\n8-12 rename e d other=e\n17-18 sync",
        (show("x d=e", e=Has(mode=0o755)),),
        (("names missing-name", show("d=e")),),
    ),
    Row(
        "directory renamed: what is in it stays in it",
        "1-2 mkdir d\n3-4 create d/a\n5-6 rename d e\n7-8 create e/b\n9-10 fsync e/b",
        (show("e=d e/a=d/a e/b"),),
        (("names missing-name", show("e=d")), ("names lost-inode", show())),
        unordered=(show("e=d e/b"), show("d d/b=e/b"), show("d d/a d/b=e/b"),),
    ),
    Row(
        "directory renamed, then fsynced itself: it exists, no promise where",
        "1-2 mkdir d\n3-4 sync\n5-6 rename d e\n7-8 fsync e",
        (show("e=d"),),
        (("names lost-inode", show()),),
        unordered=(show("d"),),
    ),
    Row(
        "fdatasync promises the name a file was made at, no rename",
        "1-2 create a\n3-4 fdatasync a\n5-6 rename a b\n7-8 fdatasync b",
        (show("a"), show("b=a")),
        (("names lost-inode", show()),),
    ),
    Row(
        "unlink of the last name, then fsync of the open file: it is gone",
        "1-2 create a\n3-4 sync\n5-6 unlink a\n7-8 fsync a subject=a",
        (show(),),
        (("names resurrected-name", show("a")),),
    ),
)  # fmt: skip

RELATED = (
    Row(
        "fsync of the directory: what was made in its new directory (generic/785)",
        "1-2 create f\n3-4 sync\n5-6 mkdir d\n7-8 create d/x\n9-10 mkdir d/e\n11-12 symlink t d/e/s\n"
        "13-14 rename f g\n15-16 fsync .",
        (show("g=f d d/x d/e d/e/s"),),
        (
            ("names missing-name", show("g=f d d/e d/e/s")),
            ("names missing-name", show("g=f d d/x d/e")),
            ("names missing-name", show("g=f d")),
        ),
        fs=("btrfs",),
    ),
    Row(
        "fsync of the directory: xfs promises no later change of a new directory",
        "1-2 mkdir d\n3-4 create d/x\n5-6 fsync .",
        (show("d"), show("d d/x")),
        fs=("xfs",),
    ),
    Row(
        "new directory: a link in it is left open (generic/782)",
        "1-2 create f\n3-4 sync\n5-6 mkdir d\n7-8 link f d/g\n9-10 fsync .",
        (show("f d"), show("f d d/g=f")),
        (("names missing-name", show("f")),),
    ),
    Row(
        "a directory that a commit has taken is new no more",
        "1-2 mkdir d\n5-6 create d/x\n7-8 fsync .",
        (show("d"), show("d d/x")),
        (("names missing-name", show("")),),
        commits=((3, 4),),
    ),
    Row(
        "a directory that was fsynced, or something in it, may not be gone into again",
        "1-2 mkdir d\n3-4 create d/y\n5-6 fsync d/y\n7-8 create d/x\n9-10 fsync .",
        (show("d d/y"), show("d d/y d/x")),
    ),
    Row(
        "new directory: what overlaps the call, went away or moved is left open",
        "1-2 mkdir d\n3-4 create d/x\n5-12 create d/y\n6-7 create d/z\n8-9 rename d/z z\n10-14 fsync .\n"
        "13-15 unlink d/x",
        (show("d d/x d/y z=d/z"),),
        unordered=(show("d z=d/z"),),
    ),
    Row(
        "renamed, a new file at the old name, fsync of the renamed: both (generic/376)",
        "1-2 create a\n3-4 sync\n5-6 rename a b\n7-8 create a as=n\n9-10 fsync b",
        (show("b=a a=n"),),
        (("names missing-name", show("b=a")),),
        fs=("btrfs",),
    ),
    Row(
        "renamed, a new file at the old name: no promise after a move, a commit or by fdatasync",
        "1-2 mkdir d\n3-4 create a\n5-6 create p\n7-8 sync\n9-10 rename a d/a\n11-12 create a as=n\n"
        "13-14 fsync d/a\n15-16 rename p q\n19-20 create p as=m\n21-22 fsync q",
        (show("d d/a=a q=p a=n p=m"),),
        commits=((17, 18),),
        unordered=(show("d d/a=a q=p"),),
    ),
    Row(
        "new file, fsync: the files that changed names with it (generic/526)",
        "1-2 create p\n3-4 create q\n5-6 sync\n7-8 rename p r\n9-10 rename q s\n11-12 link r q\n"
        "13-14 create n\n15-16 rename n p\n17-18 fsync p",
        (show("p=n q=p r=p s=q"),),
        (
            ("names missing-name", show("p=n q=p s=q")),
            ("names missing-name", show("p=n q=p r=p")),
            ("names old-binding", show("p=n q r=p")),
        ),
        fs=("btrfs",),
    ),
    Row(
        "new file, fsync: a commit in between ends the relation",
        "1-2 create p\n3-4 sync\n5-6 rename p r\n9-10 link r q\n11-12 create n\n13-14 rename n p\n"
        "15-16 fsync p",
        (show("p=n q=p r=p"),),
        (("names half-rename|names missing-name", show("p=n q=p")),),
        commits=((7, 8),),
        unordered=(show("p=n r=p"),),
        fs=("xfs",),
    ),
    Row(
        "new file, fsync: a commit in between ends the relation on btrfs",
        "1-2 create p\n3-4 sync\n5-6 rename p r\n9-10 link r q\n11-12 create n\n13-14 rename n p\n"
        "15-16 fsync p",
        (show("p=n r=p"), show("p=n q=p r=p"), show("p=n q=p")),
        commits=((7, 8),),
        fs=("btrfs",),
    ),
    Row(
        "new file, fsync: nothing is promised of a file that was not committed, or moved elsewhere",
        "1-2 mkdir d\n3-4 create q\n5-6 sync\n7-8 create p\n9-10 rename p r\n11-12 rename q d/q\n"
        "13-14 create n\n15-16 rename n p\n17-18 fsync p",
        (show("p=n d q"), show("p=n d d/q=q r=p")),
        fs=("btrfs",),
    ),
)  # fmt: skip

W4 = "1-2 create a\n"

ATTRIBUTES = (
    Row(
        "chmod, fsync",
        W4 + "3-4 chmod a 600\n5-6 fsync a",
        (show("a", a=Has(mode=0o600)),),
        (("mode old-mode", show("a")), ("mode old-mode", show("a", a=Has(mode=0o777)))),
    ),
    Row(
        "chmod of a file whose create had not returned: it came first all the same",
        "1-4 create a\n3-6 chmod a 600\n7-8 fsync a",
        (show("a", a=Has(mode=0o600)),),
        (("mode old-mode", show("a")),),
    ),
    Row(
        "chmod, fdatasync: no promise",
        W4 + "3-4 chmod a 600\n5-6 fdatasync a",
        (show("a"), show("a", a=Has(mode=0o600))),
        (("mode mode-from-nowhere", show("a", a=Has(mode=0))),),
    ),
    Row(
        "chmod, fsync of the directory it is in: no promise",
        W4 + "3-4 chmod a 600\n5-6 fsync .",
        (show("a"), show("a", a=Has(mode=0o600))),
    ),
    Row(
        "chown, fsync",
        W4 + "3-4 chown a 7 8\n5-6 fsync a",
        (show("a", a=Has(owner=(7, 8))),),
        (
            ("owner old-owner", show("a")),
            ("owner old-owner", show("a", a=Has(owner=(7, 0)))),
            ("owner old-owner", show("a", a=Has(owner=(0, 8)))),
        ),
    ),
    Row(
        "chown, fdatasync: no promise, but no owner nobody gave it",
        W4 + "3-4 chown a 7 8\n5-6 fdatasync a",
        (show("a"), show("a", a=Has(owner=(7, 8)))),
        (("owner owner-from-nowhere", show("a", a=Has(owner=(7, 0)))),),
    ),
    Row(
        "chown, then a later change of another file shows: ordered on xfs",
        W4 + "2-3 create b\n3-4 sync\n5-6 chown a 7 8\n7-8 chmod b 600\n9-10 fsync b",
        (show("a b", a=Has(owner=(7, 8)), b=Has(mode=0o600)),),
        unordered=(show("a b", b=Has(mode=0o600)),),
    ),
    Row(
        "chown clears the set-id bits",
        "1-2 create a mode=4711\n3-4 chown a 7 8\n5-6 fsync a",
        (show("a", a=Has(owner=(7, 8), mode=0o711)), show("a", a=Has(owner=(7, 8), mode=0o4711))),
        (("mode old-mode|mode mode-from-nowhere", show("a", a=Has(owner=(7, 8), mode=0o4700))),),
    ),
    Row(
        "a snapshot has its source's owner",
        "1-2 chown . 7 8\n3-4 snapshot . v\n5-6 subvol_create w\n7-8 chown w 7 8\n9-10 sync",
        (show("v w", root=Has(owner=(7, 8)), v=Has(owner=(7, 8)), w=Has(owner=(7, 8))),),
        fs=("btrfs",),
    ),
    Row(
        "a directory may hand down its group",
        "1-2 mkdir d mode=755\n3-4 chmod d 2755\n5-6 chown d 0 8\n7-8 create d/a\n9-10 sync",
        (show("d d/a", d=Has(owner=(0, 8), mode=0o755), d_a=Has(owner=(0, 8))),),
    ),
    Row(
        "O_TMPFILE and link, fsync of the directory: the file is there, with data or without",
        "w: 1-2 tmplink a 0 8\n3-4 fsync .",
        (show("a", a=Has("w:0-8")), show("a")),
        (("names missing-name", show()), ("mode mode-from-nowhere", show("a", a=Has(mode=0o600)))),
    ),
    Row(
        "O_TMPFILE and link, fsync of the file: with its data",
        "w: 1-2 tmplink a 0 8\n3-4 fsync a",
        (show("a", a=Has("w:0-8")),),
        (("size size-too-small", show("a")), ("data lost-to-zero", show("a", a=Has("0:0-8")))),
    ),
    Row(
        "chmod of the root, fsync of it",
        "1-2 chmod . 700\n3-4 fsync .",
        (show("", root=Has(mode=0o700)),),
        (("mode old-mode", show("")),),
    ),
    Row(
        "chmod of the root without sync: nobody knows what it was",
        "1-2 chmod . 700",
        (show(), show("", root=Has(mode=0o711))),
    ),
    Row(
        "mkdir takes no set-id bits but may inherit one",
        "1-2 mkdir d mode=6755\n3-4 sync",
        (show("d", d=Has(mode=0o755)), show("d", d=Has(mode=0o2755))),
        (("mode old-mode", show("d", d=Has(mode=0o6755))),),
    ),
    Row(
        "chmod overlaps fsync: in or out",
        W4 + "3-4 fsync a\n5-8 chmod a 600\n6-9 fsync a",
        (show("a"), show("a", a=Has(mode=0o600))),
    ),
)


@pytest.mark.parametrize(("row", "on"), each_fs(*NAMES, *RELATED, *ATTRIBUTES))
def test_row(row: Row, on: str) -> None:
    check_row(row, on)


def _value(script: Script, label: str) -> tuple[tuple[str, bytes], ...]:
    event = script.ops[label]
    return (("user.k", xattr_value(event.id, event.op.number("size"))),)


XATTRS = W4 + "x: 3-4 setxattr a k\n5-6 fsync a\ny: 7-8 setxattr a k\n"


@pytest.mark.parametrize(
    ("rest", "value", "expected"),
    [
        ("", "x", ""),
        ("", "y", ""),
        ("", None, "xattr missing-xattr"),
        ("9-10 fsync a", "y", ""),
        ("9-10 fsync a", "x", "xattr old-xattr"),
        ("9-10 fdatasync a", "x", ""),
        ("9-10 fsync a\n11-12 removexattr a k", None, ""),
        ("9-10 removexattr a k\n11-12 fsync a", "y", "xattr resurrected-xattr"),
        ("9-10 removexattr a k !ENODATA\n11-12 fsync a", None, "xattr missing-xattr"),
    ],
)
def test_xattrs_on_btrfs(rest: str, value: str | None, expected: str) -> None:
    script = Script(XATTRS + rest)
    tree = make_tree(script, "btrfs", "a", a=Has(xattrs=_value(script, value) if value else ()))
    found = {f"{v.rule} {v.kind}" for v in judge_case(script, "btrfs", tree).violations}
    assert found == ({expected} if expected else set())


def test_xfs_may_lose_an_xattr_that_is_being_replaced() -> None:
    script = Script(XATTRS)
    assert not judge_case(script, "xfs", make_tree(script, "xfs", "a")).violations
    script = Script(XATTRS + "9-10 fsync a")
    assert judge_case(script, "xfs", make_tree(script, "xfs", "a")).violations
