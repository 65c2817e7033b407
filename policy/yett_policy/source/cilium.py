"""Models of L7Policy, ClusterL7Policy, CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

All four share one `spec`; the fields that only the L7Policy kinds have are marked with
`l7_only`.  What Cilium has and yett does not is named in `refuses`, so that the
answer is a sentence and not "unknown field".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from yett_policy.prefix import parse_prefix
from yett_policy.source import icmp
from yett_policy.source.fields import (
    Cidr,
    Labels,
    Metadata,
    Model,
    Port,
    l7_only,
    refusal,
)
from yett_policy.source.http_rule import HeaderMatch, Http

# The fields' names are those of the API.
# ruff: noqa: N815

_CIDR_GROUP = "not supported yet (CIDR groups); write the blocks with cidr"
_TLS = "not supported yet (TLS interception); remove it"


Entity = Literal[
    "all", "world", "cluster", "host", "init", "ingress", "unmanaged", "remote-node", "health", "none",
    "kube-apiserver", "cluster-mesh",
]  # fmt: skip
_CLUSTER_KINDS = ("ClusterL7Policy", "CiliumClusterwideNetworkPolicy")
_PROTOCOLS = ("TCP", "UDP", "SCTP", "ANY")


class L7Rules(Model):
    """What is asked of the bytes on a port."""

    refuses: ClassVar[Mapping[str, str]] = {
        "dns": "not supported yet (DNS rules); remove it, and allow port 53 by toPorts alone",
        "kafka": "not supported (Kafka rules); remove it",
        "l7": "not supported (generic L7 rules); remove it",
        "l7proto": "not supported (generic L7 rules); remove it",
    }

    http: list[Http] | None = None
    """HTTP rules; a request passes if one of them matches. Empty: every connection passes and nothing is
    judged; a list with one empty rule lets any HTTP request pass."""


def _protocol(value: object) -> object:
    match value:
        case "ICMP" | "ICMPv6" | "ICMPV6":
            raise refusal("ICMP has no ports; write an icmps item instead")
        case "VRRP" | "IGMP" | "GRE" | "IPIP" | "IPV6" | "ESP" | "AH":
            raise refusal(f"protocol {value} is not supported; use TCP, UDP, SCTP or ANY")
        case str() if value not in _PROTOCOLS and value.upper() in _PROTOCOLS:
            raise refusal(f"{value!r} must be in capitals: {value.upper()}")
    return value


class PortProtocol(Model):
    """A port, a range of ports, or a named port."""

    port: Port
    """Port number or name of a container port, in quotes, like "80" or "http". "0" is every port."""
    endPort: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Last port of a range that begins at port, like 8090."""
    protocol: Annotated[Literal["TCP", "UDP", "SCTP", "ANY"] | None, BeforeValidator(_protocol)] = None
    """TCP, UDP, SCTP or ANY. Left out: ANY. HTTP rules need TCP."""

    def check(self) -> None:
        """A range has two numbers in order."""
        if not self.endPort:
            return
        if not self.port.isdecimal():
            raise refusal(
                f"cannot go with the named port {self.port!r}; remove it, or write a port number", "endPort"
            )
        if self.port == "0":
            raise refusal('cannot go with port "0", which means every port; remove it', "endPort")
        if self.endPort < int(self.port):
            raise refusal(f"{self.endPort} is below port {self.port}; swap them", "endPort")


class PortRule(Model):
    """Ports, and what is asked of requests there."""

    refuses: ClassVar[Mapping[str, str]] = {
        "serverNames": "not supported yet (TLS server names); remove it",
        "terminatingTLS": _TLS,
        "originatingTLS": _TLS,
        "listener": "custom Envoy listeners are not supported; remove it",
    }

    ports: Annotated[list[PortProtocol] | None, Field(max_length=40)] = None
    """Ports that the rule is for. Left out beside no HTTP rules: none."""
    rules: L7Rules | None = None
    """What is asked of the requests on these ports. Left out: every connection passes."""

    def check(self) -> None:
        """HTTP is spoken on TCP ports."""
        if self.rules is None or not self.rules.http:
            return
        if not self.ports:
            raise refusal("is required beside HTTP rules; write the ports that HTTP is spoken on", "ports")
        for i, port in enumerate(self.ports):
            if port.protocol != "TCP":
                raise refusal("must be TCP beside HTTP rules; write protocol: TCP", f"ports[{i}].protocol")
            if port.port == "0":
                raise refusal('must be a port beside HTTP rules, and "0" is every port', f"ports[{i}].port")


