"""Which call makes what durable: one row per kind of call, with what must pass and what must not.

The words are explained in oracle_cases.py.
"""

from __future__ import annotations

import pytest
from oracle_cases import Has, Row, Script, check_row, each_fs, judge_case, make_tree, show

from fuzzer.state.recovery import Recovery
from fuzzer.writelog.crash import LIVE
from oracles import PROFILES, build_versions, judge

OLD = "1-2 create a\nv: 3-4 write a 0 8192\n5-6 sync\n"
"""A file whose first words are durable; what follows is about later ones."""

V, W = Has("v:0-8192"), Has("w:0-8192")


def nothing(title: str, after: str) -> Row:
    """A row whose call promises nothing: old, new and in between pass; foreign words never do."""
    mixed = Has("v:0-4096 w:4096-8192")
    return Row(
        title,
        OLD + after,
        (show("a", a=V), show("a", a=W), show("a", a=mixed)),
        (("data foreign-data", show("a", a=Has("?:0-8192"))), ("names missing-name", show())),
    )


def everything(title: str, call: str) -> Row:
    """A row whose call covers data, attributes and names of the whole file system."""
    return Row(
        title,
        OLD + "w: 7-8 write a 0 12288\n9-10 chmod a 600\n11-12 mkdir d\n13-14 rename a d/b\n15-16 create c\n"
        f"17-18 {call}",
        (show("d d/b=a c", a=Has("w:0-12288", mode=0o600)),),
        (
            ("data old-data", show("d d/b=a c", a=Has("v:0-8192 w:8192-12288", mode=0o600))),
            ("size size-too-small", show("d d/b=a c", a=Has("w:0-8192", mode=0o600))),
            ("mode old-mode", show("d d/b=a c", a=Has("w:0-12288"))),
            ("names missing-name", show("d d/b=a", a=Has("w:0-12288", mode=0o600))),
            ("names missing-name", show("d a c", a=Has("w:0-12288", mode=0o600))),
        ),
    )


