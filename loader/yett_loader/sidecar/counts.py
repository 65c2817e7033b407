"""How many requests the sidecar has judged, by reason and by rule.

What it denies (or would, under audit) we count from its records, and keep on disk: whoever adds up what
nodes count must not see a total fall with each new loader.  What it lets through it counts itself, in a
file of its own that outlives it (`deny.c`): a record of each request would cost more than the request.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from yett_policy.document import Direction
from yett_policy.reason import Reason

_COUNTER = struct.Struct("=QQ1008s")
"""struct counter: value, length of the key, key; those that were never taken come last."""
_DIRECTIONS = frozenset(direction.name.lower() for direction in Direction)


class Counts:
    """Of one node: denials kept at `path`, what is let through read from `allowed`."""

    def __init__(self, path: Path, allowed: Path) -> None:
        self._path = path
        self._allowed = allowed
        self._saved = True
        self._requests: Counter[tuple[str, str]] = Counter()
        self._rules: Counter[str] = Counter()
        try:
            requests, rules = json.loads(path.read_text())
            self._requests.update({(direction, reason): int(n) for direction, reason, n in requests})
            self._rules.update({str(rule): int(n) for rule, n in rules})
        except (OSError, ValueError, TypeError):
            pass  # nothing yet, or lost: they begin again at 0

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """By direction and reason, as `yett_loader.metrics` names them."""
        found = self._requests.copy()
        for direction, _, count in let_through(self._allowed):
            found[direction, Reason.ALLOWED.name] += count
        return found

    @property
    def rules(self) -> Counter[str]:
        """By rule reference."""
        found = self._rules.copy()
        for _, rule, count in let_through(self._allowed):
            if rule:
                found[rule] += count
        return found

    def add(self, direction: Direction, reason: Reason, rule: str) -> None:
        """One more that was not let through."""
        self._requests[direction.name.lower(), reason.name] += 1
        if rule:
            self._rules[rule] += 1
        self._saved = False

    def save(self) -> None:
        """Write them down if they changed."""
        if self._saved:
            return
        requests = [[*key, count] for key, count in sorted(self._requests.items())]
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps([requests, sorted(self._rules.items())]))
        new.replace(self._path)
        self._saved = True


def let_through(path: Path) -> Iterator[tuple[str, str, int]]:
    """Direction, rule and count of each counter that is not 0; of no rule: of all that have no counter now.

    Nothing if no Envoy has counted yet.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as counters:
            for at in range(0, len(counters) - _COUNTER.size + 1, _COUNTER.size):
                count, length, key = _COUNTER.unpack_from(counters, at)
                if not length:
                    return
                direction, _, rule = key[:length].decode(errors="replace").partition(" ")
                # Longer than its place: Envoy is giving it to another rule.
                if count and length <= len(key) and direction in _DIRECTIONS:
                    yield direction, rule, count
    except (OSError, ValueError):
        return
