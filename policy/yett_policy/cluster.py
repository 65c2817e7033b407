"""The facts about a cluster that policies need, and nothing else."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from sys import intern
from typing import NamedTuple, TypeVar

from yett_policy.prefix import Packed, packed_prefix

H = TypeVar("H", bound=Hashable)

DENY_RESPONSE = "yett.dev/deny-response"
"""Annotation of a namespace: how denied requests of its pods are answered where the policy does not say."""
RESPONSES = {"Reset": False, "Forbidden": True}
"""Whether the client gets a 403."""


@dataclass(frozen=True, slots=True, order=True)
class NamedPort:
    """A container port that has a name."""

    name: str
    port: int
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class Workload:
    """What many pods have in common: all of a pod but its name and its addresses."""

    namespace: str
    labels: tuple[tuple[str, str], ...] = ()
    """Sorted."""
    named_ports: tuple[NamedPort, ...] = ()
    probes: tuple[int, ...] = ()
    host_network: bool = False
    service_account: str = "default"


class PodFacts(NamedTuple):
    """All of a pod but its name."""

    workload: Workload
    prefixes: tuple[Packed, ...]
    """Its addresses."""


def shared(workload: Workload) -> Workload:
    """One object for equal ones, and for equal texts and ports in different ones."""
    known: Workload = one(
        replace(
            workload,
            namespace=intern(workload.namespace),
            labels=tuple((intern(key), intern(value)) for key, value in workload.labels),
            named_ports=one(workload.named_ports),
            service_account=intern(workload.service_account),
        )
    )
    return known


@lru_cache(maxsize=8192)
def one(value: H) -> H:
    """One object for equal ones: the first that it is asked with."""
    return value


PodKey = str
"""`NAMESPACE/NAME`: a pair of texts takes half as much room again."""


def pod_key(namespace: str, name: str) -> PodKey:
    """Of a pod."""
    return f"{namespace}/{name}"


def pod_name(key: PodKey) -> tuple[str, str]:
    """The inverse: namespace and name."""
    namespace, _, name = key.partition("/")
    return namespace, name


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has, or will have, addresses; finished pods are left out."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    """IPv4, IPv6 or both, without prefix length."""
    named_ports: tuple[NamedPort, ...] = ()
    probes: tuple[int, ...] = ()
    """TCP ports that its kubelet probes, sorted."""
    host_network: bool = False
    """It then shares the node's identity and no policy here governs it."""
    service_account: str = "default"

    @property
    def key(self) -> PodKey:
        """Namespace and name."""
        return pod_key(self.namespace, self.name)

    @property
    def workload(self) -> Workload:
        """What it has in common with others."""
        return Workload(
            namespace=self.namespace,
            labels=tuple(sorted(self.labels.items())),
            named_ports=self.named_ports,
            probes=self.probes,
            host_network=self.host_network,
            service_account=self.service_account,
        )

    @property
    def facts(self) -> PodFacts:
        """All but its name."""
        return PodFacts(self.workload, tuple(map(packed_prefix, self.addresses)))


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace; `kubernetes.io/metadata.name` need not be among the labels."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    deny_response: str | None = None
    """The annotation `DENY_RESPONSE` as it is written; what is no response means Reset."""

    @property
    def forbidden(self) -> bool | None:
        """Whether denied requests of its pods get a 403; None: as the cluster says."""
        return None if self.deny_response is None else RESPONSES.get(self.deny_response, False)


@dataclass(frozen=True, slots=True)
class Node:
    """A node and every address that its own processes and host-network pods use."""

    name: str
    addresses: tuple[str, ...] = ()
    api_server: bool = False
    """Whether the Kubernetes API server runs on it."""


@dataclass(frozen=True, slots=True, order=True)
class ServicePort:
    """A port of a Service, and where it leads."""

    port: int
    target: int | str
    """A number, or the name of a container's port."""
    protocol: str = "TCP"
    name: str = ""
    app_protocol: str = ""
    """What is spoken there, in the word of whoever wrote the Service."""


@dataclass(frozen=True, slots=True)
class Service:
    """A name, and addresses, for the pods behind it."""

    namespace: str
    name: str
    selector: Mapping[str, str] = field(default_factory=dict)
    """Empty: no pods, but for what EndpointSlices say."""
    ports: tuple[ServicePort, ...] = ()
    addresses: tuple[str, ...] = ()
    """Those that kube-proxy translates: cluster, external and load balancer IPs."""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of what is behind a Service: an EndpointSlice."""

    namespace: str
    name: str
    service: str
    ports: tuple[tuple[str, str, int], ...] = ()
    """(name, protocol, number)."""
    addresses: tuple[str, ...] = ()
    """Of endpoints that may be sent to, of one family."""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that is known at one moment."""

    pods: tuple[Pod, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    """One that is missing has no labels but its name."""
    nodes: tuple[Node, ...] = ()
    api_servers: tuple[str, ...] = ()
    """Addresses of API servers outside the cluster's nodes."""
    services: tuple[Service, ...] = ()
    slices: tuple[Slice, ...] = ()
    forbidden: bool = False
    """Whether denied requests get a 403 where neither policy nor namespace says."""
