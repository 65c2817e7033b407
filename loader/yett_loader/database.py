"""A SQLite file that belongs to us: made when it is missing, replaced when it is of no use.

A transaction is in it whole or not at all, whatever kills us.  Who asks for it also waits for the disk with each,
so that not even a loss of power takes one back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from yett_loader.errors import SnapshotError, StoreError

LOG_MAX = 4 << 20
"""Bytes of changes that need not be in the file itself yet."""
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


class Database:
    """One file, and those that SQLite keeps beside it; for root only."""

    def __init__(self, path: Path, layout: int, tables: tuple[str, ...], *, durable: bool) -> None:
        self.path = path
        self._layout = layout
        """Number of these tables; a file with another one is of no use."""
        self._tables = tables
        self._durable = durable
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        """Of the file that is open."""

    def read(self, query: Callable[[sqlite3.Connection], None]) -> bool:
        """Whether there is a file; SnapshotError if it is damaged."""
        if not self.path.exists():
            return False
        try:
            with self._transaction("BEGIN") as connection:
                query(connection)
        except sqlite3.Error as error:
            raise SnapshotError(f"{self.path}: {error}") from None
        return True

    def write(
        self, change: Callable[[sqlite3.Connection], None], anew: Callable[[sqlite3.Connection], None]
    ) -> None:
        """One transaction that does `change`; `anew`, to an empty file, if what is there is of no use to anybody.

        StoreError if the file takes neither; then it is as it was.
        """
        try:
            try:
                self._check()
                with self._transaction() as connection:
                    change(connection)
            except (SnapshotError, sqlite3.Error) as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OUTSIDE:
                    raise
                self._remove()
                with self._transaction() as connection:
                    anew(connection)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot keep state in {self.path}: {error}") from error

    def tidy(self) -> None:
        """Bring what was written into the file itself, if that is much; in any thread: no transaction waits for more
        than what others wrote meanwhile.
        """
        log = self.path.with_name(f"{self.path.name}-wal")
        with suppress(sqlite3.Error, OSError):  # else the next time
            if self._connection is not None and log.stat().st_size > LOG_MAX:
                there = f"{self.path.absolute().as_uri()}?mode=rw"  # which makes no file
                with closing(sqlite3.connect(there, timeout=0, isolation_level=None, uri=True)) as connection:
                    for mode in ("PASSIVE", "TRUNCATE"):
                        connection.execute(f"PRAGMA wal_checkpoint({mode})")

    def close(self) -> None:
        """Give up the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        connection = self._open()
        connection.execute(begin)
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, timeout=_WAITS, isolation_level=None)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._inode = self.path.stat().st_ino
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        synchronous = "FULL" if self._durable else "OFF"
        for setting in (
            "journal_mode = WAL",
            "wal_autocheckpoint = 0",  # see `tidy`
            f"synchronous = {synchronous}",
            "trusted_schema = OFF",
        ):
            connection.execute(f"PRAGMA {setting}")
        (layout,) = connection.execute("PRAGMA user_version").fetchone()
        if layout == 0:
            connection.execute("BEGIN IMMEDIATE")
            for statement in (*self._tables, f"PRAGMA user_version = {self._layout}"):
                connection.execute(statement)
            connection.execute("COMMIT")
        elif layout != self._layout:
            raise SnapshotError(f"{self.path}: layout {layout} is not the {self._layout} of this loader")

    def _check(self) -> None:
        """SnapshotError if what we have open is not what is in the directory any more."""
        if self._connection is None:
            return
        try:
            there = self.path.stat().st_ino
        except FileNotFoundError:
            there = 0
        if there != self._inode:
            raise SnapshotError(f"{self.path}: somebody has removed it")

    def _remove(self) -> None:
        self.close()
        for end in ("-wal", "-shm", ""):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
