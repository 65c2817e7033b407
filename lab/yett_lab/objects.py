"""The objects that a lab runs, as values: what is needed of Pods, Services and Deployments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that a container says it listens on."""

    port: int
    protocol: str = "TCP"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """One process of a pod."""

    name: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    working_dir: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """Containers that share a network namespace."""

    namespace: str
    name: str
    labels: tuple[tuple[str, str], ...]
    containers: tuple[Container, ...]
    node: str = ""
    """Empty: any."""
    service_account: str = "default"

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def ports(self) -> tuple[ContainerPort, ...]:
        return tuple(port for container in self.containers for port in container.ports)


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service and where it leads."""

    port: int
    target: int | str
    """A number, or the name of a container's port."""
    protocol: str = "TCP"
    name: str = ""
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """A name and address for the pods that a selector picks."""

    namespace: str
    name: str
    selector: tuple[tuple[str, str], ...]
    """Empty: no pods."""
    ports: tuple[ServicePort, ...]
    headless: bool = False
    address: str = ""
    """The cluster IP that the user asked for."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def selects(self, pod: Pod) -> bool:
        """Whether the pod is a backend, ready or not."""
        return (
            bool(self.selector) and self.namespace == pod.namespace and set(self.selector) <= set(pod.labels)
        )


@dataclass(frozen=True, slots=True)
class Namespace:
    """Policies may select by its labels."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Objects:
    """Everything that is to run."""

    pods: tuple[Pod, ...] = ()
    services: tuple[Service, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
