"""The one internal model that every policy source is read into.

A policy here is one rule object of a source: a CiliumNetworkPolicy with three `specs`
makes three.  Everything is resolved except who a selector selects and which number a port
name stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from yett_policy.document import Direction
from yett_policy.http.rule import HttpRule
from yett_policy.selector import LabelSelector, Selector

TCP = 6
UDP = 17
SCTP = 132
ICMP = 1
ICMPV6 = 58
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
PORT_MAX = 65535


@dataclass(frozen=True, slots=True, order=True)
class Ports:
    """An inclusive range of ports of one protocol; of ICMP: of types."""

    proto: int
    first: int = 0
    last: int = PORT_MAX
    name: str = ""
    """A named port, to be resolved per pod; `first` and `last` then mean nothing."""


@dataclass(frozen=True, slots=True)
class PortRule:
    """What a rule says about some ports."""

    ref: str
    ports: tuple[Ports, ...]
    """Empty: no port at all."""
    http: tuple[HttpRule, ...] = ()
    """Empty: plain L4."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One item of ingress, egress, ingressDeny or egressDeny."""

    ref: str
    """`Kind/namespace/name:ingress[0]`."""
    direction: Direction
    deny: bool
    peers: tuple[Selector, ...] | None
    """None: anyone.  Empty: no one."""
    ports: tuple[PortRule, ...] | None
    """None: every protocol and port.  Empty: none."""

    @property
    def has_http(self) -> bool:
        """Whether requests matter to it."""
        return any(port_rule.http for port_rule in self.ports or ())


@dataclass(frozen=True, slots=True)
class Policy:
    """One rule object of a policy source."""

    source: str
    """`Kind/namespace/name`, or `Kind/name` if the kind has no namespace."""
    index: int
    """Place among the rule objects of its source."""
    subject: LabelSelector
    rules: tuple[Rule, ...]
    default_deny: tuple[bool, bool]
    """By Direction."""
    audit: bool = False
    forbidden: bool | None = None
    """None: as the namespace or the cluster says."""
    engine: str = "Auto"
    created: str = ""
    """When it was stored first, as text that sorts; which of two policies is the older one."""
    chunk_extensions: bool = False
    trailers: bool = False
    description: str = ""
    labels: tuple[str, ...] = ()
    log: str = ""

    @property
    def default_deny_ref(self) -> str:
        """What a default denial is put down to."""
        return f"{self.source}:default-deny"

    @property
    def secrets(self) -> dict[str, bool]:
        """Secrets that its rules name, and whether all of those have a value to use without it."""
        found: dict[str, bool] = {}
        for rule in self.rules:
            for item in (
                change for ports in rule.ports or () for http in ports.http for change in http.changes
            ):
                if item.secret:
                    found[item.secret] = found.get(item.secret, True) and item.value is not None
        return found

    def rules_of(self, direction: Direction) -> Iterator[Rule]:
        """Its rules of one direction."""
        return (rule for rule in self.rules if rule.direction is direction)

    @property
    def seniority(self) -> tuple[bool, str, str, int]:
        """Sorts policies by whose wish counts where they contradict each other: the older one's,
        and of one that only watches the least.
        """
        return self.audit, self.created, self.source, self.index

    @property
    def leaves_response(self) -> bool:
        """Whether namespace and cluster say how its denials of requests are answered."""
        return self.forbidden is None and any(rule.has_http for rule in self.rules)

    def answering(self, *, forbidden: bool) -> Policy:
        """The same with the response of its namespace or cluster, if it names none itself."""
        if self.forbidden is not None or not forbidden:
            return self
        return replace(self, forbidden=True, rules=tuple(map(_answering_forbidden, self.rules)))

    def enforces(self, direction: Direction) -> bool:
        """Whether it has a say in that direction."""
        return self.default_deny[direction] or any(True for _ in self.rules_of(direction))


def _answering_forbidden(rule: Rule) -> Rule:
    if not (rule.deny and rule.has_http):
        return rule
    ports = tuple(
        replace(ports, http=tuple(replace(http, forbidden=True) for http in ports.http))
        for ports in rule.ports or ()
    )
    return replace(rule, ports=ports)
