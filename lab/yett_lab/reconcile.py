"""From what runs to what is wanted: the effects, in the order that keeps the lab closed.

A pod's link exists before its policy, and its policy is in force before its first process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from yett_lab import access, control, network, parse, pod, service, state
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
    compiled = compile_lab(new, objects, manifests)
    new.identities = table_to_json(compiled.table)
    for node, key in plan.delete:
        remove(paths, have, node, key)
    # Until the nodes have accepted it, the lab keeps its old manifests.
    control.start_loaders(paths, new)
    state.save(paths, new)
    _each(plan.create, lambda p: network.create_pod(paths, new, p.key))
    control.push(paths, new, compiled)
    new.manifests = manifests
    look_up = _Services(new, objects)
    old = [p for p in objects.pods if p not in plan.create]
    _each(plan.create, lambda p: _start(paths, new, look_up, p))
    _each(old, lambda p: look_up.install(paths, p))
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


class _Services:
    """The services at one moment."""

    def __init__(self, current: State, objects: Objects) -> None:
        self.current = current
        self.services = objects.services
        self.backends = access.ready(current, objects)
        self.ips = {s.key: current.cluster_ips(s.key) for s in objects.services if not s.headless}
        self.script = service.translation(self.services, self.ips, self.backends)

    def hosts(self, p: Pod) -> str:
        """The text of a pod's /etc/hosts."""
        return service.hosts(p, self.current.addresses(p.key), self.services, self.ips, self.backends)

    def install(self, paths: Paths, p: Pod) -> None:
        """Into a pod that has its namespaces."""
        pod.write_in_place(paths.pod_directory(p.key) / "hosts", self.hosts(p))
        enter = ["nsenter", f"--net={NETNS / paths.pod_netns(p.key)}"]
        command([*enter, "nft", "-f", "-"], stdin=self.script, what="translate services")


def _start(paths: Paths, new: State, look_up: _Services, p: Pod) -> None:
    placed = new.pods[p.key]
    placed.pause = pod.create(paths, p, look_up.hosts(p), service.resolv(p.namespace))
    look_up.install(paths, p)
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
