"""Versions of one inode: every value its data, size and attributes may have had, and which op made it so."""

from __future__ import annotations

import errno
from collections import defaultdict
from dataclasses import dataclass, field, replace
from enum import Enum

from fuzzer.state.history import Event
from fuzzer.workload.model import make_op
from fuzzer.workload.ops import MAX_FILE_BYTES

END_OF_FILE = MAX_FILE_BYTES * 2
"""Upper end of ranges that reach to whatever the end of the file is."""

_HALF_DONE = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.ENOMEM, errno.EFAULT})
"""A data op that failed with one of these may have done a part of its work (write(2), fallocate(2))."""


class Source(Enum):
    """Where the bytes of a data version come from."""

    WRITE = "write"
    ZERO = "zero"
    CLONE = "clone"


@dataclass(frozen=True, slots=True)
class DataVersion:
    """`event` put bytes at [start, end). `sure`: it did so if it returned; else it may have.

    `shift` is how far from where they were stamped for its words are (None: that is not known).
    """

    event: Event
    start: int
    end: int
    source: Source
    sure: bool
    shift: int | None = 0


@dataclass(frozen=True, slots=True)
class SizeVersion:
    """`event` set the size to `value`, or raised it to at least `value` (`raises`)."""

    event: Event
    value: int
    raises: bool
    sure: bool


@dataclass(frozen=True, slots=True)
class ValueVersion:
    """`event` set an attribute to `value` (None: removed)."""

    event: Event
    value: int | None


@dataclass(slots=True)
class FileVersions:
    """Everything that happened to one inode."""

    inode: int
    born: Event | None = None
    data: list[DataVersion] = field(default_factory=list)
    sizes: list[SizeVersion] = field(default_factory=list)
    modes: list[ValueVersion] = field(default_factory=list)
    owners: list[ValueVersion] = field(default_factory=list)
    """Values are those of `owner`."""
    dated: list[Event] = field(default_factory=list)
    """utimes ops: they set the mtime to a time of their own."""
    xattrs: dict[str, list[ValueVersion]] = field(default_factory=lambda: defaultdict(list))
    acls: dict[str, list[ValueVersion]] = field(default_factory=lambda: defaultdict(list))
    """Per kind of ACL: the user it names."""
    shifted: list[Event] = field(default_factory=list)
    """Collapse and insert ops: they move data, so offsets no longer tell ops apart."""
    reserved: list[Event] = field(default_factory=list)
    """fallocate ops that reserved all of their range."""
    rewritten: list[Event] = field(default_factory=list)
    """Defragmentations and exchanges: nobody knows how many blocks it takes after them."""
    mapped: list[Event] = field(default_factory=list)
    """Stores through a mapping; see `data.py` on what they do to direct writes."""
    _writes: dict[int, list[DataVersion]] = field(default_factory=lambda: defaultdict(list))
    _zeros: list[DataVersion] = field(default_factory=list)
    _clones: list[DataVersion] = field(default_factory=list)

    def add_data(self, version: DataVersion) -> None:
        self.data.append(version)
        if version.source is Source.WRITE:
            self._writes[version.event.id].append(version)
        elif version.source is Source.ZERO:
            self._zeros.append(version)
        else:
            self._clones.append(version)

    @property
    def is_special(self) -> bool:
        """True for fifos, devices and sockets."""
        return self.born is not None and self.born.op.name == "mknod"

    def data_like(self, op: int) -> list[DataVersion]:
        """The versions that can hold words of op `op` (0: zeroes)."""
        return (self._writes.get(op, []) if op else self._zeros) + self._clones


_ATTRIBUTE_OPS = frozenset({"chmod", "chown", "utimes", "setxattr", "removexattr", "acl"})

ACL_RIGHTS = 0o777
"""What an `acl` op that sets the access ACL makes of the mode (acl(5)); the other bits stay."""


def own_shift(event: Event) -> int | None:
    """How far from where they were stamped for the words of a write are. Who appends does not know its
    place before (`result` tells it) and stamps for offset 0; None: nobody was told the place."""
    if event.op.name != "append":
        return 0
    return event.result if event.succeeded else None


def owner(uid: int, gid: int) -> int:
    """User and group in one number."""
    return uid << 32 | gid


def may_have_changed(event: Event) -> bool:
    """False if the op failed with an error after which its inode is as before."""
    return not event.failed or event.errno in _HALF_DONE


