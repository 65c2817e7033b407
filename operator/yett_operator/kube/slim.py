"""From API objects to the few facts that count; nothing else of an object is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from sys import intern
from typing import Any

from yett_operator.kube.client import Json
from yett_operator.ports import PlacedPod
from yett_policy.cluster import (
    DENY_RESPONSE,
    NamedPort,
    Namespace,
    Node,
    PodKey,
    Service,
    ServicePort,
    Slice,
    Workload,
    pod_key,
    shared,
)
from yett_policy.document import canonical
from yett_policy.identity import one_text
from yett_policy.prefix import packed_prefix
from yett_policy.source.parse import KINDS

_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlimPod(PlacedPod):
    """A pod: the one record of it on the event loop, which everybody else refers to."""

    workload: Workload


@dataclass(frozen=True, slots=True)
class SlimPolicy:
    """A policy as it is stored, whatever it says."""

    kind: str
    namespace: str
    """Empty if the kind has none."""
    name: str
    uid: str
    generation: int
    body: bytes = field(repr=False)
    """apiVersion, kind, name and spec as JSON."""
    told: int = field(default=0, repr=False, compare=False)
    """Hash of its status, which of our own kinds the operator itself wrote; not compared."""

    @property
    def source(self) -> str:
        """`Kind/namespace/name` or `Kind/name`; one object for equal ones, of which many keep some."""
        return intern("/".join(filter(None, (self.kind, self.namespace, self.name))))

    @property
    def api_version(self) -> str:
        """Group and version of the kind."""
        return KINDS[self.kind][0]


@dataclass(frozen=True, slots=True)
class SlimIdentity:
    """A number and its labels."""

    number: int
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SlimStatus:
    """A PolicyStatus that is there."""

    policy_uid: str
    source: str
    generation: int
    """Its own."""
    policy_generation: int
    """The version of the policy that its spec names."""
    status: bytes = field(repr=False)
    """As it was written, canonical JSON: as objects it would take several times the room."""


def pod(obj: Json) -> tuple[PodKey, SlimPod | None]:
    """Finished pods count as gone: their addresses are free.  Terminating ones do not."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    namespace = intern(metadata["namespace"])
    key = pod_key(namespace, metadata["name"])
    if status.get("phase") in _FINISHED:
        return key, None
    ips = [each.get("ip") for each in status.get("podIPs") or ()] or [status.get("podIP")]
    prefixes = tuple(map(packed_prefix, _addresses(ips)))
    workload = Workload(
        namespace=namespace,
        labels=tuple(sorted((metadata.get("labels") or {}).items())),
        named_ports=_named_ports(spec),
        probes=_probes(spec),
        host_network=bool(spec.get("hostNetwork")),
        service_account=spec.get("serviceAccountName") or "default",
    )
    return key, SlimPod(
        key=key,
        claimed=prefixes[0] if len(prefixes) == 1 else prefixes,
        node=intern(spec.get("nodeName") or ""),
        uid_mark=hash(metadata.get("uid", "")) & 255,
        workload=shared(workload),
    )


def _addresses(texts: Iterable[str | None]) -> Iterator[str]:
    """What is no address counts as not there: the API server does not look closely at all of them (a kubelet may
    write anything as its node's), and a network in the place of an address would be a claim on all that is in it.
    """
    for text in texts:
        if text and "%" not in text:  # with a zone it means something on one machine only
            with suppress(ValueError):
                ip_address(text)
                yield text


def _containers(spec: Json) -> list[Json]:
    """Those that go on running: sidecars are init containers that are restarted."""
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    return [*sidecars, *(spec.get("containers") or ())]


def _probes(spec: Json) -> tuple[int, ...]:
    """Ports that the kubelet connects to; a name is one of the same container's."""
    found: set[int] = set()
    for container in _containers(spec):
        names = {
            each["name"]: each["containerPort"] for each in container.get("ports") or () if each.get("name")
        }
        for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
            probe = container.get(kind) or {}
            for way in ("httpGet", "tcpSocket", "grpc"):
                port = (probe.get(way) or {}).get("port")
                number = names.get(port) if isinstance(port, str) else port
                if number:
                    found.add(number)
    return tuple(sorted(found))


def _named_ports(spec: Json) -> tuple[NamedPort, ...]:
    return tuple(
        sorted(
            NamedPort(port["name"], port["containerPort"], port.get("protocol") or "TCP")
            for container in _containers(spec)
            for port in container.get("ports") or ()
            if port.get("name")
        )
    )


