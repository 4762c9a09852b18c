"""Draft a workload from a commit message or a mail: who is named in it takes part, on one object.

The draft is a starting point for a person and runs at once. Its `why` says which words led to each choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fuzzer.drafts.clues import OPTIONS, PARTS, RACES, SYMPTOMS, Clue
from fuzzer.drafts.draft import Draft, Unread
from fuzzer.drafts.parts import compose
from fuzzer.drafts.sentences import Prose, Sentence, split_prose
from fuzzer.errors import InputError
from fuzzer.workload.validate import validate

_QUOTED = 100
"""Characters of a sentence that are quoted."""

_FEWEST = 2
"""Parts a text must name: with one there is nothing to race."""

_MOST = 8
"""Parts that take part; a long text names more, those it speaks of most are kept."""

_IN_TITLE = 10
"""How many sentences a word in the title counts for."""

_ID = re.compile(
    r"^\s*\[?\s*(?:upstream )?commit ([0-9a-f]{12,40})\b|/commit/([0-9a-f]{12,40})\b", re.IGNORECASE
)
"""How a message, or the page it is on, says which commit it is; others it names are not it."""

_HEAD = 200
"""Lines in which that is looked for."""

_SLUG = re.compile(r"[^a-z0-9]+")

Found = dict[str, Sentence]
"""What was found, with the first sentence that spoke for it."""


def read_prose(lines: Sequence[str], name: str, first: int = 1, commit: str = "") -> Draft:
    """A draft from a whole message; InputError if it names fewer than two parts of a race."""
    prose = split_prose(lines, first)
    parts, options, symptoms = (_find(prose, clues) for clues in (PARTS, OPTIONS, SYMPTOMS))
    if len(parts) < _FEWEST:
        told = f"only {', '.join(parts)}" if parts else "nothing"
        raise InputError(
            f"{told} is recognized here that could take part in a race",
            place=f"{name}:{first}",
            hint="a commit message names who races with whom: fsync, writeback, rename, reclaim, …",
        )
    parts, left_out = _most_told(prose, parts)
    fs = _file_system(prose)
    named = (_ID.search(line) for line in lines[:_HEAD])
    commit = commit or next((match[1] or match[2] for match in named if match), "")
    workload = compose(
        fs,
        tuple(parts),
        frozenset(options),
        title=_tidy(prose.title)[:120].rstrip() or f"draft from {name}",
        why="\n".join(_reasons(name, parts, options, symptoms)),
        source=f"Linux commit {commit[:12]}, {_tidy(prose.title)}"[:200].rstrip() if commit else name,
        expect=tuple(symptoms) or ("data",),
    )
    validate(workload)
    notes = (f"also named, but left out: {', '.join(left_out)}",) if left_out else ()
    return Draft(slug(prose.title) or "draft", workload, tuple(_unread(prose)), notes)


def tells_of_a_race(lines: Sequence[str]) -> bool:
    """True if the message has words of a race and names two who could take part."""
    prose = split_prose(lines)
    words = [prose.title, *(sentence.text for sentence in prose.sentences)]
    return any(RACES.search(text) for text in words) and len(_find(prose, PARTS)) >= _FEWEST


def slug(title: str) -> str:
    """A file name from a title: `fix-race-between-a-and-b`."""
    words = _SLUG.sub("-", title.lower().replace("btrfs: ", "").replace("xfs: ", "")).strip("-")
    return words[:60].rpartition("-")[0] if len(words) > 60 else words


def _find(prose: Prose, clues: Sequence[Clue]) -> Found:
    """What the title and the sentences speak for, in the order of the table."""
    found: Found = {}
    for clue in clues:
        for sentence in prose.sentences:
            if clue.pattern.search(sentence.text):
                found[clue.what] = sentence
                break
    return found


def _most_told(prose: Prose, parts: Found) -> tuple[Found, tuple[str, ...]]:
    """The parts the title and most sentences speak of, in the order of the table, and the others."""
    told = {
        clue.what: _IN_TITLE * bool(clue.pattern.search(prose.title))
        + sum(bool(clue.pattern.search(sentence.text)) for sentence in prose.sentences)
        for clue in PARTS
    }
    kept = sorted(parts, key=lambda what: -told[what])[:_MOST]
    return {what: parts[what] for what in parts if what in kept}, tuple(w for w in parts if w not in kept)


def _unread(prose: Prose) -> Iterator[Unread]:
    """Sentences nothing was recognized in."""
    clues = (*PARTS, *OPTIONS, *SYMPTOMS)
    for sentence in prose.sentences:
        if not any(clue.pattern.search(sentence.text) for clue in clues):
            yield Unread(sentence.line, sentence.text, "nothing recognized")


def _file_system(prose: Prose) -> str:
    """The one that is named more often; the title counts most. Neither: btrfs, most texts are about."""
    text = " ".join([prose.title] * 5 + [sentence.text for sentence in prose.sentences]).lower()
    return "xfs" if text.count("xfs") + text.count("iomap") > text.count("btrfs") else "btrfs"


def _reasons(name: str, *groups: Found) -> Iterator[str]:
    yield f"Drafted from {_tidy(name)}; what led to what:"
    for words, found in zip(("part", "option", "symptom"), groups, strict=True):
        for what, sentence in found.items():
            text = _tidy(sentence.text)
            text = text if len(text) <= _QUOTED else text[: _QUOTED - 1].rstrip() + "…"
            yield f'  {words} {what}: line {sentence.line}, "{text}"'


def _tidy(text: str) -> str:
    """What a header may hold: no control characters, single blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
