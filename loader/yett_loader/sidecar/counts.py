"""How many requests the sidecar has denied (or would have, under audit), by reason and by rule.

Kept on disk too: whoever adds up what nodes count must not see a total fall with each new loader.
What it lets through is not counted: a record of each request would cost more than the request.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from yett_policy.document import Direction
from yett_policy.reason import Reason


class Counts:
    """Of one node, kept at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = True
        self.requests: Counter[tuple[str, str]] = Counter()
        """By direction and reason, as `yett_loader.metrics` names them."""
        self.rules: Counter[str] = Counter()
        """By rule reference."""
        try:
            requests, rules = json.loads(path.read_text())
            self.requests.update({(direction, reason): int(n) for direction, reason, n in requests})
            self.rules.update({str(rule): int(n) for rule, n in rules})
        except (OSError, ValueError, TypeError):
            pass  # nothing yet, or lost: they begin again at 0

    def add(self, direction: Direction, reason: Reason, rule: str) -> None:
        """One more."""
        self.requests[direction.name.lower(), reason.name] += 1
        if rule:
            self.rules[rule] += 1
        self._saved = False

    def save(self) -> None:
        """Write them down if they changed."""
        if self._saved:
            return
        requests = [[*key, count] for key, count in sorted(self.requests.items())]
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps([requests, sorted(self.rules.items())]))
        new.replace(self._path)
        self._saved = True
