"""PURE: lists as the API server sends them, item by item.

What is kept of an object comes to lie in memory among all that the object was.  Of one item that is a
few places, which the next one takes; of all items of a page it is holes for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_value = json.JSONDecoder().raw_decode
_something = re.compile(r"[^ \t\r\n]|$").search


def read(text: str, each: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The metadata of a list; `each` gets its items, one after the other.  ValueError if it is no list."""
    fields: dict[str, Any] = {}
    at, more = _open(text, 0, "{}")
    while more:
        name, at = _value(text, at)
        at = _past(text, at, ":")[1]
        if name == "items" and text[at : at + 1] == "[":
            at, more = _open(text, at, "[]")
            while more:
                item, at = _value(text, at)
                each(item)
                del item
                at, more = _next(text, at, "]")
        else:
            fields[name], at = _value(text, at)
        at, more = _next(text, at, "}")
    metadata = fields.get("metadata")
    if not isinstance(metadata, dict):
        raise ValueError("it has no metadata")  # noqa: TRY004 - as everything that is wrong with JSON
    return metadata


def _past(text: str, at: int, wanted: str) -> tuple[str, int]:
    """Which of the wanted characters comes next, and where what follows begins."""
    at = _skip(text, at)
    found = text[at : at + 1]
    if not found or found not in wanted:
        raise ValueError(f"{found!r} at character {at}, not one of {wanted}")
    return found, _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    """Past spaces."""
    found = _something(text, at)
    return len(text) if found is None else found.start()


def _open(text: str, at: int, brackets: str) -> tuple[int, bool]:
    """Past an opening bracket (and the closing one, if nothing is in between); whether there is anything."""
    at = _past(text, at, brackets[0])[1]
    return (at + 1, False) if text[at : at + 1] == brackets[1] else (at, True)


def _next(text: str, at: int, closing: str) -> tuple[int, bool]:
    """Past a comma or the closing bracket; whether there is more."""
    found, at = _past(text, at, closing + ",")
    return at, found == ","
