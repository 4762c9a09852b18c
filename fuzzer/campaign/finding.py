"""Finding: a forbidden verdict with everything needed to see it again, as a directory of text files.

`findings/<id>/` holds finding.json (what and how often), repro.workload, crash.json, history.jsonl,
kmsg.txt, tree.json (what recovery showed) and writes.log.gz (the device log in dm-log-writes format, with
its times). A crash during recovery has recovery-1.log.gz, too, and so on: running recovery again need
not write the same. The database is only an index over these.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fuzzer.campaign.examiner import Forbidden
from fuzzer.campaign.execute import Execution
from fuzzer.errors import InputError
from fuzzer.state.history import History, format_history, parse_history
from fuzzer.state.tree import Tree
from fuzzer.state.treefile import format_tree, parse_tree
from fuzzer.state.view import View
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.text import parse as parse_workload
from fuzzer.writelog.crash import CrashState
from fuzzer.writelog.format import Log, read_log, times_path, write_log
from fuzzer.writelog.joined import RunLog, split_log, write_joined
from fuzzer.writelog.recipe import MAX_CUTS, format_recipe, parse_recipe
from oracles import Violation

FINDING_VERSION = 1

STATUSES = ("new", "known", "duplicate", "not-a-bug", "fixed")
"""What people say of a finding; `new`: nothing yet."""

_MAX_LOG_BYTES = 256 << 20
"""Larger logs are not kept with the finding; the workload can still be run again."""

MINIMIZED = "minimized"
"""Directory in a finding of the last run that showed it while it was minimized: a finding of its own."""

_TREE = "tree.json"
_RECOVERY_LOG = "recovery-{}.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The facts of one finding. `reproduced` is (k, n): seen k times in n runs of the workload.

    `canary` is the planted bug it came from ("" for real ones), `contract` what it was judged by;
    `violations` are the broken promises of the state, the first gives the title; `kernel` is the release
    that showed it; `facts` are those of `fuzzer/triage/facts.py` about the first violation, `known` is
    the id of the known bug they match.
    """

    id: str
    bucket: str
    fs: str
    oracle: str
    title: str
    status: str = "new"
    reproduced: tuple[int, int] = (1, 1)
    ops: int = 0
    canary: str = ""
    contract: str = "own"
    points: str = ""
    recorder: str = ""
    kernel: str = ""
    created: str = ""
    command: str = ""
    violations: tuple[Mapping[str, str | int], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    known: str = ""
    reason: str = ""
    """Why a person gave it its `status`, one of `STATUSES`."""

    @property
    def standing(self) -> str:
        return standing(self.status, self.known)

    def summary(self) -> dict[str, object]:
        """The stable shape of `triage list --json`."""
        keys = ("id", "bucket", "fs", "oracle", "title", "status", "ops", "known")
        return {key: getattr(self, key) for key in keys} | {"reproduced": list(self.reproduced)}


def standing(status: str, known: str) -> str:
    """What is shown of a finding: what a person said; before that `known 0001`, if it is of a known bug."""
    return f"known {known}" if status == "new" and known else status


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a finding came from: facts that are the same for a whole run."""

    points: str
    canary: str
    contract: str
    recorder: str
    kernel: str
    created: str
    command: str


def make_finding(execution: Execution, forbidden: Forbidden, origin: Origin) -> Finding:
    """Name a forbidden state. The id is a hash of workload, crash state and promise broken."""
    workload, first = execution.workload, forbidden.judgement.violations[0]
    state = format_recipe(forbidden.state) if forbidden.state else {}
    key = json.dumps([format_workload(workload), state, forbidden.bucket, origin.canary, first.found])
    bucket, known = forbidden.filed(workload.fs, origin.canary)
    return Finding(
        id=f"{workload.fs}-{first.rule}-{hashlib.sha256(key.encode()).hexdigest()[:8]}",
        bucket=bucket,
        fs=workload.fs,
        oracle=first.rule,
        title=first.sentence,
        ops=sum(1 for _ in workload.iter_ops()),
        violations=tuple(violation.to_json() for violation in forbidden.judgement.violations),
        facts=forbidden.facts,
        known=known,
        **asdict(origin),
    )


def save_finding(directory: Path, finding: Finding, execution: Execution, forbidden: Forbidden) -> Path:
    """Write the finding under `directory`, all of it or nothing, and return where it is.

    It is on disk (fsync of files and directory) before its name appears: what was announced is kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / finding.id
    if final.exists():
        return final
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=directory))
    state = forbidden.state
    lines = (*execution.live.kernel_log, *(forbidden.recovery.kernel_log if state else ()))
    _write(draft / "repro.workload", format_workload(execution.workload))
    recipe = format_recipe(state) if state else {"crash": 0, "view": forbidden.view}
    _write(draft / "crash.json", json.dumps(recipe) + "\n")
    _write(draft / "history.jsonl", "".join(f"{line}\n" for line in format_history(execution.history)))
    _write(draft / "kmsg.txt", "".join(f"{line}\n" for line in lines))
    if forbidden.recovery.tree is not None:
        write_tree(draft, forbidden.recovery.tree)
    if state:
        write_joined(draft / "writes.log", execution.log)
        _pack_log(draft / "writes.log")
        for number, log in enumerate(forbidden.recoveries, 1):
            path = draft / _RECOVERY_LOG.format(number)
            write_log(path, [(log, log.entries)])
            _pack_log(path)
    write_facts(draft, finding)
    draft.chmod(0o755)
    draft.rename(final)
    _sync_directory(directory)
    return final


