"""What is measured of the way to the sidecar: connections kept and new, from one to many."""

from __future__ import annotations

from bench.points import BASE_RULES, Point
from bench.request import Shape
from bench.rules import Mix, RuleList

ALL = ("bare", "sidecar", "tproxy")
KEPT, NEW, RULES = "connections kept alive", "new connection per request", "rules"
CONNECTIONS = (1, 32, 256, 512)
ONE = RuleList(Mix.MIXED, 1)
"""One rule: what Envoy does with rules is the same behind both, and would only hide the difference."""


def full(rounds: int = 11) -> list[Point]:
    """Grouped by rule set, as `measure` wants it."""
    points = [
        Point(KEPT, str(count), ALL, connections=count, rules=ONE, rounds=rounds) for count in CONNECTIONS
    ]
    points += [
        Point(NEW, str(count), ALL, connections=count, rules=ONE, shape=Shape(close=True), rounds=rounds)
        for count in CONNECTIONS
    ]
    points.append(Point(RULES, "100 mixed", ALL, rules=BASE_RULES, rounds=rounds))
    return points


def quick() -> list[Point]:
    """The same, hardly more than a look."""
    return full(rounds=3)
