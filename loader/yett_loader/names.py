"""PURE: who is behind an address, an identity, a rule number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from types import MappingProxyType

from yett_loader.endpoint import LocalEndpoint
from yett_policy.document import Snapshot
from yett_policy.identity import RESERVED

_RESERVED = {number: labels for labels, number in RESERVED.items()}


@dataclass(frozen=True, slots=True)
class Names:
    """What a snapshot says about who is who."""

    pods: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Address -> (namespace, name)."""
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
        namespace, pod = self.pods.get(address, ("", ""))
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
) -> Names:
    """From what is applied."""
    local = tuple(endpoints)
    pods = {
        address: (namespace, name) for namespace, name, _, addresses in snapshot.pods for address in addresses
    }
    pods |= {address: (item.namespace, item.pod) for item in local for address in item.addresses}
    return Names(
        pods={plain(address): pod for address, pod in pods.items()},
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
