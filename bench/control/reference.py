"""What the loaders must have in the end: compiled from scratch, from what is stored in the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from bench.control.loaders import State
from bench.control.server import Writer
from yett_operator.kube import slim
from yett_operator.labels import quiet
from yett_policy.cluster import Cluster, Pod, pod_key, pod_name
from yett_policy.compiled import Compiled
from yett_policy.compiler import compile as compile_all
from yett_policy.identity import Table
from yett_policy.policy import Policy
from yett_policy.source.parse import parse_policy

_KINDS = {
    "L7Policy": ("yett.dev/v1alpha1", "l7policies"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
}


class WrongState(Exception):  # noqa: N818 - what it is
    """A loader has something else than the reference."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Of every node."""

    documents: Mapping[str, Mapping[int, str]]
    """Node -> identity of its pods -> digest."""
    ipcache: Mapping[str, int]
    identities: Mapping[int, tuple[str, ...]]
    pods: Mapping[tuple[str, str], tuple[int, tuple[str, ...]]]

    def check(self, node: str, state: State) -> None:
        """WrongState if a loader has anything else."""
        for what, has, must in (
            ("documents", state.node.documents, self.documents.get(node, {})),
            ("addresses", state.ipcache, self.ipcache),
            ("identities", state.identities, self.identities),
            ("pods", state.pods, self.pods),
        ):
            if has != must:
                raise WrongState(
                    f"the loader of {node} has {len(has)} {what}, not the {len(must)} of the reference compile"
                )


async def reference(writer: Writer) -> Reference:
    """By the compiler alone: no reflector, no worker, no increments."""
    policies = [
        policy
        for kind, (version, plural) in _KINDS.items()
        for item in await writer.list(f"/apis/{version}/{plural}")
        for policy in parse_policy({"apiVersion": version, "kind": kind, **_as_written(item)})
    ]
    slim_pods = [found for _, found in map(slim.pod, await writer.list("/api/v1/pods")) if found is not None]
    cluster = Cluster(
        pods=tuple(map(_quiet, slim_pods)),
        namespaces=tuple(slim.namespace(item)[1] for item in await writer.list("/api/v1/namespaces")),
        nodes=tuple(slim.node(item)[1] for item in await writer.list("/api/v1/nodes")),
    )
    numbers = {
        tuple(item["spec"]["labels"]): int(item["spec"]["number"])
        for item in await writer.list("/apis/yett.dev/v1alpha1/securityidentities")
    }
    # In a thread: meanwhile the loaders must answer the operator's pings.
    compiled, digests = await asyncio.to_thread(_compiled, policies, cluster, Table(numbers))
    identity = {pod_key(namespace, name): number for namespace, name, number, _ in compiled.pods}
    documents: dict[str, dict[int, str]] = {}
    for pod in slim_pods:
        number = identity[pod.key]
        documents.setdefault(pod.node, {})[number] = digests[number]
    return Reference(
        documents=documents,
        ipcache=compiled.ipcache,
        identities=compiled.identities,
        pods={(namespace, name): (number, ips) for namespace, name, number, ips in compiled.pods},
    )


def _quiet(pod: slim.SlimPod) -> Pod:
    workload = pod.workload
    namespace, name = pod_name(pod.key)
    return Pod(
        namespace=namespace,
        name=name,
        labels=quiet(dict(workload.labels), frozenset()),
        addresses=pod.addresses,
        named_ports=workload.named_ports,
        probes=workload.probes,
        host_network=workload.host_network,
        service_account=workload.service_account,
    )


def _compiled(policies: list[Policy], cluster: Cluster, table: Table) -> tuple[Compiled, dict[int, str]]:
    """And the digests of the documents."""
    compiled = compile_all(policies, cluster, table)
    return compiled, {number: document.digest for number, document in compiled.documents.items()}


def _as_written(item: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in item.items() if key not in {"status", "apiVersion", "kind"}}
