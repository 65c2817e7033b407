"""The last good snapshot on disk: a change costs what changed, and what was saved survives any end.

What is read is hostile input like any other, and its digest is computed again.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from yett_loader.database import Database
from yett_loader.errors import SnapshotError
from yett_loader.parts import Part, Total, change, joined
from yett_loader.snapshot import Wanted
from yett_policy.document import SCHEMA

_TABLES = (
    """CREATE TABLE part (
        kind TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (kind, key)
    )""",
    "CREATE TABLE whole (schema INTEGER NOT NULL, digest TEXT NOT NULL)",
)


class LastGood:
    """In a file of its own."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, 1, _TABLES, durable=True)
        self._kept: Wanted | None = None
        """What is in the file; None: nothing is known of it."""
        self._digest = ""

    def load(self) -> Wanted | None:
        """None if nothing was saved; SnapshotError if the file is damaged."""
        rows: list[Any] = []
        wholes: list[Any] = []

        def query(connection: sqlite3.Connection) -> None:
            rows.extend(connection.execute("SELECT kind, key, body, digest FROM part"))
            wholes.extend(connection.execute("SELECT schema, digest FROM whole"))

        if not self._database.read(query) or not wholes:
            return None
        name, total = str(self._database.path), Total()
        for kind, key, body, digest in rows:
            if not (isinstance(kind, str) and isinstance(key, str) and isinstance(body, bytes)):
                raise SnapshotError(f"{name}: a row is of another type than what is saved")
            if Part(kind, key, body).digest != digest:
                raise SnapshotError(f"{name}: {kind[:20]} {key[:200]} is not what was saved")
            total.add(digest)
        schema, whole = wholes[0]
        if not isinstance(schema, int) or str(total) != whole:
            raise SnapshotError(f"{name}: it is not all that was saved")
        self._kept = joined(((kind, body) for kind, _, body, _ in rows), schema, name)
        self._digest = str(total)
        return self._kept

    def save(self, wanted: Wanted) -> str:
        """Put it in the place of what was; its digest.  StoreError if that fails: then what was stays."""
        if wanted != self._kept:
            total = Total()

            def update(connection: sqlite3.Connection) -> None:
                nonlocal total
                total = _put(connection, self._kept, self._digest, wanted)

            def anew(connection: sqlite3.Connection) -> None:
                nonlocal total
                total = _put(connection, None, "", wanted)

            self._database.write(update, anew)
            self._kept, self._digest = wanted, str(total)
        return self._digest

    def tidy(self) -> None:
        """See `Database`."""
        self._database.tidy()

    def close(self) -> None:
        """Give up the file."""
        self._database.close()


def _put(connection: sqlite3.Connection, before: Wanted | None, digest: str, after: Wanted) -> Total:
    """The rows of one snapshot in the place of those of another; None: whichever are there."""
    total = Total(digest or "0")
    if before is None:
        connection.execute("DELETE FROM part")
        total = Total()
    made = change(before, after)
    statement = "DELETE FROM part WHERE kind = ? AND key = ? RETURNING digest"
    for kind, key in made.gone:
        for (gone,) in connection.execute(statement, (kind, key)).fetchall():
            total.take(gone)
    for part in made.come:
        connection.execute("INSERT INTO part VALUES (?, ?, ?, ?)", (*part, part.digest))
        total.add(part.digest)
    connection.execute("DELETE FROM whole")
    connection.execute("INSERT INTO whole VALUES (?, ?)", (SCHEMA, str(total)))
    return total
