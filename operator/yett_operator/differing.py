"""What makes one mapping of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def differing(old: Mapping[K, V], new: Mapping[K, V]) -> dict[K, V | None]:
    """What is new or different, and None for what is gone; C-fast where nothing is different."""
    if old == new:
        return {}
    gone: dict[K, V | None] = dict.fromkeys(old.keys() - new.keys())
    return gone | changed(old, new)


def changed(old: Mapping[K, V], new: Mapping[K, V]) -> dict[K, V]:
    """What is new or different."""
    return {key: value for key, value in new.items() if old.get(key) != value}
