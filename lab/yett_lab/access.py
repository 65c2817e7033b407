"""Finding things in a lab that runs: labs, pods, containers, objects; and running commands in pods.

Kept apart from what changes a lab, so that `yettctl lab exec` need not load the policy core.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from yett_lab import network, parse, pod, service, state
from yett_lab.errors import InputError, LabError
from yett_lab.manifest import Manifest
from yett_lab.objects import Container, Objects, Pod
from yett_lab.paths import Paths, running
from yett_lab.state import PodState, State


def load(paths: Paths) -> State:
    """The state of a lab that is up."""
    current = state.load(paths)
    if not network.exists(paths.fabric):
        raise LabError(
            f"lab {paths.name} is not running any more; run `yettctl lab down --name {paths.name}`"
        )
    return current


def choose(name: str | None) -> str:
    """The lab that is meant: the one named, else the only one running."""
    if name is not None:
        return Paths(name).name
    names = running()
    match names:
        case [only]:
            return only
        case []:
            raise LabError("no lab is running; start one with `yettctl lab up -f app.yaml`")
        case _:
            raise InputError(f"several labs are running ({', '.join(names)}); choose one with --lab NAME")


def objects(current: State) -> Objects:
    """The objects of a lab."""
    return parse.objects(current.manifests, current.images)[0]


def find_pod(current: State, reference: str, namespace: str = "default") -> tuple[Pod, PodState]:
    """A pod by `name`, `namespace/name`, `pod/name` or `deploy/name`."""
    kind, _, name = reference.rpartition("/")
    found = objects(current).pods
    if kind in {"deploy", "deployment", "deployments", "deployments.apps"}:
        matching = [p for p in found if p.namespace == namespace and p.name.startswith(f"{name}-")]
    else:
        if kind and kind not in {"pod", "pods", "po"}:
            namespace = kind
        matching = [p for p in found if p.namespace == namespace and p.name == name]
    if not matching:
        names = ", ".join(p.key for p in found) or "none"
        raise InputError(f"there is no pod {namespace}/{name} in lab {current.name}; its pods: {names}")
    return matching[0], current.pods[matching[0].key]


_KINDS = {
    "Pod": {"pod", "pods", "po"},
    "Service": {"service", "services", "svc"},
    "Namespace": {"namespace", "namespaces", "ns"},
    "Deployment": {"deployment", "deployments", "deploy"},
    "L7Policy": {"l7policy", "l7policies", "l7p"},
    "ClusterL7Policy": {"clusterl7policy", "clusterl7policies", "cl7p"},
    "CiliumNetworkPolicy": {"ciliumnetworkpolicy", "ciliumnetworkpolicies", "cnp", "ciliumnp"},
    "CiliumClusterwideNetworkPolicy": {
        "ciliumclusterwidenetworkpolicy",
        "ciliumclusterwidenetworkpolicies",
        "ccnp",
    },
    "NetworkPolicy": {"networkpolicy", "networkpolicies", "netpol"},
}


def find_object(current: State, kind: str, name: str, namespace: str = "default") -> Manifest:
    """An applied object by kind (or its short name) and name."""
    wanted = next((full for full, short in _KINDS.items() if kind.lower() in short), None)
    if wanted is None:
        raise InputError(f"unknown kind {kind}; kinds are {', '.join(_KINDS)}")
    for manifest in current.manifests:
        if manifest.kind == wanted and manifest.name == name and manifest.namespace in {"", namespace}:
            return manifest
    there = [m.name for m in current.manifests if m.kind == wanted]
    raise InputError(f"there is no {wanted} {name}; there is: {', '.join(there) or 'none'}")


def container_of(found: Pod, name: str | None) -> Container:
    """A container of a pod: by name, else the first."""
    for container in found.containers:
        if name in {None, container.name}:
            return container
    names = ", ".join(c.name for c in found.containers)
    raise InputError(f"pod {found.key} has no container {name}; it has {names}")


def exec_argv(
    current: State,
    reference: str,
    argv: Sequence[str],
    *,
    namespace: str = "default",
    container: str | None = None,
) -> tuple[list[str], dict[str, str]]:
    """The command and environment that run `argv` in a pod."""
    found, placed = find_pod(current, reference, namespace)
    chosen = container_of(found, container)
    if placed.pause is None or not placed.pause.alive:
        raise LabError(f"pod {found.key} is not running; run `yettctl lab apply` with its manifest again")
    return pod.enter(placed.pause, chosen, argv), pod.environment(current.name, found, chosen)


def run_in_pod(
    name: str, reference: str, argv: Sequence[str], *, timeout: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run a command in a pod and capture its output; for tests and scripts."""
    command, env = exec_argv(load(Paths(name)), reference, argv)
    return subprocess.run(
        command,
        env=env,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def ready(current: State, wanted: Objects) -> dict[str, service.Backend]:
    """Pods that may be backends: they have addresses and no container has ended."""
    return {
        p.key: service.Backend(p, *current.addresses(p.key))
        for p in wanted.pods
        if p.key in current.pods and all(c.alive for c in current.pods[p.key].containers.values())
    }
