"""The last good snapshot on disk, in a SQLite file: a change costs what changed, and is there whole or not at all.

What was saved survives a SIGKILL at any moment, and a loss of power: each transaction waits for the disk.  What is
read is hostile input like any other, and its digest is computed again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yett_loader.errors import SnapshotError, StoreError
from yett_loader.parts import Change, Part, Total, change, joined
from yett_loader.snapshot import Wanted
from yett_policy.document import SCHEMA

LAYOUT = 1
"""Of the tables; a file of another one is not read, and replaced."""
_PARTS = """
CREATE TABLE part (
    kind TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (kind, key)
)"""
_WHOLE = "CREATE TABLE whole (schema INTEGER NOT NULL, digest TEXT NOT NULL)"
_WAITS = 5.0
"""Seconds for somebody who reads the file."""
_OUTSIDE = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    )
)
"""Errors that say nothing of what is in the file."""


class LastGood:
    """One file, and those that SQLite keeps beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._kept: Wanted | None = None
        """What is in the file; None: nothing is known of it."""
        self._digest = ""

    def load(self) -> Wanted | None:
        """None if nothing was saved; SnapshotError if the file is damaged."""
        if not self._path.exists():
            return None
        name = str(self._path)
        try:
            with self._transaction("BEGIN") as database:
                rows = database.execute("SELECT kind, key, body, digest FROM part").fetchall()
                whole = database.execute("SELECT schema, digest FROM whole").fetchone()
        except sqlite3.Error as error:
            raise SnapshotError(f"{name}: {error}") from None
        if whole is None:
            return None
        total = Total()
        for kind, key, body, digest in rows:
            if not (isinstance(kind, str) and isinstance(key, str) and isinstance(body, bytes)):
                raise SnapshotError(f"{name}: a row is of another type than what is saved")
            if Part(kind, key, body).digest != digest:
                raise SnapshotError(f"{name}: {kind[:20]} {key[:200]} is not what was saved")
            total.add(digest)
        if not isinstance(whole[0], int) or str(total) != whole[1]:
            raise SnapshotError(f"{name}: it is not all that was saved")
        self._kept = joined(((kind, body) for kind, _, body, _ in rows), whole[0], name)
        self._digest = str(total)
        return self._kept

    def save(self, wanted: Wanted) -> str:
        """Put it in the place of what was; its digest.  StoreError if that fails: then what was stays."""
        if wanted == self._kept:
            return self._digest
        try:
            try:
                self._save(wanted)
            except (SnapshotError, sqlite3.Error) as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OUTSIDE:
                    raise
                self._remove()  # what is there is of no use to anybody
                self._save(wanted)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot keep the snapshot in {self._path}: {error}") from error
        return self._digest

    def close(self) -> None:
        """Give up the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _save(self, wanted: Wanted) -> None:
        made, total = change(self._kept, wanted), Total(self._digest or "0")
        with self._transaction() as database:
            if self._kept is None:
                database.execute("DELETE FROM part")
                total = Total()
            _write(database, made, total)
            database.execute("DELETE FROM whole")
            database.execute("INSERT INTO whole VALUES (?, ?)", (SCHEMA, str(total)))
        self._kept, self._digest = wanted, str(total)

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        database = self._open()
        database.execute(begin)
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(self._path, timeout=_WAITS, isolation_level=None)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        self._connection = database
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        for setting in ("journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF"):
            database.execute(f"PRAGMA {setting}")
        (layout,) = database.execute("PRAGMA user_version").fetchone()
        if layout == 0:
            database.execute("BEGIN IMMEDIATE")
            for statement in (_PARTS, _WHOLE, f"PRAGMA user_version = {LAYOUT}"):
                database.execute(statement)
            database.execute("COMMIT")
        elif layout != LAYOUT:
            raise SnapshotError(f"{self._path}: layout {layout} is not the {LAYOUT} of this loader")

    def _remove(self) -> None:
        self.close()
        self._kept, self._digest = None, ""
        for end in ("-wal", "-shm", ""):
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)


def _write(database: sqlite3.Connection, made: Change, total: Total) -> None:
    for kind, key in made.gone:
        statement = "DELETE FROM part WHERE kind = ? AND key = ? RETURNING digest"
        for (digest,) in database.execute(statement, (kind, key)).fetchall():
            total.take(digest)
    for part in made.come:
        database.execute("INSERT INTO part VALUES (?, ?, ?, ?)", (*part, part.digest))
        total.add(part.digest)
