"""The campaign's database: an index over findings and sessions that can be rebuilt from files.

One SQLite file in WAL mode. Readers never wait for the campaign; writers take the write lock at once
(BEGIN IMMEDIATE): a deferred one that reads first fails with SQLITE_BUSY whatever the timeout is.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from fuzzer.campaign.coverage import GROUPS
from fuzzer.campaign.finding import Finding, load_facts
from fuzzer.errors import InputError

SCHEMA_VERSION = 2
"""Stored as the database's user_version."""

_TIMEOUT_S = 30.0
_COUNTERS = ("workloads", "crash_states", "unique_states", "judged", "no_promise")
_COUNTER_GROUPS = ("judged_by_rule", "no_promise_reasons", "ops", *GROUPS)


SORTS = {
    "age": "created",
    "bucket": "bucket",
    "status": "status",
    "rate": "-CAST(json_extract(reproduced, '$[0]') AS REAL) / MAX(1, json_extract(reproduced, '$[1]'))",
    "ops": "ops",
}
"""Orders findings can be listed in, as SQL."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which findings to list; empty: all. `status` is what is shown of them (`finding.standing`), so what is
    of a known bug is not `new`; `bucket` is a part of its name; `known`: those of known bugs, or (False)
    only those nobody has an explanation for."""

    status: str = ""
    fs: str = ""
    bucket: str = ""
    known: bool | None = None

    def sql(self) -> tuple[str, list[str]]:
        """A condition and its values."""
        told = "(known != '' OR status != 'new')"
        shown = "CASE WHEN status = 'new' AND known != '' THEN 'known' ELSE status END"
        parts = [(f"{shown} = ?", self.status), ("fs = ?", self.fs), ("instr(bucket, ?) > 0", self.bucket)]
        terms = [term for term, value in parts if value]
        terms += [] if self.known is None else [told if self.known else f"NOT {told}"]
        return " AND ".join(terms) or "1", [value for _, value in parts if value]


EVERY = Filter()


@dataclass(frozen=True, slots=True)
class Index:
    """An open index of the campaign in `directory`."""

    directory: Path
    _db: Database

    @property
    def findings_directory(self) -> Path:
        return self.directory / "findings"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def put_finding(self, finding: Finding) -> None:
        """Insert or replace one finding's row."""
        row = finding.summary() | {
            "reproduced": json.dumps(finding.reproduced),
            "canary": finding.canary,
            "created": finding.created,
        }
        with self._writing():
            self._db.execute(
                "INSERT OR REPLACE INTO findings VALUES "
                "(:id, :bucket, :fs, :oracle, :title, :status, :reproduced, :ops, :known, :canary, :created)",
                row,
            )

    def count_hit(self, bucket: str) -> int:
        """Count one more sighting of a bucket; returns how many there are now."""
        with self._writing():
            self._db.execute(
                "INSERT INTO buckets VALUES (?, 1) ON CONFLICT (bucket) DO UPDATE SET hits = hits + 1",
                [bucket],
            )
            row = self._db.execute("SELECT hits FROM buckets WHERE bucket = ?", [bucket]).fetchone()
        return int(row[0])

    def list_findings(self, chosen: Filter = EVERY, sort: str = "age") -> list[dict[str, Any]]:
        """Summaries of findings in the shape of `triage list --json`, sorted by one of `SORTS`."""
        where, values = chosen.sql()
        query = (
            "SELECT id, bucket, fs, oracle, title, status, reproduced, ops, known FROM findings"
            f" WHERE {where} ORDER BY {SORTS[sort]}, created, id"
        )
        rows = self._db.query(query, values)
        return [row | {"reproduced": json.loads(row["reproduced"])} for row in rows]

    def buckets(self) -> list[dict[str, Any]]:
        """Per bucket: `bucket`, `hits`, `findings` kept, `known`, `first` and `last` created."""
        return list(
            self._db.query(
                "SELECT bucket, COALESCE(buckets.hits, COUNT(*)) AS hits, COUNT(*) AS findings,"
                " MAX(known) AS known, MIN(created) AS first, MAX(created) AS last"
                " FROM findings LEFT JOIN buckets USING (bucket) GROUP BY bucket ORDER BY hits DESC, bucket"
            )
        )

    def created(self) -> list[tuple[str, str]]:
        """When each finding was made (ISO 8601), and the known bug it is of; in order."""
        query = "SELECT created, known FROM findings WHERE created != '' ORDER BY created"
        return [(str(created), str(known)) for created, known in self._db.execute(query)]

    def find(self, prefix: str) -> Path:
        """Directory of the finding whose id starts with `prefix`; InputError if none or several do."""
        rows = self._db.execute(
            "SELECT id FROM findings WHERE substr(id, 1, ?) = ? ORDER BY id LIMIT 3", [len(prefix), prefix]
        ).fetchall()
        exact = [row for row in rows if row[0] == prefix]
        if len(exact or rows) != 1:
            what = "several findings begin" if rows else "no finding begins"
            raise InputError(f"{what} with {prefix!r}", hint="see `powercut triage list`")
        return self.findings_directory / str((exact or rows)[0][0])

    def add_counts(self, counts: Mapping[str, Any]) -> None:
        """Add to the campaign's totals; those of a group are called `group/member`, `busy_ms` is how long
        workers took."""
        rows = {name: int(counts.get(name, 0)) for name in _COUNTERS}
        for group in _COUNTER_GROUPS:
            rows |= {f"{group}/{name}": int(count) for name, count in counts.get(group, {}).items()}
        rows["busy_ms"] = round(1000 * float(counts.get("seconds", 0)))
        with self._writing():
            for name, count in rows.items():
                self._db.execute(
                    "INSERT INTO totals VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
                    [name, count, count],
                )

    def totals(self) -> dict[str, int]:
        """Counts over all sessions of the campaign."""
        return {str(name): int(value) for name, value in self._db.execute("SELECT name, value FROM totals")}

    def members(self, group: str) -> dict[str, int]:
        """The totals of one group, by member."""
        prefix = f"{group}/"
        return {k.removeprefix(prefix): n for k, n in self.totals().items() if k.startswith(prefix)}

    def setting(self, name: str, default: str) -> str:
        """A value kept for the life of the campaign: the first `default` given for it stays."""
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", [name, default])
            row = self._db.execute("SELECT value FROM settings WHERE name = ?", [name]).fetchone()
        return str(row[0])

    def change_setting(self, name: str, value: str) -> None:
        """Replace a kept value."""
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", [name, value])

    def adopt_files(self) -> None:
        """Enter findings that are on disk and not in the index (killed in between, or a lost database)."""
        known = {row[0] for row in self._db.execute("SELECT id FROM findings")}
        for facts in sorted(self.findings_directory.glob("[!.]*/finding.json")):
            if facts.parent.name not in known:
                self.put_finding(load_facts(facts.parent))


