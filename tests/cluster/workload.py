"""Pods of the tests on a cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import yaml

from cluster.cluster import Cluster
from cluster.paths import REPOSITORY
from yett_lab.errors import LabError

APP = (REPOSITORY / "manifests/examples/app.yaml").read_text()
"""The walk-through's pods and service, as they are."""

LOADER_CAPABILITIES = ("BPF", "NET_ADMIN", "PERFMON")


def apply(cluster: Cluster, documents: str) -> None:
    """Apply objects and wait until the pods of the namespace are ready."""
    cluster.kubectl("apply", "-f", "-", stdin=documents)
    cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s", timeout=70)


@contextmanager
def applied(cluster: Cluster, documents: str) -> Iterator[None]:
    """Objects that are there, and pods that are ready, inside; gone afterwards."""
    try:
        apply(cluster, documents)
        yield
    finally:
        cluster.kubectl("delete", "--now", "--ignore-not-found", "-f", "-", stdin=documents)


def placed(client: str, server: str) -> str:
    """The walk-through, with its pods on these nodes."""
    documents = list(yaml.safe_load_all(APP))
    for document in documents:
        if document["kind"] == "Pod":
            document["spec"]["nodeName"] = client if document["metadata"]["name"] == "client" else server
    return yaml.safe_dump_all(documents)


def curl(cluster: Cluster, *arguments: str) -> str:
    """curl in the walk-through's client."""
    return cluster.kubectl("exec", "client", "--", "curl", "-sS", "-m", "5", *arguments)


def echoed(cluster: Cluster, url: str) -> dict[str, Any]:
    """The echo's answer; kube-proxy may learn of an endpoint a moment after the pod is ready."""
    deadline = time.monotonic() + 10
    while True:
        try:
            answer: dict[str, Any] = json.loads(curl(cluster, url))
        except LabError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return answer


def pod(name: str, image: str, capabilities: Sequence[str] = (), node: str = "node1") -> str:
    """A pod that sleeps, restricted as our manifests' are; with capabilities it is a loader's."""
    security: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": not capabilities,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"], "add": list(capabilities)},
    }
    container: dict[str, Any] = {
        "name": name,
        "image": image,
        "command": ["sleep", "3600"],
        "securityContext": security,
    }
    spec: dict[str, Any] = {"nodeName": node, "containers": [container]}
    if capabilities:
        container["volumeMounts"] = [{"name": "bpf", "mountPath": "/sys/fs/bpf"}]
        spec |= {"hostNetwork": True, "volumes": [{"name": "bpf", "hostPath": {"path": "/sys/fs/bpf"}}]}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
