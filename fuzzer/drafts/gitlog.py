"""The output of `git log`: its commits, those that tell of a race drafted one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fuzzer.drafts.draft import Draft, Unread
from fuzzer.drafts.prose import read_prose, tells_of_a_race
from fuzzer.errors import InputError

_COMMIT = re.compile(r"commit ([0-9a-f]{40})(?: \(.*\))?")


def is_gitlog(lines: Sequence[str]) -> bool:
    """True if this is what `git log` or `git show` prints."""
    first = next((line for line in lines if line.strip()), "")
    return bool(_COMMIT.fullmatch(first))


def read_gitlog(lines: Sequence[str], name: str) -> tuple[tuple[Draft, ...], tuple[Unread, ...]]:
    """A draft for each commit with a recognized race, and the other commits; one alone is taken at its
    word, like any message."""
    drafts: list[Draft] = []
    others: list[Unread] = []
    commits = list(_commits(lines))
    if len(commits) == 1:
        first, commit, message = commits[0]
        return (read_prose(message, name, first + 1, commit),), ()
    for first, commit, message in commits:
        title = next((line.strip() for line in message if line.startswith("    ")), "")
        if not tells_of_a_race(message):
            others.append(Unread(first, f"{commit[:12]} {title}", "no race recognized"))
            continue
        try:
            drafts.append(read_prose(message, name, first + 1, commit))
        except InputError as error:
            others.append(Unread(first, f"{commit[:12]} {title}", str(error)))
    return tuple(drafts), tuple(others)


def _commits(lines: Sequence[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Number of the first line, id, and the lines after it, of each commit."""
    starts = [(number, match[1]) for number, line in enumerate(lines) if (match := _COMMIT.fullmatch(line))]
    ends = [number for number, _ in starts[1:]] + [len(lines)]
    for (start, commit), end in zip(starts, ends, strict=True):
        # Only the message is indented; the headers and, with -p or --stat, the diff are not.
        body = [line if line.startswith("    ") else "" for line in lines[start + 1 : end]]
        yield start + 1, commit, body
