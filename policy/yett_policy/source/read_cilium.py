"""From the L7Policy and Cilium models to the internal model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from yett_policy.document import Direction
from yett_policy.http.change import ChangeOp, HeaderChange
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, PathKind, RuleAction
from yett_policy.policy import ICMP, ICMPV6, PROTOCOLS, Policy, PortRule, Ports, Rule
from yett_policy.prefix import parse_prefix
from yett_policy.reason import Reason
from yett_policy.selector import CLUSTER, CidrSelector, LabelSelector, Op, Requirement, Selector, exists
from yett_policy.source import cilium, icmp
from yett_policy.source.fields import is_header_name
from yett_policy.source.http_rule import HeaderMatch, Http
from yett_policy.source.labels import peer_selector, subject_selector

_ENTITIES: dict[str, tuple[Selector, ...]] = {
    "world": (exists("reserved:world"),),
    "host": (exists("reserved:host"),),
    "remote-node": (exists("reserved:remote-node"),),
    "kube-apiserver": (exists("reserved:kube-apiserver"),),
    "init": (exists("reserved:init"),),
    "health": (exists("reserved:health"),),
    "unmanaged": (exists("reserved:unmanaged"),),
    "ingress": (exists("reserved:ingress"),),
    "none": (),
}
_CLUSTER: tuple[Selector, ...] = (
    LabelSelector.of(Requirement(CLUSTER, Op.EXISTS)),
    *(
        selector
        for name, selectors in _ENTITIES.items()
        if name not in {"world", "none"}
        for selector in selectors
    ),
)
_ENTITIES |= {"cluster": _CLUSTER, "cluster-mesh": _CLUSTER}

AMBIGUITY: dict[str, Reason] = {
    "".join(part.capitalize() for part in reason.name.removeprefix("AMBIGUOUS_").split("_")): reason
    for reason in Reason
    if reason.name.startswith("AMBIGUOUS_")
} | {"NonAscii": Reason.AMBIGUOUS_NON_ASCII}
"""`DotSegment` -> AMBIGUOUS_DOT_SEGMENT: what http[].allowAmbiguous may list."""

NEVER = (HeaderRule("host", HeaderOp.ABSENT), HeaderRule("host", HeaderOp.PRESENT))
"""Conditions that exclude each other."""


@dataclass(frozen=True, slots=True)
class _Reader:
    source: str
    """`Kind/namespace/name`."""
    namespace: str | None
    place: str
    """`` or `specs[1].`."""
    spec: cilium.Spec
    created: str

    def policy(self, index: int) -> Policy:
        spec = self.spec
        rules = tuple(self.rules())
        wish = spec.enableDefaultDeny or cilium.DefaultDeny()
        has = [any(rule.direction is direction for rule in rules) for direction in Direction]
        assert spec.endpointSelector is not None  # noqa: S101 - the model refuses it
        return Policy(
            source=self.source,
            index=index,
            subject=subject_selector(spec.endpointSelector, self.namespace),
            rules=rules,
            default_deny=(
                has[Direction.INGRESS] and wish.ingress is not False,
                has[Direction.EGRESS] and wish.egress is not False,
            ),
            audit=bool(spec.audit),
            forbidden=None if spec.denyResponse is None else spec.denyResponse == "Forbidden",
            engine=spec.engine or "Auto",
            created=self.created,
            chunk_extensions=spec.http is not None and spec.http.chunkExtensions,
            trailers=spec.http is not None and spec.http.trailers,
            description=spec.description or "",
            labels=tuple(label if isinstance(label, str) else str(label) for label in spec.labels or ()),
            log=spec.log.value if spec.log else "",
        )

    def rules(self) -> Iterator[Rule]:
        for field in ("ingress", "ingressDeny", "egress", "egressDeny"):
            direction = Direction.INGRESS if field.startswith("ingress") else Direction.EGRESS
            for i, item in enumerate(getattr(self.spec, field) or ()):
                yield self.rule(
                    item, f"{self.source}:{self.place}{field}[{i}]", direction, field.endswith("Deny")
                )

    def rule(self, item: cilium.Ingress | cilium.Egress, ref: str, direction: Direction, deny: bool) -> Rule:
        ports: list[PortRule] | None = None
        if item.toPorts:
            ports = [self.port_rule(rule, f"{ref}.toPorts[{i}]", deny) for i, rule in enumerate(item.toPorts)]
        if item.icmps:
            ports = [
                PortRule(f"{ref}.icmps[{i}]", tuple(_icmp(field) for field in rule.fields or ()))
                for i, rule in enumerate(item.icmps)
            ]
        return Rule(ref, direction, deny, self.peers(item), None if ports is None else tuple(ports))

    def peers(self, item: cilium.Ingress | cilium.Egress) -> tuple[Selector, ...] | None:
        """None, anyone, if no member names peers but ports or ICMP types are given.

        An item of neither says nothing of anyone (`ingress: [{}]`: deny all), and a member that
        is empty selects no one.
        """
        side = "from" if isinstance(item, cilium.Ingress) else "to"
        members = [getattr(item, f"{side}{kind}") for kind in cilium.PEER_KINDS]
        if all(member is None for member in members):
            return None if item.toPorts or item.icmps else ()
        if any(member == [] for member in members):
            return ()
        endpoints, entities, blocks, block_sets = members
        if "all" in (entities or ()):
            return None
        selectors: list[Selector] = [
            peer_selector(labels, self.namespace, init=self.is_for_init()) for labels in endpoints or ()
        ]
        for entity in entities or ():
            selectors += _ENTITIES[entity]
        selectors += [CidrSelector(parse_prefix(block)) for block in blocks or ()]
        for block in block_sets or ():
            holes = sorted(parse_prefix(hole) for hole in block.except_ or ())
            selectors.append(CidrSelector(parse_prefix(block.cidr), tuple(holes)))
        return tuple(dict.fromkeys(selectors))

    def is_for_init(self) -> bool:
        labels = self.spec.endpointSelector
        return labels is not None and "reserved:init" in (labels.matchLabels or {})

    def port_rule(self, rule: cilium.PortRule, ref: str, deny: bool) -> PortRule:
        http: Sequence[Http] = rule.rules.http or () if rule.rules else ()
        action = RuleAction.ALLOW
        if deny:
            action = RuleAction.AUDIT_DENY if self.spec.audit else RuleAction.DENY
        forbidden = deny and self.spec.denyResponse == "Forbidden"
        return PortRule(
            ref,
            tuple(dict.fromkeys(ports for port in rule.ports or () for ports in _ports(port))),
            tuple(
                _http_rule(
                    one,
                    f"{ref}.rules.http[{i}]",
                    action,
                    self.namespace,
                    forbidden=forbidden,
                    audit=bool(self.spec.audit),
                )
                for i, one in enumerate(http)
            ),
        )


def _ports(port: cilium.PortProtocol) -> Iterator[Ports]:
    protocols = PROTOCOLS.values() if port.protocol in {None, "ANY"} else (PROTOCOLS[str(port.protocol)],)
    for proto in protocols:
        if not port.port.isdecimal():
            yield Ports(proto, 0, 0, port.port.lower())
        elif port.port == "0":
            yield Ports(proto)
        else:
            yield Ports(proto, int(port.port), port.endPort or int(port.port))


def _icmp(field: cilium.IcmpField) -> Ports:
    proto, names = (ICMPV6, icmp.IPV6) if field.family == "IPv6" else (ICMP, icmp.IPV4)
    number = field.type if isinstance(field.type, int) else names[field.type]
    return Ports(proto, number, number)


def _http_rule(
    rule: Http, ref: str, action: RuleAction, namespace: str | None, *, forbidden: bool, audit: bool
) -> HttpRule:
    """A policy that only watches changes no headers."""
    path, kind = rule.path, PathKind.REGEX
    if rule.pathPrefix is not None:
        path, kind = rule.pathPrefix, PathKind.PREFIX
    elif rule.pathExact is not None:
        path, kind = rule.pathExact, PathKind.EXACT
    headers = [header for line in rule.headers or () for header in _header(line)]
    matches = rule.headerMatches or ()
    headers += [_header_match(match) for match in matches if not match.mismatch]
    changes = {_header_change(match, namespace) for match in matches if match.mismatch and not audit}
    return HttpRule(
        ref=ref,
        action=action,
        method=rule.method or None,
        path=path or None,
        path_kind=kind,
        host=rule.host or None,
        headers=tuple(sorted(set(headers))),
        upgrades=tuple(sorted(set(rule.upgrades or ()))),
        tolerate=tuple(sorted({AMBIGUITY[name] for name in rule.allowAmbiguous or ()})),
        forbidden=forbidden,
        changes=tuple(sorted(changes, key=lambda item: (item.name, item.op, item.value or "", item.secret))),
    )


def _header(line: str) -> tuple[HeaderRule, ...]:
    """`Name: value` or `Name value`, split at the first space; `Name` alone: presence.

    A name that no header can have (`X-Foo:bar`, the space forgotten) is never present, so
    the rule never matches.
    """
    name, space, value = line.partition(" ")
    if space:
        name = name.removesuffix(":")
    if not is_header_name(name):
        return NEVER
    return (HeaderRule(name.lower(), HeaderOp.EXACT if space else HeaderOp.PRESENT, value),)


def _header_match(match: HeaderMatch) -> HeaderRule:
    operator = match.operator or ("Exact" if match.value else "Present")
    return HeaderRule(match.name.lower(), HeaderOp(operator.lower()), match.value or "")


def _header_change(match: HeaderMatch, namespace: str | None) -> HeaderChange:
    secret = match.secret and f"{match.secret.namespace or namespace}/{match.secret.name}"
    return HeaderChange(
        match.name.lower(), ChangeOp(str(match.mismatch).lower()), match.value or None, secret or ""
    )


def read(
    spec: cilium.Spec, *, source: str, namespace: str | None, place: str, index: int, created: str
) -> Policy:
    """One rule object as a policy; `place` is `` for spec, `specs[1].` for the second of specs."""
    return _Reader(source, namespace, place, spec, created).policy(index)
