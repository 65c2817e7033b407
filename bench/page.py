"""docs/benchmarks.md, from the result of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.summary import Spread, added, find, ratio
from bench.targets import Target, judge

_QUIET = 5
"""Percent of the processors that others may use before the page warns of it."""
_PROSE = Path(__file__).with_name("page.md")
LABELS = {
    "bare": "bare veth",
    "noop": "no-op TC program",
    "yett-server": "**yett**, server's veth only",
    "yett": "**yett**, both pods",
    "haproxy": "HAProxy 2.6, transparent",
    "envoy": "Envoy 1.40, TPROXY",
    "strings": "iptables `-m string`",
}


def write_page(result: Mapping[str, Any], path: Path) -> None:
    """The prose of page.md with the tables in it."""
    text = _PROSE.read_text()
    for name, part in {
        "targets": targets_table(judge(result)),
        "points": _points(result),
        "left out": _left_out(result),
        "checks": _checks(result),
        "engine": _engine(result),
        "compile": _compile(result["compile"]),
        "tables": _compile(result["tables"]),
        "machine": machine_text(result),
    }.items():
        text = text.replace(f"<!-- {name} -->", part)
    path.write_text(text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def targets_table(found: Sequence[Target]) -> str:
    """With a sentence for each that is missed and says why."""
    rows = [(item.what, item.wanted, item.measured, "met" if item.met else "**missed**") for item in found]
    missed = [f"- Missed, {item.what}: {item.why}." for item in found if not item.met and item.why]
    made = table(("what", "target", "measured (median, least to most)", ""), rows)
    return "\n".join([made, *(["", *missed] if missed else [])])


def _points(result: Mapping[str, Any]) -> str:
    parts = []
    for axis, points in groupby(result["points"], key=lambda point: str(point["axis"])):
        rows = []
        for point in points:
            for name, samples in point["systems"].items():
                speed, relative = Spread.of(samples["rps"]), ratio(point, name)
                latency, cpu = Spread.of(samples["p50"]), Spread.of(samples["cpu"])
                rows.append(
                    (
                        point["value"],
                        LABELS[name],
                        speed.text(",.0f"),
                        relative.text(".2f"),
                        f"{latency.middle:,.0f}",
                        f"{cpu.middle:.1f}",
                        f"{added(point, name, 'cpu').middle:+.1f}" if name != "bare" else "",
                    )
                )
        header = (
            axis,
            "system",
            "requests/s",
            "of bare, same round",
            "p50 µs",
            "CPU µs/request",
            "added",
        )
        parts.append(f"### {axis[0].upper()}{axis[1:]}\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def _left_out(result: Mapping[str, Any]) -> str:
    text = (
        "Left out: `iptables -m string` with 10,000 rules (it searches every packet once per rule), Envoy with"
        " 10,000 literals (10,000 mixed ones say it)."
    )
    if not result["quick"] and not find(result, "new connection per request"):
        text += (
            "\n\n**Missing: a new connection per request.** An error ends a run, and yett had one in about"
            " 100,000 connections: the client had ended a connection by a reset, used its port again, and was"
            " refused once. The axis comes back with the repair."
        )
    return text


def _checks(result: Mapping[str, Any]) -> str:
    rows = []
    for name, checks in groupby(
        sorted(result["checks"], key=lambda item: list(LABELS).index(item["system"])),
        key=lambda i: i["system"],
    ):
        these = list(checks)
        evasions = sorted({way for item in these for way in item["evasions"]})
        slowest = max(these, key=lambda item: item["seconds"])
        rows.append(
            (
                LABELS[name],
                str(sum(item["tried"] for item in these)),
                "yes" if name not in ("bare", "noop") else "enforces nothing",
                "; ".join(evasions) or ("none of three" if name not in ("bare", "noop") else ""),
                f"{slowest['seconds']} s ({slowest['rules']})",
            )
        )
    return table(
        (
            "system",
            "requests tried",
            "every verdict right",
            "evaded by",
            "slowest change of rules, until in force",
        ),
        rows,
    )


def _engine(result: Mapping[str, Any]) -> str:
    insns = result["verifier"]["insns"]
    rows = [
        (f"`{name}`", f"{item['runs']}", f"{item['ns']}", f"{insns.get(name, 0):,}")
        for name, item in sorted(result["runs"].items())
    ]
    return table(("program", "runs per request", "ns per run", "instructions the verifier walked"), rows) + (
        f"\n\nThe whole object loads in {result['verifier']['load_ms'] / 1000:.1f} s."
    )


def _compile(items: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for item in items:
        if "refused" in item:
            rows.append((item["kind"], f"{item['rules']:,}", f"refused: {item['refused']}", "", "", ""))
            continue
        rows.append(
            (
                item["kind"],
                f"{item['rules']:,}",
                f"{item['states']:,}",
                f"{item['bytes'] / 1024:,.0f}",
                f"{64 << 2 * item['tier']:,}",
                f"{item['ms']:,.0f}",
            )
        )
    return table(("kind", "rules", "states", "KiB of tables", "KiB in the kernel", "ms to compile"), rows)


def machine_text(result: Mapping[str, Any]) -> str:
    """What the run ran on, and a warning if others used it too."""
    machine = result["machine"]
    others = 100 * result["others"]
    text = (
        f"{machine['date']}, commit {machine['commit']}: {machine['processors']} processors"
        f" ({machine['processor']}, a virtual machine), {machine['memory_gib']} GiB, Linux {machine['kernel']};"
        f" wrk {machine['wrk']}, HAProxy {machine['haproxy']}, Envoy {machine['envoy']},"
        f" iptables {machine['iptables']}. The run took {result['seconds']} s;"
        f" the hypervisor took {100 * result['steal']:.1f} % of the processors' time."
    )
    text += f" {result['note']}" if "note" in result else ""
    if others < _QUIET:
        return text
    return (
        f"{text}\n\n**Not a quiet machine**: other programs used {others:.0f} % of the processors during the run."
        " Hence the wide spreads of requests/s and latency; ratios are within a round, a second or two"
        " apart, and processor time per request suffers least."
    )
