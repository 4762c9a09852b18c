"""Order of metadata: a change that shows brings along every change committed before it.

Two ops are ordered if one had returned when the other was invoked. Of every name, attribute and size
in the tree it is known which ops can have made it so; the first of them to be invoked bounds from
below when it was committed. The latest of these bounds is what the tree is known to have reached, and
every change of a name, a mode or an xattr that had returned before it must be there.

Sizes are witnesses only: a size goes to disk when the data has (xfs_setfilesize), so it may be missing
although a later change shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from fuzzer.state.history import Event
from oracles.acls import acl_makers, check_acls
from oracles.attributes import check_mode, check_owner, check_xattrs, mode_makers, owner_makers, xattr_makers
from oracles.case import Case, Rule, Tally
from oracles.changes import logs_itself
from oracles.floors import Floors, compute_floors
from oracles.moments import Moment, moments_of
from oracles.names import check_names, check_not_lost, name_makers
from oracles.profile import Order
from oracles.renames import check_rename_atomic, check_rename_whole
from oracles.size import size_makers
from oracles.verdict import Violation

_CHECKS = (
    check_names,
    check_not_lost,
    check_rename_atomic,
    check_rename_whole,
    check_mode,
    check_owner,
    check_xattrs,
    check_acls,
)

_MAKERS = (name_makers, mode_makers, owner_makers, xattr_makers, acl_makers, size_makers)
"""Each gives, for everything it finds in the tree, the ops that can have made it so."""


def check_order(case: Case) -> Iterator[Violation]:
    """Promise: metadata is recovered in the order it was committed in (source `order`)."""
    if not _is_ordered(case):
        return
    strict = _strict(case)
    case.tally.judged += 1
    found = [] if strict is case else _all_violations(strict)
    never_so = not found and _moments(strict) == []
    if not found and not never_so:
        return
    known = {(v.rule, v.subject) for v in _all_violations(replace(case, tally=Tally()))}
    for violation in found:
        if (violation.rule, violation.subject) not in known:
            yield replace(violation, rule="order", source=case.profile.source("order"))
    if never_so and not known:
        yield _never_so(case)


def _all_violations(case: Case) -> list[Violation]:
    return [violation for check in _CHECKS for violation in check(case)]


def _moments(case: Case) -> list[Moment] | None:
    """The moments at which the names may have been so, with all in them that is known to show; None: not
    known."""
    moments = moments_of(case.versions, case.profile)
    if moments is None:
        return None
    names = {key: inode for key, inode in case.tree.entries.items() if not case.versions.is_opaque(key[0])}
    since_ns = case.floors.shown[0] if case.floors.shown else -1
    return [m for m in moments.at(names, case.floors.cut) if m.until_ns >= since_ns]


def _never_so(case: Case) -> Violation:
    return Violation(
        rule="order",
        kind="never-so",
        subject="all names",
        promised="they are as they were at one moment, however the ops that overlapped came out",
        found="each may have been so, but not all at once",
        source=case.profile.source("order"),
    )


def _strict(case: Case) -> Case:
    """The case with all durable that what shows brings along; the same one if nothing shows.

    What is brought along may show that still later ops have been reached: of those that can have made a
    name what it is the first are out then. With no log to hold single inodes, every rename is whole.
    """
    strict, shown = case, (-1, 0)
    while True:
        witness = _witness(strict)
        if witness is None or witness.begin_ns <= shown[0]:
            return strict
        shown = (witness.begin_ns, witness.id)
        floors = compute_floors(case.versions, case.floors.cut, case.profile, shown)
        profile = replace(case.profile, atomic_moves=True)
        strict = replace(case, profile=profile, tally=Tally(), history=(case.versions, floors))


def _is_ordered(case: Case) -> bool:
    if case.profile.order is Order.COMMIT:
        return not _may_have_logged(case.floors)
    return case.profile.order is Order.GLOBAL


def _may_have_logged(floors: Floors) -> bool:
    """True if a call may have made single inodes durable since the last commit a sync call made.

    A log is thrown away by the commit that makes it superfluous (btrfs_free_log in the commit of the
    transaction it belongs to).
    """
    committed_ns = max((begin for begin, _ in floors.everything), default=-1)
    return any(
        _logs(event) and floors.visible(event) and event.end_ns >= committed_ns
        for event in floors.versions.history.events
    )


def _logs(event: Event) -> bool:
    """True if the op may log an inode. tmplink does with the file it has not linked yet, unlink with one
    that may have no name any more, which promises nothing of it on btrfs."""
    return logs_itself(event) or (event.op.is_durability_point and event.op.name not in ("sync", "syncfs"))


def _witness(case: Case) -> Event | None:
    """The op with the latest begin that the tree has surely reached, or None."""
    found = [_earliest(makers) for source in _MAKERS for makers in source(case)]
    reached = min((moment.latest for moment in _moments(case) or ()), default=(-1, 0))
    found.append(case.versions.history.by_id.get(reached[1]))
    return max((event for event in found if event), key=lambda e: e.begin_ns, default=None)


def _earliest(makers: Iterable[Event]) -> Event | None:
    return min(makers, key=lambda e: e.begin_ns, default=None)


RULES = (Rule("order", check_order),)
