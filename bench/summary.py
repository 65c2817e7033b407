"""Samples become the numbers of the page: medians, and ratios within a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Point = Mapping[str, Any]
"""One element of `points` of the result."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))

    def text(self, form: str, unit: str = "") -> str:
        """For a table: `0.95 (0.82 to 1.01)`."""
        return f"{self.middle:{form}}{unit} ({self.low:{form}} to {self.high:{form}})"


def ratio(point: Point, system: str, to: str = "bare", what: str = "rps") -> Spread:
    """`what` of one system over that of another, each in the same round."""
    ours, theirs = point["systems"][system][what], point["systems"][to][what]
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])


def added(point: Point, system: str, what: str) -> Spread:
    """`what` of one system less that of bare, each in the same round."""
    ours, theirs = point["systems"][system][what], point["systems"]["bare"][what]
    return Spread.of([a - b for a, b in zip(ours, theirs, strict=True)])


def find(result: Mapping[str, Any], axis: str, value: str | None = None) -> Point | None:
    """The point there, if it was measured."""
    for point in result["points"]:
        if point["axis"] == axis and value in (None, point["value"]):
            found: Point = point
            return found
    return None
