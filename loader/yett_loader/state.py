"""PURE: what the maps hold, and single changes to it, as values.

Numbers are in host order, addresses 16 bytes (IPv4 mapped); bytes of structs are the business
of `enforce`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, ip_network
from typing import NamedTuple, assert_never

from yett_loader.copied import Copied

WORLD = 2
"""Identity of every address that ipcache does not know (IDENTITY_WORLD)."""


class PolicyKey(NamedTuple):
    """As `struct policy_key`, the prefix as number of port bits that count."""

    direction: int
    peer: int
    proto: int
    port: int
    port_bits: int


class PolicyValue(NamedTuple):
    """As `struct policy_entry`."""

    verdict: int
    reason: int
    flags: int
    rule: int
    ruleset: int
    """Handle, 0: none."""


Policy = Mapping[PolicyKey, PolicyValue]
"""One inner map of `policies`: a document with this node's numbers."""


class RulesetState(NamedTuple):
    """What tells one ruleset in a slot from another."""

    id: int
    """First 8 bytes of its digest, as in its header."""
    rule_base: int
    rules: int
    """How many numbers from rule_base on are its own."""


class ServiceKey(NamedTuple):
    """As `struct service_key`."""

    address: bytes
    proto: int
    port: int


Backends = tuple[tuple[int, int], ...]
"""(identity, port) of whoever may get a connection to a service, sorted."""


class EndpointState(NamedTuple):
    """As `struct endpoint`."""

    identity: int
    policy: int
    """Slot in `policies`."""
    ready: bool
    addresses: tuple[bytes, ...]
    open: bool = False
    """Nothing is said of its egress."""


class Prefix(NamedTuple):
    """As `struct ipcache_key`: 16 bytes and the number of bits that count."""

    address: bytes
    length: int

    @staticmethod
    def parse(text: str) -> Prefix:
        """From `10.0.0.0/8` or `2001:db8::1/128`; ValueError if it is no prefix."""
        network = ip_network(text)
        if isinstance(network, IPv4Network):
            return Prefix(mapped(network.network_address.packed), 96 + network.prefixlen)
        return Prefix(network.network_address.packed, network.prefixlen)

    def holds(self, address: bytes) -> bool:
        """Whether `address` (16 bytes) is inside."""
        shift = 128 - self.length
        return int.from_bytes(self.address) >> shift == int.from_bytes(address) >> shift

    def __str__(self) -> str:
        address = IPv6Address(self.address)
        if address.ipv4_mapped is not None and self.length >= 96:
            return f"{address.ipv4_mapped}/{self.length - 96}"
        return f"{address}/{self.length}"


def mapped(packed: bytes) -> bytes:
    """An address of 4 or 16 bytes as 16."""
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


@dataclass(frozen=True, slots=True)
class MapState:
    """The contents of the maps that decide."""

    rulesets: Mapping[int, RulesetState] = field(default_factory=dict)
    """By handle."""
    policies: Mapping[int, Policy] = field(default_factory=dict)
    """By slot."""
    ipcache: Mapping[Prefix, int] = field(default_factory=dict)
    endpoints: Mapping[int, EndpointState] = field(default_factory=dict)
    """By interface."""
    epoch: int = 0
    services: Mapping[ServiceKey, Backends] = field(default_factory=dict)


# -- changes ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutRuleset:
    handle: int
    value: RulesetState


@dataclass(frozen=True, slots=True)
class DropRuleset:
    handle: int


@dataclass(frozen=True, slots=True)
class PutPolicy:
    slot: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class DropPolicy:
    slot: int


@dataclass(frozen=True, slots=True)
class PutAddress:
    prefix: Prefix
    identity: int


@dataclass(frozen=True, slots=True)
class DropAddress:
    prefix: Prefix


@dataclass(frozen=True, slots=True)
class PutService:
    key: ServiceKey
    backends: Backends


@dataclass(frozen=True, slots=True)
class DropService:
    key: ServiceKey


@dataclass(frozen=True, slots=True)
class PutEndpoint:
    ifindex: int
    value: EndpointState


@dataclass(frozen=True, slots=True)
class DropEndpoint:
    ifindex: int


@dataclass(frozen=True, slots=True)
class SetEpoch:
    epoch: int


MapOp = (
    PutRuleset
    | DropRuleset
    | PutPolicy
    | DropPolicy
    | PutAddress
    | DropAddress
    | PutService
    | DropService
    | PutEndpoint
    | DropEndpoint
    | SetEpoch
)


def after(state: MapState, *ops: MapOp) -> MapState:
    """The state once `ops` are done; parts that none of them touches are the same objects."""
    rulesets, policies, ipcache = Copied(state.rulesets), Copied(state.policies), Copied(state.ipcache)
    endpoints, services, epoch = Copied(state.endpoints), Copied(state.services), state.epoch
    for op in ops:
        match op:
            case PutRuleset(handle, value):
                rulesets.put(handle, value)
            case DropRuleset(handle):
                rulesets.drop(handle)
            case PutPolicy(slot, policy):
                policies.put(slot, policy)
            case DropPolicy(slot):
                policies.drop(slot)
            case PutAddress(prefix, identity):
                ipcache.put(prefix, identity)
            case DropAddress(prefix):
                ipcache.drop(prefix)
            case PutService(key, backends):
                services.put(key, backends)
            case DropService(key):
                services.drop(key)
            case PutEndpoint(ifindex, endpoint):
                endpoints.put(ifindex, endpoint)
            case DropEndpoint(ifindex):
                endpoints.drop(ifindex)
            case SetEpoch(number):
                epoch = number
            case _:
                assert_never(op)
    return MapState(rulesets.now, policies.now, ipcache.now, endpoints.now, epoch, services.now)


def reached(have: MapState, want: MapState, ops: Iterable[MapOp]) -> MapState:
    """`after(have, *ops)`, where `ops` are all of a plan from `have` to `want`.

    Made of `want`'s own parts: the next plan sees at once which of them are the same.
    """
    done = after(
        have,
        *(op for op in ops if isinstance(op, PutPolicy | DropPolicy | PutRuleset | DropRuleset | SetEpoch)),
    )
    return MapState(
        done.rulesets,
        {**done.policies, **want.policies},
        want.ipcache,
        want.endpoints,
        done.epoch,
        want.services,
    )
