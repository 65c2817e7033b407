"""The operator of the cluster under test: who leads, and ways of it to end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.cluster import Cluster

SYSTEM = "yett-system"
OPERATOR = "app.kubernetes.io/name=yett-operator"


def pods(cluster: Cluster, selector: str = OPERATOR) -> list[dict[str, Any]]:
    """Of one part of yett."""
    found = cluster.kubectl("get", "pods", "-n", SYSTEM, "-l", selector, "-o", "json")
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return items


def leader(cluster: Cluster) -> str:
    """The pod that holds the lease; empty: nobody does."""
    lease = cluster.kubectl(
        "get", "lease", "yett-operator", "-n", SYSTEM, "-o", "jsonpath={.spec.holderIdentity}"
    )
    return next((each["metadata"]["name"] for each in pods(cluster) if each["metadata"]["name"] in lease), "")


def rolled_out(cluster: Cluster) -> None:
    """Every replica is ready on return."""
    roll = ("rollout", "status", "-n", SYSTEM, "deployment/yett-operator", "--timeout=120s")
    cluster.kubectl(*roll, timeout=130)


@contextmanager
def without_operator(cluster: Cluster) -> Iterator[None]:
    """Inside there is no replica at all; afterwards both are ready."""
    scale = ("scale", "-n", SYSTEM, "deployment/yett-operator")
    cluster.kubectl(*scale, "--replicas=0")
    try:
        deadline = time.monotonic() + 60
        while pods(cluster):
            assert time.monotonic() < deadline, "the operator does not end"
            time.sleep(0.2)
        yield
    finally:
        cluster.kubectl(*scale, "--replicas=2")
        rolled_out(cluster)
