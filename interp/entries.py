"""Entries `(kind, key) -> value` in one SQLite file that several processes write, and that merges with its copies.

A value is plain JSON with the time of its last edit; a deletion is stored as `None`. Each write is one transaction, on
the disk when the method returns (write-ahead log, `synchronous=FULL`): a killed process loses nothing that it
acknowledged. A value that is replaced or deleted, or is the older one in a merge, moves to the table `earlier`. The
caller defines the kinds and the checks of their values (`interp.notes`). Torch-free.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import MaxLen

from interp.artifacts import disk_errors
from interp.errors import ConfigError, CorruptError, ResourceError, SchemaError, UnknownNameError, UsageError
from interp.forms import Passes, from_json, matches

FORMAT, VERSION = "workbench-notes", 1
MAX_ENTRIES = 100_000
WAIT = 20.0
"""Seconds to wait for another process that writes."""
_APPLICATION = 0x77624E54
_TABLES = (
    "create table if not exists entries (kind text, key text, value text, edited text, primary key (kind, key))",
    "create table if not exists earlier (id integer primary key, kind text, key text, value text, edited text, "
    "reason text, unique (kind, key, value))",
)
_TIME = matches(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "a time such as 2026-01-31T12:00:00.000000Z")

Check = Callable[[str, object], object]
"""`check(key, value)` returns the value as it is stored, None for None. Raises `ConfigError`."""


class EditedValue(NamedTuple):
    """A value of a kind under a key, with the time of its last edit."""

    kind: str
    key: str
    value: Any
    """JSON, which the check of the kind has checked; None for a deletion"""
    edited: str


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A value that was replaced or deleted, and can be restored."""

    id: int
    kind: str
    key: str
    value: Any
    edited: str
    reason: str
    """`edit`, `order`, `delete`, `restore` or `import`."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Outcome of an import, in numbers of entries."""

    added: int = 0
    replaced: int = 0
    """Entries here that were older; the earlier values are retained."""
    older: int = 0
    """Imported entries that were older than those here; retained among the earlier values."""
    same: int = 0


def _readable(version: int) -> int:
    if version > VERSION:
        raise ConfigError(f"is above {VERSION}, the last one that this workbench reads; upgrade it")
    return version


@dataclass(frozen=True, kw_only=True)
class _StoredEntry:
    kind: str
    key: str
    edited: Annotated[str, _TIME]
    value: object = None
    reason: Annotated[str, MaxLen(20)] = "import"


@dataclass(frozen=True, kw_only=True)
class _Export:
    format: Literal["workbench-notes"]
    version: Annotated[int, Passes(_readable)]
    exported: str = ""
    entries: Annotated[tuple[_StoredEntry, ...], MaxLen(MAX_ENTRIES)] = ()
    earlier: Annotated[tuple[_StoredEntry, ...], MaxLen(MAX_ENTRIES)] = ()


