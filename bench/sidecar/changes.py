"""500 rulesets: what they weigh in Envoy, and how long a change of one takes to be in force.

While one ruleset changes, wrk loads another: it must not lose a request.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bench import load
from bench.check import WrongVerdict
from bench.request import Shape, requests
from bench.rules import Mix, RuleList, to_spec
from bench.sidecar.redirect import Redirect
from bench.sidecar.wanted import Rules
from bench.world import PORT, UPLOAD_PORT
from yett_policy.http.rule import HttpRule, RulesetSpec

RULESETS = 500
_FIRST_PORT = 10_000
_PROBES = 4
"""Connections on which a change is awaited, so that each worker has been asked."""
_STILL = RuleList(Mix.MIXED, 1).rules


def run(changes: int, rulesets: int = RULESETS) -> dict[str, Any]:
    """Sizes in bytes, times in milliseconds; WrongVerdict or LoadError if anything was lost."""
    with contextlib.ExitStack() as cleanup:
        system = Redirect()
        cleanup.callback(system.close)
        system.apply(_rules(0, 2))
        few = system.resident()
        begin = time.monotonic()
        system.apply(_rules(0, rulesets))
        loaded = time.monotonic() - begin
        many = system.resident()
        with _loaded(system) as tally:
            times = [_change(system, number, rulesets) for number in range(1, changes + 1)]
        if not tally:
            raise WrongVerdict("no request was made beside the changes: they prove nothing")
        return {
            "rulesets": rulesets,
            "resident": {"2": few, str(rulesets): many, "after": system.resident()},
            "load_ms": round(1000 * loaded),
            "in_force_ms": [round(total, 2) for total, _ in times],
            "applied_ms": [round(applied, 2) for _, applied in times],
            "requests_beside": sum(tally),
        }


def _rules(number: int, count: int) -> Rules:
    """Each ruleset is another; the one of PORT allows just /NUMBER."""
    rules: dict[int, RulesetSpec] = {PORT: _only(f"/{number}"), UPLOAD_PORT: to_spec(_STILL)}
    rules |= {_FIRST_PORT + n: _only(f"/tenant/{n}") for n in range(count - len(rules))}
    return rules


def _only(path: str) -> RulesetSpec:
    ref = "L7Policy/bench/rules:ingress[0].toPorts[0].rules.http[0]"
    rule = HttpRule(ref, method="GET", path=path)
    return replace(RulesetSpec((rule,), "L7Policy/bench/rules:default-deny"), forbidden=True)


def _change(system: Redirect, number: int, rulesets: int) -> tuple[float, float]:
    """Milliseconds until every worker judges by the new rules, and what of them the loader says it took."""
    before, after = f"/{number - 1}", f"/{number}"
    with contextlib.ExitStack() as cleanup:
        probes = [cleanup.enter_context(_connection(system)) for _ in range(_PROBES)]
        for probe in probes:
            if (_ask(probe, before), _ask(probe, after)) != (200, 403):
                raise WrongVerdict(
                    f"{system.label}: before change {number} the rules are not those before it"
                )
        # The push is the benchmark's; on a node changes come by the operator's stream, so the clock
        # is the agent's while it applies, and ours from then on.
        applied = system.apply(_rules(number, rulesets))
        begin = time.monotonic()
        for probe in probes:
            while _ask(probe, after) != http.client.OK:
                if time.monotonic() - begin > 10:
                    raise WrongVerdict(f"{system.label}: change {number} is not in force after ten seconds")
        spent = applied + time.monotonic() - begin
        for probe in probes:
            if _ask(probe, before) == http.client.OK:
                raise WrongVerdict(f"{system.label}: after change {number} the old rules still allow")
    return 1000 * spent, 1000 * applied


@contextlib.contextmanager
def _connection(system: Redirect) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection(system.world.address, PORT, timeout=5)
    with system.world.topology.client.namespace:
        made.connect()
    made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.closing(made):
        yield made


def _ask(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


@contextlib.contextmanager
def _loaded(system: Redirect) -> Iterator[list[int]]:
    """A load on another ruleset meanwhile; the numbers of its requests."""
    tally: list[int] = []
    failed: list[Exception] = []
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                sample = load.run(
                    system.world.topology.client.namespace,
                    f"http://{system.world.address}:{UPLOAD_PORT}",
                    requests(_STILL, Shape()),
                    connections=16,
                    seconds=5,
                    pids=system.pids,
                )
                tally.append(sample.requests)
        except (load.LoadError, OSError) as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield tally
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]
