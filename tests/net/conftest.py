"""Fixtures of the network tests: everything real except the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from corpus.rules import CLOSED_PORT, PLAIN_PORT, PORTS, RULESETS
from support.enforce import Gate, Ports
from support.enforce import gate as make_gate
from support.judge import Judge
from support.netns import Topology, topology
from support.nodewire import NodeWire
from support.origin import Recorder
from support.rawtcp import Wire
from yett_policy.document import Direction

CORPUS: Ports = {port: RULESETS[name] for name, port in PORTS.items()} | {PLAIN_PORT: None}
"""The policy of most tests."""


@pytest.fixture(scope="module")
def wire(topo: Topology) -> Iterator[Wire]:
    """The client's eth0."""
    made = Wire(topo.client)
    yield made
    made.close()


@pytest.fixture(scope="module")
def servers(topo: Topology) -> Iterator[Mapping[int, Recorder]]:
    """A recording server on each port of the corpus."""
    made = {
        port: Recorder(topo.server.namespace, port, multipath=port == PORTS["multipath"])
        for port in (*PORTS.values(), PLAIN_PORT, CLOSED_PORT)
    }
    yield made
    for server in made.values():
        server.close()


@pytest.fixture(scope="module", params=["ingress", "egress"])
def direction(request: pytest.FixtureRequest) -> str:
    """Which side is governed: the server's pod, or the client's."""
    return str(request.param)


@pytest.fixture(scope="module")
def topo(direction: str) -> Iterator[Topology]:
    """client -- node -- server; a fresh one for each direction, so that no old connection disturbs."""
    with topology() as made:
        yield made


@pytest.fixture(scope="module")
def gate(topo: Topology, direction: str) -> Iterator[Gate]:
    """yett, enforcing the corpus rules."""
    with make_gate(topo, Direction[direction.upper()]) as made:
        made.apply(CORPUS)
        yield made


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    """IP version."""
    return int(request.param)


@pytest.fixture
def judge(gate: Gate, topo: Topology, wire: Wire, servers: Mapping[int, Recorder], family: int) -> Judge:
    """What this test asserts with."""
    return Judge(gate, topo, wire, servers, family)


@pytest.fixture
def node_wire(topo: Topology, wire: Wire, direction: str) -> Iterator[NodeWire]:
    """Frames straight to the governed hook."""
    with NodeWire(topo, wire, direction) as made:
        yield made


@pytest.fixture
def server_wire(topo: Topology) -> Iterator[Wire]:
    """The server's eth0: a server that lies."""
    made = Wire(topo.server)
    yield made
    made.close()
