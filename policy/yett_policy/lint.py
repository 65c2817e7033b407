"""What is legal in a policy and still probably not what was meant.

| code | of |
|---|---|
| YETT0001 | refused: wrong or not supported; nothing of the policy is in force |
| YETT1001 | the subject's selector names another namespace and selects nobody |
| YETT1002 | the subject's namespace is overridden by the policy's own |
| YETT1003 | enableDefaultDeny: true where the direction has no rules: no effect |
| YETT1004 | HTTP rules under enableDefaultDeny: false: no effect unless another policy denies |
| YETT1005 | a deny rule that covers the node itself: only its kubelet's probes still pass |
| YETT1006 | an empty list of peers: selects no one |
| YETT1007 | an empty list beside a full one of another kind: selects no one |
| YETT1008 | toPorts without ports: allows nothing |
| YETT1009 | rules without HTTP rules: plain L4, nothing is judged |
| YETT1010 | icmps without fields: allows nothing and turns default deny on |
| YETT1011 | NetworkPolicy rules of a direction that policyTypes leaves out: not enforced |
| YETT1012 | a header with an empty value |
| YETT1013 | a header name that no header can have: the rule never matches |
| YETT1014 | a port name that looks like a number |
| YETT1015 | a CIDR block with host bits set |
| YETT1016 | a path that ends in `/` and matches only itself |
| YETT1017 | a host with an unescaped dot |
| YETT1018 | a method in lower case: matches no usual request |
| YETT1019 | a plain allow beside HTTP rules for the same peers and ports: the HTTP rules have no effect |
| YETT1020 | denyResponse, engine or http options without HTTP rules: no effect |
| YETT1021 | a host with capitals: hosts are compared in lower case, it never matches |
| YETT1022 | a path that does not begin with `/`: matches no usual request |
| YETT1023 | an empty deny item: denies nobody, and still turns default deny on |
| YETT1024 | headers to be changed by a policy with audit: true: nothing is changed |
| YETT1025 | a credential that is added, not replaced: what the client sent goes first |
| YETT1026 | a header that two rules of one port replace with different values |
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from yett_policy.errors import Finding, PolicyError, Severity
from yett_policy.prefix import parse_prefix
from yett_policy.selector import NAMESPACE
from yett_policy.source import cilium, kubernetes
from yett_policy.source.fields import is_header_name
from yett_policy.source.http_rule import HeaderMatch, Http
from yett_policy.source.labels import source_key
from yett_policy.source.parse import KINDS, parse_model

_LITERAL_PATH = re.compile(r"[A-Za-z0-9/_~-]+")
_NUMBER_LIKE = re.compile(r"0[xob][0-9a-f]+")
_CREDENTIALS = {"authorization", "cookie", "x-api-key"}
_BARE_DOT = re.compile(r"(?<!\\)\.(?![*+?{])")


def lint(obj: object) -> list[Finding]:
    """Findings on one object, in the order of its fields; errors alone if it is refused."""
    try:
        model = parse_model(obj)
    except PolicyError as error:
        return [_finding("YETT0001", e.field, e.message, Severity.ERROR) for e in (error, *error.others)]
    if isinstance(model, kubernetes.Document):
        return list(_network_policy(model))
    namespace = (model.metadata.namespace or "default") if KINDS[model.kind][1] else None
    places = [] if model.spec is None else [("spec", model.spec)]
    places += [(f"specs[{i}]", spec) for i, spec in enumerate(model.specs or ())]
    return [finding for place, spec in places for finding in _spec(place, spec, namespace)]


def _finding(code: str, field: str, message: str, severity: Severity = Severity.WARNING) -> Finding:
    return Finding(code, severity, field, message)


def _network_policy(model: kubernetes.Document) -> Iterator[Finding]:
    spec = model.spec
    for side, name in (("Ingress", "ingress"), ("Egress", "egress")):
        if spec.policyTypes and side not in spec.policyTypes and getattr(spec, name):
            yield _finding(
                "YETT1011",
                f"spec.{name}",
                f"not enforced, because policyTypes leaves {side} out; add it there, or remove these rules",
            )
    sides = [(f"ingress[{i}].from", item.from_) for i, item in enumerate(spec.ingress or ())]
    sides += [(f"egress[{i}].to", item.to) for i, item in enumerate(spec.egress or ())]
    for place, peers in sides:
        for j, peer in enumerate(peers or ()):
            if peer.ipBlock is not None:
                at = f"spec.{place}[{j}].ipBlock"
                yield from _host_bits(f"{at}.cidr", peer.ipBlock.cidr)
                for k, hole in enumerate(peer.ipBlock.except_ or ()):
                    yield from _host_bits(f"{at}.except[{k}]", hole)


def _spec(place: str, spec: cilium.Spec, namespace: str | None) -> Iterator[Finding]:
    if namespace is not None:
        yield from _subject(place, spec, namespace)
    wish = spec.enableDefaultDeny or cilium.DefaultDeny()
    for direction in ("ingress", "egress"):
        allows: Sequence[cilium.Item] = getattr(spec, direction) or ()
        denies: Sequence[cilium.Item] = getattr(spec, f"{direction}Deny") or ()
        wanted: bool | None = getattr(wish, direction)
        if wanted and not allows and not denies:
            yield _finding(
                "YETT1003",
                f"{place}.enableDefaultDeny.{direction}",
                f"has no effect without {direction} rules; to deny everything write {direction}: [{{}}]",
            )
        for i, item in enumerate(allows):
            yield from _item(f"{place}.{direction}[{i}]", item)
            if wanted is False:
                yield from _open_http(f"{place}.{direction}[{i}]", item)
        yield from _shadowed(f"{place}.{direction}", allows)
        for i, item in enumerate(denies):
            yield from _item(f"{place}.{direction}Deny[{i}]", item)
            if not item.model_dump(exclude_none=True):
                yield _finding(
                    "YETT1023",
                    f"{place}.{direction}Deny[{i}]",
                    "is empty and denies nobody, though it turns default deny on; "
                    f"to deny everyone write {item.side}Entities: [all]",
                )
            if direction == "ingress":
                yield from _denied_node(f"{place}.{direction}Deny[{i}]", item)
    yield from _options(place, spec)
    yield from _changes(place, spec)


def _changes(place: str, spec: cilium.Spec) -> Iterator[Finding]:
    """Headers that are changed otherwise than one would think."""
    replaced: defaultdict[tuple[str, str], list[tuple[str, Http, HeaderMatch]]] = defaultdict(list)
    for at, rule, match in spec.header_matches():
        if not match.mismatch:
            continue
        name, field = match.name.lower(), f"{place}.{at}"
        if spec.audit:
            yield _finding(
                "YETT1024",
                f"{field}.mismatch",
                "changes nothing while audit is true, for such a policy only records; remove one of them",
            )
        if match.mismatch == "ADD" and name in _CREDENTIALS:
            yield _finding(
                "YETT1025",
                f"{field}.mismatch",
                f"ADD leaves the {match.name} that the client sent in front of the new one; write REPLACE",
            )
        if match.mismatch == "REPLACE":
            others = replaced[at.partition(".rules.")[0], name]
            for first, other_rule, other in others:
                if (other.value, other.secret) != (match.value, match.secret) and _may_meet(rule, other_rule):
                    yield _finding(
                        "YETT1026",
                        field,
                        f"replaces {match.name} with another value than {place}.{first}; "
                        "of a request that both match, the rule whose reference sorts last decides",
                    )
                    break
            others.append((at, rule, match))


def _may_meet(one: Http, two: Http) -> bool:
    """Whether it is plain that one request can match both."""
    fields = ("method", "path", "pathPrefix", "pathExact", "host")
    return all(
        mine is None or theirs is None or mine == theirs
        for mine, theirs in ((getattr(one, field), getattr(two, field)) for field in fields)
    )


def _subject(place: str, spec: cilium.Spec, namespace: str) -> Iterator[Finding]:
    labels = spec.endpointSelector
    for key, value in ((labels and labels.matchLabels) or {}).items():
        field = f"{place}.endpointSelector.matchLabels.{key}"
        if key == NAMESPACE:
            if value != namespace:
                yield _finding(
                    "YETT1002",
                    field,
                    f"is overridden by the policy's own namespace {namespace}; remove it, or move the policy",
                )
        elif source_key(key) == NAMESPACE and value != namespace:
            yield _finding(
                "YETT1001",
                field,
                f"is not the policy's own namespace {namespace}, so the policy selects nobody; "
                "remove it, or move the policy",
            )


def _item(at: str, item: cilium.Item) -> Iterator[Finding]:
    members = {f"{item.side}{kind}": getattr(item, f"{item.side}{kind}") for kind in cilium.PEER_KINDS}
    full = [name for name, member in members.items() if member]
    for name, member in members.items():
        if member == []:
            if full:
                yield _finding(
                    "YETT1007",
                    f"{at}.{name}",
                    f"is empty beside {full[0]}, so the item selects no one; remove it",
                )
            else:
                yield _finding(
                    "YETT1006", f"{at}.{name}", "is empty and selects no one; to select anyone, remove it"
                )
    for i, block in enumerate(members[f"{item.side}CIDR"] or ()):
        yield from _host_bits(f"{at}.{item.side}CIDR[{i}]", block)
    for i, block_set in enumerate(members[f"{item.side}CIDRSet"] or ()):
        yield from _host_bits(f"{at}.{item.side}CIDRSet[{i}].cidr", block_set.cidr)
        for j, hole in enumerate(block_set.except_ or ()):
            yield from _host_bits(f"{at}.{item.side}CIDRSet[{i}].except[{j}]", hole)
    for i, icmp in enumerate(item.icmps or ()):
        if not icmp.fields:
            yield _finding(
                "YETT1010",
                f"{at}.icmps[{i}].fields",
                "is empty: allows nothing, and still turns default deny on",
            )
    for i, port_rule in enumerate(item.toPorts or ()):
        yield from _port_rule(f"{at}.toPorts[{i}]", port_rule)


def _host_bits(field: str, block: str) -> Iterator[Finding]:
    address, _, bits = block.partition("/")
    masked = parse_prefix(block)
    if parse_prefix(address).first != masked.first:
        yield _finding("YETT1015", field, f"{block} has bits set beyond /{bits} and means {masked}")


def _port_rule(at: str, rule: cilium.PortRule) -> Iterator[Finding]:
    if not rule.ports:
        yield _finding(
            "YETT1008", f"{at}.ports", "is empty and allows nothing; for every port remove toPorts"
        )
    for i, port in enumerate(rule.ports or ()):
        if _NUMBER_LIKE.fullmatch(port.port.lower()):
            yield _finding(
                "YETT1014", f"{at}.ports[{i}].port", f"{port.port!r} is read as a port name, not as a number"
            )
    if rule.rules is None:
        return
    if not rule.rules.http:
        yield _finding(
            "YETT1009",
            f"{at}.rules",
            "has no HTTP rules, so every connection to these ports passes; write http: [{}] to let only HTTP pass",
        )
    for i, http in enumerate(rule.rules.http or ()):
        yield from _http(f"{at}.rules.http[{i}]", http)


def _http(at: str, rule: Http) -> Iterator[Finding]:
    for i, line in enumerate(rule.headers or ()):
        name, space, value = line.partition(" ")
        if not is_header_name(name.removesuffix(":") if space else name):
            yield _finding(
                "YETT1013",
                f"{at}.headers[{i}]",
                f"{line!r} asks for a header of that very name, which cannot exist; "
                "write the name, a colon, a space and the value",
            )
        elif space and not value:
            yield _finding(
                "YETT1012",
                f"{at}.headers[{i}]",
                "matches only an empty value; for any value write the name alone",
            )
    path = rule.path or ""
    if path.endswith("/") and _LITERAL_PATH.fullmatch(path):
        yield _finding(
            "YETT1016",
            f"{at}.path",
            f"{path!r} matches only itself, without query and nothing below it; write {path + '.*'!r} for all below",
        )
    if path and path[0] not in "/.([\\^?*":
        yield _finding("YETT1022", f"{at}.path", f"{path!r} matches no usual request: paths begin with '/'")
    if rule.method and rule.method.isalpha() and rule.method.islower():
        yield _finding(
            "YETT1018",
            f"{at}.method",
            f"{rule.method!r} matches no usual request: methods are case-sensitive; write {rule.method.upper()!r}",
        )
    host = rule.host or ""
    if _BARE_DOT.search(host):
        yield _finding(
            "YETT1017",
            f"{at}.host",
            f"in {host!r} a dot stands for any character; write \\. for a dot",
            Severity.INFO,
        )
    if re.search(r"(?<!\\)[A-Z]", host) and not host.startswith("(?i"):
        yield _finding("YETT1021", f"{at}.host", "hosts are compared in lower case; write it in lower case")


def _open_http(at: str, item: cilium.Item) -> Iterator[Finding]:
    for i, rule in enumerate(item.toPorts or ()):
        if rule.rules is not None and rule.rules.http:
            yield _finding(
                "YETT1004",
                f"{at}.toPorts[{i}].rules.http",
                "takes effect only on pods that another policy puts under default deny, "
                "because this one says enableDefaultDeny: false",
            )


def _denied_node(at: str, item: cilium.Item) -> Iterator[Finding]:
    members = [getattr(item, f"{item.side}{kind}") for kind in cilium.PEER_KINDS]
    entities = members[1] or ()
    anyone = all(member is None for member in members) and (item.toPorts or item.icmps)
    if anyone or {"all", "host", "cluster", "cluster-mesh"}.intersection(entities):
        yield _finding(
            "YETT1005",
            at,
            "covers the node itself: of what its processes and host-network pods send, only the ports that "
            "the kubelet probes stay open",
        )


def _shadowed(at: str, items: Sequence[cilium.Item]) -> Iterator[Finding]:
    """HTTP rules beside a plain allow of the same peers and port, in one policy."""
    plain = [
        (_peers(item), ports)
        for item in items
        if not item.icmps and (item.toPorts or _peers(item) is not None)
        for ports in ([None] if not item.toPorts else _plain_ports(item.toPorts))
    ]
    for i, item in enumerate(items):
        for j, rule in enumerate(item.toPorts or ()):
            if rule.rules is None or not rule.rules.http:
                continue
            if any(match.mismatch for http in rule.rules.http for match in http.headerMatches or ()):
                continue
            for port in rule.ports or ():
                if any(
                    peers in {None, _peers(item)} and (ports is None or _covers(ports, port))
                    for peers, ports in plain
                ):
                    yield _finding(
                        "YETT1019",
                        f"{at}[{i}].toPorts[{j}].rules.http",
                        f"has no effect on port {port.port}: another item lets every request there pass",
                    )


def _peers(item: cilium.Item) -> str | None:
    members = [getattr(item, f"{item.side}{kind}") for kind in cilium.PEER_KINDS]
    return None if all(member is None for member in members) else repr(members)


def _plain_ports(rules: Iterable[cilium.PortRule]) -> Iterator[cilium.PortProtocol]:
    for rule in rules:
        if rule.rules is None or not rule.rules.http:
            yield from rule.ports or ()


def _covers(plain: cilium.PortProtocol, port: cilium.PortProtocol) -> bool:
    if plain.protocol not in {None, "ANY", port.protocol}:
        return False
    if plain.port == "0":
        return True
    if not plain.port.isdecimal() or not port.port.isdecimal():
        return plain.port == port.port
    last = port.endPort or int(port.port)
    return int(plain.port) <= int(port.port) and last <= (plain.endPort or int(plain.port))


def _options(place: str, spec: cilium.Spec) -> Iterator[Finding]:
    items = (*(spec.ingress or ()), *(spec.egress or ()), *(spec.ingressDeny or ()), *(spec.egressDeny or ()))
    if any(rule.rules and rule.rules.http for item in items for rule in item.toPorts or ()):
        return
    for name in ("denyResponse", "engine", "http"):
        if getattr(spec, name) is not None:
            yield _finding("YETT1020", f"{place}.{name}", "has no effect without HTTP rules")
