"""What is measured: a base point, and from it one axis at a time."""

from __future__ import annotations

from dataclasses import dataclass

from bench.request import Shape
from bench.rules import Mix, RuleList

ALL = ("bare", "noop", "yett-server", "yett", "haproxy", "envoy", "strings")
RULED = ("bare", "yett", "haproxy", "envoy", "strings")
PROXIED = ("bare", "yett", "haproxy", "envoy")

BASE_RULES = RuleList(Mix.MIXED, 100)
BASE_SHAPE = Shape()


@dataclass(frozen=True, slots=True)
class Point:
    """One place in the space of loads, and who is measured there."""

    axis: str
    value: str
    """Along the axis, for people."""
    systems: tuple[str, ...] = PROXIED
    connections: int = 32
    rules: RuleList = BASE_RULES
    shape: Shape = BASE_SHAPE
    rounds: int = 6
    """The first is thrown away."""
    seconds: int = 1

    @property
    def name(self) -> str:
        """Unique in a run."""
        return f"{self.axis} {self.value}"


BASE = Point("base", "32 connections, 300 B head, 100 rules", ALL, rounds=11)


def full() -> list[Point]:
    """Grouped by rule set, so that each is loaded once."""
    points = [
        BASE,
        Point("connections", "1", ALL, connections=1, rounds=11),
        Point("connections", "8", RULED, connections=8),
        Point("connections", "256", RULED, connections=256),
        Point("new connection per request", "32", RULED, shape=Shape(close=True)),
    ]
    points += [Point("head", f"{size} B", shape=Shape(head=size)) for size in (100, 1024, 2048, 8192)]
    for chunked in (False, True):
        for size, label in ((0, "0"), (1024, "1 KiB"), (65536, "64 KiB"), (1 << 20, "1 MiB")):
            if chunked and not size:
                continue
            axis = "chunked body" if chunked else "body"
            # A mebibyte is where yett promises most: more rounds there.
            rounds = 8 if size == 1 << 20 else 5
            points.append(Point(axis, label, shape=Shape(body=size, chunked=chunked), rounds=rounds))
    points += [
        Point("rules", f"{count:,} mixed", RULED, rules=RuleList(Mix.MIXED, count), rounds=7)
        for count in (1, 1000, 10_000)
    ]
    points += [
        Point(
            "rules",
            f"{count:,} {mix}",
            ("bare", "yett", "haproxy", "envoy"),
            rules=RuleList(mix, count),
            rounds=6,
        )
        for mix in (Mix.LITERAL, Mix.PREFIX, Mix.REGEX)
        for count in (1000,)
    ]
    points.append(
        Point(
            "rules",
            "10,000 literal",
            ("bare", "yett", "haproxy"),
            rules=RuleList(Mix.LITERAL, 10_000),
            rounds=6,
        )
    )
    return points


def quick() -> list[Point]:
    """A look in passing: the points of the targets, few rounds."""
    few = 4
    return [
        Point("base", BASE.value, ALL, rounds=few),
        Point("connections", "1", RULED, connections=1, rounds=few),
        Point("body", "1 MiB", shape=Shape(body=1 << 20), rounds=few),
        Point("rules", "1 mixed", ("bare", "yett"), rules=RuleList(Mix.MIXED, 1), rounds=few),
        Point("rules", "1,000 mixed", ("bare", "yett"), rules=RuleList(Mix.MIXED, 1000), rounds=few),
    ]
