"""Prose in pieces: the sentences of a commit message or a mail, each with the line it begins on.

Quote marks of mails, headers and trailers are taken off; a diff is left out, and so are links. What is
indented is a time line or a list, where each line speaks for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TRAILER = re.compile(
    r"(signed-off|reviewed|tested|acked|reported|suggested|cc|fixes|link|closes|change-id|commit-queue|"
    r"co-developed|bug-id|message-id|date|to|from|sender|reply-to|in-reply-to|references|delivered-to|"
    r"received|return-path|mime-version|content-[a-z-]+|x-[a-z-]+|list-[a-z]+|user-agent|author|commit|"
    r"authordate|commitdate|commitdate|merge|index)\b[^ ]*:? ?.*",
    re.IGNORECASE,
)
_HEADER_ONLY = re.compile(r"[A-Za-z-]+(-by)?: .*|commit [0-9a-f]{7,40}.*|CC: .*")
_SUBJECT = re.compile(r"(?:subject|title):\s*(.*)", re.IGNORECASE)
_TAG = re.compile(r"^(\s*\[[^\]]*\]\s*|re:\s*|fwd?:\s*)+", re.IGNORECASE)
_DIFF = re.compile(r"diff --git .*|--- a/.*|\+\+\+ b/.*|@@ -\d+.*|Index: .*")
_FIELD = re.compile(r"(From [^ ]+@|[A-Z][A-Za-z-]+:\s)")
_FEWEST_FIELDS = 3
"""Header fields that make the first lines of a text the head of a mail."""

_STAT = re.compile(r" \S+ +\| +(\d+|Bin)\b| \d+ files? changed")
"""Lines of `git log --stat` and of patches in mails."""

_MAIL_END = re.compile(r"(-- ?|---)")
_QUOTE = re.compile(r"^(\s*>)+ ?")
_SENTENCE_END = re.compile(r"(?<=[.;!?])\s+(?=[A-Z0-9\"'(])")
_LINK = re.compile(r"\S*://\S+|\S+@\S+")
_WORD = re.compile(r"[A-Za-z]{2}")
_PREFIX = re.compile(r"(\[[^\]]*\] *)?(btrfs|xfs|iomap|vfs|mm)(: |/)", re.IGNORECASE)
_LONGEST = 120
"""Characters of a title."""

_INDENT = 3
"""Blanks that make a line a piece of its own; git log indents whole messages by four, which are taken off."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Some words and where they begin, counted from 1."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Prose:
    """A message: what it is called, and what it says."""

    title: str
    sentences: tuple[Sentence, ...]


def split_prose(lines: Sequence[str], first: int = 1) -> Prose:
    """The title and the sentences of a message; `first` is the number of its first line."""
    title, found = "", list[Sentence]()
    for paragraph in _paragraphs(_without_headers(lines), first):
        text = paragraph[0][1]
        subject = _SUBJECT.fullmatch(text.strip())
        if subject:
            paragraph = [(paragraph[0][0], _TAG.sub("", subject[1]).strip())]
            title = title or paragraph[0][1]
        elif (
            not title and len(paragraph) == 1 and not text.startswith(" " * _INDENT) and len(text) < _LONGEST
        ):
            title = _TAG.sub("", text).strip()
        found += _sentences(paragraph)
    # On a web page other things come before the message: its first line begins with who it concerns.
    prefixed = next((one.text for one in found if _PREFIX.match(one.text) and len(one.text) < _LONGEST), "")
    title = prefixed if prefixed and not _PREFIX.match(title) else title
    if not title and found:
        title = found[0].text
    return Prose(title[:150].rstrip(), tuple(found))


def _without_headers(lines: Sequence[str]) -> list[str]:
    """The lines of a mail with its head made empty but for the subject, folded lines put together."""
    head = []
    for line in lines:
        if not line.strip():
            break
        head.append(line)
    if sum(bool(_FIELD.match(line)) for line in head) < _FEWEST_FIELDS or not _FIELD.match(head[0]):
        return list(lines)
    kept, subject = [""] * len(head), -1
    for number, line in enumerate(head):
        if line[0] in " \t" and subject >= 0:
            kept[subject] += " " + line.strip()
        else:
            subject = number if _SUBJECT.fullmatch(line.strip()) else -1
            kept[number] = line.strip() if subject >= 0 else ""
    return [*kept, *lines[len(head) :]]


def _paragraphs(lines: Sequence[str], first: int) -> Iterator[list[tuple[int, str]]]:
    """Lines that belong together, numbered and without what is not prose."""
    paragraph: list[tuple[int, str]] = []
    indented = bool(lines) and all(not line.strip() or line.startswith("    ") for line in lines)
    for number, line in enumerate(lines, first):
        text = _QUOTE.sub("", line.rstrip().expandtabs())
        text = text[4:] if indented else text
        if _DIFF.fullmatch(text):
            break
        if not text.strip() or _MAIL_END.fullmatch(text):
            if paragraph:
                yield paragraph
            paragraph = []
        elif _SUBJECT.fullmatch(text.strip()):
            yield from [paragraph] if paragraph else []
            paragraph = []
            yield [(number, text)]
        elif _STAT.match(text):
            continue
        elif not (_HEADER_ONLY.fullmatch(text) and _TRAILER.fullmatch(text)):
            paragraph.append((number, text))
    if paragraph:
        yield paragraph


def _sentences(paragraph: list[tuple[int, str]]) -> Iterator[Sentence]:
    """Each indented line, and the sentences of the rest, which may go over the ends of lines."""
    running: list[tuple[int, str]] = []
    for number, text in paragraph:
        if text.startswith(" " * _INDENT):
            yield from _flowing(running)
            running = []
            yield from _clean(number, text)
        else:
            running.append((number, text))
    yield from _flowing(running)


def _flowing(lines: list[tuple[int, str]]) -> Iterator[Sentence]:
    starts: list[tuple[int, int]] = []
    whole = ""
    for number, text in lines:
        whole += " " if whole else ""
        starts.append((len(whole), number))
        whole += text.strip()
    at = 0
    for part in _SENTENCE_END.split(whole) if whole else ():
        begin = whole.index(part, at)
        at = begin + len(part)
        yield from _clean(max(number for start, number in starts if start <= begin), part)


def _clean(line: int, text: str) -> Iterator[Sentence]:
    """The sentence without links and runs of blanks, if words are left."""
    words = " ".join(_LINK.sub("", text).split())
    if _WORD.search(words):
        yield Sentence(line, words)
