"""From counters of rules to what each policy allowed and denied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from yett_policy.merge import NO_RULE

_DENYING = ("ingressDeny", "egressDeny", "default-deny")


@dataclass(slots=True)
class Total:
    """Of one policy, over all nodes."""

    allowed: int = 0
    denied: int = 0
    """With an audit policy: what it would have denied."""


class Hits:
    """Adds up what nodes count; counters of a node may begin again at 0."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[str, int]] = {}
        self._totals: defaultdict[str, Total] = defaultdict(Total)

    def of(self, source: str) -> Total:
        """Of one policy, by `Kind/namespace/name`."""
        return self._totals.get(source, Total())

    def counted(self, node: str, hits: Mapping[str, int]) -> set[str]:
        """What a node has counted so far, of some rules or all; returns the policies that this concerns."""
        last = self._last.get(node, {})
        changed: set[str] = set()
        for reference, count in hits.items():
            before = last.get(reference, 0)
            grown = count - before if count >= before else count
            if not grown:
                continue
            for part in reference.split(", "):
                source, _, place = part.partition(":")
                if source == NO_RULE or not place:
                    continue
                total = self._totals[source]
                if place.removeprefix("specs").lstrip("[0123456789].").startswith(_DENYING):
                    total.denied += grown
                else:
                    total.allowed += grown
                changed.add(source)
        self._last[node] = {**last, **hits}
        return changed

    def forget(self, source: str) -> None:
        """A policy is gone; one of the same name begins at what nodes count from now on."""
        self._totals.pop(source, None)
