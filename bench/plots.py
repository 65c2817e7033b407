"""The plots of the page: SVG, the same bytes for the same result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from bench.summary import Spread, find, ratio

_STYLE = {
    "bare": ("#888888", "bare veth"),
    "noop": ("#bbbbbb", "no-op program"),
    "yett-server": ("#1b9e77", "yett, server's veth"),
    "yett": ("#0b6e4f", "yett, both pods"),
    "haproxy": ("#d95f02", "HAProxy"),
    "envoy": ("#7570b3", "Envoy"),
    "strings": ("#e6ab02", "iptables -m string"),
}
_AXES = (
    ("connections", ("1", None, "8", "256"), "connections"),
    ("head", ("100 B", None, "1024 B", "2048 B", "8192 B"), "bytes of head"),
    ("rules", ("1 mixed", None, "1,000 mixed", "10,000 mixed"), "rules, a third of each kind"),
    ("body", ("0", "1 KiB", "64 KiB", "1 MiB"), "body by Content-Length"),
)
"""Axis, its values in order (None: the base point), label."""
_BASE_VALUE = {"connections": "32", "head": "300 B", "rules": "100 mixed"}


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Both figures."""
    folder.mkdir(exist_ok=True)
    mpl.rcParams.update({"svg.hashsalt": "yett", "svg.fonttype": "none", "font.size": 10})
    _base(result, folder / "bench-base.svg")
    _axes(result, folder / "bench-axes.svg")


def save(figure: Any, path: Path) -> None:
    """As SVG without a date, and close it."""
    figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    plt.close(figure)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def _base(result: Mapping[str, Any], path: Path) -> None:
    point = find(result, "base")
    if not point:
        return
    names = [name for name in _STYLE if name in point["systems"]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True)
    labels = [_STYLE[name][1] for name in names]
    colours = [_STYLE[name][0] for name in names]
    speeds = [ratio(point, name) for name in names]
    left.barh(
        labels,
        [s.middle for s in speeds],
        color=colours,
        xerr=[[s.middle - s.low for s in speeds], [s.high - s.middle for s in speeds]],
        error_kw={"lw": 0.8, "ecolor": "#333333"},
    )
    left.set_xlabel("requests/s, of bare veth in the same round")
    left.axvline(1, color="#888888", lw=0.8)
    left.invert_yaxis()
    costs = [Spread.of(point["systems"][name]["cpu"]) for name in names]
    right.barh(labels, [c.middle for c in costs], color=colours)
    right.set_xlabel("processor time per request, µs (client, server and what is between)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _axes(result: Mapping[str, Any], path: Path) -> None:
    figure, panels = plt.subplots(2, 2, figsize=(10, 7))
    for axes, (axis, values, label) in zip(panels.flat, _AXES, strict=True):
        points = [
            (value, find(result, axis, value)) if value else (None, find(result, "base")) for value in values
        ]
        order = _ordered(axis, points)
        ticks = [value for value, _ in order]
        for name in ("yett", "haproxy", "envoy", "strings"):
            found = [
                (number, ratio(point, name))
                for number, (_, point) in enumerate(order)
                if name in point["systems"]
            ]
            if not found:
                continue
            colour, title = _STYLE[name]
            at, spreads = [n for n, _ in found], [s for _, s in found]
            axes.plot(at, [s.middle for s in spreads], "o-", color=colour, label=title, ms=4)
            axes.fill_between(
                at, [s.low for s in spreads], [s.high for s in spreads], color=colour, alpha=0.15, lw=0
            )
        axes.axhline(1, color="#888888", lw=0.8)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_ylim(0, 1.3)
        axes.set_xlabel(label)
        axes.set_ylabel("requests/s, of bare veth")
        axes.spines[["top", "right"]].set_visible(False)
    handles, titles = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="upper center", ncols=len(titles), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    save(figure, path)


def _ordered(axis: str, points: Any) -> list[tuple[str, Any]]:
    found = [(value or _BASE_VALUE[axis], point) for value, point in points if point]
    if axis == "connections":
        found.sort(key=lambda item: int(item[0]))
    return found
