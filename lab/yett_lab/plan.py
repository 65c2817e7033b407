"""What is to change: from the pods that run and the objects that are wanted.  No effects here."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass

from yett_lab import address
from yett_lab.errors import InputError
from yett_lab.objects import Objects, Pod
from yett_lab.state import PodState, State


@dataclass(frozen=True, slots=True)
class Plan:
    """Pods are deleted before others are created; a pod in both is replaced."""

    state: State
    """As it will be: new pods placed and addressed, not yet running."""
    delete: tuple[tuple[str, str], ...]
    """(node, pod)"""
    create: tuple[Pod, ...]


def make(have: State, want: Objects) -> Plan:
    """Place pods, give out addresses."""
    state = copy.deepcopy(have)
    wanted = {pod.key: pod for pod in want.pods}
    delete = [
        (placed.node, key)
        for key, placed in state.pods.items()
        if key not in wanted or placed.digest != digest(wanted[key]) or not running(placed)
    ]
    for _, key in delete:
        del state.pods[key]
    create = tuple(pod for key, pod in wanted.items() if key not in state.pods)
    for pod in create:
        state.pods[pod.key] = _place(state, pod)
    _services(state, want)
    return Plan(state, tuple(delete), create)


def running(placed: PodState) -> bool:
    """Whether the pod's namespaces exist."""
    return placed.pause is not None and placed.pause.alive


def digest(pod: Pod) -> str:
    """Of what cannot change while a pod runs; its labels can."""
    return hashlib.sha256(repr((pod.containers, pod.node)).encode()).hexdigest()[:16]


def _place(state: State, pod: Pod) -> PodState:
    if pod.node and pod.node not in state.nodes:
        raise InputError(
            f"pod {pod.key}: spec.nodeName: there is no {pod.node}; nodes are {', '.join(state.nodes)}"
        )
    load = {node: sum(p.node == node for p in state.pods.values()) for node in state.nodes}
    node = pod.node or min(state.nodes, key=lambda name: load[name])
    used = {placed.host for placed in state.pods.values() if placed.node == node}
    host = address.next_pod(used, state.last_pod.get(node, 0))
    state.last_pod[node] = host
    index = state.node_index(node)
    return PodState(node, host, digest(pod), address.pod4(index, host), address.pod6(index, host))


def _services(state: State, want: Objects) -> None:
    """Cluster IPs; those that users ask for come first."""
    state.services = {key: n for key, n in state.services.items() if key in {s.key for s in want.services}}
    for service in want.services:
        if service.address:
            number = address.service_number(service.address)
            holder = next((k for k, n in state.services.items() if n == number and k != service.key), None)
            if holder is not None:
                raise InputError(
                    f"service {service.key}: spec.clusterIP: {service.address} belongs to service {holder}; "
                    f"leave it out, or name another"
                )
            state.services[service.key] = number
    for service in want.services:
        if not service.headless and service.key not in state.services:
            number = address.next_service(set(state.services.values()), state.last_service)
            state.services[service.key] = state.last_service = number
