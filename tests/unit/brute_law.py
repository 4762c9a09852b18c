"""What may be seen after a crash, by brute force: every order of a tiny history, every legal loss.

Written from what is promised, not from `oracles/`, and as dumb as it can be. A *linearization* is an
order of the ops in which x comes before y if x returned before y was invoked. An object shows what one
of its versions in one linearization left, at or behind the last one that is *forced*: an op is forced by
a sync call that returned before the cut, was invoked after the op had returned, and covers the object.

- Names: fsync(dir) covers what changed in it, except that a file moved out may still be there. fsync
  and fdatasync of a file cover the name it was made at, fsync also those it was linked or renamed to
  and the removal of others; a binding must have stayed until the call was done (btrfs logs the names
  an inode has). An exchange is covered by sync alone. A rename shows at both of its names or at none;
  on btrfs not if it goes to another directory (fstests generic/335), nor an exchange: the log
  holds the names an inode has, not those it had. But it is not at both, nor lost. A file that comes
  by half of an exchange, and was never made durable itself, leaves nothing there: replay takes the old
  name from the one that is logged (unlink_old_inode_refs in fs/btrfs/tree-log.c).
- Data: sync, fsync, fdatasync, and the op's own O_DSYNC. On xfs overwrites may be torn at sectors. On
  btrfs a block is as its page was at one moment (copy on write, btrfs(5)): some ops were done, all that
  had returned before any of these began among them. Of ops that overlap any may have won, at each place
  for itself: POSIX (XSH 2.9.7) asks for more, Linux leaves it open (open(2) NOTES on O_DIRECT). Zeroes may
  come later than the page: a truncate cuts an extent in the tree, inside a block if it is inline
  (btrfs_truncate_inode_items in fs/btrfs/inode-item.c).
- After a failed sync call nothing written before it is forced, nor is a block of one moment (fsync(2):
  pages may be clean that are not on disk), nor is anything of a file that has no name.
- Size: as data. Before it is forced it grows in sectors, up to what the file had in memory; on btrfs a
  truncate goes down the same way. What it says of the data: `brute_extension.py`.
- Mode and xattrs: fsync and sync. On xfs a value that is being replaced may be absent.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, product

from brute_history import BLOCK, NAME_OPS, PATHS, SUB, Key, Tiny, key_of, name_changes

from fuzzer.state.history import FOREVER, Event

SECTOR = 512
FRESH = 90
"""Inode of a create that was cut short, plus its actor."""
FOREIGN, NOWHERE = -1, -2
"""Words nobody wrote; words somebody wrote at another offset."""

_PARTLY = {errno.EIO}
_VALUES = {"chmod": "mode", "setxattr": "xattr", "removexattr": "xattr"}
Names = tuple[tuple[Key, int], ...]


def linearizations(events: Sequence[Event]) -> Iterator[tuple[Event, ...]]:
    if not events:
        yield ()
        return
    first_end = min(e.end_ns for e in events)
    for event in events:
        if event.begin_ns <= first_end:
            for rest in linearizations([e for e in events if e is not event]):
                yield (event, *rest)


class Law:
    """The legal states of one tiny history, object by object."""

    def __init__(self, tiny: Tiny) -> None:
        self.fs, self.cut = tiny.fs, tiny.cut
        self.events = tiny.history.events
        calls = [e for e in self.events if e.op.is_durability_point]
        self.syncs = [e for e in calls if e.succeeded and e.end_ns < self.cut.returned_before_ns]
        self.failed_syncs = [e for e in calls if e.failed]
        self._sizes_of: dict[int, frozenset[tuple[int, int]]] = {}

    def happened(self, *names: str) -> list[Event]:
        """Ops that may have had an effect."""
        found = [e for e in self.events if e.op.name in names]
        return [e for e in found if not e.failed or (e.errno in _PARTLY and e.op.name not in NAME_OPS)]

    def shows(self, event: Event) -> bool:
        return event.begin_ns < self.cut.invoked_before_ns

    def visible(self, order: Sequence[Event]) -> int:
        """How many of the first ops of an order may show."""
        return next((n for n, e in enumerate(order) if not self.shows(e)), len(order))

    # Names

    @cached_property
    def _name_orders(self) -> list[tuple[tuple[Event, ...], list[list[tuple[Key, int, int]]]]]:
        return list(self.name_orders())

    def name_orders(self) -> Iterator[tuple[tuple[Event, ...], list[list[tuple[Key, int, int]]]]]:
        """Orders in which all that succeeded could succeed; per op its (key, inode before, after)."""
        for order in linearizations(self.happened(*NAME_OPS)):
            names: dict[Key, int] = {}
            effects: list[list[tuple[Key, int, int]]] = []
            for event in order:
                made = event.subject or FRESH + event.actor
                changes = name_changes(names, event, made)
                if changes is None and event.returned:
                    break
                effects.append([(key, names.get(key, 0), inode) for key, inode in changes or ()])
                names.update(changes or ())
            else:
                yield order, effects

    @cached_property
    def names(self) -> frozenset[Names]:
        """Every legal assignment of inodes to all names."""
        found: set[Names] = set()
        for order, effects in self._name_orders:
            found |= self._names_of(order, effects)
        # What a call made durable is somewhere, unless something was started that takes names away.
        kept = {inode for inode in self.durable if not self._may_be_removed(inode)}
        return frozenset(names for names in found if kept <= {inode for _, inode in names})

    def _names_of(self, order: tuple[Event, ...], effects: list[list[tuple[Key, int, int]]]) -> set[Names]:
        limit = self.visible(order)
        histories: dict[Key, list[tuple[int, int]]] = {key: [(-1, 0)] for key in PATHS.values()}
        for number, changes in enumerate(effects[:limit]):
            for key, _, inode in changes:
                histories[key].append((number, inode))
                if len(changes) > 1 and inode and self._may_leave_a_hole(order[number], inode):
                    histories[key].append((number, 0))
        floors, gone = self._name_floors(order, effects)
        found = set()
        for chosen in product(*histories.values()):
            shown = dict(zip(histories, chosen, strict=True))
            late = all(at >= floors.get(key, -1) for key, (at, _) in shown.items())
            lost = all(shown[key][0] >= at or shown[key][1] != inode for key, inode, at in gone)
            whole = all(self._is_whole(shown, n, order[n], effects[n]) for n in range(limit))
            if late and lost and whole:
                found.add(tuple((key, inode) for key, (_, inode) in shown.items()))
        return found

    def _may_leave_a_hole(self, event: Event, inode: int) -> bool:
        """True if half of an exchange may leave nothing where this file came to be."""
        exchange = event.op.name == "rename" and event.op.text("flags") == "exchange"
        return self.fs == "btrfs" and exchange and inode not in self.durable

    def _is_whole(
        self,
        shown: dict[Key, tuple[int, int]],
        number: int,
        event: Event,
        changes: list[tuple[Key, int, int]],
    ) -> bool:
        """A rename is seen whole or not at all."""
        if len(changes) < 2 or len({shown[key][0] >= number for key, _, _ in changes}) == 1:
            return True
        if self.fs == "xfs":
            return False
        (old, moved, came), (new, _, _) = changes
        plain = event.op.text("flags") != "exchange"
        if plain and event.directory == event.directory2 and shown[new][0] >= number:
            return not shown[old][1] == moved == shown[new][1]
        if not plain and shown[old][1] == shown[new][1] in (moved, came):
            return False
        there = {inode for _, inode in shown.values()} | (set(self._born) - self.durable)
        return all(n in there or (plain and self._may_be_removed(n)) for n in (moved, came) if n)

    def _name_floors(
        self, order: tuple[Event, ...], effects: list[list[tuple[Key, int, int]]]
    ) -> tuple[dict[Key, int], list[tuple[Key, int, int]]]:
        """Per name the last forced op; and (name, inode, op): the inode lost it for good by then."""
        floors: dict[Key, int] = {}
        gone: list[tuple[Key, int, int]] = []
        for number, event in enumerate(order):
            for sync in self.syncs if event.succeeded else ():
                if event.end_ns >= sync.begin_ns:
                    continue
                for key, before, after in effects[number]:
                    covers = self._covers(sync, event, key, after, effects[number])
                    if covers == "removal":
                        gone.append((key, before, number))
                    elif covers == "name" or (covers and self._stays(order, effects, number, sync)):
                        floors[key] = max(floors.get(key, -1), number)
        return floors, gone

    def _covers(
        self, sync: Event, event: Event, key: Key, after: int, changes: list[tuple[Key, int, int]]
    ) -> str:
        """What a sync call makes durable of an op's effect on one name."""
        if sync.op.name == "sync":
            return "name"
        rename = event.op.name == "rename"
        if rename and event.op.text("flags") == "exchange":
            return ""
        subject = next(new or old for _, old, new in changes)
        if sync.op.name == "fsync" and sync.subject == key[0]:
            if not rename or after:
                return "name"
            # The name it was moved from goes with the one it got, if both are here.
            return "binding" if event.directory == event.directory2 else ""
        if sync.subject != subject:
            return ""
        if sync.op.name != "fsync":
            return "binding" if event.op.name == "create" else ""
        return "binding" if after else "removal"

    def _stays(
        self,
        order: tuple[Event, ...],
        effects: list[list[tuple[Key, int, int]]],
        number: int,
        sync: Event,
    ) -> bool:
        """True if what the op bound is there until the call ends. An op comes after all before it began."""
        bound = key_of(order[number], "path" if order[number].op.name == "create" else "to")
        began = list(accumulate((e.begin_ns for e in order), max))
        later = zip(began[number + 1 :], effects[number + 1 :], strict=True)
        return not any(at < sync.end_ns and bound in {k for k, _, _ in fx} for at, fx in later)

    def _may_be_removed(self, inode: int) -> bool:
        return any(
            self.shows(event) and any(old == inode and new != inode for _, old, new in changes[-1:])
            for order, effects in self._name_orders
            for event, changes in zip(order, effects, strict=True)
            if event.op.name != "rename" or event.op.text("flags") != "exchange"
        )

    @property
    def _born(self) -> list[int]:
        return [e.subject or FRESH + e.actor for e in self.happened("create")]

    @cached_property
    def durable(self) -> frozenset[int]:
        """Inodes a sync call of theirs, of the directory they were made in, or of everything made durable."""
        return frozenset(
            e.subject
            for e in self.happened("create")
            for s in self.syncs
            if e.end_ns < s.begin_ns
            and (
                s.op.name == "sync"
                or s.subject == e.subject
                or (s.subject == e.directory and self._undisturbed(e, s))
            )
        )

    def _undisturbed(self, made: Event, sync: Event) -> bool:
        path = made.op.text("path")
        later = [e for e in self.happened(*NAME_OPS) if e.id != made.id and made.begin_ns < e.end_ns]
        return not any(e.begin_ns < sync.end_ns and any(v == path for _, v in e.op.args) for e in later)

    # Data

    def _spoiled(self, event: Event, sync: Event | None = None) -> bool:
        """Writeback may have failed after the op began, and before `sync` (which would have told; sync(2)
        does not)."""
        return any(
            event.begin_ns < f.end_ns and (f.op.name == "sync" or f.subject == event.subject)
            for f in self.failed_syncs
            if sync is None or sync.op.name == "sync" or f.begin_ns < sync.begin_ns
        )

    def _may_be_nameless(self, inode: int, sync: Event) -> bool:
        """True if the file may have had no name before the call was done."""
        for order, effects in self._name_orders:
            names: dict[Key, int] = {}
            alive = False
            for event, changes in zip(order, effects, strict=True):
                if event.begin_ns > sync.end_ns:
                    break
                names.update((key, after) for key, _, after in changes)
                alive = alive or inode in names.values()
                if alive and inode not in names.values():
                    return True
        return False

    def _calls(self, event: Event) -> list[Event]:
        """The sync calls that made the op's data and size durable."""
        if not event.succeeded:
            return []
        calls = [s for s in self.syncs if event.end_ns < s.begin_ns and not self._spoiled(event, s)]
        if event in self.syncs:
            calls.append(event)  # its descriptor is older than its writeback, so it would have told
        return [s for s in calls if self._covers_data(s, event)]

    def forced_up_to(self, event: Event) -> int:
        """Below which byte the op's data is durable, and with it a size up to there.

        A truncate under way during the call has taken the pages behind its size away, but need not be
        committed itself (xfs_setattr_size in fs/xfs/xfs_iops.c).
        """
        return max((self._cut_during(s, event) for s in self._calls(event)), default=0)

    def _covers_data(self, sync: Event, event: Event) -> bool:
        if sync.op.name == "sync":
            return True
        whole = sync is event or sync.op.name in ("fsync", "fdatasync")
        same = sync.subject == event.subject
        return whole and same and not self._may_be_nameless(event.subject, sync)

    def _cut_during(self, sync: Event, event: Event) -> int:
        cuts = [e for e in self.data_ops(event.subject) if e.op.name == "truncate"]
        during = [e for e in cuts if e.begin_ns <= sync.end_ns and sync.begin_ns <= e.end_ns]
        return min((e.op.number("size") for e in during), default=FOREVER)

    def data_ops(self, inode: int) -> list[Event]:
        found = self.happened("write", "dwrite", "truncate")
        return [e for e in found if e.subject == inode]

    def pieces(self, inode: int, block: int) -> list[tuple[int, int]]:
        """A block cut at everything that began or ended inside."""
        edges = {edge for e in self.data_ops(inode) for edge in span(e)}
        inner = sorted({edge for edge in edges if block < edge < block + BLOCK})
        return list(zip([block, *inner], [*inner, block + BLOCK], strict=True))

    def orders(self, ops: list[Event]) -> Iterator[tuple[Event, ...]]:
        """All orders, with and without ops that failed or whose data a failed sync call dropped."""
        unsure = [e for e in ops if e.failed or (self._spoiled(e) and not self.forced_up_to(e))]
        for without in product((False, True), repeat=len(unsure)):
            left_out = {e.id for e, out in zip(unsure, without, strict=True) if out}
            yield from linearizations([e for e in ops if e.id not in left_out])

    def block(self, inode: int, block: int) -> frozenset[tuple[int, ...]]:
        """Legal contents of a block, one word source per piece (`pieces`)."""
        pieces = self.pieces(inode, block)
        failed = any(s.op.name == "sync" or s.subject == inode for s in self.failed_syncs)
        if self.fs == "xfs" or failed:
            legal = [self.contents(inode, [piece]) for piece in pieces]
            return frozenset(tuple(one for (one,) in row) for row in product(*legal))
        ops = [e for e in self.data_ops(inode) if any(_covers_piece(e, piece) for piece in pieces)]
        forced = {e for e in ops if any(_covers_piece(e, p) and p[1] <= self.forced_up_to(e) for p in pieces)}
        pages = {
            frozenset(order[:number])
            for order in linearizations(ops)
            for number in range(self.visible(order) + 1)
            if forced <= set(order[:number])
        }
        words = {page: [_words(page, piece) for piece in pieces] for page in pages}
        found: set[tuple[int, ...]] = set()
        for page in pages:
            # Zeroed since, with nothing else of the page: the end of file is cut off in metadata alone.
            later = [words[other] for other in pages if page <= other]
            zero = [any(0 in row[n] for row in later) for n in range(len(pieces))]
            rows = [w - {0} | ({0} if z else set()) for w, z in zip(words[page], zero, strict=True)]
            found |= set(product(*rows))
        return frozenset(found)

    def contents(self, inode: int, pieces: list[tuple[int, int]]) -> set[tuple[int, ...]]:
        ops = [e for e in self.data_ops(inode) if any(_covers_piece(e, piece) for piece in pieces)]
        forced = {
            e.id for e in ops if any(_covers_piece(e, p) and p[1] <= self.forced_up_to(e) for p in pieces)
        }
        found = set()
        for order in self.orders(ops):
            floor = max((n for n, e in enumerate(order) if e.id in forced), default=-1)
            content = [0] * len(pieces)
            for number in range(-1, self.visible(order)):
                if number >= 0:
                    event = order[number]
                    word = 0 if event.op.name == "truncate" else event.id
                    content = [word if _covers_piece(event, p) else c
                               for p, c in zip(pieces, content, strict=True)]  # fmt: skip
                if number >= floor:
                    found.add(tuple(content))
        return found

    # Size

    def sizes(self, inode: int) -> frozenset[int]:
        return frozenset(size for size, _ in self._sizes(inode))

    def givers(self, inode: int, size: int) -> set[int]:
        """Ids of the ops that may have made it that large; 0: it may never have been larger than nothing."""
        return {giver for found, giver in self._sizes(inode) if found == size}

    def _sizes(self, inode: int) -> frozenset[tuple[int, int]]:
        """(size, id of the op that gave it)."""
        if inode not in self._sizes_of:
            self._sizes_of[inode] = self._find_sizes(inode)
        return self._sizes_of[inode]

    def _find_sizes(self, inode: int) -> frozenset[tuple[int, int]]:
        ops = self.data_ops(inode)
        forced = {e.id: self.forced_up_to(e) for e in ops}
        found: set[tuple[int, int]] = set()
        for order in self.orders(ops):
            memory, disk = 0, {(0, 0)}
            for event in order[: self.visible(order)]:
                memory, disk = self._resized(event, memory, disk)
                if event.op.name == "truncate" and self._calls(event):
                    disk = {(memory, event.id)}
                elif event.op.name != "truncate" and forced[event.id] >= span(event)[1]:
                    disk = {(size, giver) for size, giver in disk if size >= span(event)[1]}
            found |= disk
        return frozenset(found)

    def _resized(
        self, event: Event, memory: int, disk: set[tuple[int, int]]
    ) -> tuple[int, set[tuple[int, int]]]:
        """Size in memory and what it may be on disk once the op was carried out."""
        _, end = span(event)
        sizes = {size for size, _ in disk}
        new, more = end, set[int]()
        if event.op.name == "truncate":
            new = event.op.number("size")
            if self.fs == "btrfs":
                more = {n for n in range(0, max(sizes), SECTOR) if n > new}
        elif end <= memory:
            return memory, disk
        more |= {new} | {n for n in range(0, new, SECTOR) if n > min(sizes)}
        return new, disk | {(size, event.id) for size in more}

    # Mode and xattr

    def values(self, inode: int, what: str) -> frozenset[int | None]:
        """Legal ids of the op that set the mode or the xattr `k` (None: removed, or never set)."""
        ops = [e for e in self.happened(*_VALUES) if _VALUES[e.op.name] == what and e.subject == inode]
        forced = {e.id for e in ops if self._metadata_forced(e)}
        found: set[int | None] = set()
        for order in linearizations(ops):
            floor = max((n for n, e in enumerate(order) if e.id in forced), default=-1)
            shown = [None, *(e.id if e.op.name != "removexattr" else None for e in order)]
            limit = self.visible(order)
            found |= set(shown[floor + 1 : limit + 1])
            if self.fs == "xfs" and any(e.op.name == "setxattr" for e in order[floor + 1 : limit]):
                found.add(None)
        return frozenset(found)

    def _metadata_forced(self, event: Event) -> bool:
        return event.succeeded and any(
            event.end_ns < s.begin_ns
            and (s.op.name == "sync" or (s.op.name == "fsync" and s.subject == event.subject))
            for s in self.syncs
        )


def _words(page: frozenset[Event], piece: tuple[int, int]) -> set[int]:
    """What a piece of a page may hold when these ops were done; a failed one may have done any part."""
    ops = [e for e in page if _covers_piece(e, piece)]
    over = {e for e in ops if any(e.end_ns < f.begin_ns for f in ops if not f.failed)}
    untouched = {0} if all(e.failed for e in ops) else set()
    return untouched | {0 if e.op.name == "truncate" else e.id for e in ops if e not in over}


def span(event: Event) -> tuple[int, int]:
    """The bytes an op puts something at; a truncate zeroes all behind its size."""
    if event.op.name == "truncate":
        return event.op.number("size"), FOREVER
    return event.op.number("off"), event.op.number("off") + event.op.number("len")


def _covers_piece(event: Event, piece: tuple[int, int]) -> bool:
    start, end = span(event)
    return start <= piece[0] and end >= piece[1]


__all__ = ["FOREIGN", "FRESH", "NOWHERE", "SUB", "Law", "linearizations", "span"]
