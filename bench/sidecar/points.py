"""What is measured of the way to the sidecar: connections kept and new, from one to many."""

from __future__ import annotations

from dataclasses import replace

from bench.points import BASE_RULES, Point
from bench.request import Shape
from bench.rules import Mix, RuleList

ALL = ("bare", "sidecar", "tproxy")
KEPT, NEW, RULES = "connections kept alive", "new connection per request", "rules"
NOTHING, KUBE = "node with nothing else", "node with kube-proxy"
"""Kinds of node."""
CONNECTIONS = (1, 32, 256, 512)
ONE = RuleList(Mix.MIXED, 1)
"""One rule: what Envoy does with rules is the same behind both, and would only hide the difference."""


def on_kube(axis: str) -> str:
    """The same axis, measured on a node with kube-proxy."""
    return f"{axis}, {KUBE}"


def full(rounds: int = 4) -> list[Point]:
    """On a node with nothing else.  Grouped by rule set, as `measure` wants it."""
    return [*_connections(rounds), Point(RULES, "100 mixed", ALL, rules=BASE_RULES, rounds=rounds)]


def kube(rounds: int = 3) -> list[Point]:
    """On a node with kube-proxy."""
    return [replace(point, axis=on_kube(point.axis)) for point in _connections(rounds)]


def _connections(rounds: int) -> list[Point]:
    return [
        Point(
            axis, str(count), ALL, connections=count, rules=ONE, shape=Shape(close=axis == NEW), rounds=rounds
        )
        for axis in (KEPT, NEW)
        for count in CONNECTIONS
    ]
