"""Reads a text of any of the known sorts into drafts."""

from __future__ import annotations

import html
import re
from pathlib import PurePath

from fuzzer.drafts.draft import Draft, Unread
from fuzzer.drafts.fsx import is_fsx, read_fsx
from fuzzer.drafts.gitlog import is_gitlog, read_gitlog
from fuzzer.drafts.jlang import is_jlang, read_jlang
from fuzzer.drafts.prose import read_prose, slug
from fuzzer.errors import InputError
from fuzzer.workload.validate import validate

MAX_TEXT_BYTES = 64 << 20
"""A log of all commits to a file system's directory has some tens of megabytes."""


_MAX_PAGE = 4 << 20
"""Characters of a page that is looked through for markup: tags that never end make that slow."""

_PAGE = re.compile(r"<(!doctype html|html|body)\b", re.IGNORECASE)
_MARKUP = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|</?[a-z!][^<>]*>", re.IGNORECASE | re.DOTALL)


def _without_markup(text: str) -> str:
    """The text of a saved web page, its lines where they were; any other text as it is."""
    if len(text) > _MAX_PAGE or not _PAGE.search(text[:4096]):
        return text
    return html.unescape(_MARKUP.sub(lambda match: "\n" * match[0].count("\n"), text))


def read_drafts(data: bytes, name: str) -> tuple[tuple[Draft, ...], tuple[Unread, ...]]:
    """The drafts of a text, and lines that belong to none of them. InputError if it gives none."""
    if len(data) > MAX_TEXT_BYTES:
        raise InputError(f"larger than {MAX_TEXT_BYTES} bytes", place=f"{name}:1")
    lines = _without_markup(data.decode(errors="replace")).splitlines()
    if any(line.startswith("# J2-Lang") or "J2-Lang" in line for line in lines[:1]):
        hint = "ACE writes the plain ones with --test-type crashmonkey"
        raise InputError("J2-Lang describes many workloads at once", place=f"{name}:1", hint=hint)
    if is_gitlog(lines):
        drafts, others = read_gitlog(lines, name)
        if not drafts:
            raise InputError(f"no race recognized in {len(others)} commits", place=f"{name}:1")
        return drafts, others
    if is_jlang(lines) or is_fsx(lines):
        read = read_jlang if is_jlang(lines) else read_fsx
        draft = read(lines, name)
        validate(draft.workload)
        named = Draft(slug(PurePath(name).stem) or "draft", draft.workload, draft.unread, draft.notes)
        return (named,), ()
    return (read_prose(lines, name),), ()
