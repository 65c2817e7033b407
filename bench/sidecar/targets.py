"""The targets of the sidecar engine, each with what was measured and whether that is enough."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median, quantiles
from typing import Any

from bench.sidecar.points import CONNECTIONS, KEPT, KUBE, NEW, NOTHING, on_kube
from bench.summary import Point, Spread, find, ratio
from bench.targets import Target

_MIB = 1 << 20


def judge(result: Mapping[str, Any]) -> list[Target]:
    """All targets whose points were measured."""
    found = []
    for axis in (KEPT, NEW):
        for named, node in ((axis, NOTHING), (on_kube(axis), KUBE)):
            for count in CONNECTIONS:
                point = find(result, named, str(count))
                if point:
                    found.append(_beside(f"{count} connections, {axis}, {node}", point, result["cost"][axis]))
    changes, soak = result["changes"], result["soak"]
    size = changes["resident"]["after"] / _MIB
    found.append(
        Target(
            f"memory of Envoy with {changes['rulesets']} rulesets",
            "at most 150 MiB",
            f"{size:.0f} MiB ({changes['resident']['2'] / _MIB:.0f} with 2)",
            size <= 150,
        )
    )
    times = changes["in_force_ms"]
    late = quantiles(times, n=100, method="inclusive")[98]
    found.append(
        Target(
            f"change of one of {changes['rulesets']} rulesets in force, 99th percentile of {len(times)}",
            "less than 200 ms",
            f"{late:.0f} ms (median {median(times):.0f})",
            late < 200,
            f"of the median the loader takes {median(changes['applied_ms']):.0f} ms",
        )
    )
    found.append(
        Target(
            "requests lost on another ruleset meanwhile",
            "none",
            f"0 of {changes['requests_beside']:,}",
            met=True,  # one that is lost ends the run
        )
    )
    enough = soak["requests"] >= 1_000_000 and soak["seconds"] >= 600
    found.append(
        Target(
            "512 connections from 4,096 ports, 10 minutes, 1,000,000 requests: 503, resets, no answer",
            "none",
            f"0 of {soak['requests']:,} in {soak['seconds']:.0f} s",
            enough,
            "the run was shorter",
        )
    )
    return found


def _beside(where: str, point: Point, cost: Mapping[str, Any]) -> Target:
    speed, spent = ratio(point, "sidecar", "tproxy"), ratio(point, "sidecar", "tproxy", "cpu")
    ours = sum(item["runs"] * item["ns"] for item in cost.values()) / 1000
    theirs = Spread.of(point["systems"]["tproxy"]["cpu"]).middle
    return Target(
        f"requests/s beside the same Envoy behind TPROXY, {where}",
        "at least 1.00",
        speed.text(".2f"),
        speed.middle >= 1,
        f"a request takes {theirs:.0f} µs of processor time behind TPROXY, and {spent.middle:.2f} of it with the"
        f" sidecar engine, whose programs run for {ours:.1f} µs of that",
    )
