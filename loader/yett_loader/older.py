"""PURE: the last snapshot of a loader from before documents were rows, as it would be written now."""

from __future__ import annotations

import json
from typing import Any

from yett_loader.snapshot import BODY_LIMIT
from yett_policy.document import SCHEMA, canonical

BEFORE_ROWS = 2
"""Schema of documents whose entries are objects."""
_NUMBERS = ("direction", "peer", "proto", "port", "port_bits", "verdict", "reason", "rule")


def of_now(body: bytes) -> bytes:
    """As it is where it is nothing of the kind: who reads it next says what is wrong, and checks every value."""
    if len(body) > BODY_LIMIT:
        return body
    try:
        raw = json.loads(body)
        if raw["schema"] != BEFORE_ROWS:
            return body
        return canonical(raw | {"schema": SCHEMA, "documents": list(map(_document, raw["documents"]))})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return body


def _document(old: dict[str, Any]) -> dict[str, Any]:
    entries = old["entries"]
    rulesets = sorted({entry["ruleset"] for entry in entries} - {""})
    places = {digest: index for index, digest in enumerate(("", *rulesets))}
    rows = [
        [*(entry[name] for name in _NUMBERS), places[entry["ruleset"]], +entry["forbidden"]]
        for entry in entries
    ]
    return old | {"entries": rows, "rulesets": rulesets}
