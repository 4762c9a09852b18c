"""Power: shell functions that make a file system on a loop device, cut its power, and recover it.

They are the same in the shell script and in the C program. Everything is in the directory `$work`, also
what they have to remember, so each may be called by a shell of its own.
"""

from __future__ import annotations

from fuzzer.triage.export.program import Method, Program
from fuzzer.triage.export.shell_ops import Dialect

DIALECT = Dialect("$mnt", "$work/")

WORDS = {
    Method.COPY: (
        "Power is cut by copying the file behind the loop device right after the call returned: the copy",
        "has everything the device had completed by then, as dm-flakey leaves it with drop_writes.",
    ),
    Method.LOG_WRITES: (
        "Power is cut by dm-log-writes: a mark is put right after the call returned, and the log replayed",
        "up to it. Only what a completed flush or FUA had made durable is there.",
    ),
    Method.REMOUNT: ("Power is not cut: the file system is unmounted in good order and mounted again.",),
    Method.NONE: ("Power is not cut: what the running file system says is wrong.",),
    Method.DROPPED: ("Power is not cut: what the running file system has on its device is wrong.",),
}

_MKFS = {"btrfs": "mkfs.btrfs -q -f -K", "xfs": "mkfs.xfs -q -f -K"}

_NEW_FS = """\
new_fs() {{
    mkdir -p $mnt && truncate -s {size} $work/disk &&
    losetup --find --show $work/disk > $work/dev &&
    {mkfs} $(cat $work/dev) > /dev/null &&
    mount -t {fs}{options} $(cat $work/dev) $mnt
}}
"""

_UNPLUG = """\
unplug() {{  # unmount, and give the loop device back
    mountpoint -q $mnt && {{ umount $mnt || return 1; }}
    [ -s $work/dev ] || return 0
{forget}    losetup -d $(cat $work/dev) && rm $work/dev
}}
"""

_FORGET = """\
    # The copy has the same fsid and a lower generation: the kernel must not remember this one.
    btrfs device scan --forget $(cat $work/dev) 2> /dev/null
"""

_RECOVER = """\
recover() {{
    unplug && mv $work/crashed $work/disk &&
    losetup --find --show $work/disk > $work/dev &&
    mount -t {fs}{options} $(cat $work/dev) $mnt
}}
"""

_COPY = """\
cut_power() {
    cp --sparse=always $work/disk $work/crashed
}
"""

_LOG_NEW_FS = """\
name=repro-${{work##*/}}
new_fs() {{
    mkdir -p $mnt && truncate -s {size} $work/disk && truncate -s 2G $work/log &&
    losetup --find --show $work/disk > $work/dev &&
    losetup --find --show $work/log > $work/logdev &&
    dmsetup --noudevsync create $name \\
        --table "0 $(blockdev --getsz $(cat $work/dev)) log-writes $(cat $work/dev) $(cat $work/logdev)" &&
    dmsetup mknodes $name &&
    {mkfs} /dev/mapper/$name > /dev/null &&
    mount -t {fs}{options} /dev/mapper/$name $mnt
}}
cut_power() {{
    dmsetup message $name 0 mark cut
}}
replay() {{  # format: struct log_write_super and log_write_entry of drivers/md/dm-log-writes.c
    python3 - $work/log $work/crashed {size} <<'END'
import struct, sys
log, disk = open(sys.argv[1], "rb"), open(sys.argv[2], "wb")
disk.truncate(int(sys.argv[3]))
magic, version, entries, sector = struct.unpack("<QQQI", log.read(28))
log.seek(sector)
for _ in range(entries):
    head = log.read(sector)
    place, count, flags, length = struct.unpack("<4Q", head[:32])
    if flags & 8 and head[32:32 + length] == b"cut":
        sys.exit(0)
    if flags & 4:  # a discard has no data
        disk.seek(place * sector)
        disk.write(bytes(count * sector))
    elif count:
        disk.seek(place * sector)
        disk.write(log.read(count * sector))
sys.exit("the mark is not in the log")
END
}}
"""

_LOG_UNPLUG = """\
unplug() {{
    mountpoint -q $mnt && {{ umount $mnt || return 1; }}
{forget}    [ -e /dev/mapper/$name ] && {{ dmsetup --noudevsync remove $name; dmsetup mknodes; }}
    for file in dev logdev; do
        [ -s $work/$file ] || continue
        losetup -d $(cat $work/$file) && rm $work/$file
    done
}}
"""

_LOG_FORGET = """\
    # The copy has the same fsid and a lower generation: the kernel must not remember this one.
    for device in /dev/mapper/$name $(cat $work/dev 2> /dev/null); do
        btrfs device scan --forget $device 2> /dev/null
    done
"""

_LOG_RECOVER = """\
recover() {{
    unplug && replay && mv $work/crashed $work/disk &&
    losetup --find --show $work/disk > $work/dev &&
    mount -t {fs}{options} $(cat $work/dev) $mnt
}}
"""

_REMOUNT = """\
recover() {{
    umount $mnt && mount -t {fs}{options} $(cat $work/dev) $mnt
}}
"""

_DROPPED = """\
recover() {
    sync -f $mnt && echo 3 > /proc/sys/vm/drop_caches
}
"""


def functions(program: Program) -> str:
    """The functions `new_fs`, `cut_power` (where power is cut), `recover`, `unplug` and `bug`."""
    workload, method = program.workload, program.method
    options = [workload.mount] if workload.mount else []
    fields = {
        "fs": program.fs,
        "size": str(workload.size),
        "mkfs": " ".join(filter(None, (_MKFS[program.fs], workload.mkfs))),
    }
    recovery = [*options, *(["skip_balance"] if program.balances else [])]
    first, again = _mount_words(options), _mount_words(recovery)
    log = method is Method.LOG_WRITES
    forget = (_LOG_FORGET if log else _FORGET) if program.fs == "btrfs" else ""
    parts = [
        (_LOG_NEW_FS if log else _NEW_FS).format(**fields, options=first),
        (_LOG_UNPLUG if log else _UNPLUG).format(forget=forget),
    ]
    if log:
        parts.append(_LOG_RECOVER.format(**fields, options=again))
    elif method is Method.COPY:
        parts += [_COPY, _RECOVER.format(**fields, options=again)]
    elif method is Method.REMOUNT:
        parts.append(_REMOUNT.format(**fields, options=again))
    else:
        parts.append(_DROPPED if method is Method.DROPPED else "recover() {\n    :\n}\n")
    condition = DIALECT.fill(program.check.condition)
    parts.append(f"bug() {{  # does it show?\n    {condition}\n}}\n")
    return "".join(parts)


def cut_command(program: Program) -> str:
    """What cuts power; empty where power is not cut."""
    return "cut_power" if program.method in (Method.COPY, Method.LOG_WRITES) else ""


def _mount_words(options: list[str]) -> str:
    return f" -o {','.join(options)}" if options else ""
