"""Models of L7Policy, ClusterL7Policy, CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

All four share one `spec`; the fields that only the L7Policy kinds have are marked with
`l7_only`.  What Cilium has and yett does not is named in `refuses`, so that the
answer is a sentence and not "unknown field".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from yett_policy.http.regex import RegexError
from yett_policy.http.regex import check as check_regex
from yett_policy.prefix import parse_prefix
from yett_policy.source import icmp
from yett_policy.source.fields import (
    Cidr,
    HeaderName,
    Labels,
    Latin1,
    Metadata,
    Model,
    Port,
    l7_only,
    refusal,
)

# The fields' names are those of the API.
# ruff: noqa: N815

_MUTATION = "changing headers is not supported yet; remove mismatch, and the rule matches only requests that have the header"
_SECRET = "header values from Secrets are not supported yet; remove secret, or write the value"  # noqa: S105
_CIDR_GROUP = "not supported yet (CIDR groups); write the blocks with cidr"
_TLS = "not supported yet (TLS interception); remove it"


def _regex(pattern: str, field: str = "") -> str:
    try:
        check_regex(pattern)
    except RegexError as error:
        raise refusal(str(error), field) from error
    return pattern


def _regex_field(pattern: str) -> str:
    return _regex(pattern)


Regex = Annotated[Latin1, AfterValidator(_regex_field)]
Entity = Literal[
    "all", "world", "cluster", "host", "init", "ingress", "unmanaged", "remote-node", "health", "none",
    "kube-apiserver", "cluster-mesh",
]  # fmt: skip
AmbiguityName = Literal[
    "DotSegment", "EmptySegment", "EncodedDot", "EncodedSlash", "EncodedBackslash", "EncodedPercent",
    "EncodedNul", "Backslash", "Semicolon", "Fragment", "NonAscii", "Percent",
]  # fmt: skip


_PROTOCOLS = ("TCP", "UDP", "SCTP", "ANY")


def _no_mutation(value: object) -> object:
    if isinstance(value, str) and value in {"ADD", "DELETE", "REPLACE", "LOG"}:
        raise refusal(_MUTATION)
    return value


class HeaderMatch(Model):
    """A condition on one header of a request."""

    refuses: ClassVar[Mapping[str, str]] = {
        "secret": _SECRET,
    }

    name: HeaderName
    operator: Annotated[
        Literal["Exact", "Prefix", "Suffix", "Regex", "Present", "Absent"] | None,
        l7_only("remove operator, or make the policy an L7Policy"),
    ] = None
    value: Latin1 | None = None
    mismatch: Annotated[Literal[""] | None, BeforeValidator(_no_mutation)] = None

    def check(self) -> None:
        """A value goes with the operators that compare."""
        if self.operator in {"Present", "Absent"} and self.value:
            raise refusal(f"operator {self.operator} takes no value; remove it", "value")
        if self.operator in {"Exact", "Prefix", "Suffix", "Regex"} and self.value is None:
            raise refusal(f"operator {self.operator} needs a value", "value")
        if self.operator in {"Prefix", "Suffix"} and not self.value:
            raise refusal(f"operator {self.operator} with an empty value is Present; write that", "operator")
        if self.operator == "Regex" and self.value is not None:
            _regex(self.value, "value")


class Http(Model):
    """One HTTP rule: every condition must hold."""

    method: Regex | None = None
    path: Regex | None = None
    pathPrefix: Annotated[Latin1 | None, l7_only('write path: "/api(/.*)?" or make it an L7Policy')] = None
    pathExact: Annotated[Latin1 | None, l7_only("write path, or make it an L7Policy")] = None
    host: Regex | None = None
    headers: list[Latin1] | None = None
    headerMatches: list[HeaderMatch] | None = None
    upgrades: Annotated[
        list[Literal["websocket"]] | None,
        l7_only("make it an L7Policy"),
    ] = None
    allowAmbiguous: Annotated[list[AmbiguityName] | None, l7_only("make it an L7Policy")] = None

    def check(self) -> None:
        """At most one way to name the path; prefixes and exact paths are plain text."""
        given = [f for f in ("path", "pathPrefix", "pathExact") if getattr(self, f) is not None]
        if len(given) > 1:
            raise refusal(f"excludes {given[0]}; keep one of them", given[1])
        for field in ("pathPrefix", "pathExact"):
            value = getattr(self, field)
            if value is not None and not value.startswith("/"):
                raise refusal(f"{value!r} must begin with '/'", field)
            if value is not None and ("?" in value or "#" in value):
                raise refusal(f"{value!r} must be a path without query or fragment", field)


class L7Rules(Model):
    """What is asked of the bytes on a port."""

    refuses: ClassVar[Mapping[str, str]] = {
        "dns": "not supported yet (DNS rules); remove it, and allow port 53 by toPorts alone",
        "kafka": "not supported (Kafka rules); remove it",
        "l7": "not supported (generic L7 rules); remove it",
        "l7proto": "not supported (generic L7 rules); remove it",
    }

    http: list[Http] | None = None


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
    endPort: Annotated[int, Field(ge=0, le=65535)] | None = None
    protocol: Annotated[Literal["TCP", "UDP", "SCTP", "ANY"] | None, BeforeValidator(_protocol)] = None

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
    rules: L7Rules | None = None

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

    def check(self) -> None:
        """A rule that denies has nothing to permit."""
        super().check()
        for i, rule in enumerate((self.rules and self.rules.http) or ()):
            for field in ("allowAmbiguous", "upgrades"):
                if getattr(rule, field):
                    raise refusal("permits nothing in a deny rule; remove it", f"rules.http[{i}].{field}")


def _icmp_type(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refusal("must be a number from 0 to 255 or a name like EchoRequest")
    if isinstance(value, int) and not 0 <= value <= 255:
        raise refusal(f"{value} is not an ICMP type; write a number from 0 to 255")
    return value


class IcmpField(Model):
    """An ICMP type."""

    family: Literal["IPv4", "IPv6"] | None = None
    type: Annotated[int | str, BeforeValidator(_icmp_type)]

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


class CidrRule(Model):
    """A block with holes."""

    refuses: ClassVar[Mapping[str, str]] = {
        "cidrGroupRef": _CIDR_GROUP,
        "cidrGroupSelector": _CIDR_GROUP,
    }

    cidr: Cidr | None = None
    except_: list[Cidr] | None = Field(default=None, alias="except")

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
    icmps: list[Icmp] | None = None
    authentication: Authentication | None = None

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
    fromEntities: list[Entity] | None = None
    fromCIDR: list[Cidr] | None = None
    fromCIDRSet: list[CidrRule] | None = None


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
    toEntities: list[Entity] | None = None
    toCIDR: list[Cidr] | None = None
    toCIDRSet: list[CidrRule] | None = None


class IngressDeny(Ingress):
    """As Ingress; what matches is denied whatever allows it."""

    refuses: ClassVar[Mapping[str, str]] = {**Ingress.refuses, "authentication": _NO_AUTH}

    toPorts: list[DenyPortRule] | None = None  # type: ignore[assignment]


class EgressDeny(Egress):
    """As Egress; what matches is denied whatever allows it."""

    refuses: ClassVar[Mapping[str, str]] = {**Egress.refuses, "authentication": _NO_AUTH}

    toPorts: list[DenyPortRule] | None = None  # type: ignore[assignment]


class DefaultDeny(Model):
    """Whether the rule turns its subject from open to closed."""

    ingress: bool | None = None
    egress: bool | None = None


def _printable(value: str) -> str:
    if any(unicodedata.category(character).startswith("C") for character in value):
        raise refusal("has control characters, which must not reach the logs; remove them")
    return value


class Log(Model):
    """Text for the records of flows that the policy decided."""

    value: Annotated[str, Field(max_length=32), AfterValidator(_printable)] = ""


class HttpOptions(Model):
    """Opt-ins to parts of HTTP/1.1 in which servers disagree."""

    chunkExtensions: bool = False
    trailers: bool = False


_L7 = "make the policy an L7Policy"


class Spec(Model):
    """One rule object."""

    refuses: ClassVar[Mapping[str, str]] = {
        "nodeSelector": "not supported yet (host policies); use endpointSelector",
    }

    endpointSelector: Labels | None = None
    ingress: list[Ingress] | None = None
    egress: list[Egress] | None = None
    ingressDeny: list[IngressDeny] | None = None
    egressDeny: list[EgressDeny] | None = None
    enableDefaultDeny: DefaultDeny | None = None
    labels: list[Any] | None = None
    description: str | None = None
    log: Log | None = None
    audit: Annotated[bool | None, l7_only(_L7)] = None
    denyResponse: Annotated[Literal["Reset", "Forbidden"] | None, l7_only(_L7)] = None
    engine: Annotated[Literal["Auto", "Kernel", "Sidecar"] | None, l7_only(_L7)] = None
    http: Annotated[HttpOptions | None, l7_only(_L7)] = None

    def check(self) -> None:
        """A subject and at least one rule."""
        if self.endpointSelector is None:
            raise refusal("is required; write endpointSelector: {} for every pod", "endpointSelector")
        if not any((self.ingress, self.egress, self.ingressDeny, self.egressDeny)):
            raise refusal(
                "needs at least one item in ingress, egress, ingressDeny or egressDeny; "
                "to deny everything that comes in write ingress: [{}]"
            )


class Document(Model):
    """The whole object of any of the four kinds."""

    apiVersion: str
    kind: str
    metadata: Metadata
    spec: Spec | None = None
    specs: list[Spec] | None = None
    status: Any = None

    def check(self) -> None:
        """At least one rule object."""
        if self.spec is None and not self.specs:
            raise refusal("is required, or specs", "spec")
