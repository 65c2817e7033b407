"""docs/benchmarks-sidecar.md, from the result of a run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from bench.page import machine_text, table, targets_table
from bench.sidecar.points import CONNECTIONS, KEPT, KUBE, NEW, NOTHING, on_kube
from bench.sidecar.targets import judge
from bench.summary import Spread, find, ratio

_PROSE = Path(__file__).with_name("page.md")
_MIB = 1 << 20
LABELS = {
    "bare": "bare veth",
    "sidecar": "**sidecar engine**",
    "tproxy": "the same Envoy, TPROXY",
}


def write_page(result: Mapping[str, Any], path: Path) -> None:
    """The prose of page.md with the tables in it."""
    text = _PROSE.read_text()
    for name, part in {
        "targets": targets_table(judge(result)),
        "beside": _beside(result),
        "points": _points(result),
        "checks": _checks(result),
        "cost": _cost(result["cost"]),
        "changes": _changes(result["changes"]),
        "soak": _soak(result["soak"]),
        "machine": machine_text(result),
    }.items():
        text = text.replace(f"<!-- {name} -->", part)
    path.write_text(text)


def _beside(result: Mapping[str, Any]) -> str:
    """The engine's part of TPROXY, with both kinds of node in a row."""
    rows = []
    for axis in (KEPT, NEW):
        for count in CONNECTIONS:
            cells = []
            for named in (axis, on_kube(axis)):
                point = find(result, named, str(count))
                for what in ("rps", "cpu"):
                    spread = ratio(point, "sidecar", "tproxy", what) if point else None
                    cells.append(spread.text(".2f") if spread else "")
            rows.append((axis, str(count), *cells))
    header = (
        "",
        "connections",
        f"{NOTHING}: requests/s",
        "processor time",
        f"{KUBE}: requests/s",
        "processor time",
    )
    return table(header, rows)


def _points(result: Mapping[str, Any]) -> str:
    parts = []
    for axis, points in groupby(result["points"], key=lambda point: str(point["axis"])):
        rows = []
        for point in points:
            for name, samples in point["systems"].items():
                speed, beside = Spread.of(samples["rps"]), ratio(point, name, "tproxy")
                spent = ratio(point, name, "tproxy", "cpu")
                rows.append(
                    (
                        point["value"],
                        LABELS[name],
                        speed.text(",.0f"),
                        beside.text(".2f"),
                        f"{Spread.of(samples['p50']).middle:,.0f}",
                        f"{Spread.of(samples['cpu']).middle:.1f}",
                        spent.text(".2f"),
                    )
                )
        header = (
            axis,
            "system",
            "requests/s",
            "of TPROXY, same round",
            "p50 µs",
            "CPU µs/request",
            "of TPROXY, same round",
        )
        parts.append(f"### {axis[0].upper()}{axis[1:]}\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def _checks(result: Mapping[str, Any]) -> str:
    rows = [
        (
            LABELS[item["system"]],
            item.get("node", NOTHING),
            item["rules"],
            str(item["tried"]),
            "enforces nothing" if item["system"] == "bare" else "yes",
        )
        for item in result["checks"]
    ]
    return table(("system", "node", "rules", "requests tried", "every verdict right"), rows)


def _cost(found: Mapping[str, Any]) -> str:
    rows = [
        (axis, f"`{name}`", f"{item['runs']}", f"{item['ns']}", f"{item['runs'] * item['ns'] / 1000:.2f}")
        for axis, programs in found.items()
        for name, item in programs.items()
    ]
    return table(("32 connections", "program", "runs per request", "ns per run", "µs per request"), rows)


def _changes(found: Mapping[str, Any]) -> str:
    times, sizes = found["in_force_ms"], found["resident"]
    many = str(found["rulesets"])
    return (
        f"{len(times)} changes of one of {many} rulesets, {found['requests_beside']:,} requests on another meanwhile,"
        f" none lost. In force after {median(times):.0f} ms (median; most {max(times):.0f} ms), of which the loader's"
        f" agent takes {median(found['applied_ms']):.0f} ms: until Envoy has said that it has the rules. Envoy holds"
        f" {sizes['2'] / _MIB:.0f} MiB with 2 rulesets, {sizes[many] / _MIB:.0f} MiB with {many},"
        f" {sizes['after'] / _MIB:.0f} MiB after the changes. To load the {many}, listeners and all, took"
        f" {found['load_ms'] / 1000:.1f} s."
    )


def _soak(seen: Mapping[str, Any]) -> str:
    sockets = ", ".join(f"{count:,} {state}" for state, count in sorted(seen["waiting"].items())) or "none"
    first, last = (size / _MIB for size in seen["resident"])
    return (
        f"{seen['requests']:,} requests, each on a connection of its own, in {seen['seconds']:.0f} s: all answered"
        f" with 200. The slowest 99th percentile of ten seconds was {seen['slowest']:.0f} ms. Envoy held {first:.0f}"
        f" MiB in the beginning and {last:.0f} MiB at the end; sockets left on the node: {sockets}."
    )
