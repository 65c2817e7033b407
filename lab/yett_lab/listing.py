"""What a lab runs, as rows for people and programs."""

from __future__ import annotations

from typing import Any

from yett_lab import address, parse, pod, service
from yett_lab.access import ready
from yett_lab.objects import Objects, Pod
from yett_lab.paths import Paths
from yett_lab.state import PodState, State


def rows(paths: Paths, current: State, what: str) -> list[dict[str, Any]]:
    """`what`: pods, services, policies or nodes."""
    objects = parse.objects(current.manifests, current.images)[0]
    match what:
        case "pods":
            return [_pod(paths, p, current.pods[p.key]) for p in objects.pods if p.key in current.pods]
        case "services":
            return _services(current, objects)
        case "policies":
            return [
                {"kind": m.kind, "namespace": m.namespace, "name": m.name, "file": m.file}
                for m in current.manifests
                if m.is_policy
            ]
        case "nodes":
            return [_node(current, node) for node in current.nodes]
        case _:
            raise ValueError(what)


def _pod(paths: Paths, p: Pod, placed: PodState) -> dict[str, Any]:
    alive = sum(c.alive for c in placed.containers.values())
    return {
        "namespace": p.namespace,
        "name": p.name,
        "ready": f"{alive}/{len(p.containers)}",
        "status": _status(paths, p, placed),
        "node": placed.node,
        "ip": placed.ipv4,
        "ipv6": placed.ipv6,
        "labels": dict(p.labels),
    }


def _status(paths: Paths, p: Pod, placed: PodState) -> str:
    if placed.pause is None or not placed.pause.alive:
        return "Lost"
    if all(c.alive for c in placed.containers.values()):
        return "Running"
    codes = [_exit_code(paths, p, name) for name, c in placed.containers.items() if not c.alive]
    bad = [code for code in codes if code not in {"", "0"}]
    return f"Error ({bad[0]})" if bad else "Completed"


def _exit_code(paths: Paths, p: Pod, container: str) -> str:
    file = pod.exit_file(paths, p.key, container)
    return file.read_text().strip() if file.exists() else ""


def _services(current: State, objects: Objects) -> list[dict[str, Any]]:
    backends = ready(current, objects)
    found = []
    for s in objects.services:
        ips = ("None", "None") if s.headless else current.cluster_ips(s.key)
        behind = [b.pod.name for b in service.backends(s, backends)]
        found.append(
            {
                "namespace": s.namespace,
                "name": s.name,
                "clusterIp": ips[0],
                "ipv6": ips[1],
                "ports": [f"{port.port}/{port.protocol}" for port in s.ports],
                "backends": behind,
            }
        )
    return found


def _node(current: State, node: str) -> dict[str, Any]:
    index = current.node_index(node)
    return {
        "name": node,
        "ip": address.node4(index),
        "ipv6": address.node6(index),
        "pods": sum(placed.node == node for placed in current.pods.values()),
    }