def add_inode_version(file: FileVersions, event: Event) -> None:
    """Add what the op, which may have changed something, did to the inode."""
    name = event.op.name
    if file.is_special and name not in _ATTRIBUTE_OPS:
        return
    if name in ("write", "splice", "dwrite", "awrite", "mwrite", "fault_write"):
        _add_write(file, event)
    elif name == "append":
        _add_append(file, event)
    elif name in ("truncate", "otrunc"):
        size = event.op.number("size") if name == "truncate" else 0
        file.sizes.append(SizeVersion(event, size, False, event.succeeded))
        file.add_data(DataVersion(event, size, END_OF_FILE, Source.ZERO, event.succeeded))
    elif name == "fallocate":
        _add_fallocate(file, event)
    elif name == "defrag":
        file.rewritten.append(event)
    elif name == "clone":
        _add_clone(file, event)
    elif name == "exchange_range":
        start = event.op.number("off")
        end = start + event.op.number("len")
        file.add_data(DataVersion(event, start, end, Source.CLONE, event.succeeded))
        file.rewritten.append(event)
    elif name in ("copy_range", "mapped_write"):
        _add_copy(file, event)
    elif name == "chmod":
        file.modes.append(ValueVersion(event, event.op.number("mode")))
    elif name == "chown":
        file.owners.append(ValueVersion(event, owner(event.op.number("uid"), event.op.number("gid"))))
    elif name == "utimes":
        file.dated.append(event)
    elif name in ("setxattr", "removexattr"):
        _add_xattr(file, event)
    elif name == "acl":
        _add_acl(file, event)


def halves(event: Event) -> tuple[Event, ...]:
    """What the op did, seen from each inode it did it to: an exchange changes two."""
    if event.op.name != "exchange_range":
        return (event,)
    args = dict(event.op.args)
    mirrored = make_op(event.op.name, args | {"src": args["off"], "off": args["src"]})
    return event, replace(event, op=mirrored, subject=event.other, other=event.subject)


def add_first_data(file: FileVersions, event: Event) -> None:
    """What a file already held when it got its first name."""
    start = event.op.number("off")
    end = start + event.op.number("len")
    file.add_data(DataVersion(event, start, end, Source.WRITE, event.succeeded))
    file.sizes.append(SizeVersion(event, end, True, event.succeeded))


def _add_write(file: FileVersions, event: Event) -> None:
    start = event.op.number("off")
    length = event.result if event.succeeded else event.op.number("len")
    end = start + length
    file.add_data(DataVersion(event, start, end, Source.WRITE, event.succeeded))
    if length < event.op.number("len"):
        # What a short write did behind the end it reported is not told.
        file.add_data(DataVersion(event, end, start + event.op.number("len"), Source.WRITE, False))
    if event.op.name == "mwrite":
        file.mapped.append(event)
    else:
        file.sizes.append(SizeVersion(event, end, True, event.succeeded))


def _add_append(file: FileVersions, event: Event) -> None:
    """One that was not seen to end may be anywhere."""
    shift = own_shift(event)
    start, end = (0, END_OF_FILE) if shift is None else (shift, shift + event.op.number("len"))
    file.add_data(DataVersion(event, start, end, Source.WRITE, event.succeeded, shift))
    file.sizes.append(SizeVersion(event, end, True, event.succeeded))


def _add_fallocate(file: FileVersions, event: Event) -> None:
    start, mode = event.op.number("off"), event.op.text("mode")
    end = start + event.op.number("len")
    if mode in ("collapse", "insert"):
        file.shifted.append(event)
        return
    if mode in ("punch", "zero", "zero_keep"):
        file.add_data(DataVersion(event, start, end, Source.ZERO, event.succeeded))
    if mode in ("alloc", "keep", "zero", "zero_keep") and event.succeeded:
        file.reserved.append(event)
    if mode in ("alloc", "zero", "unshare"):
        file.sizes.append(SizeVersion(event, end, True, event.succeeded))


def _add_clone(file: FileVersions, event: Event) -> None:
    """Length 0 means to the end of the source, whatever that was: then nothing is sure."""
    start, length = event.op.number("off"), event.op.number("len")
    end = start + length if length else END_OF_FILE
    sure = event.succeeded and length > 0
    file.add_data(DataVersion(event, start, end, Source.CLONE, sure))
    file.sizes.append(SizeVersion(event, end, True, sure))


def _add_copy(file: FileVersions, event: Event) -> None:
    """copy_file_range(2) may stop short; if it goes through the page cache it is no atomic change. So does
    a write from a mapping."""
    start, wanted = event.op.number("off"), event.op.number("len")
    length = event.result if event.succeeded else wanted
    file.add_data(DataVersion(event, start, start + length, Source.CLONE, event.succeeded))
    file.sizes.append(SizeVersion(event, start + length, True, event.succeeded and length > 0))
    if length < wanted:
        file.add_data(DataVersion(event, start + length, start + wanted, Source.CLONE, False))


def _add_xattr(file: FileVersions, event: Event) -> None:
    value = event.id if event.op.name == "setxattr" else None
    file.xattrs[event.op.text("name")].append(ValueVersion(event, value))


def _add_acl(file: FileVersions, event: Event) -> None:
    set_to = event.op.number("uid") if event.op.text("to") == "on" else None
    file.acls[event.op.text("kind")].append(ValueVersion(event, set_to))
    if event.op.text("kind") == "access" and set_to is not None:
        file.modes.append(ValueVersion(event, ACL_RIGHTS))
