"""Addresses: they exist inside the lab's namespaces only, so all labs may use the same."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from yett_lab.errors import LabError

NODES_MAX = 200
GATEWAY4 = "169.254.1.1"
"""Of every pod: a link-local address of the node's end of its veth."""
GATEWAY6 = "fe80::1"

_FIRST_POD = 2
_LAST_POD = 254
_FIRST_SERVICE = 10
_LAST_SERVICE = 65000


def node4(index: int) -> str:
    """Of node `index`, from 1, on the fabric."""
    return f"172.18.0.{index}"


def node6(index: int) -> str:
    return f"fd00:172:18::{index:x}"


def pods4(index: int) -> str:
    """The network of a node's pods."""
    return f"10.244.{index}.0/24"


def pods6(index: int) -> str:
    return f"fd00:10:244:{index:x}::/64"


def pod4(index: int, host: int) -> str:
    return f"10.244.{index}.{host}"


def pod6(index: int, host: int) -> str:
    return f"fd00:10:244:{index:x}::{host:x}"


def service4(number: int) -> str:
    return str(ipaddress.IPv4Address("10.96.0.0") + number)


def service6(number: int) -> str:
    return str(ipaddress.IPv6Address("fd00:10:96::") + number)


def service_number(address: str) -> int:
    """The number of a cluster IP that a user asked for."""
    return int(ipaddress.IPv4Address(address)) - int(ipaddress.IPv4Address("10.96.0.0"))


def next_pod(used: Collection[int], last: int) -> int:
    """The next free host number after the last one given out: an address rests before reuse."""
    return _next(used, last, _FIRST_POD, _LAST_POD, "pod addresses on one node (253); add nodes with --nodes")


def next_service(used: Collection[int], last: int) -> int:
    return _next(used, last, _FIRST_SERVICE, _LAST_SERVICE, "service addresses")


def _next(used: Collection[int], last: int, low: int, high: int, what: str) -> int:
    for step in range(1, high - low + 2):
        number = low + (max(last, low - 1) - low + step) % (high - low + 1)
        if number not in used:
            return number
    raise LabError(f"no more {what}")
