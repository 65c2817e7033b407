"""The run: every system up at once, each round visits all of them in turn."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from bench import load
from bench.check import evasions, verify
from bench.points import BASE_RULES, Point
from bench.request import requests
from bench.rules import RuleList
from bench.systems.envoy import Envoy
from bench.systems.haproxy import Haproxy
from bench.systems.noop import Noop
from bench.systems.strings import Strings
from bench.systems.system import System
from bench.systems.yett import Yett, YettServer
from bench.world import PORT, UPLOAD_PORT

SYSTEMS: dict[str, Callable[[], System]] = {
    "bare": System,
    "noop": Noop,
    "yett-server": YettServer,
    "yett": Yett,
    "haproxy": Haproxy,
    "envoy": Envoy,
    "strings": Strings,
}


def measure(
    points: Sequence[Point], known: Mapping[str, Callable[[], System]] = SYSTEMS
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(points with their samples, checks of correctness); raises at the first thing that is not right."""
    measured, checks = [], []
    with contextlib.ExitStack() as cleanup:
        names = [name for name in known if any(name in point.systems for point in points)]
        systems = {}
        for name in names:
            systems[name] = known[name]()
            cleanup.callback(systems[name].close)
        for rules, group in groupby(points, key=lambda point: point.rules):
            these = list(group)
            used = {name for point in these for name in point.systems}
            for name, system in systems.items():
                if name in used and rules.count <= system.most_rules:
                    checks.append(_configure(system, rules))
            measured += [_measure(point, systems) for point in these]
    return measured, checks


def _configure(system: System, rules: RuleList) -> dict[str, Any]:
    begin = time.monotonic()
    system.configure(rules.rules)
    spent = time.monotonic() - begin
    tried = verify(system, rules.rules)
    found = evasions(system, rules.rules) if system.enforces and rules == BASE_RULES else []
    return {
        "system": system.name,
        "label": system.label,
        "rules": rules.name,
        "seconds": round(spent, 2),
        "tried": tried,
        "evasions": found,
    }


def _measure(point: Point, systems: dict[str, System]) -> dict[str, Any]:
    wanted = requests(point.rules.rules, point.shape)
    port = PORT if point.shape.body is None else UPLOAD_PORT
    chosen = [systems[name] for name in point.systems if point.rules.count <= systems[name].most_rules]
    samples: dict[str, list[load.Sample]] = {system.name: [] for system in chosen}
    for number in range(point.rounds):
        for system in chosen[:: -1 if number % 2 else 1]:  # none is always after the same one
            sample = _sample(system, point, wanted, port)
            if number:
                samples[system.name].append(sample)
    line = "  ".join(
        f"{name} {sorted(s.rps for s in found)[len(found) // 2]:.0f}" for name, found in samples.items()
    )
    print(f"bench: {point.name}: {line} requests/s", flush=True)
    return {
        "axis": point.axis,
        "value": point.value,
        "connections": point.connections,
        "rules": point.rules.name,
        "head": point.shape.head,
        "systems": {
            name: {
                "rps": [round(s.rps, 1) for s in found],
                "p50": [s.p50 for s in found],
                "p99": [s.p99 for s in found],
                "cpu": [round(s.cpu, 3) for s in found],
            }
            for name, found in samples.items()
        },
    }


def _sample(system: System, point: Point, wanted: list[bytes], port: int) -> load.Sample:
    try:
        return load.run(
            system.world.topology.client.namespace,
            f"http://{system.world.address}:{port}",
            wanted,
            connections=point.connections,
            seconds=point.seconds,
            pids=system.pids,
        )
    except load.LoadError as error:
        raise load.LoadError(f"{system.label}, {point.name}: {error}") from error
