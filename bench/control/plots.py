"""The plot of the page: SVG, the same bytes for the same result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from bench.plots import save

_LINES = (
    ("pod", "#0b6e4f", "pod added, sent", 50),
    ("workload", "#7570b3", "pod of a new workload, sent", 50),
    ("policy", "#d95f02", "policy changed, in a real kernel", 100),
)
_GROWTH = ("#66c2a5", "#1b9e77", "#0b6e4f")


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """What share of the changes was through after how long; and beside how many policies."""
    folder.mkdir(exist_ok=True)
    mpl.rcParams.update({"svg.hashsalt": "yett", "svg.fonttype": "none", "font.size": 10})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
    for key, colour, label, target in _LINES:
        reach = result[key]
        _steps(left, reach if key == "policy" else reach["sent"], colour, label)
        left.axvline(target, color="#888888", lw=0.8, ls=":")
    left.set_ylabel("share of the samples")
    left.set_xlabel("ms from the API server's answer (dotted: targets of the p99)")
    growth = sorted(result["growth"].items(), key=lambda pair: int(pair[0]))
    for (policies, item), colour in zip(growth, _GROWTH, strict=False):
        _steps(right, item["read"], colour, f"beside {int(policies):,} policies")
    right.set_xlabel("ms until all loaders have read of a pod that none of them selects")
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.02)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right", fontsize=9)
    figure.tight_layout()
    save(figure, folder / "bench-control.svg")


def _steps(axes: Any, samples: list[float], colour: str, label: str) -> None:
    ordered = sorted(samples)
    shares = [(number + 1) / len(ordered) for number in range(len(ordered))]
    axes.step(ordered, shares, where="post", color=colour, label=label)
