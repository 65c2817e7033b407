"""PURE: every address of the node itself has the identity host.

The operator knows those in the Node object.  What comes from the node may have others: with a ptp
or bridge CNI the kubelet's probes come from the gateway of the pods' network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address

from yett_loader.endpoint import LocalEndpoint
from yett_loader.state import Prefix, mapped
from yett_policy.identity import HOST, RESERVED

_LABEL = "reserved:host"
_RESERVED_HOSTS = frozenset(number for labels, number in RESERVED.items() if _LABEL in labels)

Identities = tuple[tuple[int, tuple[str, ...]], ...]
"""As in a snapshot."""


def hosts_among(identities: Identities) -> frozenset[int]:
    """Those that are host: that alone, or that and more (an API server, part of an ipBlock)."""
    return _RESERVED_HOSTS | {number for number, labels in identities if _LABEL in labels}


def own_rows(
    ipcache: Mapping[Prefix, int],
    hosts: frozenset[int],
    endpoints: Iterable[LocalEndpoint],
    addresses: Iterable[str],
) -> dict[Prefix, int]:
    """What to lay over `ipcache` so that `addresses` (of this node's interfaces) are host.

    An identity of the operator's that is among `hosts` stays.
    An address of a pod never becomes host: a CNI may set it up before it gives it away.
    """
    pods = {_whole(address) for endpoint in endpoints for address in endpoint.addresses}
    own = {_whole(address) for address in addresses} - pods
    return {prefix: HOST for prefix in sorted(own) if ipcache.get(prefix) not in hosts}


@lru_cache(1 << 12)  # of this node's interfaces and pods
def _whole(address: str) -> Prefix:
    return Prefix(mapped(ip_address(address).packed), 128)
