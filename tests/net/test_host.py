"""The node reaches its pods; whoever is only given an address of the node does not become the node by that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from socket import create_connection, htons, socket

import pytest

from corpus.rules import PORTS
from support.enforce import HOST, Gate
from support.judge import GET_PRIVATE, GET_PUBLIC
from support.netns import Namespace, Topology
from support.origin import Recorder
from yett_loader.state import WORLD

pytestmark = [pytest.mark.bpf, pytest.mark.net]

PORT = PORTS["public"]
families = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture(scope="module")
def direction() -> str:
    """What the node sends is judged where a pod receives."""
    return "ingress"


@pytest.fixture(autouse=True)
def origin(servers: Mapping[int, Recorder]) -> Recorder:
    return servers[PORT]


def connect(source: Namespace, topo: Topology, family: int) -> socket:
    with source:
        return create_connection((topo.server.address(family), PORT), timeout=5)


def passes(connection: socket, request: bytes) -> bool:
    """Whether the server answers."""
    answer = b""
    with suppress(ConnectionResetError):
        connection.sendall(request)
        answer = connection.recv(4096)
    return answer.startswith(b"HTTP/1.1 200")


@contextmanager
def masquerading(topo: Topology, family: int) -> Iterator[None]:
    """What the node forwards to the server comes from the node's own address, as by a node port."""
    table = f"{'ip' if family == 4 else 'ip6'} masquerading"
    rules = (
        f"add table {table}; "
        f"add chain {table} out {{ type nat hook postrouting priority srcnat; }}; "
        f'add rule {table} out oifname "{topo.server.ifname}" masquerade'
    )
    done = topo.node.run(["nft", rules])
    assert done.returncode == 0, done.stderr
    yield
    assert topo.node.run(["nft", f"delete table {table}"]).returncode == 0


def peers(gate: Gate, connection: socket) -> set[object]:
    """Who the client of this connection is; a late packet of an earlier one has a flow, too."""
    port = htons(connection.getsockname()[1])  # masquerading keeps it while nobody else has it
    interface = gate.topology.server.ifindex
    return {
        flow["peer"] for flow in gate.flows() if flow["ifindex"] == interface and flow["remote_port"] == port
    }


def next_epoch(gate: Gate) -> None:
    """Every flow is judged again."""
    gate.enforcer.configure(epoch=gate.enforcer.config()["epoch"] + 1)


@pytest.fixture(autouse=True)
def no_flows(gate: Gate) -> None:
    gate.enforcer.forget_flows(gate.topology.server.ifindex)


@families
def test_a_socket_of_the_node_may_ask_for_everything(gate: Gate, topo: Topology, family: int) -> None:
    with connect(topo.node, topo, family) as connection:
        assert passes(connection, GET_PRIVATE)
        next_epoch(gate)
        assert passes(connection, GET_PRIVATE)
        assert peers(gate, connection) == {HOST}


@families
def test_a_client_that_is_masqueraded_is_the_world_not_the_node(
    gate: Gate, topo: Topology, origin: Recorder, family: int
) -> None:
    with masquerading(topo, family):
        with connect(topo.client.namespace, topo, family) as connection:
            assert passes(connection, GET_PUBLIC)  # which everybody may
            assert peers(gate, connection) == {WORLD}
            next_epoch(gate)
            assert passes(connection, GET_PUBLIC)
            assert peers(gate, connection) == {WORLD}
            assert not passes(connection, GET_PRIVATE)
        with connect(topo.client.namespace, topo, family) as connection:
            assert not passes(connection, GET_PRIVATE)
