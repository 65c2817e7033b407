"""The model of networking.k8s.io/v1 NetworkPolicy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from yett_policy.prefix import parse_prefix
from yett_policy.source.fields import Cidr, Labels, Metadata, Model, refusal

# The fields' names are those of the API.
# ruff: noqa: N815


def _int_or_name(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refusal("must be a number or the name of a container port")
    if isinstance(value, int) and not 1 <= value <= 65535:
        raise refusal(f"{value} is not a port; write a number from 1 to 65535")
    if isinstance(value, str) and value.isdecimal():
        raise refusal(f"{value!r} is a number in quotes; remove the quotes")
    return value


class NetworkPolicyPort(Model):
    """A port, a range of ports, or a named port."""

    protocol: Literal["TCP", "UDP", "SCTP"] | None = None
    port: Annotated[int | str | None, BeforeValidator(lambda v: v if v is None else _int_or_name(v))] = None
    endPort: Annotated[int, Field(ge=1, le=65535)] | None = None

    def check(self) -> None:
        """A range has two numbers in order."""
        if self.endPort is None:
            return
        if not isinstance(self.port, int):
            raise refusal("needs a port that is a number", "endPort")
        if self.endPort < self.port:
            raise refusal(f"{self.endPort} is below port {self.port}; swap them", "endPort")


class IpBlock(Model):
    """A block with holes; it covers pods and nodes too."""

    cidr: Cidr
    except_: list[Cidr] | None = Field(default=None, alias="except")

    def check(self) -> None:
        """The holes lie inside."""
        block = parse_prefix(self.cidr)
        for i, hole in enumerate(self.except_ or ()):
            if not block.covers(parse_prefix(hole)) or parse_prefix(hole) == block:
                raise refusal(f"{hole} is not strictly inside {self.cidr}", f"except[{i}]")


class Peer(Model):
    """Pods, or addresses."""

    podSelector: Labels | None = None
    namespaceSelector: Labels | None = None
    ipBlock: IpBlock | None = None

    def check(self) -> None:
        """One kind of them."""
        pods = self.podSelector is not None or self.namespaceSelector is not None
        if self.ipBlock is not None and pods:
            raise refusal(
                "cannot go with podSelector or namespaceSelector; make it a peer of its own", "ipBlock"
            )
        if self.ipBlock is None and not pods:
            raise refusal(
                "needs podSelector, namespaceSelector or ipBlock; for every pod of every namespace write namespaceSelector: {}"
            )


class Ingress(Model):
    """Who may come in, and to what."""

    from_: list[Peer] | None = Field(default=None, alias="from")
    ports: list[NetworkPolicyPort] | None = None


class Egress(Model):
    """Where the pods may go, and to what there."""

    to: list[Peer] | None = None
    ports: list[NetworkPolicyPort] | None = None


class Spec(Model):
    """The policy."""

    podSelector: Labels | None = None
    policyTypes: list[Literal["Ingress", "Egress"]] | None = None
    ingress: list[Ingress] | None = None
    egress: list[Egress] | None = None


class Document(Model):
    """The whole object."""

    apiVersion: str
    kind: str
    metadata: Metadata
    spec: Spec
    status: Any = None
