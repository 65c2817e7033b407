"""Many short connections from few ports through the sidecar: no 503, no reset, nothing left waiting.

`python -m bench.sidecar.soak [--seconds 600] [--requests 1000000]` runs until both are reached.  Half of the
time the server keeps its connections, half of the time it ends each after its answer, so that ports
are used again on both sides of Envoy.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from bench import load
from bench.check import WrongVerdict, verify
from bench.request import Shape, requests
from bench.rules import Mix, RuleList, to_spec
from bench.sidecar.redirect import Redirect
from bench.world import PORT, UPLOAD_PORT, await_port, spawn, stop
from support.netns import sysctl

CONNECTIONS = 512
CLIENT_PORTS = "32768 36863"
"""Eight for each connection: a port is used again long before TIME-WAIT would be over.  On a busy machine every third
connection is ended by the client first, whose port then rests for a second: half as many ran out."""
CLOSING_PORT = 8082
_TURN = 10
"""Seconds of one load."""
_RULES = RuleList(Mix.MIXED, 1).rules
_CLOSING = f"""\
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend closing
    bind :{CLOSING_PORT} backlog 4096
    option httpclose
    http-request return status 200 content-type text/plain string "ok\\n"
"""


@dataclass(slots=True)
class Soak:
    """What was seen; every request was answered with 200, or there is none."""

    requests: int = 0
    seconds: float = 0
    slowest: float = 0
    """Milliseconds: the worst 99th percentile of a turn."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Sockets on the node at the end, by state."""
    resident: tuple[int, int] = (0, 0)
    """Bytes of Envoy after the first turn and at the end."""


def soak(seconds: float, least: int = 0, *, connections: int = CONNECTIONS, turn: int = _TURN) -> Soak:
    """LoadError or WrongVerdict at the first thing that is not right."""
    seen = Soak()
    with contextlib.ExitStack() as cleanup:
        system = Redirect()
        cleanup.callback(system.close)
        _serve_closing(system, cleanup)
        spec = to_spec(_RULES)
        system.apply({PORT: spec, UPLOAD_PORT: spec, CLOSING_PORT: spec})
        verify(system, _RULES)
        envoy, client = system.envoy, system.world.topology.client.namespace
        with client:
            sysctl("net/ipv4/ip_local_port_range", CLIENT_PORTS)
        begin = time.monotonic()
        while time.monotonic() - begin < seconds or seen.requests < least:
            for port in (PORT, CLOSING_PORT):
                sample = load.run(
                    client,
                    f"http://{system.world.address}:{port}",
                    requests(_RULES, Shape(close=True)),
                    connections=connections,
                    seconds=turn,
                    pids=system.pids,
                )
                seen.requests += sample.requests
                seen.slowest = max(seen.slowest, sample.p99 / 1000)
            seen.resident = (seen.resident[0] or system.resident(), system.resident())
        seen.seconds = time.monotonic() - begin
        verify(system, _RULES)
        if system.envoy != envoy:
            raise WrongVerdict(f"{system.label}: Envoy ended during the soak and was started again")
        seen.waiting = _states(system)
    return seen


def main() -> int:
    """0, or 1 with the first thing that was not right."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--requests", type=int, default=0, help="go on until there were so many")
    arguments = parser.parse_args()
    try:
        seen = soak(arguments.seconds, arguments.requests)
    except (load.LoadError, WrongVerdict) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    print(f"soak: {report(seen)}")
    return 0


def report(seen: Soak) -> str:
    """One sentence."""
    sockets = ", ".join(f"{count} {state}" for state, count in sorted(seen.waiting.items())) or "none"
    first, last = (round(size / (1 << 20)) for size in seen.resident)
    return (
        f"{seen.requests:,} requests on as many connections in {seen.seconds:.0f} s, all answered with 200; slowest"
        f" 99th percentile of a turn {seen.slowest:.0f} ms; Envoy {first} MiB after the first turn, {last} MiB at"
        f" the end; sockets left on the node: {sockets}"
    )


def _serve_closing(system: Redirect, cleanup: contextlib.ExitStack) -> None:
    """A server that ends each connection."""
    server, directory = system.world.topology.server.namespace, system.world.directory
    path, log = directory / "closing.cfg", directory / "closing.log"
    path.write_text(_CLOSING)
    process = spawn(server, ["haproxy", "-db", "-q", "-f", str(path)], log)
    cleanup.callback(stop, process)
    await_port(server, ("127.0.0.1", CLOSING_PORT), process, log)


def _states(system: Redirect) -> dict[str, int]:
    output = system.world.topology.node.run(["ss", "-Htan"]).stdout.decode()
    return dict(Counter(line.split()[0] for line in output.splitlines() if not line.startswith("LISTEN")))


if __name__ == "__main__":
    sys.exit(main())
