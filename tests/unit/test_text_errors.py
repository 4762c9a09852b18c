"""What is refused, where, and with which words and hints."""

from __future__ import annotations

import pytest

from fuzzer.errors import InputError
from fuzzer.workload.text import parse

HEAD = "powercut 1\n"
ACTOR = "actor a\n  sync\n"
A = HEAD + "actor a\n  "
"""An op starts at 3:3."""

SYNTAX = [
    ("", "1:1", "not a powercut workload"),
    ("#\npowercut 1\n", "1:1", "not a powercut workload"),
    ("powercut\n", "1:1", "not a powercut workload"),
    ("powercut 2\n", "1:10", "workload format 2 is not known"),
    ("powercut 1.0\n", "1:10", "workload format 1.0 is not known"),
    (HEAD + "title: a\0b\n" + ACTOR, "2:9", "control character '\\x00'"),
    ("powercut 1\r\n", "1:11", "control character '\\r'"),
    (HEAD + "  sync\n", "2:1", "an indented line outside of a block"),
    (HEAD + "titel: x\n" + ACTOR, "2:1", "unknown header 'titel'"),
    (HEAD + "title x\n" + ACTOR, "2:6", "no colon after title"),
    (HEAD + "title: x\ntitle: y\n" + ACTOR, "3:1", "a second title"),
    (HEAD + "fs:\n" + ACTOR, "2:4", "fs is empty"),
    (HEAD + "why:\n" + ACTOR, "2:5", "why is empty"),
    (HEAD + "title: x\n  more\n" + ACTOR, "3:1", "an indented line outside of a block"),
    (HEAD + "seed: 1K\n" + ACTOR, "2:7", "seed '1K' is not a number"),
    (HEAD + "size: 320m\n" + ACTOR, "2:7", "size '320m' is not a number"),
    (HEAD + "setup\n" + ACTOR, "2:1", "the setup has no ops"),
    (HEAD + "setup x\n" + ACTOR, "2:7", "nothing may follow `setup`"),
    (HEAD + ACTOR + "setup\n", "4:1", "setup comes once, before the actors"),
    (HEAD + ACTOR + "fs: xfs\n", "4:1", "unexpected 'fs'"),
    (HEAD + ACTOR + "fsync a\n", "4:1", "unexpected 'fsync'"),
    (HEAD + "actor\n  sync\n", "2:6", "an actor needs a name"),
    (HEAD + "actor setup\n  sync\n", "2:7", "an actor cannot be called setup"),
    (HEAD + "actor a 3\n  sync\n", "2:9", "an actor has no option '3'"),
    (HEAD + "actor a lop=3\n  sync\n", "2:9", "an actor has no option 'lop'"),
    (HEAD + "actor a loop=other\n  sync\n", "2:9", "loop 'other' is not a number"),
    (HEAD + "actor a cpu=0 cpu=1\n  sync\n", "2:15", "a second cpu="),
    (A + "fsnyc a\n", "3:3", "unknown op 'fsnyc'"),
    (A + "sync sync=1\n", "3:8", "sync has no option 'sync'"),
    (A + "write a 0\n", "3:3", "write needs len"),
    (A + "write a 0 4K 5\n", "3:16", "write takes no more positional values"),
    (A + "write a off=0 len=4K\n", "3:11", "off of write goes by position"),
    (A + "write a 0 4K snyc=sync\n", "3:16", "write has no option 'snyc'"),
    (A + "write a 0 4K sync=sync sync=none\n", "3:26", "a second sync="),
    (A + "write a 0 4k\n", "3:13", "len '4k' is not a number"),
    (A + "write a -8 4K\n", "3:11", "off '-8' is not a number"),
    (A + "write a 010 4K\n", "3:11", "off '010' is not a number"),
    (A + "write a rand(0,8) 4K\n", "3:11", "off 'rand(0,8)' is not a number"),
    (A + "write a rand(0,x,8) 4K\n", "3:11", "off 'x' is not a number"),
    (A + "write a 99999999999999999999 8\n", "3:11", "off '99999999999999999999' is not a number"),
    (A + "sleep 5K\n", "3:9", "us '5K' is not a number"),
    (A + "chmod a 0888\n", "3:11", "mode '0888' is not octal"),
    (A + "chmod a u+x\n", "3:11", "mode 'u+x' is not octal"),
    (A + "fsync a,b\n", "3:9", "path 'a,b' needs quotes"),
    (A + "fsync é\n", "3:9", "path 'é' needs quotes"),
    (A + 'fsync "a\n', "3:9", "cannot read '\"a'"),
    (A + 'fsync "a"b\n', "3:9", "cannot read '\"a\"b'"),
    (A + 'fsync "\\x"\n', "3:9", "path: bad quoted text"),
    (A + "fsync a#b\n", "3:9", "cannot read 'a#b'"),
]

