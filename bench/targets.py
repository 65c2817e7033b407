"""The targets, each with what was measured and whether that is enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.summary import Point, Spread, added, find, ratio


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table."""

    what: str
    wanted: str
    measured: str
    met: bool
    why: str = ""
    """Of a miss."""


def judge(result: Mapping[str, Any]) -> list[Target]:
    """All targets whose points were measured."""
    found = []
    base, alone = find(result, "base"), find(result, "connections", "1")
    if base:
        found += [
            _least(
                "bare veth, 32 connections, 300 B head, 100 rules (server's veth governed)",
                0.95,
                ratio(base, "yett-server"),
                _cost(base, "yett-server"),
            ),
            _least("the same, both pods governed", 0.95, ratio(base, "yett"), _cost(base, "yett")),
            _least("Envoy behind TPROXY", 4.0, ratio(base, "yett", "envoy")),
            _least("HAProxy, transparent", 1.5, ratio(base, "yett", "haproxy")),
        ]
    if alone:
        more = added(alone, "yett", "p50")
        found.append(
            Target(
                "median latency added, 1 connection",
                "at most 3 µs",
                more.text("+.1f", " µs"),
                more.middle <= 3,
            )
        )
    one, many = find(result, "rules", "1 mixed"), find(result, "rules", "10,000 mixed")
    if one and many:
        few, lots = ratio(one, "yett"), ratio(many, "yett")
        change = 1 - lots.middle / few.middle
        found.append(
            Target(
                "requests/s lost from 1 to 10,000 rules (each beside bare in its rounds)",
                "less than 5 %",
                f"{100 * change:.1f} %",
                change < 0.05,
                f"a request takes {_more(one):.1f} µs of processor time more than on a bare veth with 1 rule and"
                f" {_more(many):.1f} µs with 10,000 (a bigger table misses the first-level cache more often: likely, not measured apart)",
            )
        )
    big = find(result, "body", "1 MiB")
    if big:
        found.append(_least("bare veth, bodies of 1 MiB", 0.98, ratio(big, "yett"), _cost(big, "yett")))
    found += _compiler(result)
    return found


def _compiler(result: Mapping[str, Any]) -> list[Target]:
    found = [
        Target("compile 1,000 mixed rules", "less than 2 s", f"{item['ms'] / 1000:.2f} s", item["ms"] < 2000)
        for item in result["compile"]
        if (item["kind"], item["rules"]) == ("mixed", 1000)
    ]
    sizes = [
        64 << 2 * item["tier"]
        for item in (*result["compile"], *result["tables"])
        if item["rules"] == 100 and "tier" in item
    ]
    found.append(
        Target(
            "kernel memory of 100 path rules, any kind",
            "at most 256 KiB",
            f"{median(sizes):.0f} KiB ({min(sizes)} to {max(sizes)})",
            max(sizes) <= 256,
        )
    )
    return found


def _least(what: str, wanted: float, measured: Spread, why: str = "") -> Target:
    text = measured.text(".2f")
    return Target(f"requests/s beside {what}", f"at least {wanted:.2f}", text, measured.middle >= wanted, why)


def _cost(point: Point, system: str) -> str:
    """Why there are fewer requests than on a bare veth: what one costs."""
    bare, more = Spread.of(point["systems"]["bare"]["cpu"]).middle, added(point, system, "cpu").middle
    return (
        f"a request takes {bare:.1f} µs of processor time on a bare veth here and {more:.1f} µs more with yett, so"
        f" {bare / (bare + more):.2f} of the requests where processors are the limit"
    )


def _more(point: Point) -> float:
    return added(point, "yett", "cpu").middle
