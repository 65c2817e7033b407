"""From NetworkPolicy to the internal model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yett_policy.document import Direction
from yett_policy.policy import PORT_MAX, PROTOCOLS, Policy, PortRule, Ports, Rule
from yett_policy.prefix import parse_prefix
from yett_policy.selector import (
    CLUSTER,
    NAMESPACE,
    NAMESPACE_LABELS,
    CidrSelector,
    LabelSelector,
    Op,
    Requirement,
    Selector,
)
from yett_policy.source import kubernetes
from yett_policy.source.fields import Labels
from yett_policy.source.labels import requirements


def read(spec: kubernetes.Spec, *, source: str, namespace: str) -> Policy:
    """The policy; rules of a direction that policyTypes leaves out are not in force."""
    types = spec.policyTypes or (["Ingress", "Egress"] if spec.egress else ["Ingress"])
    default_deny = ("Ingress" in types, "Egress" in types)
    rules: list[Rule] = []
    if default_deny[Direction.INGRESS]:
        for i, ingress in enumerate(spec.ingress or ()):
            ref = f"{source}:ingress[{i}]"
            rules.append(_rule(ref, Direction.INGRESS, ingress.from_, ingress.ports, namespace))
    if default_deny[Direction.EGRESS]:
        for i, egress in enumerate(spec.egress or ()):
            ref = f"{source}:egress[{i}]"
            rules.append(_rule(ref, Direction.EGRESS, egress.to, egress.ports, namespace))
    subject = LabelSelector.of(
        *requirements(spec.podSelector or Labels(), "k8s:"),
        Requirement(NAMESPACE, Op.IN, (namespace,)),
    )
    return Policy(source, 0, subject, tuple(rules), default_deny)


def _rule(
    ref: str,
    direction: Direction,
    peers: Sequence[kubernetes.Peer] | None,
    ports: Sequence[kubernetes.NetworkPolicyPort] | None,
    namespace: str,
) -> Rule:
    return Rule(
        ref,
        direction,
        deny=False,
        peers=tuple(dict.fromkeys(_peer(peer, namespace) for peer in peers)) if peers else None,
        ports=tuple(PortRule(f"{ref}.ports[{i}]", tuple(_ports(port))) for i, port in enumerate(ports))
        if ports
        else None,
    )


def _peer(peer: kubernetes.Peer, namespace: str) -> Selector:
    if peer.ipBlock is not None:
        holes = sorted(parse_prefix(hole) for hole in peer.ipBlock.except_ or ())
        return CidrSelector(parse_prefix(peer.ipBlock.cidr), tuple(holes), everyone=True)
    found = requirements(peer.podSelector or Labels(), "k8s:")
    if peer.namespaceSelector is None:
        found.append(Requirement(NAMESPACE, Op.IN, (namespace,)))
    else:
        found += requirements(peer.namespaceSelector, NAMESPACE_LABELS)
    return LabelSelector.of(*found, Requirement(CLUSTER, Op.EXISTS))


def _ports(port: kubernetes.NetworkPolicyPort) -> Iterator[Ports]:
    proto = PROTOCOLS[port.protocol or "TCP"]
    if port.port is None:
        yield Ports(proto, 0, PORT_MAX)
    elif isinstance(port.port, str):
        yield Ports(proto, 0, 0, port.port.lower())
    else:
        yield Ports(proto, port.port, port.endPort or port.port)
