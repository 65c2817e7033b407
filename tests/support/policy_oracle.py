"""A second, slow reading of policies: straight from the YAML objects to a verdict.

Shares no code with the compiler, the internal model or `decide()`; only HTTP regexes are
Python's here, so patterns in tests must mean the same in both.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

Obj = dict[str, Any]
NS = "io.kubernetes.pod.namespace"


@dataclass(frozen=True)
class End:
    """One end of a conversation."""

    kind: str  # pod, host, remote-node, world
    address: str
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[tuple[str, str, int], ...] = ()  # name, protocol, number


@dataclass(frozen=True)
class Ask:
    """What is asked: may source talk to destination so?"""

    source: End
    destination: End
    protocol: str  # TCP UDP SCTP ICMP
    port: int
    method: str | None = None  # None: the connection alone
    target: str = "/"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class World:
    objects: list[Obj]
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)


def verdict(world: World, ask: Ask) -> str:
    """`deny`, `audit` or `allow`: both sides must let it pass."""
    sides = []
    if ask.source.kind == "pod":
        sides.append(_side(world, ask, "egress", ask.source, ask.destination))
    if ask.destination.kind == "pod":
        sides.append(_side(world, ask, "ingress", ask.destination, ask.source))
    for answer in ("deny", "audit"):
        if answer in sides:
            return answer
    return "allow"


def _side(world: World, ask: Ask, direction: str, subject: End, peer: End) -> str:
    specs = [s for obj in world.objects for s in _specs(obj) if _selects(world, s, subject)]
    enforced = [s for s in specs if not s["audit"]]
    today = _passes(world, enforced, ask, direction, subject, peer)
    if today is not True:
        return "deny" if today is False else "allow"  # its requests will be judged
    return "audit" if _passes(world, specs, ask, direction, subject, peer) is False else "allow"


def _specs(obj: Obj) -> list[Obj]:
    """Rule objects in one shape: subject test, items, who asks for default deny."""
    namespace = obj["metadata"].get("namespace", "default")
    if obj["kind"] in {"ClusterL7Policy", "CiliumClusterwideNetworkPolicy"}:
        namespace = None
    if obj["kind"] == "NetworkPolicy":
        spec = obj["spec"]
        types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        items = []
        for direction in ("ingress", "egress"):
            if direction.capitalize() in types:
                items += [(direction, False, item) for item in spec.get(direction) or []]
        asks = {d: d.capitalize() in types for d in ("ingress", "egress")}
        return [
            {
                "kind": "k8s",
                "namespace": namespace,
                "subject": spec.get("podSelector") or {},
                "items": items,
                "asks": asks,
                "audit": False,
            }
        ]
    found = []
    for spec in [obj["spec"]] if "spec" in obj else obj["specs"]:
        items = []
        asks = {}
        for direction in ("ingress", "egress"):
            allows = spec.get(direction) or []
            denies = spec.get(direction + "Deny") or []
            items += [(direction, False, item) for item in allows]
            items += [(direction, True, item) for item in denies]
            wish = (spec.get("enableDefaultDeny") or {}).get(direction)
            asks[direction] = bool(allows or denies) and wish is not False
        found.append(
            {
                "kind": "cilium",
                "namespace": namespace,
                "subject": spec["endpointSelector"],
                "items": items,
                "asks": asks,
                "audit": bool(spec.get("audit")),
            }
        )
    return found


def _selects(world: World, spec: Obj, pod: End) -> bool:
    if spec["namespace"] is not None and pod.namespace != spec["namespace"]:
        return False
    return _labels_match(spec["subject"], _all_labels(world, pod))


def _all_labels(world: World, pod: End) -> dict[str, str]:
    labels = dict(pod.labels)
    labels[NS] = pod.namespace
    for key, value in {
        **world.namespaces.get(pod.namespace, {}),
        "kubernetes.io/metadata.name": pod.namespace,
    }.items():
        labels["io.cilium.k8s.namespace.labels." + key] = value
    return labels


def _labels_match(selector: Obj, labels: dict[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        have = labels.get(expression["key"])
        match expression["operator"]:
            case "In":
                good = have in expression["values"]
            case "NotIn":
                good = have not in expression["values"]
            case "Exists":
                good = have is not None
            case _:
                good = have is None
        if not good:
            return False
    return True


def _passes(world: World, specs: list[Obj], ask: Ask, direction: str, subject: End, peer: End) -> bool | None:
    """Whether these rule objects alone let it pass; None: a connection whose requests they judge."""
    closed = any(spec["asks"][direction] for spec in specs)
    hits = [
        (deny, spec, rules)
        for spec in specs
        for way, deny, item in spec["items"]
        if way == direction and _peer_matches(world, spec, item, direction, peer)
        for rules in _port_matches(spec, item, direction, ask, subject, peer)
    ]
    if any(deny and not rules for deny, _, rules in hits):
        return False
    bans = [rule for deny, _, rules in hits if deny for rule in rules]
    plain = any(not deny and not rules for deny, _, rules in hits)
    allows = [rule for deny, _, rules in hits if not deny for rule in rules]
    if (direction == "ingress" and peer.kind == "host") or not closed or plain:
        allows = []
        everything = True
    elif allows:
        everything = False
    else:
        return False
    if everything and not bans:
        return True
    if ask.method is None:
        return None
    return _request_passes(ask, allows, bans, everything)


def _request_passes(ask: Ask, allows: list[Obj], bans: list[Obj], everything: bool) -> bool:
    path = ask.target.partition("?")[0]
    ambiguous = set()
    if "//" in path:
        ambiguous.add("EmptySegment")
    if any(part in {".", ".."} for part in path.split("/")):
        ambiguous.add("DotSegment")
    if any(_http_matches(rule, ask) for rule in bans):
        return False
    if everything:
        return not ambiguous
    return any(
        _http_matches(rule, ask) and ambiguous <= set(rule.get("allowAmbiguous") or []) for rule in allows
    )


def _http_matches(rule: Obj, ask: Ask) -> bool:
    path = ask.target.partition("?")[0]
    headers = {name.lower(): value for name, value in ask.headers}
    if rule.get("method") and not re.fullmatch(rule["method"], ask.method or ""):
        return False
    if rule.get("path") and not re.fullmatch(rule["path"], ask.target):
        return False
    if rule.get("pathExact") is not None and path != rule["pathExact"]:
        return False
    if rule.get("pathPrefix") is not None:
        prefix = rule["pathPrefix"].rstrip("/")
        if path != prefix and not path.startswith(prefix + "/"):
            return False
    if rule.get("host") and not ("host" in headers and re.fullmatch(rule["host"], headers["host"].lower())):
        return False
    for line in rule.get("headers") or []:
        name, space, value = line.partition(" ")
        have = headers.get(name.rstrip(":").lower())
        if have is None or (space and have != value):
            return False
    for match in rule.get("headerMatches") or []:
        have = headers.get(match["name"].lower())
        wanted = match.get("value")
        match match.get("operator") or ("Exact" if wanted else "Present"):
            case "Exact":
                good = have == wanted
            case "Prefix":
                good = have is not None and have.startswith(wanted)
            case "Suffix":
                good = have is not None and have.endswith(wanted)
            case "Present":
                good = have is not None
            case _:
                good = have is None
        if not good:
            return False
    return True


def _peer_matches(world: World, spec: Obj, item: Obj, direction: str, peer: End) -> bool:
    if spec["kind"] == "k8s":
        peers = item.get("from" if direction == "ingress" else "to")
        return not peers or any(_k8s_peer(world, spec, one, peer) for one in peers)
    side = "from" if direction == "ingress" else "to"
    members = {kind: item.get(side + kind) for kind in ("Endpoints", "Entities", "CIDR", "CIDRSet")}
    given = {kind: member for kind, member in members.items() if member is not None}
    if not given:  # an item of nothing at all says nothing of anyone
        return bool(item.get("toPorts") or item.get("icmps"))
    if any(not member for member in given.values()):
        return False
    kind, member = next(iter(given.items()))
    if kind == "Endpoints":
        return any(_endpoint(world, spec, selector, peer) for selector in member)
    if kind == "Entities":
        return any(_entity(entity, peer) for entity in member)
    if peer.kind != "world":
        return False
    if kind == "CIDR":
        return any(_inside(peer.address, block) for block in member)
    return any(
        _inside(peer.address, one["cidr"])
        and not any(_inside(peer.address, e) for e in one.get("except") or [])
        for one in member
    )


def _k8s_peer(world: World, spec: Obj, one: Obj, peer: End) -> bool:
    if "ipBlock" in one:
        block = one["ipBlock"]
        return _inside(peer.address, block["cidr"]) and not any(
            _inside(peer.address, hole) for hole in block.get("except") or []
        )
    if peer.kind != "pod":
        return False
    if "namespaceSelector" in one:
        labels = {**world.namespaces.get(peer.namespace, {}), "kubernetes.io/metadata.name": peer.namespace}
        if not _labels_match(one["namespaceSelector"], labels):
            return False
    elif peer.namespace != spec["namespace"]:
        return False
    return _labels_match(one.get("podSelector") or {}, dict(peer.labels))


def _endpoint(world: World, spec: Obj, selector: Obj, peer: End) -> bool:
    if peer.kind != "pod":
        return False
    keys = list(selector.get("matchLabels") or {}) + [
        e["key"] for e in selector.get("matchExpressions") or []
    ]
    free = any(key == NS or key.startswith("io.cilium.k8s.namespace.labels.") for key in keys)
    if spec["namespace"] is not None and not free and peer.namespace != spec["namespace"]:
        return False
    return _labels_match(selector, _all_labels(world, peer))


def _entity(entity: str, peer: End) -> bool:
    if entity == "all":
        return True
    if entity == "cluster":
        return peer.kind in {"pod", "host", "remote-node"}
    return entity == peer.kind


def _inside(address: str, block: str) -> bool:
    ip, network = ipaddress.ip_address(address), ipaddress.ip_network(block, strict=False)
    return ip.version == network.version and ip in network


def _port_matches(spec: Obj, item: Obj, direction: str, ask: Ask, subject: End, peer: End) -> list[list[Obj]]:
    """For each way the item covers the port: its HTTP rules, [] for plain."""
    server = subject if direction == "ingress" else peer
    if spec["kind"] == "k8s":
        ports = item.get("ports")
        if not ports:
            return [[]]
        return [
            []
            for port in ports
            if _covers(port.get("port"), port.get("endPort"), port.get("protocol") or "TCP", ask, server)
        ]
    if item.get("icmps"):
        numbers = {"EchoRequest": 8, "EchoReply": 0}
        return [
            []
            for icmp in item["icmps"]
            for one in icmp["fields"]
            if ask.protocol == "ICMP" and numbers.get(one["type"], one["type"]) == ask.port
        ]
    if not item.get("toPorts"):
        return [[]]
    found = []
    for rule in item["toPorts"]:
        for port in rule.get("ports") or []:
            number: Any = int(port["port"]) if port["port"].isdecimal() else port["port"]
            protocol = port.get("protocol") or "ANY"
            if _covers(None if number == 0 else number, port.get("endPort"), protocol, ask, server):
                found.append((rule.get("rules") or {}).get("http") or [])
    return found


def _covers(port: Any, end: int | None, protocol: str, ask: Ask, server: End) -> bool:
    if ask.protocol == "ICMP" or protocol not in {"ANY", ask.protocol}:
        return False
    if port is None:
        return True
    if isinstance(port, str):
        return any(n == port and p == ask.protocol and number == ask.port for n, p, number in server.ports)
    return port <= ask.port <= (end or port)
