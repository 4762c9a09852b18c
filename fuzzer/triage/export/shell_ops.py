"""Ops as shell commands: coreutils, xfs_io and btrfs, the way people write reproducers by hand.

One row per op in `COMMANDS`. xfs_io writes in pieces of 4 KiB unless told otherwise (`-b`), so that one
op stays one system call. What a shell cannot say is refused.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from fuzzer.errors import InputError
from fuzzer.triage.export.check import under
from fuzzer.workload.model import ITERATION, Draw, Op

_PIECE_BYTES = 4096
_PLAIN_BITS = 0o666


@dataclass(frozen=True, slots=True)
class Dialect:
    """What commands are called, and where things are, in the script that is written."""

    mnt: str
    notes: str
    xfs_io: str = "xfs_io"
    btrfs: str = "btrfs"
    sync: str = "sync"

    def fill(self, template: str) -> str:
        return template.format(mnt=self.mnt, notes=self.notes)


@dataclass(frozen=True, slots=True)
class Words:
    """An op and the words its command is made of. `byte` is what it fills with, `users` how many actors
    wait at its barrier."""

    op: Op
    dialect: Dialect
    byte: str
    users: int = 0

    def number(self, key: str) -> str:
        value = self.op[key]
        if isinstance(value, Draw):
            count = (value.high - value.low) // value.step + 1
            return f"$(({value.low} + RANDOM % {count} * {value.step}))"
        return str(value)

    def choice(self, key: str) -> str:
        return self.op.text(key)

    def path(self, key: str = "path") -> str:
        parts = self.op.text(key).split(ITERATION)
        prefix = under("i".join(parts)).removesuffix("i".join(parts))
        return self.dialect.fill(prefix + "${{i}}".join(parts) if len(parts) > 1 else under(parts[0]))

    def io(self, *commands: str, path: str = "path", flags: str = "") -> str:
        """xfs_io with these commands on a file."""
        said = " ".join(f'-c "{command}"' for command in commands)
        return " ".join(filter(None, (self.dialect.xfs_io, flags, said, self.path(path)))) + " > /dev/null"

    def range(self) -> str:
        return f"{self.number('off')} {self.number('len')}"

    def piece(self) -> str:
        """The option that makes one call of a write."""
        length = self.op["len"]
        large = isinstance(length, Draw) or (isinstance(length, int) and length > _PIECE_BYTES)
        return f"-b {self.number('len')} " if large else ""

    def buffers(self) -> str:
        """The options that make one call of a write from several buffers of one size."""
        length, count = self.op["len"], self.op["buffers"]
        if not isinstance(length, int) or not isinstance(count, int) or length % count:
            raise _unsaid(self.op, "a write of buffers that differ in size")
        return f"-V {count} -b {length // count} "


_SYNC_FLAGS = {"none": ("", ""), "sync": ("", "-s"), "dsync": ("-D ", ""), "rwf_dsync": ("-D ", "")}
"""Options of xfs_io's pwrite, and of xfs_io. It has no O_DSYNC: RWF_DSYNC says the same of one write."""


def _write(w: Words) -> str:
    return _pwrite(w, "")


def _pwrite(w: Words, opened: str) -> str:
    if w.choice("rwf") != "none":
        raise _unsaid(w.op, f"a write with RWF_{w.choice('rwf').upper()}")
    durable, flags = _SYNC_FLAGS[w.choice("sync")]
    how = _one_buffer(w, durable) if w.op["buffers"] == 1 else durable + w.buffers()
    return w.io(f"pwrite -q {how}-S {w.byte} {w.range()}", flags=f"{opened} {flags}".strip())


def _one_buffer(w: Words, durable: str) -> str:
    """One call, with the option that makes it durable; xfs_io takes that with -V only."""
    return f"{durable}-V 1 {w.piece()}" if durable else w.piece()


def _unlink(w: Words) -> str:
    if w.choice("fsync") == "yes":
        raise _unsaid(w.op, "an fsync of a file that was unlinked")
    return f"unlink {w.path()}"


