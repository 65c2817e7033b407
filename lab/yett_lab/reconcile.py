"""From what runs to what is wanted: the effects, in the order that keeps the lab closed.

A pod's link exists before its policy, and its policy is in force before its first process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from yett_lab import network, parse, pod, service, state
from yett_lab import plan as planning
from yett_lab.compile import compile_lab, table_to_json
from yett_lab.manifest import Manifest
from yett_lab.objects import Objects, Pod
from yett_lab.paths import NETNS, Paths
from yett_lab.run import command
from yett_lab.state import State

LISTEN_SECONDS = 5.0


def reconcile(paths: Paths, have: State, manifests: list[Manifest]) -> list[str]:
    """Make the lab run `manifests`; warnings.  InputError: nothing was changed."""
    objects, warnings = parse.objects(manifests, have.images)
    plan = planning.make(have, objects)
    new = plan.state
    new.manifests = manifests
    compiled = compile_lab(new, objects, manifests)
    new.identities = table_to_json(compiled.table)
    for node, key in plan.delete:
        remove(paths, have, node, key)
    # From here on `down` must know of what may exist.
    state.save(paths, new)
    _each(plan.create, lambda p: network.create_pod(paths, new, p.key))
    _each(plan.create, lambda p: _start(paths, new, objects, p))
    refresh_services(paths, new, objects, {p.key for p in plan.create})
    state.save(paths, new)
    return warnings + _await_listening(new, plan.create)


def remove(paths: Paths, current: State, node: str, key: str) -> None:
    """Stop a pod and delete its namespace."""
    placed = current.pods[key]
    if placed.pause is not None:
        placed.pause.kill()
    network.delete_pod(paths, node, key)
    for path in sorted(paths.pod_directory(key).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if paths.pod_directory(key).is_dir():
        paths.pod_directory(key).rmdir()


def ready(current: State, objects: Objects) -> dict[str, service.Backend]:
    """Pods that may be backends: their addresses exist and no container has ended."""
    return {
        p.key: service.Backend(p, *current.addresses(p.key))
        for p in objects.pods
        if p.key in current.pods and all(c.alive for c in current.pods[p.key].containers.values())
    }


def refresh_services(paths: Paths, current: State, objects: Objects, fresh: set[str]) -> None:
    """Names and translation in every pod; `fresh` pods have their hosts file already."""
    backends = ready(current, objects)
    ips = {s.key: current.cluster_ips(s.key) for s in objects.services if not s.headless}
    script = service.translation(objects.services, ips, backends) if objects.services else _NO_SERVICES

    def update(p: Pod) -> None:
        if p.key not in fresh:
            text = service.hosts(p, current.addresses(p.key), objects.services, ips, backends)
            pod.write_in_place(paths.pod_directory(p.key) / "hosts", text)
        if objects.services or p.key not in fresh:
            netns = NETNS / paths.pod_netns(p.key)
            command(["nsenter", f"--net={netns}", "nft", "-f", "-"], stdin=script, what="translate services")

    _each(objects.pods, update)


_NO_SERVICES = "add table inet yett\ndelete table inet yett\n"


def _start(paths: Paths, new: State, objects: Objects, p: Pod) -> None:
    backends = ready(new, objects)
    ips = {s.key: new.cluster_ips(s.key) for s in objects.services if not s.headless}
    hosts = service.hosts(p, new.addresses(p.key), objects.services, ips, backends)
    placed = new.pods[p.key]
    placed.pause = pod.create(paths, p, hosts, service.resolv(p.namespace))
    for container in p.containers:
        placed.containers[container.name] = pod.start_container(paths, p, placed.pause, container, new.images)


def _each(pods: Iterable[Pod], action: Callable[[Pod], None]) -> None:
    """Pods in parallel: the time goes into waiting for small processes.  The first error is raised."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        for _ in pool.map(action, pods):
            pass


def _await_listening(current: State, pods: Iterable[Pod]) -> list[str]:
    """Wait until the containers listen where they say, so that the next command finds them."""
    deadline = time.monotonic() + LISTEN_SECONDS
    warnings = []
    for p in pods:
        placed = current.pods[p.key]
        want = {port.port for port in p.ports if port.protocol == "TCP"}
        while placed.pause is not None and want - pod.listening(placed.pause):
            if not all(c.alive for c in placed.containers.values()):
                warnings.append(f"pod/{p.name}: a container has ended; see `yettctl lab logs {p.name}`")
                break
            if time.monotonic() > deadline:
                missing = ", ".join(map(str, sorted(want - pod.listening(placed.pause))))
                warnings.append(
                    f"pod/{p.name}: nothing listens yet on port {missing}, which its manifest names"
                )
                break
            time.sleep(0.01)
    return warnings
