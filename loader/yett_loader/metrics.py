"""Counters: read from the per-CPU maps, shown as JSON or in Prometheus' text format.

The text format is a dozen lines to write; a client library would bring its own registry and
threads for numbers that live in the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from yett_loader.events import reason_name
from yett_loader.kernel import Map, abi

REASON_COUNT = abi.number("REASON_COUNT")
_DIRECTIONS = ("ingress", "egress")


@dataclass(frozen=True, slots=True)
class Counter:
    """By direction and reason."""

    direction: str
    reason: str
    packets: int
    """Verdicts on new flows and lone packets."""
    requests: int


def read_counters(metrics: Map) -> list[Counter]:
    """Those that are not 0."""
    counters = []
    for index in range(min(metrics.spec.max_entries, len(_DIRECTIONS) * REASON_COUNT)):
        per_cpu = [abi.unpack("metric", value) for value in metrics.lookup_percpu(abi.pack_u32(index))]
        packets, requests = (sum(_int(cpu[name]) for cpu in per_cpu) for name in ("packets", "requests"))
        if packets or requests:
            direction = _DIRECTIONS[index // REASON_COUNT]
            counters.append(Counter(direction, reason_name(index % REASON_COUNT), packets, requests))
    return counters


def add(counters: Iterable[Counter], requests: Mapping[tuple[str, str], int]) -> list[Counter]:
    """With requests, by direction and reason, that were counted elsewhere."""
    more = dict(requests)
    known = [replace(c, requests=c.requests + more.pop((c.direction, c.reason), 0)) for c in counters]
    return known + [Counter(direction, reason, 0, count) for (direction, reason), count in more.items()]


def read_hits(rule_hits: Map, names: Mapping[int, str]) -> dict[str, int]:
    """Rule reference -> verdicts it decided, for the rules that have a number."""
    hits: dict[str, int] = {}
    for number, name in names.items():
        count = sum(map(abi.unpack_u64, rule_hits.lookup_percpu(abi.pack_u32(number))))
        hits[name] = hits.get(name, 0) + count
    return hits


def prometheus(
    counters: Iterable[Counter], hits: Mapping[str, int], gauges: Mapping[str, tuple[str, float]]
) -> str:
    """Text format 0.0.4.  `gauges`: name -> (help, value)."""
    known = list(counters)
    lines = [
        "# HELP yett_flows_total Verdicts on new flows and lone packets.",
        "# TYPE yett_flows_total counter",
        *(
            _sample("yett_flows_total", c.packets, direction=c.direction, reason=c.reason)
            for c in known
            if c.packets
        ),
        "# HELP yett_requests_total Verdicts on HTTP requests.",
        "# TYPE yett_requests_total counter",
        *(
            _sample("yett_requests_total", c.requests, direction=c.direction, reason=c.reason)
            for c in known
            if c.requests
        ),
        "# HELP yett_rule_hits_total Verdicts that a rule decided.",
        "# TYPE yett_rule_hits_total counter",
        *(_sample("yett_rule_hits_total", count, rule=rule) for rule, count in sorted(hits.items()) if count),
    ]
    for name, (text, value) in sorted(gauges.items()):
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", _sample(name, value)]
    return "\n".join(lines) + "\n"


def _sample(name: str, value: float, **labels: str) -> str:
    quoted = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"{name}{{{quoted}}} {value}" if quoted else f"{name} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
