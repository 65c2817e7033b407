"""The network between boxes: a bridge in the control plane's, a link from it to each node and one to the machine.

Nodes 10.89.0.0/24, pods 10.244.0.0/16, services 10.96.0.0/16, each inside namespaces only, so that
clusters do not meet.  The machine's own namespace gets one interface with a /30 of 100.64.0.0/16.
"""

from __future__ import annotations

import ipaddress
import json

from cluster.box import Box
from cluster.errors import ClusterError
from yett_lab.run import command

CONTROL_IP = "10.89.0.1"
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"


def node_ip(index: int) -> str:
    """Address of the node with this number, from 1."""
    return f"10.89.0.{10 + index}"


def uplink_ip(uplink: int) -> str:
    """Address of the control plane as the machine reaches it."""
    return f"100.64.{uplink}.2"


def uplink_name(uplink: int) -> str:
    """The machine's own interface."""
    return f"yettc{uplink}"


def free_uplink() -> int:
    """A number whose /30 no interface of the machine overlaps."""
    links = json.loads(command(["ip", "-j", "-4", "addr"], what="list the machine's addresses"))
    networks = [
        ipaddress.ip_network(f"{entry['local']}/{entry['prefixlen']}", strict=False)
        for link in links
        for entry in link["addr_info"]
    ]
    for uplink in range(256):
        mine = ipaddress.ip_network(f"100.64.{uplink}.0/30")
        if not any(mine.overlaps(network) for network in networks if network.prefixlen >= 8):
            return uplink
    raise ClusterError("cannot find a free network in 100.64.0.0/16; take a cluster down first")


def connect_control(box: Box, uplink: int) -> None:
    """The bridge, and the link to the machine."""
    name = uplink_name(uplink)
    _ip(box, ["link add fabric type bridge", f"addr add {CONTROL_IP}/24 dev fabric", "link set fabric up"])
    lines = [
        f"link add {name} type veth peer name uplink netns {box.pid}",
        f"addr add 100.64.{uplink}.1/30 dev {name}",
        f"link set {name} up",
    ]
    command(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n", what=f"add the interface {name}")
    _ip(box, [f"addr add {uplink_ip(uplink)}/30 dev uplink", "link set uplink up"])


def connect_node(control: Box, node: Box, index: int) -> None:
    """The link between a node and the bridge."""
    name = f"node{index}"
    # Only the network namespace is entered, so that the number of the node's init means the same.
    lines = [
        f"link add {name} type veth peer name eth0 netns {node.pid}",
        f"link set {name} master fabric up",
    ]
    argv = ["nsenter", "-t", str(control.pid), "-n", "ip", "-batch", "-"]
    command(argv, stdin="\n".join(lines) + "\n", what=f"connect {node.name}")
    _ip(
        node,
        [f"addr add {node_ip(index)}/24 dev eth0", "link set eth0 up", f"route add default via {CONTROL_IP}"],
    )


def route_pods(box: Box, cidrs: dict[int, str], own: int | None) -> None:
    """Routes to the pods of every other node: index of the node -> its pods' network."""
    lines = [f"route replace {cidr} via {node_ip(index)}" for index, cidr in cidrs.items() if index != own]
    if own is not None:  # its pods that do not exist: unreachable, not out to the fabric
        lines.append(f"route replace unreachable {cidrs[own]}")
    _ip(box, lines)


def unroute_pods(box: Box, cidr: str) -> None:
    """The pods' network of a node that has gone."""
    box.run(["ip", "route", "flush", "root", cidr], what=f"remove the route to {cidr} on {box.name}")


def _ip(box: Box, lines: list[str]) -> None:
    box.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n", what=f"configure the network of {box.name}")
