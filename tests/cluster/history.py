"""PURE: whether verdicts that were seen are those of what was in force when they fell.

A revision is one state of policies and pods with the verdicts that the reference gives in it.  It may
be seen from the moment at which the change was asked for, and must be seen from the moment at which it
was known to be in force everywhere.  In between a node may still go by the revision before; but what
was once seen of a revision is not taken back.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Probe:
    """One request; times in seconds of CLOCK_MONOTONIC, which is the same for all pods of one machine."""

    source: str
    target: str
    path: str
    kept: bool
    """On a connection that is kept, or on a new one."""
    begin: float
    end: float
    passed: bool
    why: str

    @property
    def series(self) -> tuple[str, str, str, bool]:
        """Requests of one series follow one another."""
        return (self.source, self.target, self.path, self.kept)


Reference = Callable[[Probe], bool]
"""Whether a request passes."""


@dataclass(slots=True)
class Revision:
    """What is true from some moment on."""

    passes: Reference
    issued: float
    settled: float = math.inf
    """Known to be in force everywhere."""


class History:
    """Revisions, oldest first; the first is in force before anything is asked."""

    def __init__(self, passes: Reference) -> None:
        self.revisions = [Revision(passes, -math.inf, -math.inf)]

    def change(self, passes: Reference, issued: float) -> None:
        """From `issued` on this may be seen."""
        self.revisions.append(Revision(passes, issued))

    def settle(self, now: float) -> None:
        """From `now` on only the newest revision may be seen."""
        for revision in self.revisions:
            revision.settled = min(revision.settled, now)

    def wrong(self, probes: Iterable[Probe]) -> list[Probe]:
        """Those that no revision explains."""
        by_series: defaultdict[tuple[str, str, str, bool], list[Probe]] = defaultdict(list)
        for probe in probes:
            by_series[probe.series].append(probe)
        return [probe for series in by_series.values() for probe in self._wrong(series)]

    def _wrong(self, series: list[Probe]) -> list[Probe]:
        found = []
        seen = 0
        for probe in sorted(series, key=lambda probe: probe.begin):
            must = max(i for i, each in enumerate(self.revisions) if each.settled <= probe.begin)
            fitting = [
                i
                for i in range(max(seen, must), len(self.revisions))
                if self.revisions[i].issued <= probe.end and self.revisions[i].passes(probe) == probe.passed
            ]
            if fitting:
                seen = fitting[0]
            else:
                found.append(probe)
        return found
