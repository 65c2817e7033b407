"""Which interface of this node leads to a pod: route, then neighbour and bridge FDB.

    ptp CNIs      address -> /32 (or /128) route -> veth
    bridge CNIs   address -> route -> bridge; address -> neighbour -> MAC -> FDB -> port

Only veths (and netkits) count: an address that is reached through a physical interface, or
through a gateway, is not a pod of this node, whatever we were told.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from yett_loader.endpoint import LocalEndpoint

_SERVICES = "kube-ipvs0"
POD_KINDS = ("veth", "netkit")
_UNICAST = 1  # RTN_UNICAST
_FAILED = 0x20  # NUD_FAILED
_DISCARD_PORT = 9


@dataclass(frozen=True, slots=True)
class Found:
    """The host side of a pod's interface."""

    ifindex: int
    ifname: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """Why there is none, or none yet."""

    reason: str


def find_all(endpoints: Iterable[LocalEndpoint]) -> dict[str, Found | NotFound]:
    """By endpoint name, for those whose interface is not known; in the caller's network namespace.

    Blocking (a few netlink messages per endpoint), and not for a thread that runs an event loop.
    """
    wanted = [endpoint for endpoint in endpoints if endpoint.ifindex is None]
    if not wanted:
        return {}
    with IPRoute() as netlink:
        node = _Node(netlink)
        return {endpoint.name: node.find(endpoint.addresses) for endpoint in wanted}


def interfaces() -> dict[int, str]:
    """Index -> name of every interface here."""
    return dict(socket.if_nameindex())


def pod_interfaces() -> frozenset[int]:
    """Interfaces of a pod's kind whose other end is in another network namespace; blocking, as `find_all` is."""
    with IPRoute() as netlink:
        links = netlink.get_links()
    return frozenset(
        link["index"] for link in links if _kind(link) in POD_KINDS and link.get("link_netnsid") is not None
    )


def node_addresses() -> frozenset[str]:
    """Every address of this node's own, in the caller's network namespace; blocking, as `find_all` is.

    Not those of Services, which kube-proxy in its IPVS mode puts on an interface, nor what is good
    only inside the machine, or (fe80::/10) on one link, where another machine may have the same.
    """
    with IPRoute() as netlink:
        services = set(netlink.link_lookup(ifname=_SERVICES))
        found = [
            ip_address(item.get("local") or item.get("address"))
            for item in netlink.get_addr()
            if item["index"] not in services
        ]
    return frozenset(
        str(item) for item in found if not (item.is_loopback or (item.version == 6 and item.is_link_local))
    )


class _Node:
    def __init__(self, netlink: Any) -> None:
        self._netlink = netlink
        self._fdb: list[Any] | None = None

    def find(self, addresses: Iterable[str]) -> Found | NotFound:
        """By the first address that leads to an interface; all that do must agree."""
        results = {address: self._by_address(address) for address in addresses}
        found = {result for result in results.values() if isinstance(result, Found)}
        if len(found) > 1:
            names = ", ".join(sorted(result.ifname for result in found))
            return NotFound(f"its addresses lead to different interfaces: {names}")
        if found:
            return found.pop()
        reasons = [result.reason for result in results.values() if isinstance(result, NotFound)]
        return NotFound("; ".join(dict.fromkeys(reasons)) or "it has no address")

    def _by_address(self, address: str) -> Found | NotFound:
        try:
            route = next(iter(self._netlink.route("get", dst=address)), None)
        except NetlinkError as error:
            return NotFound(f"no route to {address}: {error.args[-1]}")
        if route is None or route["type"] != _UNICAST:
            return NotFound(f"{address} is no unicast address of another host")
        if route.get("gateway") is not None or route.get("via") is not None:
            return NotFound(f"{address} is behind a gateway, not on this node")
        link = self._link(route.get("oif"))
        if link is None:
            return NotFound(f"the route to {address} has no interface")
        kind = _kind(link)
        if kind in POD_KINDS:
            return Found(link["index"], link.get("ifname"))
        if kind == "bridge":
            return self._behind_bridge(address, link)
        return NotFound(f"{address} is reached through {link.get('ifname')}, which is no pod's interface")

    def _behind_bridge(self, address: str, bridge: Mapping[str, Any]) -> Found | NotFound:
        name = bridge.get("ifname")
        mac = self._mac(address, bridge["index"])
        if mac is None:
            _provoke(address, bridge["index"])
            return NotFound(f"the MAC address of {address} on bridge {name} is not known yet")
        for entry in self._forwarding():
            # Entries of the ports' own MACs are permanent; a pod's is learned or set by its CNI.
            if entry.get("lladdr") == mac and entry.get("master") == bridge["index"]:
                port = self._link(entry["ifindex"])
                if port is not None and _kind(port) in POD_KINDS and port["index"] != bridge["index"]:
                    return Found(port["index"], port.get("ifname"))
        _provoke(address, bridge["index"])
        return NotFound(f"bridge {name} has not learned where {mac} ({address}) is yet")

    def _mac(self, address: str, ifindex: int) -> str | None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for entry in self._netlink.get_neighbours(family=family, ifindex=ifindex):
            if entry.get("dst") == address and not entry["state"] & _FAILED:
                mac = entry.get("lladdr")
                return str(mac) if mac else None
        return None

    def _forwarding(self) -> list[Any]:
        if self._fdb is None:
            self._fdb = list(self._netlink.fdb("dump"))
        return self._fdb

    def _link(self, ifindex: int | None) -> Any:
        if ifindex is None:
            return None
        with suppress(NetlinkError):
            return next(iter(self._netlink.link("get", index=ifindex)), None)
        return None


def _kind(link: Mapping[str, Any]) -> str:
    info = link.get("linkinfo")
    return str(info.get("kind")) if info else ""


def _provoke(address: str, ifindex: int) -> None:
    """Make the kernel ask who has `address`; the answer also teaches the bridge the port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        target = (
            (address, _DISCARD_PORT) if family == socket.AF_INET else (address, _DISCARD_PORT, 0, ifindex)
        )
        probe.sendto(b"", target)
