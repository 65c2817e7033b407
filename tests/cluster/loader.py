"""The loaders of a cluster: their pods, their processes, another version of their image."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import images, wheel
from cluster.cluster import Cluster
from cluster.images import Image
from cluster.node import Node
from cluster.paths import REPOSITORY

SYSTEM = "yett-system"
DAEMONSET = "daemonset/yett-loader"
_PROGRAMS = "/opt/yett/lib/python3.11/site-packages/yett_loader/data/yett.bpf.o"


def loaders(cluster: Cluster) -> dict[str, str]:
    """Node -> id of the container that runs there."""
    said = cluster.kubectl(
        "get", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/name=yett-loader", "-o", "json"
    )
    return {
        pod["spec"]["nodeName"]: status["containerID"]
        for pod in json.loads(said)["items"]
        for status in pod["status"].get("containerStatuses", ())
        if status["ready"]
    }


def pod_on(cluster: Cluster, node: Node) -> str:
    """Its name."""
    chosen = ("-l", "app.kubernetes.io/name=yett-loader", "--field-selector", f"spec.nodeName={node.name}")
    names = cluster.kubectl("get", "pods", "-n", SYSTEM, *chosen, "-o", "jsonpath={.items[0].metadata.name}")
    return names.strip()


def yettctl(cluster: Cluster, node: Node, *arguments: str) -> str:
    """What an administrator runs in the loader's container."""
    return cluster.kubectl("exec", "-n", SYSTEM, pod_on(cluster, node), "--", "yettctl", *arguments)


def kill(node: Node) -> None:
    """SIGKILL to the loader's process, from outside its container."""
    node.box.run(["pkill", "-KILL", "-f", "^/opt/yett/bin/python.*/yett-loader run "], what="kill the loader")


def rolled_out(cluster: Cluster) -> None:
    """Wait until every node has the loader that the DaemonSet says, ready."""
    cluster.kubectl("rollout", "status", "-n", SYSTEM, DAEMONSET, "--timeout=120s", timeout=130)


@contextmanager
def next_version(cluster: Cluster) -> Iterator[str]:
    """Reference of a loader's image with another BPF object in it; the DaemonSet has its own again afterwards."""
    containerfile = (REPOSITORY / "loader/Containerfile").read_text()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "Containerfile")
        path.write_text(f"{containerfile}RUN printf 'another build' >>{_PROGRAMS}\n")
        image = Image("yett/loader", "next", path, wheel.inputs, wheel.stage)
        images.provide([image], cluster.control.outer_registry)
    _, own = images.yett_images()
    try:
        yield image.reference
    finally:
        set_image(cluster, own.reference)
        rolled_out(cluster)


def set_image(cluster: Cluster, reference: str) -> None:
    """What the loaders run from now on; the rollout begins."""
    cluster.kubectl("set", "image", "-n", SYSTEM, DAEMONSET, f"loader={reference}")