def _append(w: Words) -> str:
    durable, flags = _SYNC_FLAGS[w.choice("sync")]
    said = f"pwrite -q {_one_buffer(w, durable)}-S {w.byte} 0 {w.number('len')}"
    return w.io(said, flags=f"-a {flags}".strip())


def _dwrite(w: Words) -> str:
    return _pwrite(w, "-d")


def _mwrite(w: Words) -> str:
    more = {"none": (), "async": (f"msync -a {w.range()}",), "sync": (f"msync -s {w.range()}",)}
    return w.io(f"mmap -rw 0 $(({w.number('off')} + {w.number('len')}))", f"mwrite -S {w.byte} {w.range()}",
                *more[w.choice("msync")])  # fmt: skip


def _create(w: Words) -> str:
    mode = w.op["mode"]
    assert isinstance(mode, int)
    if mode == 0o644:
        return f"> {w.path()}"
    made = f"(umask {_PLAIN_BITS & ~mode:03o}; > {w.path()})"
    return made if mode & ~_PLAIN_BITS == 0 else f"{made}; chmod {mode:o} {w.path()}"


def _mkdir(w: Words) -> str:
    mode = w.op["mode"]
    return f"mkdir {'' if mode == 0o755 else f'-m {mode:o} '}{w.path()}"


def _mknod(w: Words) -> str:
    kinds = {"fifo": "p", "null": "c 1 3"}
    if w.choice("kind") not in kinds:
        raise _unsaid(w.op, "a socket")
    return f"mknod -m {w.op['mode']:o} {w.path()} {kinds[w.choice('kind')]}"


def _tmplink(w: Words) -> str:
    name = w.op.text("path")
    directory = name.rpartition("/")[0] or "."
    commands = [f"pwrite -q {w.piece()}-S {w.byte} {w.range()}"]
    commands += ["fsync"] if w.choice("fsync") == "yes" else []
    said = " ".join(f'-c "{command}"' for command in (*commands, f"flink {w.path()}"))
    return f"{w.dialect.xfs_io} -T {said} {w.dialect.fill(under(directory))} > /dev/null"


def _rename(w: Words) -> str:
    unsaid = {"exchange": "an exchange of two names", "whiteout": "a rename that leaves a whiteout"}
    if w.choice("flags") in unsaid:
        raise _unsaid(w.op, unsaid[w.choice("flags")])
    keep = "-n " if w.choice("flags") == "noreplace" else ""
    return f"mv -T {keep}{w.path('from')} {w.path('to')}"


_FALLOCATE = {
    "alloc": "falloc",
    "keep": "falloc -k",
    "punch": "fpunch",
    "zero": "fzero",
    "zero_keep": "fzero -k",
    "collapse": "fcollapse",
    "insert": "finsert",
    "unshare": "funshare",
}


def _exchange_range(w: Words) -> str:
    offsets = f"-d {w.number('off')} -s {w.number('src')} -l {w.number('len')}"
    return w.io(f"exchangerange {offsets} {w.path('from')}", path="to")


def _clone(w: Words) -> str:
    what = f"reflink {w.path('from')} {w.number('src')} {w.number('off')} {w.number('len')}"
    return w.io(what, path="to")


def _copy_range(w: Words) -> str:
    where = f"-s {w.number('src')} -d {w.number('off')} -l {w.number('len')}"
    return w.io(f"copy_range {where} {w.path('from')}", path="to")


def _dedupe(w: Words) -> str:
    what = f"dedupe {w.path('from')} {w.number('src')} {w.number('off')} {w.number('len')}"
    return w.io(what, path="to")


_CHATTR = {"nocow": "C", "compress": "c", "append": "a", "immutable": "i"}


def _chattr(w: Words) -> str:
    sign = "+" if w.choice("to") == "on" else "-"
    return f"chattr {sign}{_CHATTR[w.choice('flag')]} {w.path()}"


def _setxattr(w: Words) -> str:
    value = f"$(head -c {w.number('size')} /dev/zero | tr '\\0' x)"
    return f'setfattr -n user.{shlex.quote(w.choice("name"))} -v "{value}" {w.path()}'


