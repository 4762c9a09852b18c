"""Marks of recorded programs: a line of any bytes, as one printable word in the log."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fuzzer.writelog.format import check_mark
from fuzzer.writelog.model import Entry

PROGRAM_MARK_PREFIX = "program:"


def format_program_mark(line: bytes) -> str:
    """The mark for a line of a program; InputError if it is too long for a sector."""
    return check_mark(PROGRAM_MARK_PREFIX + quote_from_bytes(line, safe="/:=,+"))


def marks_before(entries: Iterable[Entry]) -> tuple[bytes, ...]:
    """What the marks among `entries` say: programs' lines as they were, other marks word for word."""
    return tuple(
        unquote_to_bytes(entry.mark.removeprefix(PROGRAM_MARK_PREFIX))
        if entry.mark.startswith(PROGRAM_MARK_PREFIX)
        else entry.mark.encode()
        for entry in entries
        if entry.is_mark
    )
