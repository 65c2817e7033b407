"""What the maps say about one endpoint, in words: for `yettctl bpf ...` and for people.

Read from the kernel, not from what we think we wrote.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping

from yett_loader.assign import tier_and_slot
from yett_loader.enforce import policy_item
from yett_loader.events import PROTOCOLS, reason_name
from yett_loader.inner import outer
from yett_loader.kernel import Map, abi
from yett_loader.names import Names, address_text
from yett_loader.state import PolicyKey
from yett_policy.document import Verdict

_FLOW_FLAGS = {bit: name.removeprefix("FLOW_").lower() for bit, name in abi.enum("flow_flags").items()}
_DIRECTIONS = ("ingress", "egress")


def policy(maps: Mapping[str, Map], slot: int, names: Names) -> list[dict[str, object]]:
    """The entries of one policy, in look-up order: the first that fits decides."""
    policies = outer(maps, "policies")
    inner = policies.inner(slot) if policies else None
    if inner is None:
        return []
    with inner:
        entries = sorted(map(policy_item, inner.items()), key=lambda item: _rank(item[0]))
    hits = maps.get("rule_hits")
    handles = {value.ruleset for _, value in entries if value.verdict != Verdict.REDIRECT}
    rulesets = {handle: _ruleset(maps, handle, names) for handle in handles}
    rows = []
    for key, value in entries:
        redirected = value.verdict == Verdict.REDIRECT
        tier, number = tier_and_slot(value.ruleset)
        count = (
            sum(map(abi.unpack_u64, hits.lookup_percpu(abi.pack_u32(value.rule))))
            if hits and value.rule
            else 0
        )
        rows.append(
            {
                "direction": _DIRECTIONS[key.direction & 1],
                "peer": key.peer,
                "peer_labels": list(names.labels_of(key.peer)) if key.peer else [],
                "protocol": PROTOCOLS.get(key.proto, str(key.proto)) if key.proto else "any",
                "ports": ports(key),
                "verdict": Verdict(value.verdict).name.lower(),
                "reason": reason_name(value.reason),
                "forbidden": bool(value.flags),
                "rule": names.rule(value.rule),
                "ruleset": names.listeners.get(value.ruleset, "gone")
                if redirected
                else rulesets[value.ruleset],
                "ruleset_place": f"sidecar:{value.ruleset}"
                if redirected
                else f"rulesets{tier}[{number}]"
                if value.ruleset
                else "",
                "hits": count,
            }
        )
    return rows


def ports(key: PolicyKey) -> str:
    """`any`, `80` or `8080-8095`."""
    if key.port_bits == 0:
        return "any"
    last = key.port | (0xFFFF >> key.port_bits)
    return str(key.port) if last == key.port else f"{key.port}-{last}"


def flows(maps: Mapping[str, Map], names: Names, ifindex: int | None = None) -> Iterator[dict[str, object]]:
    """The flow table, of one interface or all; in no order."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    for raw_key, raw_value in maps["flows"].items():
        key, flow = abi.unpack("flow_key", raw_key), _ints(abi.unpack("flow", raw_value))
        numbers = _ints(key)
        if ifindex is not None and numbers["ifindex"] != ifindex:
            continue
        ingress = flow["direction"] == 0
        local = names.party(address_text(_raw(key["local"])), socket.ntohs(numbers["local_port"]), 0)
        remote = names.party(
            address_text(_raw(key["remote"])), socket.ntohs(numbers["remote_port"]), flow["peer"]
        )
        yield {
            "id": flow["id"],
            "ifindex": numbers["ifindex"],
            "endpoint": names.endpoints.get(numbers["ifindex"], ""),
            "direction": _DIRECTIONS[flow["direction"] & 1],
            "protocol": PROTOCOLS.get(numbers["proto"], str(numbers["proto"])),
            "source": remote if ingress else local,
            "destination": local if ingress else remote,
            "verdict": Verdict(flow["verdict"]).name.lower() if flow["verdict"] <= max(Verdict) else "",
            "reason": reason_name(flow["reason"]),
            "rule": names.rule(flow["rule"]),
            "flags": [name for bit, name in _FLOW_FLAGS.items() if flow["flags"] & bit],
            "epoch": flow["epoch"],
            "requests": flow["requests"],
            "idle_seconds": round(max(0, now - flow["seen"]) / 1e9, 1),
        }


def _rank(key: PolicyKey) -> tuple[int, int, int, int, int, int]:
    """The four steps of the look-up, longest port prefix first within one."""
    step = 0 if key.peer and key.proto else 1 if key.peer else 2 if key.proto else 3
    return key.direction, step, key.peer, key.proto, -key.port_bits, key.port


def _ruleset(maps: Mapping[str, Map], handle: int, names: Names) -> str:
    """Its digest, by what really is in the slot; `gone` if nothing is."""
    if not handle:
        return ""
    tier, slot = tier_and_slot(handle)
    rulesets = outer(maps, f"rulesets{tier}")
    inner = rulesets.inner(slot) if rulesets else None
    if inner is None:
        return "gone"
    with inner:
        identifier = _ints(abi.unpack("ruleset", inner.lookup(bytes(4)) or b""))["id"]
    return names.rulesets.get(identifier, f"{identifier:016x}")


def _ints(fields: Mapping[str, object]) -> dict[str, int]:
    return {name: value for name, value in fields.items() if isinstance(value, int)}


def _raw(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