MEANING = [
    (HEAD, "1:1", "no actor with a counted loop"),
    (HEAD + "actor a loop=others\n  sync\n", "2:7", "no actor with a counted loop"),
    (HEAD + "".join(f"actor a{n}\n  sync\n" for n in range(32)), "64:7", "more than 31 actors"),
    (HEAD + ACTOR + ACTOR, "4:7", "a second actor 'a'"),
    (HEAD + ACTOR + "actor b\n", "4:7", "actor 'b' has no ops"),
    (HEAD + "actor 9a\n  sync\n", "2:7", "bad actor name '9a'"),
    (HEAD + "actor a loop=0\n  sync\n", "2:9", "loop=0 of 1 ops is outside 1…524287"),
    (HEAD + "actor a loop=262144\n  sync\n  sync\n", "2:9", "loop=262144 of 2 ops is outside 1…262143"),
    (HEAD + "actor a sched=fifo\n  sync\n", "2:9", "sched 'fifo' is not one of other, idle"),
    (HEAD + "actor a sched=idle sched=idle\n  sync\n", "2:20", "a second sched="),
    (HEAD + "actor a\n  fault_write a 0 8K 12K\n", "3:22", "good is more than len"),
    (HEAD + "actor a\n  fault_write a 0 rand(4K,8K,8) 8K\n", "3:33", "good is more than len"),
    (HEAD + "actor a cpu=9999\n  sync\n", "2:9", "cpu 9999 is outside 0…1023"),
    (HEAD + "setup\n" + "  sync\n" * 16_384 + ACTOR, "16388:3", "more than 16384 ops"),
    (HEAD + "fs: ext4\n" + ACTOR, "2:5", "unknown file system 'ext4'"),
    (HEAD + "requires: memcg magic\n" + ACTOR, "2:11", "unknown capability 'magic'"),
    (HEAD + "requires: memcg memcg\n" + ACTOR, "2:11", "a capability is named twice"),
    (HEAD + "fs: xfs\nsize: 299M\n" + ACTOR, "3:7", "size 313524224 is outside"),
    (HEAD + "size: 335544321\n" + ACTOR, "2:7", "size 335544321 is not a multiple of 4096"),
    (HEAD + "memory: 1M\n" + ACTOR, "2:9", "memory 1048576 is outside"),
    (HEAD + "title: a\tb\n" + ACTOR, "2:8", "title has a control character"),
    (HEAD + "why: " + "x" * 16_385 + "\n" + ACTOR, "2:6", "descends exceed"),
    (HEAD + "mount: noatime\n" + ACTOR, "2:8", "mount options belong to one file system"),
    (HEAD + "fs: xfs\nmount: nobarrier\n" + ACTOR, "3:8", "mount option nobarrier leaves out the flushes"),
    (HEAD + "fs: xfs\nmount: wsync,norecovery\n" + ACTOR, "3:8", "mount option norecovery throws away"),
    (HEAD + "fs: btrfs\nmount: rescue=all\n" + ACTOR, "3:8", "mount option rescue throws away"),
    (HEAD + "fs: btrfs\nmount: nologreplay\n" + ACTOR, "3:8", "mount option nologreplay throws away"),
    (HEAD + "fs: btrfs\nmount: usebackuproot\n" + ACTOR, "3:8", "mount option usebackuproot throws"),
    (HEAD + "fs: btrfs\nmount: device=/dev/sda\n" + ACTOR, "3:8", "mount option 'device=/dev/sda' is not"),
    (HEAD + "fs: btrfs\nmount: a b\n" + ACTOR, "3:8", "mount option 'a b' is not"),
    (HEAD + "fs: btrfs\nmkfs: /dev/sda\n" + ACTOR, "3:7", "mkfs option '/dev/sda' is not one of"),
    (HEAD + "fs: btrfs\nmkfs: -n 4K extra\n" + ACTOR, "3:7", "mkfs option 'extra' is not one of"),
    (HEAD + "fs: btrfs\nmkfs: -n\n" + ACTOR, "3:7", "mkfs option -n has the bad value ''"),
    (HEAD + "fs: btrfs\nmkfs: -M -n\n" + ACTOR, "3:7", "mkfs option -n has the bad value ''"),
    (HEAD + "fs: btrfs\nmkfs: -M 4K\n" + ACTOR, "3:7", "mkfs option '4K' is not one of"),
    (HEAD + "fs: xfs\nmkfs: -M\n" + ACTOR, "3:7", "mkfs option '-M' is not one of"),
    (
        HEAD + "fs: btrfs\nmkfs: -O mixed-bg\n" + ACTOR,
        "3:7",
        "only claims that groups are mixed: -M mixes them",
    ),
    (HEAD + "fs: btrfs\nmkfs: -r dir\n" + ACTOR, "3:7", "mkfs option '-r' is not one of"),
    (HEAD + "fs: xfs\nmkfs: -d name=sda\n" + ACTOR, "3:7", "mkfs option -d name=sda names another file"),
    (HEAD + "fs: xfs\nmkfs: -l $(x)\n" + ACTOR, "3:7", "mkfs option -l has the bad value '$(x)'"),
    (A + "fsync /etc/passwd\n", "3:9", "path '/etc/passwd' is not relative"),
    (A + "fsync a/../../b\n", "3:9", "path 'a/../../b' has an empty, `.` or `..` component"),
    (A + "fsync a//b\n", "3:9", "has an empty"),
    (A + "fsync a/\n", "3:9", "has an empty"),
    (A + 'fsync ""\n', "3:9", "path '' is not relative"),
    (A + 'fsync "\\u0000"\n', "3:9", "path has a NUL"),
    (A + 'fsync "\\ud800"\n', "3:9", "or is no Unicode text"),
    (A + f"fsync {'x' * 256}\n", "3:9", "path is longer than"),
    (A + f"fsync {'x/' * 511}xx\n", "3:9", "path is longer than"),
    (A + "symlink /etc/passwd a\n", "3:11", "target '/etc/passwd' is not relative"),
    (A + "symlink ../x a\n", "3:11", "target '../x' has an empty"),
    (A + "write a 1 8\n", "3:11", "off is not a multiple of 8"),
    (A + "write a 0 0\n", "3:13", "len 0 is outside 8…"),
    (A + "write a 128M 8\n", "3:11", "off plus len is beyond 134217728 bytes"),
    (A + "write a rand(0,128M,4K) 4K\n", "3:11", "off plus len is beyond"),
    (A + "write a rand(8,0,8) 8\n", "3:11", "off: a draw goes from low to high"),
    (A + "write a rand(0,8,0) 8\n", "3:11", "off: a draw goes from low to high"),
    (A + "write a rand(0,80,4) 8\n", "3:11", "off is not a multiple of 8"),
    (A + "dwrite a 256 4K\n", "3:12", "off is not a multiple of 512"),
    (A + "write a 0 8 sync=always\n", "3:15", "sync 'always' is not one of none, dsync, sync"),
    (A + "truncate a 129M\n", "3:14", "size 135266304 is outside 0…134217728"),
    (A + "fallocate a 0 512 mode=collapse\n", "3:17", "len of collapse is not a multiple of 4096"),
    (A + "fallocate a 8 4K mode=insert\n", "3:15", "off of insert is not a multiple of 4096"),
    (A + "clone a b 128M 0 8\n", "3:13", "src plus len is beyond"),
    (A + "chmod a 17777\n", "3:11", "mode is not within 0…7777"),
    (A + "setxattr a n size=99999\n", "3:16", "size 99999 is outside 8…65536"),
    (A + f"setxattr a {'n' * 251}\n", "3:14", "name is longer than 250 bytes"),
    (A + f"barrier {'n' * 65}\n", "3:11", "name is longer than 64 bytes"),
    (A + "sleep 10000001\n", "3:9", "us 10000001 is outside 0…10000000"),
    (A + "knob 201\n", "3:8", "swappiness is set to something outside 0…200"),
    (A + "balance usage=101\n", "3:11", "usage 101 is outside 0…100"),
    (A + "balance\n", "3:3", "balance works on btrfs only"),
    (HEAD + "setup\n  barrier go\n" + ACTOR, "3:3", "a barrier in the setup waits for nobody"),
]