class Entries:
    """The entries of one file. One connection, guarded by a lock, may be shared by threads.

    `checks` has the check of every kind. `united` are the kinds whose values are lists, which a merge unites. Of the
    kinds `unretained`, only a deletion, a restoration or a merge retains the earlier value.
    """

    def __init__(
        self,
        path: Path,
        checks: Mapping[str, Check],
        *,
        united: frozenset[str] = frozenset(),
        unretained: frozenset[str] = frozenset(),
    ):
        self.path, self._checks, self._united, self._unretained = path, checks, united, unretained
        self._lock = threading.RLock()
        self._file: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        with self.transaction():
            pass

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = self._file = None

    def checked(self, kind: str, key: str, value: object) -> Any:
        """Return a value as it is stored. Raises `ConfigError`, `UnknownNameError` for an unknown kind."""
        if kind not in self._checks:
            raise UnknownNameError("kind of note", kind[:80], self._checks)
        return self._checks[kind](key, value)

    def value(self, kind: str, key: str) -> Any:
        """Return a value; None when there is none."""
        with self.transaction() as db:
            row = db.execute("select value from entries where kind = ? and key = ?", (kind, key)).fetchone()
        return json.loads(row[0]) if row and row[0] is not None else None

    def all(self) -> list[EditedValue]:
        """Return every entry that is not deleted."""
        with self.transaction() as db:
            rows = db.execute("select * from entries where value is not null order by kind, key").fetchall()
        return [EditedValue(kind, key, json.loads(value), edited) for kind, key, value, edited in rows]

    def put(self, kind: str, key: str, value: object, *, reason: str = "edit") -> None:
        """Write a checked value (None deletes); the previous one moves to the earlier values."""
        with self.transaction() as db:
            row = db.execute("select value, edited from entries where kind = ? and key = ?", (kind, key)).fetchone()
            before = json.loads(row[0]) if row and row[0] is not None else None
            if before == value:
                return
            if kind not in self._unretained or reason != "edit":
                _retain(db, kind, key, before, row[1] if row else "", reason)
            _write(db, kind, key, value, max(_now(), row[1] if row else ""))

    def earlier(self, kind: str | None = None, key: str | None = None) -> list[Earlier]:
        """Return the values that were replaced or deleted, the last one first, of one thing or of all."""
        sql = (
            "select id, kind, key, value, edited, reason from earlier "
            "where kind = coalesce(?, kind) and key = coalesce(?, key) order by id desc"
        )
        with self.transaction() as db:
            rows = db.execute(sql, (kind, key)).fetchall()
        return [
            Earlier(id=id, kind=kind, key=key, value=json.loads(value), edited=edited, reason=reason)
            for id, kind, key, value, edited, reason in rows
        ]

    def restore(self, id: int) -> None:
        """Put an earlier value back; the present one goes to the earlier values. Raises `UnknownNameError`."""
        with self.transaction() as db:
            row = db.execute("select kind, key, value from earlier where id = ?", (id,)).fetchone()
            if row is None:
                raise UnknownNameError("earlier value", str(id), [])
            self.put(row[0], row[1], json.loads(row[2]), reason="restore")
            db.execute("delete from earlier where id = ?", (id,))

    def export(self) -> dict[str, object]:
        """Return everything as plain JSON values (docs/formats.md)."""
        with self.transaction() as db:
            entries = db.execute("select kind, key, value, edited from entries order by kind, key").fetchall()
            earlier = db.execute("select kind, key, value, edited, reason from earlier order by id").fetchall()
        return {
            "format": FORMAT,
            "version": VERSION,
            "exported": _now(),
            "entries": [_as_entry(row) for row in entries],
            "earlier": [_as_entry(row[:4]) | {"reason": row[4]} for row in earlier],
        }

    def merge(self, document: object) -> Merged:
        """Merge an export in one transaction: of two values of an entry, the one edited last stays.

        The other one is retained among the earlier values. Lists are united, the one edited last in front. Raises
        `ConfigError`, which names the first malformed entry, before anything is changed.
        """
        entries, earlier = self._checked_export(document)
        counts: Counter[str] = Counter()
        with self.transaction() as db:
            for entry in entries:
                counts[self._merge_one(db, entry)] += 1
            for entry, reason in earlier:
                _retain(db, entry.kind, entry.key, entry.value, entry.edited, reason, known="ignore")
        return Merged(added=counts["added"], replaced=counts["replaced"], older=counts["older"], same=counts["same"])

    def _merge_one(self, db: sqlite3.Connection, entry: EditedValue) -> str:
        kind, key, value, edited = entry
        row = db.execute("select value, edited from entries where kind = ? and key = ?", (kind, key)).fetchone()
        if row is None:
            _write(db, kind, key, value, edited)
            return "added"
        ours = None if row[0] is None else json.loads(row[0])
        if ours == value:
            _write(db, kind, key, value, max(edited, row[1]))
            return "same"
        newer = (edited, _dump(value)) > (row[1], _dump(ours))
        if kind in self._united and ours and value:
            first, second = (value, ours) if newer else (ours, value)
            united = list(dict.fromkeys([*first, *second]))
            _retain(db, kind, key, ours if newer else value, row[1] if newer else edited, "import")
            _write(db, kind, key, united, max(edited, row[1]))
        elif newer:
            _retain(db, kind, key, ours, row[1], "import")
            _write(db, kind, key, value, edited)
        else:
            _retain(db, kind, key, value, edited, "import")
        return "replaced" if newer else "older"

    def _checked_export(self, document: object) -> tuple[list[EditedValue], list[tuple[EditedValue, str]]]:
        """Return the entries and earlier values of an export. Raises `ConfigError` at the first malformed one."""
        export = from_json(_Export, document, "the export of notes", "asked")
        entries = [self._checked_entry(f"entries.{at}", row) for at, row in enumerate(export.entries)]
        earlier = [(self._checked_entry(f"earlier.{at}", row), row.reason) for at, row in enumerate(export.earlier)]
        return entries, earlier

    def _checked_entry(self, where: str, entry: _StoredEntry) -> EditedValue:
        try:
            checked = self.checked(entry.kind, entry.key, entry.value)
        except UsageError as error:
            raise ConfigError(f"{where}: {error}") from None
        return EditedValue(
            entry.kind, entry.key, checked, min(entry.edited, _now())
        )  # a clock that runs ahead must not win

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the lock for one transaction; one within another is part of it."""
        with self._lock, _database_errors(self.path):
            if self._connection is not None and self._connection.in_transaction:
                yield self._connection
                return
            db = self._open()
            db.execute("begin immediate")
            try:
                yield db
            except BaseException:
                db.rollback()
                raise
            db.commit()

    def _open(self) -> sqlite3.Connection:
        """Return the connection; a file that was moved away or replaced meanwhile is opened anew."""
        try:
            stat = self.path.stat()
            file = (stat.st_dev, stat.st_ino)
        except FileNotFoundError:
            file = None
        if self._connection is None or file is None or file != self._file:
            self.close()
            self._connection = _connect(self.path)
            stat = self.path.stat()
            self._file = (stat.st_dev, stat.st_ino)
        return self._connection


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        version = db.execute("pragma user_version").fetchone()[0]
        application = db.execute("pragma application_id").fetchone()[0]
        if version > VERSION:
            raise SchemaError(
                f"{path} was written by a newer version ({version}, not {VERSION}); upgrade the workbench"
            )
        if application not in (0, _APPLICATION) or (application == 0 and _has_tables(db)):
            raise CorruptError(f"{path} is a database of something else; move it away, and notes start anew")
        damage = db.execute("pragma quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        _keep_log(db)
        db.execute("pragma synchronous = full")
        if application == 0:
            db.execute("begin immediate")
            for table in _TABLES:
                db.execute(table)
            db.execute(f"pragma application_id = {_APPLICATION}")
            db.execute(f"pragma user_version = {VERSION}")
            db.commit()
    except BaseException:
        db.close()
        raise
    return db


def _keep_log(db: sqlite3.Connection) -> None:
    """Turn the write-ahead log on. SQLite does not wait for another process that does the same, so this does."""
    end = time.monotonic() + WAIT
    while db.execute("pragma journal_mode").fetchone()[0] != "wal":
        try:
            db.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def copy_entries(path: Path, target: Path) -> None:
    """Copy a file of entries that cannot be written to, with its write-ahead log; the copy appears whole or not at all.

    Raises `CorruptError` for a damaged file, `ResourceError` when the copy cannot be written.
    """
    with _database_errors(path), tempfile.TemporaryDirectory(dir=target.parent) as folder:
        copy = Path(folder) / target.name
        for suffix in ("-wal", ""):
            if Path(f"{path}{suffix}").is_file():
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db:
            db.execute("pragma wal_checkpoint(truncate)")
            damage = db.execute("pragma quick_check(1)").fetchone()[0]
            if damage != "ok":  # the other user wrote during the copy, for example
                raise sqlite3.DatabaseError(damage)
        os.replace(copy, target)


def _has_tables(db: sqlite3.Connection) -> bool:
    """Return True for a database that is not ours; one that another process is just making has our tables."""
    names = {row[0] for row in db.execute("select name from sqlite_master where type = 'table'")}
    return bool(names - {"entries", "earlier"})


@contextlib.contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    """Turn errors of the database into one line with the next move."""
    try:
        with disk_errors(path):
            yield
    except sqlite3.OperationalError as error:
        raise ResourceError(f"the notes in {path} cannot be read or written now: {error}; try again") from error
    except (sqlite3.DatabaseError, ValueError) as error:  # ValueError: an entry that is no JSON
        raise CorruptError(
            f"the notes in {path} are damaged ({error}); move the file away and import an export, or start anew"
        ) from error


def _write(db: sqlite3.Connection, kind: str, key: str, value: object, edited: str) -> None:
    text = None if value is None else _dump(value)
    db.execute("insert or replace into entries values (?, ?, ?, ?)", (kind, key, text, edited))


def _retain(
    db: sqlite3.Connection, kind: str, key: str, value: object, edited: str, reason: str, *, known: str = "replace"
) -> None:
    """Add an earlier value as the last one; `known` says what becomes of an equal one: `replace` or `ignore`."""
    if value is not None:
        sql = f"insert or {known} into earlier (kind, key, value, edited, reason) values (?, ?, ?, ?, ?)"
        db.execute(sql, (kind, key, _dump(value), edited, reason))


def _as_entry(row: tuple[str, str, str | None, str]) -> dict[str, object]:
    kind, key, value, edited = row
    return {"kind": kind, "key": key, "value": None if value is None else json.loads(value), "edited": edited}


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
