"""Rulesets in one real Envoy, with the listeners of production but without the redirect around them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from support.netns import Namespace
from yett_loader.sidecar.listeners import bootstrap, listener
from yett_loader.sidecar.process import environment, find_envoy
from yett_loader.sidecar.routes import CLUSTER, route_table
from yett_policy.document import Direction
from yett_policy.http.rule import RulesetSpec

FIRST_PORT = 20_000
PASSED = frozenset({200, 503})
"""Statuses of what the rules let through: 503 for CONNECT, whose way leads to a server that is not there."""


def standalone(spec: RulesetSpec, port: int, *, server: int = 0) -> dict[str, Any]:
    """The listener of production without the redirect around it: what would pass goes to the server on that
    port, or is answered with PASSED.
    """
    made = listener(port, Direction.INGRESS)
    http = deepcopy(made["filter_chains"][0]["filters"][-1])
    table = route_table("rules", spec)
    for route in table["virtual_hosts"][0]["routes"]:
        # A direct response would refuse every CONNECT.
        if not server and "connect_matcher" not in route["match"] and route.pop("route", None):
            route["direct_response"] = {"status": 200}
    config = http["typed_config"]
    del config["rds"], config["access_log"]
    config["route_config"] = table
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": f"l{port}", "address": address, "filter_chains": [{"filters": [http]}]}


def _cluster(server: int) -> dict[str, Any]:
    """The cluster of production, but with one server in it, or none."""
    made = bootstrap("", "", "")["static_resources"]["clusters"]
    (cluster,) = [deepcopy(item) for item in made if item["name"] == CLUSTER]
    del cluster["lb_policy"]
    place = {"socket_address": {"address": "127.0.0.1", "port_value": server}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": place}}]}] if server else []
    load = {"cluster_name": CLUSTER, "endpoints": endpoints}
    return {**cluster, "type": "STATIC", "load_assignment": load}


def answer(port: int, head: bytes) -> int:
    """The status, 0 for none."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head)
        line = connection.recv(64)
    found = re.match(rb"HTTP/1\.[01] (\d+)", line)
    return int(found[1]) if found else 0


@contextmanager
def serving(specs: Sequence[RulesetSpec], directory: Path, *, server: int = 0) -> Iterator[Namespace]:
    """An Envoy with the rules of each on FIRST_PORT + its index, in a namespace of its own; in front of the
    server that listens there on that port.  It counts what it lets through in `allowed`.
    """
    config, log = directory / "envoy.json", directory / "log"
    listeners = [standalone(spec, FIRST_PORT + index, server=server) for index, spec in enumerate(specs)]
    resources = {"listeners": listeners, "clusters": [_cluster(server)]}
    config.write_text(json.dumps({"static_resources": resources}))
    inside = Namespace("envoy")
    with log.open("wb") as output:
        process = inside.popen(
            [find_envoy(), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "error"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(directory),
        )
    try:
        with inside:
            end = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < end:
                try:
                    socket.create_connection(("127.0.0.1", FIRST_PORT), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
        assert process.poll() is None, log.read_text()
        yield inside
    finally:
        process.kill()
        process.wait()
        inside.close()
