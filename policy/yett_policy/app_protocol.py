"""What Services say is spoken on the ports of their pods (`appProtocol`).

A Service speaks of pods by their labels, so what it says is a fact of an identity: it is known
before a pod is ready, and two pods of one identity never differ in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from yett_policy.cluster import NamedPort, Service, ServicePort
from yett_policy.identity import named_ports
from yett_policy.index import SelectorIndex
from yett_policy.policy import TCP
from yett_policy.selector import NAMESPACE, LabelSelector, Op, Requirement, Selector

HTTP2 = frozenset({"kubernetes.io/h2c", "h2c", "http2", "grpc", "grpc-web"})
"""Words for HTTP/2 in clear text: of Kubernetes and the Gateway API, and those that Istio and others
read, in any case.  `kubernetes.io/ws` is HTTP/1 with an upgrade, which the kernel judges; `https`,
`tls` and `kubernetes.io/wss` no engine can read."""

_Key = tuple[str, str]


class Spoken(NamedTuple):
    """A port of a pod on which HTTP/2 is spoken."""

    proto: int
    port: int
    said: str
    """`kubernetes.io/h2c of Service default/api`."""


class AppProtocols:
    """The Services that name such ports, and the identities that they speak of."""

    def __init__(self, index: SelectorIndex) -> None:
        self._index = index
        self._services: dict[_Key, Service] = {}
        self._by_selector: defaultdict[LabelSelector, set[_Key]] = defaultdict(set)
        self._by_identity: dict[int, set[_Key]] = {}

    def put(self, service: Service) -> set[int]:
        """A Service that is new or has changed; the identities of whom something else is said now."""
        if self._services.get(service.key) == service:
            return set()
        touched = self.drop(service.key)
        selector = selector_of(service)
        if selector is None:
            return touched
        self._services[service.key] = service
        self._index.want(selector)
        self._by_selector[selector].add(service.key)
        for number in self._index.selected(selector):
            self._by_identity.setdefault(number, set()).add(service.key)
            touched.add(number)
        return touched

    def drop(self, key: _Key) -> set[int]:
        """A Service is gone; as `put`."""
        service = self._services.pop(key, None)
        selector = None if service is None else selector_of(service)
        if selector is None:
            return set()
        touched = set(self._index.selected(selector))
        for number in touched:
            self._forget(number, key)
        self._by_selector[selector].discard(key)
        if not self._by_selector[selector]:
            del self._by_selector[selector]
        self._index.release(selector)
        return touched

    def notice(self, number: int, selectors: Iterable[Selector], *, selected: bool) -> bool:
        """Selectors began or ceased to select an identity; whether that changed what is said of it."""
        keys = {
            key for s in selectors if isinstance(s, LabelSelector) for key in self._by_selector.get(s, ())
        }
        for key in keys:
            if selected:
                self._by_identity.setdefault(number, set()).add(key)
            else:
                self._forget(number, key)
        return bool(keys)

    def _forget(self, number: int, key: _Key) -> None:
        self._by_identity[number].discard(key)
        if not self._by_identity[number]:
            del self._by_identity[number]

    def speakers(self) -> Collection[int]:
        """Identities of whom something is said."""
        return self._by_identity.keys()

    def of(self, number: int) -> tuple[Spoken, ...]:
        """The ports of an identity in use, each once: the first of several Services counts."""
        keys = self._by_identity.get(number)
        if not keys:
            return ()
        names = named_ports(f"{key}={value}" for key, value in self._index.labels[number].items())
        found: dict[tuple[int, int], Spoken] = {}
        for key in sorted(keys):
            for spoken in _said(self._services[key], names):
                found.setdefault((spoken.proto, spoken.port), spoken)
        return tuple(sorted(found.values()))


def selector_of(service: Service) -> LabelSelector | None:
    """Whom it speaks of; None: of nobody, or it says nothing that counts."""
    if not service.selector or not any(True for _ in _http2(service)):
        return None
    wanted = {f"k8s:{key}": value for key, value in service.selector.items()}
    wanted[NAMESPACE] = service.namespace
    return LabelSelector.of(*(Requirement(key, Op.IN, (value,)) for key, value in wanted.items()))


def _http2(service: Service) -> Iterator[ServicePort]:
    return (port for port in service.ports if port.app_protocol.lower() in HTTP2 and port.protocol == "TCP")


def _said(service: Service, names: Iterable[NamedPort]) -> Iterator[Spoken]:
    names = list(names)
    for port in sorted(_http2(service), key=lambda port: port.port):
        said = f"{port.app_protocol} of Service {service.namespace}/{service.name}"
        if isinstance(port.target, int):
            yield Spoken(TCP, port.target, said)
            continue
        for own in names:
            # Names of ports are compared in lower case, as identities keep them.
            if own.name == port.target.lower() and own.protocol == port.protocol:
                yield Spoken(TCP, own.port, said)
