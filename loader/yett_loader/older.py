"""PURE: what loaders wrote before this one, as it would be written now."""

from __future__ import annotations

import json
from typing import Any

from yett_loader.snapshot import BODY_LIMIT
from yett_policy.document import SCHEMA, canonical
from yett_policy.sync.reader import Value, parse

BEFORE_ROWS = 2
"""Schema of documents whose entries are objects."""
_NUMBERS = ("direction", "peer", "proto", "port", "port_bits", "verdict", "reason", "rule")


def snapshot_of_now(body: bytes) -> bytes:
    """A snapshot from before documents were rows.

    As it is where it is nothing of the kind: who reads it next says what is wrong, and checks every value.
    """
    if len(body) > BODY_LIMIT:
        return body
    try:
        raw = json.loads(body)
        if raw["schema"] != BEFORE_ROWS:
            return body
        return canonical(raw | {"schema": SCHEMA, "documents": list(map(_document, raw["documents"]))})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return body


def numbers_of_now(body: bytes, name: str) -> Value:
    """`assignments.json`, to be read by `given.assignment`; Malformed if it is damaged."""
    _, rulesets, documents, rules, names = parse(body, name).fields(
        "schema", "rulesets", "documents", "rules", "names"
    )
    rows = [item.row(2) for item in names.items()]
    by_number = {str(number.raw): text.raw for number, text in rows}
    parts = {"rulesets": rulesets, "documents": documents, "rules": rules}
    return Value({**{key: part.raw for key, part in parts.items()}, "names": by_number}, name)


def _document(old: dict[str, Any]) -> dict[str, Any]:
    entries = old["entries"]
    rulesets = sorted({entry["ruleset"] for entry in entries} - {""})
    places = {digest: index for index, digest in enumerate(("", *rulesets))}
    rows = [
        [*(entry[name] for name in _NUMBERS), places[entry["ruleset"]], +entry["forbidden"]]
        for entry in entries
    ]
    return old | {"entries": rows, "rulesets": rulesets}