def _acl(w: Words) -> str:
    default = w.choice("kind") == "default"
    if w.choice("to") == "off":
        return f"setfacl {'-k' if default else '-b'} {w.path()}"
    entries = f"u::rwx,u:{w.number('uid')}:rwx,g::rwx,m::rwx,o::rwx"
    return f"setfacl {'-d ' if default else ''}--set {entries} {w.path()}"


def _balance(w: Words) -> str:
    filters = [f"usage={w.op['usage']}"] if w.op["usage"] != 100 else []
    filters += [f"limit={w.op['limit']}"] if w.op["limit"] else []
    filters += [f"vrange=0..{w.op['vend']}"] if w.op["vend"] else []
    filters += [f"convert={w.choice('convert')}"] if w.choice("convert") != "none" else []
    kinds = {"all": "dms", "data": "d", "metadata": "m", "system": "s"}[w.choice("type")]
    asked = " ".join(f"-{kind}{','.join(filters)}" for kind in kinds)
    force = "-f " if "s" in kinds or w.choice("convert") != "none" else ""
    if kinds == "dms" and not filters:
        force, asked = "", "--full-balance"
    return f"{w.dialect.btrfs} balance start {force}{asked} {w.dialect.mnt} > /dev/null"


def _resize(w: Words) -> str:
    size = "max" if w.choice("to") == "max" else f"-{w.number('by')}"
    return f"{w.dialect.btrfs} filesystem resize {size} {w.dialect.mnt} > /dev/null"


_LOOKS = {
    "stat": "stat {path} > /dev/null",
    "statfs": "stat -f {path} > /dev/null",
    "fiemap": "{xfs_io} -r -c fiemap {path} > /dev/null",
    "readahead": '{xfs_io} -r -c "fadvise -w" {path}',
    "fadvise": '{xfs_io} -r -c "fadvise -d" {path}',
    "seek_hole": '{xfs_io} -r -c "seek -a -r 0" {path} > /dev/null',
    "listxattr": "getfattr -d {path} > /dev/null",
    "bulkstat": '{xfs_io} -r -c "bulkstat" {path} > /dev/null',
}


def _barrier(w: Words) -> str:
    """Each actor leaves a file, and waits for those of the others."""
    place = f"{w.dialect.notes}barrier-{shlex.quote(w.choice('name'))}"
    return f"> {place}-$me-$i; while [ $(ls {place}-*-$i | wc -l) -lt {w.users} ]; do :; done"


def _remounted(w: Words) -> str:
    return "rw" if w.choice("option") == "none" else w.choice("option")


def _quota(w: Words) -> str:
    action = w.choice("action")
    return (
        f"{w.dialect.btrfs} quota {'rescan -w' if action == 'rescan' else action} {w.dialect.mnt} > /dev/null"
    )


def _seconds(w: Words) -> str:
    us = w.op["us"]
    if isinstance(us, Draw):
        return f"$(printf %d.%06d 0 {w.number('us')})"
    return f"{int(us) / 1_000_000:f}".rstrip("0").rstrip(".")


