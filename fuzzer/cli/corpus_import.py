"""`powercut corpus import`: drafts of workloads from commit messages, mails, J-lang files and op logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from fuzzer.cli.options import json_option
from fuzzer.drafts.draft import Draft, Unread
from fuzzer.drafts.read import MAX_TEXT_BYTES, read_drafts
from fuzzer.errors import ExitCode, InputError
from fuzzer.workload.text import format as format_workload


@click.command("import")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@click.option(
    "--output",
    default="",
    help="Where to: a file, or a directory (DIR/) for any number. Otherwise standard output.",
)
@json_option
def import_command(files: tuple[Path, ...], output: str, as_json: bool) -> ExitCode:
    """Draft workloads from commit messages, mails, `git log`, CrashMonkey's J-lang or fsx op logs.

    A draft runs at once; its `why` says which words led to what. What was not understood is told with its
    line. Exit status 2 if a file gives no draft.

    Example: git log v6.1..v6.2 fs/btrfs > log; powercut corpus import log --output drafts/
    """
    found: list[tuple[Path, Draft]] = []
    failed = False
    for path in files:
        try:
            drafts, others = _read(path)
        except InputError as error:
            failed = True
            click.echo(f"{error}" + (f" ({error.hint})" if error.hint else ""), err=True)
            continue
        found += [(path, draft) for draft in drafts]
        _tell(path, others)
    is_directory = output.endswith("/") or Path(output).is_dir()
    if len(found) > 1 and not (output and is_directory):
        raise InputError(f"{len(found)} drafts need a directory", hint="--output DIRECTORY/")
    for path, draft in _named_apart(found):
        _give(path, draft, _target(draft, Path(output), is_directory) if output else None, as_json)
    return ExitCode.BAD_INPUT if failed else ExitCode.NOTHING_FOUND


def _read(path: Path) -> tuple[tuple[Draft, ...], tuple[Unread, ...]]:
    with path.open("rb") as file:
        return read_drafts(file.read(MAX_TEXT_BYTES + 1), str(path))


def _tell(path: Path, unread: tuple[Unread, ...]) -> None:
    for one in unread:
        click.echo(f"{path}:{one.line}: {one.reason}: {one.text[:100]}", err=True)


def _named_apart(found: list[tuple[Path, Draft]]) -> Iterator[tuple[Path, Draft]]:
    """The drafts, with names that differ: they become names of files."""
    seen: Counter[str] = Counter()
    for path, draft in found:
        seen[draft.name] += 1
        number = seen[draft.name]
        yield path, replace(draft, name=f"{draft.name}-{number}") if number > 1 else draft


def _target(draft: Draft, output: Path, is_directory: bool) -> Path:
    """The file a draft goes to."""
    if not is_directory:
        return output
    output.mkdir(parents=True, exist_ok=True)
    return output / f"{draft.name}.workload"


def _give(path: Path, draft: Draft, target: Path | None, as_json: bool) -> None:
    _tell(path, draft.unread)
    for note in draft.notes:
        click.echo(f"{path}: {note}", err=True)
    text = format_workload(draft.workload)
    if target is not None:
        target.write_text(text)
        click.echo(f"{path}: {target} (powercut run {target})", err=True)
    if as_json:
        click.echo(json.dumps(_facts(path, draft, target)))
    elif target is None:
        click.echo(text, nl=False)


def _facts(path: Path, draft: Draft, target: Path | None) -> dict[str, object]:
    workload = draft.workload
    return {
        "file": str(path),
        "output": str(target) if target else "",
        "title": workload.title,
        "fs": workload.fs,
        "actors": [actor.name for actor in workload.actors],
        "expect": list(workload.expect),
        "unread": [{"line": one.line, "text": one.text, "reason": one.reason} for one in draft.unread],
        "notes": list(draft.notes),
    }
