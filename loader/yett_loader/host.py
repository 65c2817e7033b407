"""PURE: every address of the node itself has the identity host.

The operator knows those in the Node object.  What comes from the node may have others: with a ptp
or bridge CNI the kubelet's probes come from the gateway of the pods' network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

from yett_loader.endpoint import LocalEndpoint
from yett_loader.state import Prefix, mapped
from yett_policy.document import Snapshot
from yett_policy.identity import HOST, RESERVED

_LABEL = "reserved:host"
_RESERVED_HOSTS = frozenset(number for labels, number in RESERVED.items() if _LABEL in labels)


def with_host(snapshot: Snapshot, endpoints: Iterable[LocalEndpoint], addresses: Iterable[str]) -> Snapshot:
    """`snapshot`, but `addresses` (of this node's interfaces) are host.

    An identity of the operator's that is host and more (an API server, part of an ipBlock) stays.
    An address of a pod never becomes host: a CNI may set it up before it gives it away.
    """
    pods = {_whole(address) for endpoint in endpoints for address in endpoint.addresses}
    own = {_whole(address) for address in addresses} - pods
    hosts = _RESERVED_HOSTS | {number for number, labels in snapshot.identities if _LABEL in labels}
    others: list[tuple[str, int]] = []
    for text, identity in snapshot.ipcache:
        prefix = Prefix.parse(text)
        if prefix in own and identity in hosts:
            own.remove(prefix)
        if prefix not in own:
            others.append((text, identity))
    return replace(snapshot, ipcache=(*others, *((str(prefix), HOST) for prefix in sorted(own))))


def _whole(address: str) -> Prefix:
    return Prefix(mapped(ip_address(address).packed), 128)
