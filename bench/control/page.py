"""docs/benchmarks-control.md, from the result of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.control.shape import Shape
from bench.control.targets import Quantiles, judge, per_pod
from bench.page import table
from bench.summary import Spread

_PROSE = Path(__file__).with_name("page.md")
_REACH = {"pod": "pod", "workload": "pod of a new workload"}
_QUIET = 5
"""Percent of the processors that others may use before the page warns of it."""


def write_page(result: Mapping[str, Any], path: Path) -> None:
    """The prose of page.md with the tables in it."""
    text = _PROSE.read_text()
    for name, part in {
        "targets": _targets(result),
        "changes": _changes(result),
        "growth": _growth(result),
        "memory": _memory(result),
        "churn": _churn(result),
        "checked": _checked(result),
        "cluster": _cluster(result),
        "machine": _machine(result),
    }.items():
        text = text.replace(f"<!-- {name} -->", part)
    path.write_text(text)


def _targets(result: Mapping[str, Any]) -> str:
    return table(
        ("what", "target", "measured", ""),
        (
            (item.what, item.wanted, item.measured, "met" if item.met else "**missed**")
            for item in judge(result)
        ),
    )


def _changes(result: Mapping[str, Any]) -> str:
    samples = {
        f"{name}, {until}": result[key][until] for key, name in _REACH.items() for until in ("sent", "read")
    }
    rows = []
    for name, times in {**samples, "policy": result["policy"]}.items():
        rows.append((name, str(len(times)), *(f"{value:.1f}" for value in Quantiles.of(times).all)))
    return table(("change", "samples", "median", "p90", "p99", "most"), rows)


def _growth(result: Mapping[str, Any]) -> str:
    rows = []
    for policies, item in sorted(result["growth"].items(), key=lambda pair: int(pair[0])):
        times = (f"{value:.1f}" for value in Quantiles.of(item["read"]).all)
        costs = (Spread.of(item["processor_ms"]).text(".1f"), Spread.of(item["compiler_ms"]).text(".2f"))
        rows.append((f"{int(policies):,}", *costs, *times))
    columns = ("processor time of the operator, ms a pod", "in the compiler, ms a batch")
    return table(("policies", *columns, "read by the last loader: median, ms", "p90", "p99", "most"), rows)


def _memory(result: Mapping[str, Any]) -> str:
    shape = Shape(**result["shape"])
    names = {
        "base": "no pods, all policies",
        "few": f"{shape.few:,} pods, of each workload one",
        "full": f"{shape.pods:,} pods",
        "end": "after everything",
    }
    rows = []
    for key, name in names.items():
        item = result["memory"][key]
        more = [f"{per_pod(result, less):.2f} KiB" if key == "full" else "" for less in ("base", "few")]
        both = item["parent"] + item["children"]
        sizes = [f"{size / 1024:.1f}" for size in (item["parent"], item["children"], both)]
        rows.append((name, *sizes, *more))
    columns = ("event loop, MiB", "compiler, MiB", "together, MiB")
    return table(("", *columns, "more than without pods, a pod", "than with one a workload"), rows)


def _churn(result: Mapping[str, Any]) -> str:
    churn, writes = result["churn"], result["churn"]["writes"]
    return (
        f"{churn['rate']:.0f} pods a second came for {churn['seconds']:.0f} s, and as many went. Statuses of {writes['policies']:,} policies were"
        f" written {writes['total']:,} times, of one at most {writes['most']} times: {writes['most'] / churn['seconds']:.2f} a second"
        f" (counted by a watch at the API server; the operator says {writes['operator']:.0f} in all)."
    )


def _checked(result: Mapping[str, Any]) -> str:
    checked = result["checked"]
    return (
        f"Before the policies became more and fewer, and at the end again, what each of {checked['loaders']} loaders has was compared with a compile from scratch of what the API server stores:"
        f" {checked['documents']:,} documents by their digests, and every address, identity and pod ({checked['pods']:,}) on each. They had"
        f" taken {checked['updates']:,} updates in the end."
    )


def _cluster(result: Mapping[str, Any]) -> str:
    shape = result["shape"]
    return (
        f"{shape['pods']:,} pods in {shape['identities']} workloads and {shape['namespaces']} namespaces on {shape['nodes']} nodes,"
        f" {shape['policies']:,} policies."
    )


def _machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    text = (
        f"{machine['processor']}, {machine['processors']} processors, which the API server, etcd, the operator, the loaders and the benchmark"
        f" share; {machine['memory_gib']} GiB, Linux {machine['kernel']}; {machine['date']}, commit {machine['commit']},"
        f" {result['seconds'] / 60:.0f} minutes."
    )
    busy = 100 * (result["steal"] + result["others"])
    if busy > _QUIET:
        text += f" **Others used {busy:.0f} % of the processors meanwhile: the times are worse than on a quiet machine.**"
    return text