def namespace(obj: Json) -> tuple[str, Namespace]:
    """Its labels, and how denials are answered there."""
    metadata = obj["metadata"]
    response = (metadata.get("annotations") or {}).get(DENY_RESPONSE)
    return metadata["name"], Namespace(metadata["name"], metadata.get("labels") or {}, response)


def node(obj: Json) -> tuple[str, Node]:
    """Its addresses."""
    name = obj["metadata"]["name"]
    addresses = (
        each.get("address")
        for each in (obj.get("status") or {}).get("addresses") or ()
        if each.get("type") in {"InternalIP", "ExternalIP"}
    )
    return name, Node(name, tuple(dict.fromkeys(_addresses(addresses))))


def service(obj: Json) -> tuple[tuple[str, str], Service]:
    """Whom it selects, its ports and its addresses."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    ports = [
        ServicePort(
            port["port"],
            port.get("targetPort") or port["port"],
            port.get("protocol") or "TCP",
            port.get("name") or "",
            port.get("appProtocol") or "",
        )
        for port in spec.get("ports") or ()
    ]
    inside = spec.get("clusterIPs") or [spec.get("clusterIP")]
    balanced = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    outside = [
        *(spec.get("externalIPs") or ()),
        *(each.get("ip") for each in balanced if each.get("ipMode") != "Proxy"),
    ]
    addresses = set(_addresses((*inside, *outside)))  # "None": it has none
    key = (intern(metadata["namespace"]), metadata["name"])
    return key, Service(*key, spec.get("selector") or {}, tuple(ports), tuple(sorted(addresses)))


def endpoint_slice(obj: Json) -> tuple[tuple[str, str], Slice | None]:
    """Endpoints that kube-proxy may send to: ready ones, and while there are none of those, ones that
    serve while they end.  Slices of host names and of no Service do not count.
    """
    metadata = obj["metadata"]
    key = (intern(metadata["namespace"]), metadata["name"])
    service = (metadata.get("labels") or {}).get("kubernetes.io/service-name")
    if not service or obj.get("addressType") not in {"IPv4", "IPv6"}:
        return key, None
    ports = [
        (port.get("name") or "", port.get("protocol") or "TCP", port["port"])
        for port in obj.get("ports") or ()
        if port.get("port")
    ]
    addresses = {
        address
        for each in obj.get("endpoints") or ()
        if _serves(each.get("conditions") or {})
        for address in _addresses(each.get("addresses") or ())
    }
    return key, Slice(*key, intern(service), tuple(sorted(ports)), tuple(sorted(addresses)))


def _serves(conditions: Json) -> bool:
    """What is not said is true (as the API says)."""
    ready = conditions.get("ready")
    return ready is not False or bool(conditions.get("serving"))


def policy(obj: Json, kind: str) -> tuple[str, SlimPolicy]:
    """`kind` is given, because items of a list do not say it."""
    metadata = obj["metadata"]
    namespaced = KINDS[kind][1]
    slim = SlimPolicy(
        kind=kind,
        namespace=intern(metadata["namespace"]) if namespaced else "",
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation") or 0,
        body=policy_body(obj, kind),
        told=hash(canonical(obj.get("status") or {})),
    )
    return slim.source, slim


def policy_body(obj: Json, kind: str) -> bytes:
    """What counts of a policy, as JSON."""
    metadata = {
        key: obj["metadata"][key]
        for key in ("name", "namespace", "creationTimestamp")
        if obj["metadata"].get(key)
    }
    body: dict[str, Any] = {"apiVersion": KINDS[kind][0], "kind": kind, "metadata": metadata}
    body |= {key: obj[key] for key in ("spec", "specs") if key in obj}
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def identity(obj: Json) -> tuple[int, SlimIdentity | None]:
    """Objects that somebody else wrote and that are not what they claim do not count."""
    spec = obj.get("spec") or {}
    name, labels = obj["metadata"]["name"], tuple(spec.get("labels") or ())
    if not name.isdecimal():
        return -1, None
    number = int(name)
    if spec.get("number") != number or not labels or list(labels) != sorted(labels):
        return number, None
    return number, SlimIdentity(number, one_text(labels))


def status(obj: Json) -> tuple[tuple[str, str], SlimStatus]:
    """A PolicyStatus."""
    metadata, ref = obj["metadata"], obj["spec"]["policy"]
    key = (intern(metadata["namespace"]), metadata["name"])
    source = "/".join(filter(None, (ref["kind"], ref.get("namespace"), ref["name"])))
    return key, SlimStatus(
        policy_uid=ref["uid"],
        source=intern(source),
        generation=metadata.get("generation") or 0,
        policy_generation=obj["spec"].get("policyGeneration") or 0,
        status=canonical(obj.get("status") or {}),
    )