SYNCS = (
    Row(
        "fsync(file): data, size, mode and its new name",
        OLD + "w: 7-8 write a 0 12288\n9-10 chmod a 600\n11-12 rename a b\n13-14 fsync b",
        (show("b=a", a=Has("w:0-12288", mode=0o600)),),
        (
            ("data old-data", show("b=a", a=Has("v:0-8192 w:8192-12288", mode=0o600))),
            ("size size-too-small", show("b=a", a=Has("w:0-8192", mode=0o600))),
            ("mode old-mode", show("b=a", a=Has("w:0-12288"))),
            ("names missing-name", show("a", a=Has("w:0-12288", mode=0o600))),
        ),
    ),
    Row(
        "a file that may have been unlinked meanwhile, but was seen later: its data is promised",
        "1-2 create a\n3-4 sync\nw: 6-7 write a 0 4096 sync=dsync\n8-9 rename a a\n5-12 unlink a",
        (show("a", a=Has("w:0-4096")), show()),
        (("size size-too-small", show("a")), ("data lost-to-zero", show("a", a=Has("0:0-4096")))),
    ),
    Row(
        "one that nobody saw: it is not",
        "1-2 create a\n3-4 sync\nw: 6-7 write a 0 4096 sync=dsync\n5-12 unlink a",
        (show("a", a=Has("w:0-4096")), show("a"), show()),
    ),
    Row(
        "fsync(file) by way of a symbolic link: the file, not the link",
        "1-2 create a\n3-4 symlink a s\nw: 5-6 write a 0 4096\n7-8 fsync a follow=yes",
        (show("a s", a=Has("w:0-4096")),),
        (("data lost-to-zero", show("a", a=Has("0:0-4096"))), ("names missing-name", show("s"))),
        unordered=(show("a", a=Has("w:0-4096")),),
    ),
    Row(
        "fdatasync: data and size, no mode",
        OLD + "w: 7-8 write a 0 12288\n9-10 chmod a 600\n11-12 fdatasync a",
        (show("a", a=Has("w:0-12288")), show("a", a=Has("w:0-12288", mode=0o600))),
        (
            ("data old-data", show("a", a=Has("v:0-8192 w:8192-12288"))),
            ("size size-too-small", show("a", a=Has("w:0-8192"))),
        ),
    ),
    Row(
        "fsync(dir): entries and the directory's own mode, no child's data",
        "1-2 mkdir d\n3-4 sync\n5-6 create d/x\nw: 7-8 write d/x 0 4096\n9-10 chmod d 700\n"
        "11-12 symlink t d/s\n13-14 fsync d",
        (
            show("d d/x d/s", d=Has(mode=0o700)),
            show("d d/x d/s", d=Has(mode=0o700), d_x=Has("w:0-4096")),
        ),
        (
            ("names missing-name", show("d d/x", d=Has(mode=0o700))),
            ("names missing-name", show("d d/s", d=Has(mode=0o700))),
            ("names wrong-target", show("d d/x d/s", d=Has(mode=0o700), d_s=Has(target=""))),
            ("mode old-mode", show("d d/x d/s")),
        ),
    ),
    Row(
        "fsync(dir): no recursion into a directory that was there",
        "1-2 mkdir d\n3-4 mkdir d/e\n5-6 sync\n7-8 create d/e/x\n9-10 fsync d",
        (show("d d/e"), show("d d/e d/e/x")),
        (("names missing-name", show("d")),),
    ),
    everything("sync: everything", "sync"),
    everything("syncfs: everything", "syncfs"),
    everything("freeze: everything", "freeze"),
    Row(
        "msync(MS_SYNC): the range",
        OLD + "w: 7-8 mwrite a 0 8192\n9-10 msync a 0 4096",
        (show("a", a=W), show("a", a=Has("w:0-4096 v:4096-8192"))),
        (("data old-data", show("a", a=V)),),
    ),
    nothing("msync(MS_ASYNC): nothing", "w: 7-8 mwrite a 0 8192 msync=async"),
    nothing("munmap and close: nothing", "w: 7-8 mwrite a 0 8192"),
    nothing("sync_file_range: nothing", "w: 7-8 write a 0 8192\n9-10 sync_file_range a 0 8192"),
    nothing("O_DIRECT alone: nothing", "w: 7-8 dwrite a 0 8192"),
    nothing("O_SYNC without a write: nothing", "w: 7-8 write a 0 8192\n9-10 truncate a 8192 flags=sync"),
    *(
        Row(
            f"{call} sync={how}: its range, and a size to reach it",
            "1-2 create a\nv: 3-4 write a 0 4096\n5-6 sync\nu: 7-8 write a 0 4096\n"
            f"w: 9-10 {call} a 4096 4096 sync={how}",
            (show("a", a=Has("v:0-4096 w:4096-8192")), show("a", a=Has("u:0-4096 w:4096-8192"))),
            (
                ("data lost-to-zero", show("a", a=Has("v:0-4096 0:4096-8192"))),
                ("size size-too-small", show("a", a=Has("u:0-4096"))),
            ),
        )
        for call in ("write", "dwrite")
        for how in ("dsync", "sync", "rwf_dsync")
    ),
    Row(
        "open(O_CREAT|O_SYNC): the file need not be there",
        "1-2 create a flags=sync\n3-4 create b flags=dsync",
        (show(), show("a"), show("a b")),
        (("names name-from-nowhere", show("c=a")),),
    ),
    Row(
        "open(O_TRUNC|O_SYNC), ftruncate on O_SYNC: the old size may be back",
        OLD + "7-8 otrunc a flags=sync\n9-10 truncate a 4096 flags=sync",
        (show("a", a=V), show("a"), show("a", a=Has("0:0-4096"))),
        (("size size-from-nowhere", show("a", a=Has("v:0-8192 0:8192-12288"))),),
    ),
    Row(
        "open(O_TRUNC), fsync: cut",
        OLD + "7-8 otrunc a\n9-10 fsync a",
        (show("a"),),
        (("size size-too-large", show("a", a=V)),),
    ),
    Row(
        "fallocate: nothing without a sync",
        OLD + "7-8 fallocate a 0 16384\n9-10 fallocate a 0 4096 mode=punch",
        (
            show("a", a=V),
            show("a", a=Has("v:0-8192 0:8192-16384")),
            show("a", a=Has("0:0-4096 v:4096-8192")),
        ),
        (("size size-from-nowhere", show("a", a=Has("v:0-8192 0:8192-20480"))),),
    ),
    *(
        Row(
            f"{call}: nothing without a sync",
            f"{OLD}7-8 create b\n9-10 fsync b\n11-12 {call} a b 0 0 8192",
            (show("a b", a=V), show("a b", a=V, b=Has("v/a@0:0-8192"))),
            (
                ("data misplaced-data", show("a b", a=V, b=Has("v/a@4096:0-4096"))),
                ("names missing-name", show("a", a=V)),
            ),
        )
        for call in ("clone", "copy_range")
    ),
    *(
        Row(
            f"{call}, fdatasync of the destination",
            f"{OLD}7-8 create b\n9-10 fsync b\n11-12 {call} a b 0 4096 8192\n13-14 fdatasync b",
            (show("a b", a=V, b=Has("0:0-4096 v/a@0:4096-12288")),),
            (
                ("data lost-to-zero", show("a b", a=V, b=Has("0:0-12288"))),
                ("size size-too-small", show("a b", a=V)),
            ),
        )
        for call in ("clone", "copy_range")
    ),
    Row(
        "dedupe: changes nothing",
        "1-2 create a\nv: 3-4 write a 0 4096\n5-6 create b\n7-8 clone a b 0 0 4096\n9-10 sync\n"
        "11-12 dedupe a b 0 0 4096",
        (show("a b", a=Has("v:0-4096"), b=Has("v/a@0:0-4096")),),
        (("data lost-to-zero", show("a b", a=Has("v:0-4096"), b=Has("0:0-4096"))),),
    ),
    Row(
        "rename, link, unlink, mkdir, mknod, symlink: nothing without a sync",
        "1-2 create a\n3-4 create b\n5-6 create u\n7-8 sync\n9-10 rename a d\n11-12 link b l\n"
        "13-14 unlink u\n15-16 mkdir m\n17-18 mknod n\n19-20 symlink t s",
        (show("a b u"), show("d=a b u"), show("d=a b l=b u"), show("d=a b l=b m n s")),
        (
            ("names rename-both", show("a d=a b u")),
            ("names lost-inode", show("d=a u")),
            ("order missing-name", show("a b l=b u n")),
        ),
    ),
    Row(
        "fsync of a special file: nothing",
        "1-2 mknod f\n3-4 mknod n kind=null\n5-6 fsync f\n7-8 fdatasync n\nw: 9-10 write n 0 4096 sync=dsync",
        (show(), show("f"), show("f n")),
        (("names wrong-type", show("f", f=Has(kind="file"))),),
    ),
    Row(
        "special files, fsync of the directory",
        "1-2 mknod f\n3-4 mknod n kind=null mode=600\n5-6 mknod s kind=socket\n7-8 fsync .",
        (show("f n s"),),
        (("names missing-name", show("f n")),),
    ),
    Row(
        "special files, fsync of the directory: their mode is one they had",
        "1-2 mknod n kind=null mode=600\n3-4 fsync .",
        (show("n"),),
        (("mode mode-from-nowhere", show("n", n=Has(mode=0o644))),),
    ),
    Row(
        "subvolumes and snapshots: nothing without a sync",
        "1-2 subvol_create v\n3-4 sync\n5-6 snapshot v w\n7-8 subvol_delete v",
        (show("v"), show("v w"), show("w")),
        (("names name-from-nowhere", show("v w x=v")), ("order missing-name", show())),
        fs=("btrfs",),
    ),
    Row(
        "snapshot create, delete, sync: gone",
        "1-2 subvol_create v\n3-4 snapshot v w\n5-6 sync\n7-8 subvol_delete w\n9-10 fsync .",
        (show("v"),),
        (("names resurrected-name", show("v w")), ("names missing-name", show())),
        fs=("btrfs",),
    ),
    Row(
        "what is in a subvolume is not judged",
        "1-2 subvol_create v\n3-4 create a\nx: 5-6 write a 0 4096\n7-8 snapshot . w\n9-10 sync",
        (
            show("v v/q=a w w/a=a a", a=Has("x:0-4096", nlink=3)),
            show("v w a", a=Has("x:0-4096")),
        ),
        (("names missing-name", show("w a", a=Has("x:0-4096"))),),
        fs=("btrfs",),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("row", "on"), each_fs(*SYNCS))
def test_row(row: Row, on: str) -> None:
    check_row(row, on)


def test_a_clean_unmount_keeps_everything(fs: str) -> None:
    """Also read-only remounts: whatever returned is there, with no sync call at all (generic/599)."""
    script = Script("1-2 create a\nw: 3-4 write a 0 8192\n5-6 rename a b\n7-8 chmod b 600")
    versions = build_versions(script.history)

    def kinds(names: str, **inodes: Has) -> set[str]:
        tree = make_tree(script, fs, names, **inodes)
        return {v.kind for v in judge(PROFILES[fs], Recovery(tree=tree), versions, LIVE).violations}

    full = Has("w:0-8192", mode=0o600)
    assert kinds("b=a", a=full) == set()
    assert "missing-name" in kinds("a", a=full)
    assert "lost-to-zero" in kinds("b=a", a=Has("0:0-8192", mode=0o600))
    assert "size-too-small" in kinds("b=a", a=Has("w:0-4096", mode=0o600))
    assert "old-mode" in kinds("b=a", a=Has("w:0-8192"))


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_after_an_error_contents_are_not_promised(fs: str, error: str) -> None:
    """A sync call that failed leaves the range old, new or mixed, and a later success brings nothing
    back: errors are reported once (generic/441, generic/484)."""
    script = Script(f"{OLD}w: 7-8 write a 0 8192\n9-10 fsync a !{error}\n11-12 fsync a\n13-14 fsync .")
    for runs in ("v:0-8192", "w:0-8192", "v:0-4096 w:4096-8192", "0:0-8192"):
        assert not judge_case(script, fs, make_tree(script, fs, "a", a=Has(runs))).violations
    for names, runs, expected in (("a", "?:0-8192", "foreign-data"), ("", "", "missing-name")):
        bad = judge_case(script, fs, make_tree(script, fs, names, a=Has(runs))).violations
        assert bad[0].kind == expected
