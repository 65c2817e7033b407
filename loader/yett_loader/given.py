"""The numbers given on this node, on disk.

They mean something for as long as the kernel runs that has them in its maps, so nothing here waits for the disk;
losing them costs numbers, never meaning (`assign`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yett_loader.assign import RULE_LIMIT, Assignment, Place
from yett_loader.database import Database
from yett_loader.errors import SnapshotError
from yett_loader.state import RulesetState
from yett_policy.sync.reader import Malformed, Value

_TABLES = (
    "CREATE TABLE number (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key))",
)


class Given:
    """In a file of its own."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, 1, _TABLES, durable=False)
        self._kept: Assignment | None = None
        """What is in the file; None: nothing is known of it."""

    def load(self) -> Assignment:
        """None given if there is no file; SnapshotError if it is damaged."""
        rows: list[Any] = []

        def query(connection: sqlite3.Connection) -> None:
            rows.extend(connection.execute("SELECT kind, key, value FROM number"))

        self._database.read(query)
        name = str(self._database.path)
        raw: dict[str, dict[str, object]] = {kind: {} for kind, _ in _kinds(Assignment())}
        try:
            for kind, key, value in rows:
                raw[kind][key] = json.loads(value)
            self._kept = assignment(Value(raw, name))
        except Malformed as error:
            raise SnapshotError(str(error)) from None
        except (KeyError, TypeError, ValueError, RecursionError):
            raise SnapshotError(f"{name}: a row is not what is saved") from None
        return self._kept

    def save(self, given: Assignment) -> None:
        """Put them in the place of what was; StoreError if that fails."""
        if given != self._kept:
            self._database.write(
                lambda connection: _put(connection, self._kept, given),
                lambda connection: _put(connection, None, given),
            )
            self._kept = given

    def tidy(self) -> None:
        """See `Database`."""
        self._database.tidy()

    def close(self) -> None:
        """Give up the file."""
        self._database.close()


def _kinds(given: Assignment) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    yield "rulesets", given.rulesets
    yield "documents", given.documents
    yield "rules", given.rules
    yield "names", given.names


def _put(connection: sqlite3.Connection, before: Assignment | None, after: Assignment) -> None:
    if before is None:
        connection.execute("DELETE FROM number")
    pairs = zip(_kinds(before or Assignment()), _kinds(after), strict=True)
    for (kind, old), (_, new) in pairs:
        gone = [(kind, str(key)) for key in old.keys() - new.keys()]
        come = [(kind, str(key), _json(value)) for key, value in new.items() if old.get(key) != value]
        connection.executemany("DELETE FROM number WHERE kind = ? AND key = ?", gone)
        connection.executemany("INSERT OR REPLACE INTO number VALUES (?, ?, ?)", come)


def _json(value: object) -> str:
    return json.dumps([value.handle, *value.state] if isinstance(value, Place) else value)


def assignment(value: Value) -> Assignment:
    """From JSON by kind and key; Malformed if it is damaged."""
    rulesets, documents, rules, names = value.fields("rulesets", "documents", "rules", "names")
    places = {}
    for digest, item in rulesets.mapping():
        handle, identifier, base, count = item.row(4)
        state = RulesetState(
            identifier.integer(1, 2**64 - 1),
            base.integer(1, RULE_LIMIT - 1),
            count.integer(1, RULE_LIMIT - 1),
        )
        places[digest] = Place(handle.integer(1, 2**32 - 1), state)
    return Assignment(
        rulesets=places,
        documents={digest: item.integer(1, 2**31 - 1) for digest, item in documents.mapping()},
        rules={reference: item.integer(1, RULE_LIMIT - 1) for reference, item in rules.mapping()},
        names={_number(key, item): item.text() for key, item in names.mapping()},
    )


def _number(key: str, value: Value) -> int:
    if not key.isascii() or not key.isdigit() or len(key) > len(str(RULE_LIMIT)):
        raise value.fail("a rule number is expected as its key")
    return Value(int(key), value.path).integer(1, RULE_LIMIT - 1)
