"""Namespaces, links, addresses and routes of a lab.

A fabric (a bridge in its own namespace) joins the nodes.  A pod hangs on its node by a veth as
with a point-to-point CNI: host routes on the node's side, a link-local gateway on the pod's.
"""

from __future__ import annotations

import hashlib

from yett_lab import address
from yett_lab.paths import NETNS, Paths
from yett_lab.run import command
from yett_lab.state import State

_PLAIN = """
for c in all default; do
  echo 0 >/proc/sys/net/ipv6/conf/$c/disable_ipv6
  echo 0 >/proc/sys/net/ipv6/conf/$c/accept_dad
  echo 0 >/proc/sys/net/ipv6/conf/$c/accept_ra
  echo 0 >/proc/sys/net/ipv4/conf/$c/rp_filter
done
"""
_FORWARD = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding\n"


def veth(pod: str) -> str:
    """Name of the node's end of a pod's veth."""
    return f"yett{hashlib.sha256(pod.encode()).hexdigest()[:10]}"


def create_cluster(paths: Paths, nodes: list[str]) -> None:
    """The fabric and the nodes, connected."""
    _add(paths.fabric, _PLAIN)
    links = ["link set lo up", "link add fabric type bridge", "link set fabric up"]
    for node in nodes:
        _add(paths.node_netns(node), _PLAIN + _FORWARD)
    for index, node in enumerate(nodes, 1):
        links += [
            f"link add node{index} type veth peer name eth0 netns {paths.node_netns(node)}",
            f"link set node{index} master fabric up",
        ]
    _ip(paths.fabric, links)
    for index, node in enumerate(nodes, 1):
        lines = [
            "link set lo up",
            f"addr add {address.node4(index)}/16 dev eth0",
            f"addr add {address.node6(index)}/64 dev eth0 nodad",
            "link set eth0 up",
        ]
        for other in range(1, len(nodes) + 1):
            if other != index:
                lines += [
                    f"route add {address.pods4(other)} via {address.node4(other)}",
                    f"route add {address.pods6(other)} via {address.node6(other)}",
                ]
        # Its own pods that do not exist: unreachable, not out to the fabric.
        lines += [
            f"route add unreachable {address.pods4(index)}",
            f"route add unreachable {address.pods6(index)}",
        ]
        _ip(paths.node_netns(node), lines)


def create_pod(paths: Paths, state: State, pod: str) -> None:
    """The pod's namespace and its link to the node."""
    placed = state.pods[pod]
    index = state.node_index(placed.node)
    inside, name = paths.pod_netns(pod), veth(pod)
    _add(inside, _PLAIN)
    _ip(
        paths.node_netns(placed.node),
        [
            f"link add {name} type veth peer name eth0 netns {inside}",
            f"link set {name} addrgenmode none",
            f"addr add {address.GATEWAY4}/32 dev {name}",
            f"addr add {address.GATEWAY6}/64 dev {name} nodad",
            f"link set {name} up",
            f"route add {placed.ipv4}/32 dev {name} src {address.node4(index)}",
            f"route add {placed.ipv6}/128 dev {name} src {address.node6(index)}",
        ],
    )
    _ip(
        inside,
        [
            "link set lo up",
            f"addr add {placed.ipv4}/32 dev eth0",
            f"addr add {placed.ipv6}/128 dev eth0 nodad",
            "link set eth0 up",
            f"route add {address.GATEWAY4} dev eth0 scope link",
            f"route add default via {address.GATEWAY4} dev eth0",
            f"route add default via {address.GATEWAY6} dev eth0",
        ],
    )


def delete_pod(paths: Paths, node: str, pod: str) -> None:
    """Its addresses are unreachable at once: the namespace itself goes later, in the kernel's time."""
    _ip(paths.node_netns(node), [f"link del {veth(pod)}"], force=True)
    delete(paths.pod_netns(pod))


def delete(netns: str) -> None:
    """Delete a namespace, if it is there."""
    if (NETNS / netns).exists():
        command(["ip", "netns", "del", netns], what=f"delete the network namespace {netns}")


def exists(netns: str) -> bool:
    return (NETNS / netns).exists()


def _add(netns: str, script: str) -> None:
    command(["ip", "netns", "add", netns], what=f"create the network namespace {netns}")
    command(
        ["nsenter", f"--net={NETNS / netns}", "/bin/sh", "-e"],
        stdin=script,
        what=f"configure the network namespace {netns}",
    )


def _ip(netns: str, lines: list[str], *, force: bool = False) -> None:
    command(
        ["ip", "-n", netns, *(["-force"] if force else []), "-batch", "-"],
        stdin="\n".join(lines) + "\n",
        what=f"configure the network of {netns}",
    )
