"""PURE: who is behind an address, an identity, a rule number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from types import MappingProxyType

from yett_loader.endpoint import LocalEndpoint
from yett_loader.rows import difference
from yett_policy.document import Snapshot
from yett_policy.identity import RESERVED

_RESERVED = {number: labels for labels, number in RESERVED.items()}


PodRow = tuple[str, str, int, tuple[str, ...]]
"""As in a snapshot: namespace, name, identity, addresses."""
_NOBODY: PodRow = ("", "", 0, ())


class Pods:
    """By address, of snapshots that are mostly like the one before."""

    def __init__(self) -> None:
        self._rows: tuple[PodRow, ...] = ()
        self._found: dict[str, tuple[PodRow, ...]] = {}

    def of(self, rows: tuple[PodRow, ...]) -> Mapping[str, tuple[PodRow, ...]]:
        """Address -> rows that have it."""
        if rows is not self._rows:
            gone, come = difference(self._rows, rows)
            found = dict(self._found)
            for row in gone:
                for address in map(plain, row[3]):
                    rest = tuple(other for other in found.pop(address, ()) if other != row)
                    if rest:
                        found[address] = rest
            for row in come:
                for address in {*map(plain, row[3])}:
                    found[address] = (*found.get(address, ()), row)
            self._rows, self._found = rows, found
        return self._found


@dataclass(frozen=True, slots=True)
class Names:
    """What a snapshot says about who is who."""

    pods: Mapping[str, tuple[PodRow, ...]] = field(default_factory=dict)
    """Address -> pods of the cluster that have it: those in the network of one node share the node's."""
    local: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Address -> (namespace, name) of a pod of this node."""
    labels: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    rules: Mapping[int, str] = field(default_factory=dict)
    rulesets: Mapping[int, str] = field(default_factory=dict)
    """Ruleset id -> digest."""
    endpoints: Mapping[int, str] = field(default_factory=dict)
    """ifindex -> namespace/pod."""
    listeners: Mapping[int, str] = field(default_factory=dict)
    """Port of a listener of the sidecar -> digest of the ruleset that it judges by."""

    def party(self, address: str, port: int, identity: int) -> dict[str, object]:
        """One end of a flow."""
        namespace, pod = self.local.get(address) or max(self.pods.get(address, (_NOBODY,)))[:2]
        return {
            "address": address,
            "port": port,
            "identity": identity,
            "namespace": namespace,
            "pod": pod,
            "labels": list(self.labels_of(identity)),
        }

    def labels_of(self, identity: int) -> tuple[str, ...]:
        """Of an identity; empty if unknown."""
        return self.labels.get(identity) or _RESERVED.get(identity, ())

    def rule(self, number: int) -> str:
        """The reference of a rule; empty for none, `unknown (N)` for a number without a name."""
        return self.rules.get(number, f"unknown ({number})") if number else ""


def names_of(
    snapshot: Snapshot,
    endpoints: Iterable[LocalEndpoint],
    rules: Mapping[int, str],
    rulesets: Mapping[int, str],
    listeners: Mapping[int, str] = MappingProxyType({}),
    pods: Pods | None = None,
) -> Names:
    """From what is applied; `pods` remembers those of the snapshot before."""
    local = tuple(endpoints)
    return Names(
        pods=(pods or Pods()).of(snapshot.pods),
        local={plain(address): (item.namespace, item.pod) for item in local for address in item.addresses},
        labels=dict(snapshot.identities),
        rules=rules,
        rulesets=rulesets,
        endpoints={item.ifindex: item.name for item in local if item.ifindex is not None},
        listeners=listeners,
    )


def plain(address: str) -> str:
    """As `address_text` spells it."""
    return str(IPv6Address(address)) if ":" in address else address


def address_text(packed: bytes) -> str:
    """16 bytes as text; mapped IPv4 as IPv4."""
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)
