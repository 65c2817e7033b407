"""The plot of the page: requests and processor time beside TPROXY, along the number of connections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from bench.plots import save
from bench.sidecar.points import CONNECTIONS, KEPT, NEW, on_kube
from bench.summary import find, ratio

_LINES = (
    (KEPT, "#0b6e4f", "o-"),
    (on_kube(KEPT), "#0b6e4f", "o--"),
    (NEW, "#d95f02", "o-"),
    (on_kube(NEW), "#d95f02", "o--"),
)
_PANELS = (
    ("rps", "requests/s, of the same Envoy behind TPROXY"),
    ("cpu", "processor time per request, of the same"),
)


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Two panels, the same bytes for the same result."""
    path.parent.mkdir(exist_ok=True)
    mpl.rcParams.update({"svg.hashsalt": "yett", "svg.fonttype": "none", "font.size": 10})
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6))
    for axes, (what, label) in zip(panels, _PANELS, strict=True):
        for axis, colour, style in _LINES:
            found = [
                (number, ratio(point, "sidecar", "tproxy", what))
                for number, count in enumerate(CONNECTIONS)
                if (point := find(result, axis, str(count)))
            ]
            at, spreads = [n for n, _ in found], [s for _, s in found]
            axes.plot(at, [s.middle for s in spreads], style, color=colour, label=axis, ms=4)
            axes.fill_between(
                at, [s.low for s in spreads], [s.high for s in spreads], color=colour, alpha=0.15, lw=0
            )
        axes.axhline(1, color="#888888", lw=0.8)
        axes.set_xticks(range(len(CONNECTIONS)), [str(count) for count in CONNECTIONS])
        axes.set_ylim(0, 2)
        axes.set_xlabel("connections")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    handles, titles = panels[0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="upper center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.88))
    save(figure, path)
