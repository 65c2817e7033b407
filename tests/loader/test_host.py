"""Which addresses are the node's own, and that they are host."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import wanted as build
from support.netns import Namespace, ip
from yett_loader.discovery import node_addresses
from yett_loader.endpoint import LocalEndpoint
from yett_loader.host import hosts_among, own_rows
from yett_loader.lookup import identity_of
from yett_loader.state import WORLD, Prefix, mapped
from yett_policy.identity import HOST, HOST_APISERVER, KUBE_APISERVER, REMOTE_NODE

BLOCK_HOST = 1 << 24
"""An identity of the operator's for a node inside an ipBlock."""


IDENTITIES = ((BLOCK_HOST, ("cidr:192.0.2.0/24", "reserved:host")), (build.WEB, ("k8s:app=web",)))


def with_host(
    said: Mapping[str, int], own: Collection[str], pods: Sequence[LocalEndpoint] = ()
) -> dict[Prefix, int]:
    rows = {Prefix.parse(text): identity for text, identity in said.items()}
    return rows | own_rows(rows, hosts_among(IDENTITIES), pods, own)


def seen_as(ipcache: Mapping[Prefix, int], address: str) -> int:
    return identity_of(ipcache, mapped(ip_address(address).packed))


@pytest.mark.parametrize(
    ("said", "identity"),
    [
        ({}, HOST),
        ({"10.0.0.0/8": build.CLIENT}, HOST),
        ({"10.244.1.1/32": REMOTE_NODE}, HOST),
        ({"10.244.1.1/32": KUBE_APISERVER}, HOST),
        ({"10.244.1.1/32": build.WEB}, HOST),
        ({"10.244.1.1/32": HOST_APISERVER}, HOST_APISERVER),
        ({"10.244.1.1/32": BLOCK_HOST}, BLOCK_HOST),
        ({"::ffff:10.244.1.1/128": REMOTE_NODE}, HOST),
    ],
)
def test_an_address_of_the_node_is_host_whatever_the_operator_says(
    said: dict[str, int], identity: int
) -> None:
    assert seen_as(with_host(said, ["10.244.1.1"]), "10.244.1.1") == identity


def test_an_address_of_a_pod_is_never_host_wherever_it_is_set_up() -> None:
    said = {"10.9.2.2/32": build.WEB, "fd00:9:2::2/128": build.WEB}
    assert with_host(said, ["10.9.2.2", "fd00:9:2::2"], [build.web()]) == with_host(said, [])


ADDRESSES = st.ip_addresses(network="10.0.0.0/28").map(str) | st.ip_addresses(network="fd00::/124").map(str)
ROWS = st.dictionaries(
    ADDRESSES.map(lambda text: f"{text}/{128 if ':' in text else 32}"),
    st.sampled_from([HOST, WORLD, REMOTE_NODE, HOST_APISERVER, BLOCK_HOST, build.WEB]),
)


@given(ROWS, st.sets(ADDRESSES), st.sets(ADDRESSES, max_size=3))
def test_nothing_but_the_nodes_addresses_changes(rows: dict[str, int], own: set[str], pods: set[str]) -> None:
    before = with_host(rows, ())
    after = with_host(rows, own, [replace(build.web(), addresses=tuple(pods))])
    hosts = {HOST, HOST_APISERVER, BLOCK_HOST}
    for address in map(str, (*own, *pods, "10.0.0.3", "fd00::3")):
        if address in own - pods:
            assert seen_as(after, address) in hosts
            if seen_as(before, address) in hosts:
                assert seen_as(after, address) == seen_as(before, address)
        else:
            assert seen_as(after, address) == seen_as(before, address)


@pytest.mark.net
def test_the_nodes_own_addresses_are_those_of_its_interfaces() -> None:
    node, pod = Namespace("node"), Namespace("pod")
    with node:
        assert node_addresses() == frozenset()  # 127.0.0.1 and ::1 are everybody's
        ip(f"""
            link add pod0 type veth peer name eth0 netns {pod.path}
            addr add 10.70.0.1/32 peer 10.70.0.2 dev pod0
            addr add fd00:70::1/64 dev pod0 nodad
            link set pod0 up
            link add uplink type veth peer name uplink1
            addr add 192.0.2.7/24 dev uplink
            addr add 169.254.20.10/32 dev uplink
            addr add 192.0.2.8/32 dev lo
            link add kube-ipvs0 type veth peer name ipvs1
            addr add 10.96.0.1/32 dev kube-ipvs0
        """)
        found = node_addresses()
    with pod:
        ip("addr add 10.70.0.2/32 dev eth0\nlink set eth0 up")
    with node:
        assert node_addresses() == found  # a pod's address is not one of the node's
    assert found == {"10.70.0.1", "fd00:70::1", "192.0.2.7", "169.254.20.10", "192.0.2.8"}
    node.close()
    pod.close()