class DenyPortRule(PortRule):
    """Ports of a deny rule; in L7Policy it may deny requests rather than ports."""

    rules: Annotated[
        L7Rules | None,
        l7_only("Cilium has no HTTP deny rules: make it an L7Policy, or remove rules"),
    ] = None
    """Requests that are denied on these ports. Left out: the ports are denied as a whole."""

    def check(self) -> None:
        """A rule that denies has nothing to permit."""
        super().check()
        for i, rule in enumerate((self.rules and self.rules.http) or ()):
            for field in ("allowAmbiguous", "upgrades"):
                if getattr(rule, field):
                    raise refusal("permits nothing in a deny rule; remove it", f"rules.http[{i}].{field}")
            for j, match in enumerate(rule.headerMatches or ()):
                if match.mismatch:
                    raise refusal(
                        "a deny rule changes no headers; remove it",
                        f"rules.http[{i}].headerMatches[{j}].mismatch",
                    )


def _icmp_type(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refusal("must be a number from 0 to 255 or a name like EchoRequest")
    if isinstance(value, int) and not 0 <= value <= 255:
        raise refusal(f"{value} is not an ICMP type; write a number from 0 to 255")
    return value


class IcmpField(Model):
    """An ICMP type."""

    family: Literal["IPv4", "IPv6"] | None = None
    """IPv4 or IPv6. Left out: IPv4."""
    type: Annotated[int | str, BeforeValidator(_icmp_type)]
    """ICMP type as a number from 0 to 255 or a name like EchoRequest."""

    def check(self) -> None:
        """The name is one of its family's."""
        names = icmp.IPV6 if self.family == "IPv6" else icmp.IPV4
        if isinstance(self.type, str) and self.type not in names:
            raise refusal(
                f"{self.type!r} is not an {'ICMPv6' if self.family == 'IPv6' else 'ICMP'} type; "
                "write its number, or a name like EchoRequest",
                "type",
            )


class Icmp(Model):
    """ICMP types, ORed."""

    fields: Annotated[list[IcmpField] | None, Field(max_length=40)] = None
    """ICMP types."""


class CidrRule(Model):
    """A block with holes."""

    refuses: ClassVar[Mapping[str, str]] = {
        "cidrGroupRef": _CIDR_GROUP,
        "cidrGroupSelector": _CIDR_GROUP,
    }

    cidr: Cidr | None = None
    """Block of addresses outside the cluster, like 192.0.2.0/24."""
    except_: list[Cidr] | None = Field(default=None, alias="except")
    """Blocks inside cidr that are left out, like 192.0.2.7/32."""

    def check(self) -> None:
        """The holes lie inside."""
        if self.cidr is None:
            raise refusal("is required", "cidr")
        for i, hole in enumerate(self.except_ or ()):
            if not parse_prefix(self.cidr).covers(parse_prefix(hole)):
                raise refusal(
                    f"{hole} is not inside {self.cidr}; remove it, or correct one of them", f"except[{i}]"
                )


class Authentication(Model):
    """Mutual authentication, which yett has not."""

    mode: Literal["disabled", "required", "test-always-fail"]
    """Only disabled is supported."""

    def check(self) -> None:
        """Anything but disabled is refused."""
        if self.mode != "disabled":
            raise refusal(f"{self.mode} is not supported yet (mutual authentication); remove it", "mode")


PEER_KINDS = ("Endpoints", "Entities", "CIDR", "CIDRSet")
"""After `from` or `to`: the fields of an item that name peers."""

_FQDN = "not supported yet (DNS names); remove it, or allow the addresses with toCIDR"
_SERVICES = "not supported yet (Services as peers); remove it, or select the pods with toEndpoints"
_NO_AUTH = "a deny rule takes no authentication; remove it"
_GROUPS = "not supported (cloud provider groups); remove it, or allow the addresses with CIDR blocks"
_NODES = "not supported yet (node selectors); use the entities host and remote-node"
_REQUIRES = "was removed from Cilium; write the requirement into the selectors of the other rules"


class Item(Model):
    """What ingress and egress items share."""

    side: ClassVar[str]

    toPorts: list[PortRule] | None = None
    """Ports, and the HTTP rules there. Left out: every port."""
    icmps: list[Icmp] | None = None
    """ICMP types. Excludes toPorts."""
    authentication: Authentication | None = None
    """Mutual authentication of the peers; only its mode disabled is supported."""

    def check(self) -> None:
        """Peers of one kind; ports or ICMP types."""
        kinds = [f"{self.side}{kind}" for kind in PEER_KINDS if getattr(self, f"{self.side}{kind}")]
        if len(kinds) > 1:
            raise refusal(
                f"{' and '.join(kinds)} cannot go together in one item; make each an item of its own"
            )
        if self.toPorts and self.icmps:
            raise refusal("toPorts and icmps cannot go together in one item; make each an item of its own")


class Ingress(Item):
    """Who may come in, and to what."""

    side: ClassVar[str] = "from"

    refuses: ClassVar[Mapping[str, str]] = {
        "fromGroups": _GROUPS,
        "fromNodes": _NODES,
        "fromRequires": _REQUIRES,
    }

    fromEndpoints: list[Labels] | None = None
    """Pods by their labels, of the policy's own namespace unless the labels name another with
    k8s:io.kubernetes.pod.namespace. An empty list selects no one."""
    fromEntities: list[Entity] | None = None
    """Groups of peers, like world or cluster."""
    fromCIDR: list[Cidr] | None = None
    """Blocks of addresses outside the cluster, like 192.0.2.0/24."""
    fromCIDRSet: list[CidrRule] | None = None
    """Blocks of addresses outside the cluster, with exceptions."""


class Egress(Item):
    """Where the subject may go, and to what there."""

    side: ClassVar[str] = "to"

    refuses: ClassVar[Mapping[str, str]] = {
        "toFQDNs": _FQDN,
        "toServices": _SERVICES,
        "toGroups": _GROUPS,
        "toNodes": _NODES,
        "toRequires": _REQUIRES,
    }

    toEndpoints: list[Labels] | None = None
    """Pods by their labels, of the policy's own namespace unless the labels name another with
    k8s:io.kubernetes.pod.namespace. An empty list selects no one."""
    toEntities: list[Entity] | None = None
    """Groups of peers, like world or kube-apiserver."""
    toCIDR: list[Cidr] | None = None
    """Blocks of addresses outside the cluster, like 192.0.2.0/24."""
    toCIDRSet: list[CidrRule] | None = None
    """Blocks of addresses outside the cluster, with exceptions."""


class IngressDeny(Ingress):
    """As Ingress; what matches is denied whatever allows it."""

    refuses: ClassVar[Mapping[str, str]] = {**Ingress.refuses, "authentication": _NO_AUTH}

    toPorts: list[DenyPortRule] | None = None  # type: ignore[assignment]
    """Ports, and the HTTP requests there, that are denied. Left out: every port."""


class EgressDeny(Egress):
    """As Egress; what matches is denied whatever allows it."""

    refuses: ClassVar[Mapping[str, str]] = {**Egress.refuses, "authentication": _NO_AUTH}

    toPorts: list[DenyPortRule] | None = None  # type: ignore[assignment]
    """Ports, and the HTTP requests there, that are denied. Left out: every port."""


class DefaultDeny(Model):
    """Whether the rule turns its subject from open to closed."""

    ingress: bool | None = None
    """Whether what comes in is denied unless a rule allows it. Left out: if there are ingress rules."""
    egress: bool | None = None
    """Whether what goes out is denied unless a rule allows it. Left out: if there are egress rules."""


def _printable(value: str) -> str:
    if any(unicodedata.category(character).startswith("C") for character in value):
        raise refusal("has control characters, which must not reach the logs; remove them")
    return value


class Log(Model):
    """Text for the records of flows that the policy decided."""

    value: Annotated[str, Field(max_length=32), AfterValidator(_printable)] = ""
    """Text for the flow records of what the policy decides, like team-a."""


class HttpOptions(Model):
    """Opt-ins to parts of HTTP/1.1 in which servers disagree."""

    chunkExtensions: bool = False
    """Whether chunk extensions may pass; servers disagree on where they end."""
    trailers: bool = False
    """Whether headers after a chunked body may pass; servers disagree on what they mean."""


_L7 = "make the policy an L7Policy"


class Spec(Model):
    """One rule object."""

    refuses: ClassVar[Mapping[str, str]] = {
        "nodeSelector": "not supported yet (host policies); use endpointSelector",
    }

    endpointSelector: Labels | None = None
    """The pods that the policy is for, by their labels; empty: all of the namespace (of a ClusterL7Policy:
    of the cluster)."""
    ingress: list[Ingress] | None = None
    """Who may come in, and to what. An item without fields allows no one, so [{}] denies everything."""
    egress: list[Egress] | None = None
    """Where the pods may go, and to what there. An item without fields allows nothing, so [{}] denies
    everything."""
    ingressDeny: list[IngressDeny] | None = None
    """Who may not come in, whatever allows it."""
    egressDeny: list[EgressDeny] | None = None
    """Where the pods may not go, whatever allows it."""
    enableDefaultDeny: DefaultDeny | None = None
    """Whether what no rule allows is denied. Left out: in the directions that have rules."""
    labels: list[Any] | None = None
    """Text for people and tools; no effect."""
    description: str | None = None
    """Text for people; no effect."""
    log: Log | None = None
    """Text for the records of flows that the policy decided."""
    audit: Annotated[bool | None, l7_only(_L7)] = None
    """If true, what would be denied passes and is recorded with the verdict AUDIT."""
    denyResponse: Annotated[Literal["Reset", "Forbidden"] | None, l7_only(_L7)] = None
    """What the client of a denied request gets: Reset (the connection is reset) or Forbidden (a 403). Left
    out: Reset."""
    engine: Annotated[Literal["Auto", "Kernel", "Sidecar"] | None, l7_only(_L7)] = None
    """Who judges HTTP requests: Kernel, Sidecar, or Auto (the kernel where the rules fit). Left out: Auto."""
    http: Annotated[HttpOptions | None, l7_only(_L7)] = None
    """Opt-ins to parts of HTTP/1.1 in which servers disagree."""

    def header_matches(self) -> Iterator[tuple[str, Http, HeaderMatch]]:
        """Those of all its HTTP allow rules, each with its place below this object, and its rule."""
        for field in ("ingress", "egress"):
            for i, item in enumerate(getattr(self, field) or ()):
                for j, ports in enumerate(item.toPorts or ()):
                    for k, rule in enumerate((ports.rules and ports.rules.http) or ()):
                        for m, match in enumerate(rule.headerMatches or ()):
                            place = f"{field}[{i}].toPorts[{j}].rules.http[{k}].headerMatches[{m}]"
                            yield place, rule, match

    def check(self) -> None:
        """A subject and at least one rule; what the kernel cannot do is not asked of it."""
        if self.endpointSelector is None:
            raise refusal("is required; write endpointSelector: {} for every pod", "endpointSelector")
        if not any((self.ingress, self.egress, self.ingressDeny, self.egressDeny)):
            raise refusal(
                "needs at least one item in ingress, egress, ingressDeny or egressDeny; "
                "to deny everything that comes in write ingress: [{}]"
            )
        changed = next((match.name for _, _, match in self.header_matches() if match.mismatch), None)
        if self.engine == "Kernel" and changed is not None:
            raise refusal(
                f"the kernel cannot change header {changed}; write Auto, or remove mismatch", "engine"
            )


class Document(Model):
    """The whole object of any of the four kinds."""

    apiVersion: str
    kind: str
    metadata: Metadata
    spec: Spec | None = None
    """The policy."""
    specs: list[Spec] | None = None
    """Several policies under one name, beside or in place of spec."""
    status: Any = None

    def check(self) -> None:
        """At least one rule object."""
        if self.spec is None and not self.specs:
            raise refusal("is required, or specs", "spec")
        places = [] if self.spec is None else [("spec", self.spec)]
        places += [(f"specs[{i}]", spec) for i, spec in enumerate(self.specs or ())]
        own = (self.metadata.namespace or "default") if self.kind not in _CLUSTER_KINDS else None
        for place, spec in places:
            for at, _, match in spec.header_matches():
                if match.secret is not None:
                    _check_namespace(f"{place}.{at}.secret.namespace", match.secret.namespace, own)


def _check_namespace(field: str, namespace: str | None, own: str | None) -> None:
    """Whoever may write policies in a namespace may not read the Secrets of others by it."""
    if own is None and namespace is None:
        raise refusal("is required, as the policy has no namespace of its own", field)
    if own is not None and namespace not in {None, own}:
        raise refusal(f"must be the policy's own namespace {own}; move the Secret, or the policy", field)
