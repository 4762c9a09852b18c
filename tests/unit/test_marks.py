"""Marks of recorded programs: any line survives the log, and no line can pass for a mark of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzer.errors import InputError
from fuzzer.writelog.format import check_mark
from fuzzer.writelog.marks import format_program_mark, marks_before
from fuzzer.writelog.model import MARK_END, MARK_MKFS, SYNC_MARK_PREFIX, Entry, Flag


def _marked(*texts: str) -> list[Entry]:
    return [Entry(number, Flag.MARK, mark=text) for number, text in enumerate(texts)]


@given(st.lists(st.binary(max_size=150)))
def test_lines_come_back_as_they_were(lines: list[bytes]) -> None:
    texts = [format_program_mark(line) for line in lines]
    assert [check_mark(text) for text in texts] == texts
    assert marks_before(_marked(*texts)) == tuple(lines)


def test_no_line_is_a_mark_of_ours() -> None:
    for text in (MARK_MKFS, MARK_END, f"{SYNC_MARK_PREFIX}1:5"):
        assert format_program_mark(text.encode()).startswith("program:")


def test_marks_of_others_are_taken_word_for_word_and_writes_are_not_marks() -> None:
    write = Entry(9, Flag(0), offset=0, length=512)
    assert marks_before([*_marked("fsync%20done", "program:a%20b"), write]) == (b"fsync%20done", b"a b")


def test_a_long_line_is_refused() -> None:
    format_program_mark(b"x" * 471)
    for line in (b"x" * 472, b" " * 200):
        with pytest.raises(InputError):
            format_program_mark(line)
