"""The host side of a pod's interface, found on the topologies that CNIs make."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from socket import if_nametoindex

import pytest

from support.netns import Namespace, Topology, ip
from yett_loader.discovery import Found, NotFound, find_all, interfaces
from yett_loader.doorbell import Doorbell
from yett_loader.endpoint import LocalEndpoint

pytestmark = pytest.mark.net


def pod(name: str, *addresses: str, ifindex: int | None = None) -> LocalEndpoint:
    return LocalEndpoint("default", name, 300, addresses, ifindex)


def find(*addresses: str) -> Found | NotFound:
    return find_all([pod("p", *addresses)])["default/p"]


@pytest.fixture(scope="module")
def bridged() -> Iterator[tuple[Namespace, Namespace]]:
    """A node with a bridge (cni0), and a pod behind one of its ports."""
    node, inside = Namespace("node"), Namespace("pod")
    with node:
        ip(f"""
            link add cni0 type bridge
            addr add 10.77.0.1/24 dev cni0
            addr add fd77::1/64 dev cni0 nodad
            link set cni0 up
            link add port1 type veth peer name eth0 netns {inside.path}
            link set port1 master cni0 up
            link add port2 type veth peer name other
            link set port2 master cni0 up
        """)
    with inside:
        ip("""
            addr add 10.77.0.5/24 dev eth0
            addr add fd77::5/64 dev eth0 nodad
            link set eth0 up
        """)
    yield node, inside
    inside.close()
    node.close()


@pytest.fixture
def ptp(pods: Topology) -> Iterator[Topology]:
    """Host routes to the veths, as kindnet and Calico make them."""
    with pods.node:
        ip(f"""
            route add 10.50.0.1/32 dev {pods.client.ifname}
            route add fd50::1/128 dev {pods.client.ifname}
            route add 10.50.0.2/32 via {pods.server.v4}
            route add unreachable 10.51.0.0/16
        """)
        yield pods
        ip(f"""
            route del 10.50.0.1/32 dev {pods.client.ifname}
            route del fd50::1/128 dev {pods.client.ifname}
            route del 10.50.0.2/32 via {pods.server.v4}
            route del unreachable 10.51.0.0/16
        """)


@pytest.mark.parametrize("addresses", [("10.50.0.1",), ("fd50::1",), ("10.50.0.1", "fd50::1")])
def test_a_host_route_leads_to_the_veth(ptp: Topology, addresses: tuple[str, ...]) -> None:
    assert find(*addresses) == Found(ptp.client.ifindex, ptp.client.ifname)


@pytest.mark.parametrize("address", ["10.77.0.5", "fd77::5"])
def test_behind_a_bridge_the_port_is_found_once_the_pod_answered(
    bridged: tuple[Namespace, Namespace], address: str
) -> None:
    node, _ = bridged
    with node:
        found = find(address)
        for _ in range(50):
            if isinstance(found, Found):
                break
            assert "is not known yet" in found.reason or "has not learned" in found.reason
            asyncio.run(asyncio.sleep(0.1))
            found = find(address)
        assert found == Found(if_nametoindex("port1"), "port1")


def test_a_pod_that_does_not_answer_is_not_found(bridged: tuple[Namespace, Namespace]) -> None:
    with bridged[0]:
        found = find("10.77.0.99")
    assert found == NotFound("the MAC address of 10.77.0.99 on bridge cni0 is not known yet")


def test_an_address_behind_a_gateway_is_not_of_this_node(ptp: Topology) -> None:
    assert find("10.50.0.2") == NotFound("10.50.0.2 is behind a gateway, not on this node")


def test_an_address_of_the_node_itself_is_no_pod(ptp: Topology) -> None:
    assert find(ptp.client.gateway4) == NotFound(
        f"{ptp.client.gateway4} is no unicast address of another host"
    )


def test_an_unreachable_address_says_so(ptp: Topology) -> None:
    found = find("10.51.0.1")
    assert isinstance(found, NotFound)
    assert found.reason.startswith("no route to 10.51.0.1: ")


def test_an_interface_that_is_no_veth_is_never_a_pods(pods: Topology) -> None:
    with pods.node:
        ip("route add 10.60.0.1/32 dev lo")
        try:
            assert find("10.60.0.1") == NotFound(
                "10.60.0.1 is reached through lo, which is no pod's interface"
            )
        finally:
            ip("route del 10.60.0.1/32 dev lo")


def test_addresses_that_disagree_are_no_answer(ptp: Topology) -> None:
    found = find("10.50.0.1", ptp.server.v4)
    assert isinstance(found, NotFound)
    assert found.reason.startswith("its addresses lead to different interfaces")


def test_a_known_interface_is_not_looked_for() -> None:
    assert find_all([pod("p", "10.50.0.1", ifindex=7)]) == {}


def test_the_interfaces_of_the_namespace_are_listed(pods: Topology) -> None:
    with pods.node:
        assert interfaces()[pods.client.ifindex] == pods.client.ifname


def test_the_doorbell_rings_once_for_a_burst_of_changes(pods: Topology) -> None:
    async def listen() -> int:
        rings = 0

        def ring() -> None:
            nonlocal rings
            rings += 1

        with Doorbell(ring, quiet=0.05):
            ip("link add bell0 type veth peer name bell1\nlink set bell0 up\nlink del bell0")
            await asyncio.sleep(0.3)
        ip("link add bell0 type veth peer name bell1\nlink del bell0")
        await asyncio.sleep(0.1)
        return rings

    with pods.node:
        assert asyncio.run(listen()) in (1, 2)  # the burst may outlast the quiet time


async def test_the_doorbell_rings_for_an_address(pods: Topology) -> None:
    with pods.node:
        rung = asyncio.Event()
        with Doorbell(rung.set, quiet=0):
            for command in ("add", "del"):
                ip(f"addr {command} 10.70.0.9/32 dev lo")
                await asyncio.wait_for(rung.wait(), 5)
                rung.clear()
