"""The targets, each with what was measured and whether that is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from bench.control.shape import Shape


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of samples; the p99 of fewer than a hundred is their most."""

    median: float
    p90: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        """Of at least one value."""
        ordered = sorted(values)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return cls(median(ordered), at(0.9), at(0.99), ordered[-1])

    @property
    def all(self) -> tuple[float, float, float, float]:
        """In the order of the page."""
        return self.median, self.p90, self.p99, self.most


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table."""

    what: str
    wanted: str
    measured: str
    met: bool


def judge(result: Mapping[str, Any]) -> list[Target]:
    """All of them."""
    growth = {int(policies): item for policies, item in result["growth"].items()}
    few, many = growth[min(growth)], growth[max(growth)]
    dearer = median(many["processor_ms"]) / median(few["processor_ms"]) - 1
    churn = result["churn"]
    written = churn["writes"]["most"] / churn["seconds"]
    over_base, slope = per_pod(result, "base"), per_pod(result, "few")
    loaded = churn["rate"] >= 0.9 * result["counts"]["churn"] and churn["writes"]["total"] > 0
    return [
        Target(
            "full compile, at the start with everything stored",
            "less than 10 s",
            f"{result['compile']:.1f} s ({result['start']:.1f} s from the process's start until it serves)",
            result["compile"] < 10,
        ),
        _sent("pod added: documents and addresses sent", result["pod"], 50),
        _p99("policy changed: in force in a real kernel, and said so", result["policy"], 100),
        Target(
            "operator's memory for one more pod, with all policies and documents there",
            "at most 1 KiB",
            f"{slope:.2f} KiB",
            slope <= 1,
        ),
        Target(
            "the same for all pods, over an operator without any: with the documents, rules and statuses that come with the first of each workload",
            "at most 1 KiB a pod",
            f"{over_base:.2f} KiB a pod",
            over_base <= 1,
        ),
        Target(
            f"added cost of a pod with {max(growth):,} policies that do not select it instead of {min(growth):,}",
            "none (within 10 %)",
            f"{100 * dearer:+.0f} % of the operator's processor time; in the compiler"
            f" {median(few['compiler_ms']):.1f} and {median(many['compiler_ms']):.1f} ms a batch",
            dearer < 0.1,
        ),
        Target(
            f"status writes under churn of {churn['rate']:.0f} pods a second",
            "at most 1 a policy a second",
            f"{written:.2f}",
            written <= 1 and loaded,
        ),
    ]


def per_pod(result: Mapping[str, Any], less: str) -> float:
    """KiB of all processes that all pods take over none (`base`) or one of each workload (`few`)."""
    shape = Shape(**result["shape"])
    before, full = (sum(result["memory"][key].values()) for key in (less, "full"))
    return float(full - before) / (shape.pods - (shape.few if less == "few" else 0))


def _sent(what: str, reach: Mapping[str, Sequence[float]], limit: float) -> Target:
    target = _p99(what, reach["sent"], limit)
    read = Quantiles.of(reach["read"])
    return replace(
        target, measured=f"{target.measured} (read by the last loader: {read.p99:.1f} and {read.median:.1f})"
    )


def _p99(what: str, samples: Sequence[float], limit: float) -> Target:
    found = Quantiles.of(samples)
    return Target(
        what,
        f"p99 below {limit:.0f} ms",
        f"p99 {found.p99:.1f} ms, median {found.median:.1f} ms",
        found.p99 < limit,
    )
