"""Between values and maps: the only reader and writer of the maps that decide."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import assert_never

from yett_loader.assign import Limits, handle, tier_and_slot
from yett_loader.inner import OuterMap, outer
from yett_loader.kernel import NO_PREALLOC, Map, MapSpec, MapType, abi
from yett_loader.state import (
    Backends,
    DropAddress,
    DropEndpoint,
    DropPolicy,
    DropRuleset,
    DropService,
    EndpointState,
    MapOp,
    MapState,
    Policy,
    PolicyKey,
    PolicyValue,
    Prefix,
    PutAddress,
    PutEndpoint,
    PutPolicy,
    PutRuleset,
    PutService,
    RulesetState,
    ServiceKey,
    SetEpoch,
)
from yett_policy.http.layout import TIER_SIZE

log = logging.getLogger(__name__)

READY = abi.number("ENDPOINT_READY")
OPEN = abi.number("ENDPOINT_OPEN")
ENDPOINT_ADDRESSES = abi.number("YETT_ENDPOINT_ADDRS")
SERVICE_BACKENDS = abi.number("YETT_SERVICE_BACKENDS")
_FIXED_BITS = 48
_ZERO = bytes(4)
_TOGETHER = 128
"""Inner maps that go into an outer one with one call; each takes a descriptor meanwhile."""


@dataclass(slots=True)
class Enforcer:
    """The maps that decide, open."""

    maps: Mapping[str, Map]
    tables: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    """Of the rulesets that the next apply() may write, by handle."""
    _configuring: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """apply() may run in a thread while the event loop sets a flag."""

    @property
    def limits(self) -> Limits:
        """How much fits."""
        return Limits(
            policies=self.maps["policies"].spec.max_entries,
            rulesets=tuple(
                self.maps[f"rulesets{tier}"].spec.max_entries if f"rulesets{tier}" in self.maps else 0
                for tier in range(len(TIER_SIZE))
            ),
            ipcache=self.maps["ipcache"].spec.max_entries,
            services=self.maps["services"].spec.max_entries,
            endpoints=self.maps["endpoints"].spec.max_entries,
        )

    # -- reading --------------------------------------------------------------------------

    def read_state(self) -> MapState:
        """What is there."""
        return MapState(
            rulesets=self._rulesets(),
            policies=self._policies(),
            ipcache={
                _prefix(key): int(_int(abi.unpack("ipcache_entry", value)["identity"]))
                for key, value in self.maps["ipcache"].items()
            },
            endpoints={
                abi.unpack_u32(key): _endpoint(value) for key, value in self.maps["endpoints"].items()
            },
            epoch=self.config()["epoch"],
            services=dict(map(_service_item, self.maps["services"].items())),
        )

    def config(self) -> dict[str, int]:
        """`struct config`."""
        value = self.maps["config"].lookup(_ZERO) or bytes(abi.size("config"))
        return {name: _int(item) for name, item in abi.unpack("config", value).items()}

    def _rulesets(self) -> dict[int, RulesetState]:
        found = {}
        for tier in range(len(TIER_SIZE)):
            rulesets = outer(self.maps, f"rulesets{tier}")
            for slot in range(rulesets.spec.max_entries if rulesets else 0):
                inner = rulesets.inner(slot) if rulesets else None
                if inner is None:
                    continue
                with inner:
                    head = abi.unpack("ruleset", inner.lookup(_ZERO) or b"")
                # By convention of the tables the default rule has the last number.
                found[handle(tier, slot)] = RulesetState(
                    _int(head["id"]), _int(head["rule_base"]), _int(head["default_rule"]) + 1
                )
        return found

    def _policies(self) -> dict[int, Policy]:
        policies = self._outer("policies")
        found: dict[int, Policy] = {}
        for slot in range(policies.spec.max_entries):
            inner = policies.inner(slot)
            if inner is not None:
                with inner:
                    found[slot] = dict(map(policy_item, inner.items()))
        return found

    def _outer(self, name: str) -> OuterMap:
        found = outer(self.maps, name)
        if found is None:
            raise KeyError(name)
        return found

    # -- writing --------------------------------------------------------------------------

    def apply(self, ops: Iterable[MapOp]) -> int:
        """Do them in order; how many.  The first failure is raised, the rest not done.

        Neighbours of one kind go to the kernel together, where it has a call for many.
        """
        todo = list(ops)
        for kind, group in groupby(todo, type):
            some = list(group)
            if kind is PutPolicy:
                self._put_policies([op for op in some if isinstance(op, PutPolicy)])
            elif kind is PutRuleset:
                self._put_rulesets([op for op in some if isinstance(op, PutRuleset)])
            elif kind is PutAddress:
                self._put_addresses([op for op in some if isinstance(op, PutAddress)])
            elif kind is PutService:
                self._put_services([op for op in some if isinstance(op, PutService)])
            else:
                for op in some:
                    self.apply_one(op)
            if kind is DropEndpoint:
                self.forget_flows(*(op.ifindex for op in some if isinstance(op, DropEndpoint)))
        return len(todo)

    def apply_one(self, op: MapOp) -> None:
        """Do one change."""
        match op:
            case PutRuleset():
                self._put_rulesets([op])
            case DropRuleset(number):
                tier, slot = tier_and_slot(number)
                self._outer(f"rulesets{tier}").drop(slot)
            case PutPolicy():
                self._put_policies([op])
            case DropPolicy(slot):
                self._outer("policies").drop(slot)
            case PutAddress():
                self._put_addresses([op])
            case DropAddress(prefix):
                self.maps["ipcache"].delete(_prefix_key(prefix))
            case PutService():
                self._put_services([op])
            case DropService(key):
                self.maps["services"].delete(_service_key(key))
            case PutEndpoint(ifindex, endpoint):
                self.maps["endpoints"].update(abi.pack_u32(ifindex), _endpoint_value(endpoint))
            case DropEndpoint(ifindex):
                self.maps["endpoints"].delete(abi.pack_u32(ifindex))
            case SetEpoch(epoch):
                self.configure(epoch=epoch)
            case _:
                assert_never(op)

    def configure(self, **fields: int) -> None:
        """Change some of `struct config`."""
        with self._configuring:
            self.maps["config"].update(_ZERO, abi.pack("config", **(self.config() | fields)))

    def forget_flows(self, *ifindexes: int) -> int:
        """Delete the flows of interfaces; how many there were."""
        flows, keys = self.maps["flows"], frozenset(ifindexes)
        gone = [key for key, _ in flows.items() if abi.unpack("flow_key", key)["ifindex"] in keys]
        return sum(flows.delete(key) for key in gone)

    def forget_hits(self, rules: Iterable[int]) -> None:
        """Set the counters of rule numbers to 0, since they get a new meaning."""
        hits = self.maps.get("rule_hits")
        if hits is None:
            return
        zero = bytes(hits.value_room)
        for number in rules:
            hits.update(abi.pack_u32(number), zero)

    def _put_rulesets(self, ops: Sequence[PutRuleset]) -> None:
        for tier in sorted({tier_and_slot(op.handle)[0] for op in ops}):
            these = [op for op in ops if tier_and_slot(op.handle)[0] == tier]
            for start in range(0, len(these), _TOGETHER):
                with ExitStack() as closing:
                    inner = [
                        (tier_and_slot(op.handle)[1], closing.enter_context(self._ruleset(op)))
                        for op in these[start : start + _TOGETHER]
                    ]
                    self._outer(f"rulesets{tier}").put(inner)

    def _ruleset(self, op: PutRuleset) -> Map:
        tables = abi.patched("ruleset", self.tables[op.handle], rule_base=op.value.rule_base)
        size = TIER_SIZE[tier_and_slot(op.handle)[0]]
        inner = Map.create("ruleset", MapSpec(MapType.ARRAY, 4, size, 1, 0))
        inner.update(_ZERO, tables.ljust(size, b"\0"))
        return inner

    def _put_policies(self, ops: Sequence[PutPolicy]) -> None:
        for start in range(0, len(ops), _TOGETHER):
            with ExitStack() as closing:
                inner = [
                    (op.slot, closing.enter_context(_policy(op.policy)))
                    for op in ops[start : start + _TOGETHER]
                ]
                self._outer("policies").put(inner)

    def _put_addresses(self, ops: Sequence[PutAddress]) -> None:
        self.maps["ipcache"].update_many(
            [(_prefix_key(op.prefix), abi.pack("ipcache_entry", identity=op.identity)) for op in ops]
        )

    def _put_services(self, ops: Sequence[PutService]) -> None:
        self.maps["services"].update_many([(_service_key(op.key), _service_value(op.backends)) for op in ops])


def _policy(policy: Policy) -> Map:
    key_size, value_size = abi.size("policy_key"), abi.size("policy_entry")
    spec = MapSpec(MapType.LPM_TRIE, key_size, value_size, max(1, len(policy)), NO_PREALLOC)
    inner = Map.create("policy", spec)
    inner.update_many([(_policy_key(key), _policy_value(value)) for key, value in policy.items()])
    return inner


# -- structs ------------------------------------------------------------------------------


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no number")
    return value


def _ints(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        raise TypeError(f"{value!r} are no numbers")
    return tuple(map(_int, value))


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{value!r} is no bytes")
    return value


def _prefix_key(prefix: Prefix) -> bytes:
    return abi.pack("ipcache_key", prefixlen=prefix.length, addr=prefix.address)


def _prefix(key: bytes) -> Prefix:
    fields = abi.unpack("ipcache_key", key)
    return Prefix(_bytes(fields["addr"]), _int(fields["prefixlen"]))


def _policy_key(key: PolicyKey) -> bytes:
    return abi.pack(
        "policy_key",
        prefixlen=_FIXED_BITS + key.port_bits,
        peer=socket.htonl(key.peer),
        direction=key.direction,
        proto=key.proto,
        port=socket.htons(key.port),
    )


def _policy_value(value: PolicyValue) -> bytes:
    return abi.pack(
        "policy_entry",
        verdict=value.verdict,
        reason=value.reason,
        flags=value.flags,
        rule=value.rule,
        ruleset=value.ruleset,
    )


def policy_item(item: tuple[bytes, bytes]) -> tuple[PolicyKey, PolicyValue]:
    """An element of an inner map of `policies`."""
    key, value = abi.unpack("policy_key", item[0]), abi.unpack("policy_entry", item[1])
    return (
        PolicyKey(
            _int(key["direction"]),
            socket.ntohl(_int(key["peer"])),
            _int(key["proto"]),
            socket.ntohs(_int(key["port"])),
            _int(key["prefixlen"]) - _FIXED_BITS,
        ),
        PolicyValue(*(_int(value[name]) for name in ("verdict", "reason", "flags", "rule", "ruleset"))),
    )


def _service_key(key: ServiceKey) -> bytes:
    return abi.pack("service_key", addr=key.address, proto=key.proto, port=socket.htons(key.port))


def _service_value(backends: Backends) -> bytes:
    """Of too many only how many."""
    told = backends[:SERVICE_BACKENDS]
    room = (0,) * (SERVICE_BACKENDS - len(told))
    return abi.pack(
        "service",
        count=len(backends),
        identities=(*(identity for identity, _ in told), *room),
        ports=(*(socket.htons(port) for _, port in told), *room),
    )


def _service_item(item: tuple[bytes, bytes]) -> tuple[ServiceKey, Backends]:
    key, value = abi.unpack("service_key", item[0]), abi.unpack("service", item[1])
    count = _int(value["count"])
    rows = tuple(zip(_ints(value["identities"]), map(socket.ntohs, _ints(value["ports"])), strict=True))
    return (
        ServiceKey(_bytes(key["addr"]), _int(key["proto"]), socket.ntohs(_int(key["port"]))),
        rows[:count] + ((0, 0),) * (count > SERVICE_BACKENDS),
    )


def _endpoint_value(endpoint: EndpointState) -> bytes:
    if len(endpoint.addresses) > ENDPOINT_ADDRESSES:
        raise OverflowError(f"an endpoint has at most {ENDPOINT_ADDRESSES} addresses")
    return abi.pack(
        "endpoint",
        identity=endpoint.identity,
        policy=endpoint.policy,
        flags=(READY if endpoint.ready else 0) | (OPEN if endpoint.open else 0),
        addr_count=len(endpoint.addresses),
        addrs=b"".join(endpoint.addresses),
    )


def _endpoint(value: bytes) -> EndpointState:
    fields = abi.unpack("endpoint", value)
    addresses = _bytes(fields["addrs"])
    count = min(_int(fields["addr_count"]), ENDPOINT_ADDRESSES)
    return EndpointState(
        identity=_int(fields["identity"]),
        policy=_int(fields["policy"]),
        ready=bool(_int(fields["flags"]) & READY),
        addresses=tuple(addresses[at : at + 16] for at in range(0, count * 16, 16)),
        open=bool(_int(fields["flags"]) & OPEN),
    )