@pytest.mark.parametrize(("text", "place", "message"), SYNTAX + MEANING)
def test_place_and_message(text: str, place: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, "w")
    assert caught.value.place == f"w:{place}"
    assert str(caught.value).startswith(f"w:{place}: ")
    assert message in str(caught.value)


HINTS = [
    ("powercut 2\n", "a newer one may read this file"),
    ("powercut 1\r\n", "use Unix line ends"),
    (A + "fsnyc a\n", "did you mean fsync?"),
    (A + "write a 0 4K snyc=sync\n", "did you mean sync?"),
    (A + "write a 0\n", "write PATH OFF LEN [sync=none|dsync|sync|rwf_dsync]"),
    (A + "sync x=1\n", "sync"),
    (HEAD + "titel: x\n" + ACTOR, "did you mean title?"),
    (HEAD + "zzzzz: x\n" + ACTOR, "known: title, why,"),
    (A + "fsync a,b\n", 'write it as "a,b"'),
    (A + "balance\n", "add the line `fs: btrfs`"),
    (HEAD + "fs: btfs\n" + ACTOR, "known: btrfs, xfs"),
]


@pytest.mark.parametrize(("text", "hint"), HINTS)
def test_hint(text: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert hint in caught.value.hint


def test_only_the_first_defect_is_reported() -> None:
    with pytest.raises(InputError) as caught:
        parse(A + "write a 1 8\n  write /b 0 8\n")
    assert caught.value.place == "<workload>:3:11"


def test_long_garbage_is_shortened_in_messages() -> None:
    for line in ("x" * 10_000, "fsync " + "x" * 10_000, "write a " + "9" * 10_000 + " 8", '"' * 9_999):
        with pytest.raises(InputError) as caught:
            parse(A + line)
        assert len(str(caught.value)) + len(caught.value.hint) < 700