COMMANDS: dict[str, Callable[[Words], str]] = {
    "create": _create,
    "mkdir": _mkdir,
    "symlink": lambda w: f"ln -s {shlex.quote(w.choice('target'))} {w.path()}",
    "mknod": _mknod,
    "tmplink": _tmplink,
    "link": lambda w: f"ln {w.path('from')} {w.path('to')}",
    "rename": _rename,
    "unlink": _unlink,
    "rmdir": lambda w: f"rmdir {w.path()}",
    "subvol_create": lambda w: f"{w.dialect.btrfs} subvolume create {w.path()} > /dev/null",
    "snapshot": lambda w: (
        f"{w.dialect.btrfs} subvolume snapshot {'-r ' if w.choice('access') == 'ro' else ''}"
        f"{w.path('from')} {w.path()} > /dev/null"
    ),
    "subvol_delete": lambda w: f"{w.dialect.btrfs} subvolume delete {w.path()} > /dev/null",
    "write": _write,
    "append": _append,
    "dwrite": _dwrite,
    "mwrite": _mwrite,
    "read": lambda w: w.io(
        f"pread -q {w.piece()}{w.range()}", flags="-r -d" if w.choice("direct") == "yes" else "-r"
    ),
    "truncate": lambda w: w.io(f"truncate {w.number('size')}"),
    "otrunc": lambda w: f"> {w.path()}",
    "fallocate": lambda w: w.io(f"{_FALLOCATE[w.choice('mode')]} {w.range()}"),
    "clone": _clone,
    "exchange_range": _exchange_range,
    "copy_range": _copy_range,
    "dedupe": _dedupe,
    "chmod": lambda w: f"chmod {w.op['mode']:o} {w.path()}",
    "chown": lambda w: f"chown {w.number('uid')}:{w.number('gid')} {w.path()}",
    "utimes": lambda w: f"touch -d 1985-01-01 {w.path()}",
    "chattr": _chattr,
    "extsize": lambda w: w.io(f"extsize {w.number('size')}"),
    "setxattr": _setxattr,
    "acl": _acl,
    "removexattr": lambda w: f"setfattr -x user.{shlex.quote(w.choice('name'))} {w.path()}",
    "fsync": lambda w: w.io("fsync").removesuffix(" > /dev/null"),
    "fdatasync": lambda w: w.io("fdatasync").removesuffix(" > /dev/null"),
    "msync": lambda w: w.io(
        f"mmap -rw 0 $(({w.number('off')} + {w.number('len')}))", f"msync -s {w.range()}"
    ),
    "sync_file_range": lambda w: w.io(f"sync_range -abw {w.range()}"),
    "sync": lambda w: w.dialect.sync,
    "syncfs": lambda w: f"sync -f {w.dialect.mnt}",
    "freeze": lambda w: f"fsfreeze -f {w.dialect.mnt}; sleep 0.01; fsfreeze -u {w.dialect.mnt}",
    "remount_ro": lambda w: f"mount -o remount,ro {w.dialect.mnt} && mount -o remount,rw {w.dialect.mnt}",
    "remount": lambda w: f"mount -o remount,{_remounted(w)} {w.dialect.mnt}",
    "drop_caches": lambda w: f"echo {w.choice('level')} > /proc/sys/vm/drop_caches",
    "balance": _balance,
    "balance_ctl": lambda w: f"{w.dialect.btrfs} balance {w.choice('action')} {w.dialect.mnt} > /dev/null",
    "scrub": lambda w: f"{w.dialect.btrfs} scrub start -B {w.dialect.mnt} > /dev/null",
    "defrag": lambda w: f"{w.dialect.btrfs} filesystem defragment -f {w.path()} > /dev/null",
    "quota": _quota,
    "resize": _resize,
    "label": lambda w: f"{w.dialect.btrfs} filesystem label {w.dialect.mnt} label",
    "send": lambda w: f"{w.dialect.btrfs} send {w.path()} 2> /dev/null | cat > /dev/null",
    "compact": lambda w: "echo 1 > /proc/sys/vm/compact_memory",
    "fstrim": lambda w: f"fstrim {w.dialect.mnt}",
    "evict": lambda w: f"echo 2 > /proc/sys/vm/drop_caches  # to evict {w.op.text('path')}",
    "look": lambda w: _LOOKS[w.choice("how")].format(path=w.path(), xfs_io=w.dialect.xfs_io),
    "knob": lambda w: f"echo {w.number('value')} > /proc/sys/vm/{w.choice('name')}",
    "sleep": lambda w: f"sleep {_seconds(w)}",
    "spin": lambda w: f"timeout {_seconds(w)} sh -c 'while :; do :; done'",
    "barrier": _barrier,
}


def say(words: Words) -> str:
    """The command of an op. InputError if a shell has none."""
    make = COMMANDS.get(words.op.name)
    if make is None:
        raise _unsaid(words.op, f"`{words.op.name}`")
    return make(words)


def _unsaid(op: Op, what: str) -> InputError:
    return InputError(
        f"{what} cannot be said in a shell", hint="try --format c, or powercut minimize: it may not be needed"
    )
