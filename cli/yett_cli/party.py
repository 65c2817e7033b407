"""Who is meant on the command line: a pod, a service, an address, with a port."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from yett_cli.errors import EXIT_USAGE, CommandError
from yett_lab import service
from yett_lab.objects import Objects, Pod, Service

_BRACKETS = re.compile(r"\[([0-9a-fA-F:.]+)\](?::(\d+))?")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes."""

    party: str
    """`namespace/pod`, or an address."""
    port: int
    host: str
    """What a client would write into the Host header."""
    through: str = ""
    """`service/name`, if a service led there."""


def source(text: str, objects: Objects) -> str:
    """`namespace/pod` or an address."""
    if _is_address(text):
        return text
    return _pod(text, objects).key


def destination(text: str, objects: Objects, protocol: str) -> Destination:
    """`POD[:PORT]`, `svc/NAME[:PORT]`, `ADDRESS:PORT` or `[IPV6]:PORT`."""
    name, port = _split(text)
    if _is_address(name):
        if port is None:
            raise CommandError(f"--to {text}: write the port too, such as {text}:80", EXIT_USAGE)
        return Destination(name, port, name if "." in name else f"[{name}]")
    kind, _, rest = name.partition("/")
    if kind in {"svc", "service", "services"}:
        return _behind(_service(rest, objects), port, objects, protocol)
    pod = _pod(name, objects)
    if port is None:
        ports = sorted({p.port for p in pod.ports if p.protocol == protocol})
        if len(ports) != 1:
            known = f"it has {', '.join(map(str, ports))}" if ports else "it names none"
            raise CommandError(f"--to {text}: write the port, such as {name}:80 ({known})", EXIT_USAGE)
        port = ports[0]
    return Destination(pod.key, port, pod.name)


def _behind(found: Service, port: int | None, objects: Objects, protocol: str) -> Destination:
    ports = [p for p in found.ports if p.protocol == protocol and port in {None, p.port}]
    if not ports:
        known = ", ".join(str(p.port) for p in found.ports) or "none"
        raise CommandError(
            f"service {found.key} has no {protocol} port {port}; its ports: {known}", EXIT_USAGE
        )
    for pod in objects.pods:
        if found.selects(pod):
            number = service.target(ports[0], pod)
            if number is not None:
                return Destination(pod.key, number, found.name, f"service/{found.name}")
    raise CommandError(f"service {found.key} selects no pod that has its port", EXIT_USAGE)


def _split(text: str) -> tuple[str, int | None]:
    """Name and port."""
    if bracketed := _BRACKETS.fullmatch(text):
        return bracketed[1], int(bracketed[2]) if bracketed[2] else None
    name, colon, port = text.rpartition(":")
    if not colon or _is_address(text):
        return text, None
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise CommandError(f"--to {text}: {port!r} is no port; write a number from 1 to 65535", EXIT_USAGE)
    return name, int(port)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _pod(text: str, objects: Objects) -> Pod:
    name = text.removeprefix("pod/").removeprefix("pods/")
    key = name if "/" in name else f"default/{name}"
    for pod in objects.pods:
        if pod.key == key:
            return pod
    names = ", ".join(pod.key for pod in objects.pods) or "none; give them with -f"
    raise CommandError(f"there is no pod {key}; known pods: {names}", EXIT_USAGE)


def _service(text: str, objects: Objects) -> Service:
    key = text if "/" in text else f"default/{text}"
    for found in objects.services:
        if found.key == key:
            return found
    names = ", ".join(found.key for found in objects.services) or "none; give them with -f"
    raise CommandError(f"there is no service {key}; known services: {names}", EXIT_USAGE)
