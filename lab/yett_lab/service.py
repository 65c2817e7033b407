"""Services: names in each pod's /etc/hosts, addresses translated in the pod's own namespace.

Translation inside the pod, before the packet reaches the veth, is the place where the BPF
programs see the backend's address, as they do behind kube-proxy's replacement; policies speak
of backends, never of cluster IPs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yett_lab.objects import Pod, Service, ServicePort


@dataclass(frozen=True, slots=True)
class Backend:
    """A pod that a service leads to."""

    pod: Pod
    ipv4: str
    ipv6: str


def backends(service: Service, ready: Mapping[str, Backend]) -> list[Backend]:
    """The ready pods of a service, in a stable order."""
    return [ready[key] for key in sorted(ready) if service.selects(ready[key].pod)]


def hosts(
    pod: Pod,
    own: tuple[str, str],
    services: Sequence[Service],
    ips: Mapping[str, tuple[str, str]],
    ready: Mapping[str, Backend],
) -> str:
    """A pod's /etc/hosts."""
    lines = [
        "# written by yettctl lab; changes are lost",
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        *(f"{address} {pod.name}" for address in own),
    ]
    for service in services:
        full = f"{service.name}.{service.namespace}"
        names = f"{full}.svc.cluster.local {full}.svc {full}"
        if service.namespace == pod.namespace:
            names += f" {service.name}"
        addresses: list[str] = []
        if service.headless:
            for backend in backends(service, ready):
                addresses += [backend.ipv4, backend.ipv6]
        else:
            addresses += ips[service.key]
        lines += [f"{address} {names}" for address in addresses]
    return "\n".join(lines) + "\n"


def resolv(namespace: str) -> str:
    """A pod's /etc/resolv.conf: search names, and a server that refuses at once."""
    return f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.0.0.1\n"


def translation(
    services: Sequence[Service], ips: Mapping[str, tuple[str, str]], ready: Mapping[str, Backend]
) -> str:
    """An nft script that replaces the table `yett` of a pod's namespace."""
    if not services:
        return "add table inet yett\ndelete table inet yett\n"
    translate: list[str] = []
    refuse: list[str] = []
    for service in services:
        if service.headless:
            continue
        behind = backends(service, ready)
        for port in service.ports:
            targets = [(b, number) for b in behind if (number := target(port, b.pod)) is not None]
            for family, address in zip(("ip", "ip6"), ips[service.key], strict=True):
                match = f"{family} daddr {address} {port.protocol.lower()} dport {port.port}"
                if targets:
                    ends = [(b.ipv4 if family == "ip" else b.ipv6, number) for b, number in targets]
                    translate.append(f"{match} dnat {family} to {_choice(family, ends)}")
        # What no backend serves is refused like a closed port, not sent out to nowhere.
        refuse += [
            f"{family} daddr {a} reject" for family, a in zip(("ip", "ip6"), ips[service.key], strict=True)
        ]
    return (
        "add table inet yett\ndelete table inet yett\ntable inet yett {\n"
        "  chain translate { type nat hook output priority -100; policy accept;\n    "
        + "\n    ".join(translate)
        + "\n  }\n  chain refuse { type filter hook output priority 0; policy accept;\n    "
        + "\n    ".join(refuse)
        + "\n  }\n}\n"
    )


def target(port: ServicePort, pod: Pod) -> int | None:
    """The pod's port; None: it has none of that name."""
    if isinstance(port.target, int):
        return port.target
    for own in pod.ports:
        if own.name == port.target and own.protocol == port.protocol:
            return own.port
    return None


def _choice(family: str, ends: Sequence[tuple[str, int]]) -> str:
    if len(ends) == 1:
        address, port = ends[0]
        return f"{address}:{port}" if family == "ip" else f"[{address}]:{port}"
    members = ", ".join(f"{i} : {address} . {port}" for i, (address, port) in enumerate(ends))
    return f"numgen random mod {len(ends)} map {{ {members} }}"