@contextmanager
def open_index(directory: Path, *, create: bool = False) -> Iterator[Index]:
    """Open the campaign in `directory`; with `create`, start one if there is none.

    InputError if there is no campaign, the file is no database, or a newer version wrote it.
    """
    path = directory / "campaign.db"
    if create:
        directory.mkdir(parents=True, exist_ok=True)
    elif not path.exists() and not (directory / "findings").is_dir():
        raise InputError(f"no campaign in {directory}", hint="start one with `powercut fuzz`, or give --dir")
    connection = sqlite3.connect(path, timeout=_TIMEOUT_S, isolation_level=None)
    try:
        _prepare(connection, path)
        index = Index(directory, Database(connection))
        index.adopt_files()
        yield index
    finally:
        connection.close()


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise InputError(
                f"campaign database version {version} is newer than {SCHEMA_VERSION}",
                place=str(path),
                hint="use the powercut that made it, or another --dir; nothing was changed",
            )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        if version < SCHEMA_VERSION:
            _create(connection)
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"not a campaign database: {error}",
            place=str(path),
            hint="move it away: it is rebuilt from the findings directory",
        ) from error


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables; BEGIN IMMEDIATE so that two first starts do not clash."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in (
            # An older version's table lacks columns; its rows are read from the files again.
            "DROP TABLE IF EXISTS findings",
            "CREATE TABLE findings (id TEXT PRIMARY KEY, bucket TEXT, fs TEXT, oracle TEXT,"
            " title TEXT, status TEXT, reproduced TEXT, ops INTEGER, known TEXT, canary TEXT, created TEXT)",
            "CREATE INDEX findings_by_age ON findings (created, id)",
            "CREATE TABLE IF NOT EXISTS buckets (bucket TEXT PRIMARY KEY, hits INTEGER)",
            "CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, value INTEGER)",
            "CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT)",
        ):
            connection.execute(statement)
        connection.executemany("INSERT OR IGNORE INTO totals VALUES (?, 0)", [(name,) for name in _COUNTERS])
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