def write_facts(directory: Path, finding: Finding) -> None:
    """Replace finding.json."""
    text = json.dumps({"finding": FINDING_VERSION, **asdict(finding)}, indent=1) + "\n"
    draft = directory / ".finding.json"
    _write(draft, text)
    draft.rename(directory / "finding.json")
    _sync_directory(directory)


def write_tree(directory: Path, tree: Tree) -> None:
    """Keep what recovery showed."""
    _write(directory / _TREE, format_tree(tree) + "\n")


def load_tree(directory: Path) -> Tree | None:
    """What recovery showed; None if it showed nothing, or was not kept."""
    path = directory / _TREE
    try:
        return parse_tree(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"not a recovered tree: {error}", place=str(path)) from error


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _pack_log(path: Path) -> None:
    """Compress a log and its times, or drop them if they are too large."""
    for part in (path, times_path(path)):
        if part.exists() and part.stat().st_size <= _MAX_LOG_BYTES:
            with part.open("rb") as plain, gzip.open(f"{part}.gz", "wb", compresslevel=3) as packed:
                shutil.copyfileobj(plain, packed)
        part.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Saved:
    """A finding read back. `state` is None for a finding of the live mount (no crash)."""

    finding: Finding
    workload: Workload
    state: CrashState | None
    history: History
    directory: Path
    view: View = View.CACHE
    """How the live mount was looked at, if there was no crash."""

    def kernel_lines(self) -> list[str]:
        """The kernel's lines during the run and the recovery."""
        return (self.directory / "kmsg.txt").read_text().splitlines()


def load_facts(directory: Path) -> Finding:
    """Read finding.json; InputError with the file's name if it is not one of ours."""
    path = directory / "finding.json"
    try:
        data = json.loads(path.read_text())
        version = data.pop("finding")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not a finding: {error!r}", place=str(path)) from error
    if version != FINDING_VERSION:
        raise InputError(
            f"finding version {version} is not {FINDING_VERSION}",
            place=str(path),
            hint="it was written by another version of powercut",
        )
    try:
        finding = Finding(**data)
        k, n = data["reproduced"]
        return replace(
            finding, reproduced=(k, n), violations=tuple(map(_parse_violation, data["violations"]))
        )
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"not a finding: {error}", place=str(path)) from error


def _parse_violation(data: Mapping[str, str | int]) -> Mapping[str, str | int]:
    """A violation with all its fields; TypeError if it has others, or they are of another type."""
    violation: Mapping[str, str | int] = Violation(**data).to_json()  # type: ignore[arg-type]
    empty = Violation(rule="", kind="", subject="", promised="", found="", source="").to_json()
    for name, value in violation.items():
        if type(value) is not type(empty[name]):
            raise TypeError(f"{name} of a violation is {value!r}")
    return violation


def load_finding(directory: Path) -> Saved:
    """Read a whole finding back. InputError names the file that is wrong."""
    finding = load_facts(directory)
    asked = directory / "repro.workload"
    try:
        text = asked.read_text()
        recipe = json.loads((directory / "crash.json").read_text())
        history = parse_history((directory / "history.jsonl").read_text().splitlines())
        view = View(recipe.get("view", View.CACHE))
    except (OSError, ValueError, KeyError, AssertionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"damaged finding: {what}", place=str(directory)) from error
    state = None if recipe.get("crash") == 0 else parse_recipe(recipe)
    return Saved(finding, parse_workload(text, str(asked)), state, history, directory, view)


def load_run_log(directory: Path, scratch: Path) -> RunLog | None:
    """Unpack and read the saved device log into the directory `scratch`; None if it was not kept."""
    log = _unpack_log(directory, "writes.log", scratch)
    return None if log is None else split_log(log)


def load_recoveries(directory: Path, scratch: Path) -> tuple[Log, ...]:
    """The logs of recoveries that a crash state goes through, the outermost first."""
    names = (_RECOVERY_LOG.format(number) for number in range(1, MAX_CUTS))
    logs = (_unpack_log(directory, name, scratch) for name in names)
    return tuple(log for log in logs if log is not None)


def _unpack_log(directory: Path, name: str, scratch: Path) -> Log | None:
    if not (directory / f"{name}.gz").exists():
        return None
    path = scratch / name
    for part in (path, times_path(path)):
        source = directory / f"{part.name}.gz"
        if source.exists():
            with gzip.open(source, "rb") as file, part.open("wb") as plain:
                shutil.copyfileobj(file, plain)
    log = read_log(path, mapped=False)
    for part in (path, times_path(path)):
        part.unlink(missing_ok=True)
    return log
