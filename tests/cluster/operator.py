"""The operator of the cluster under test: who leads, and ways of it to end."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cluster.cluster import Cluster
from yett_lab.errors import LabError

SYSTEM = "yett-system"
OPERATOR = "app.kubernetes.io/name=yett-operator"


def pods(cluster: Cluster, selector: str = OPERATOR) -> list[dict[str, Any]]:
    """Of one part of yett."""
    found = cluster.kubectl("get", "pods", "-n", SYSTEM, "-l", selector, "-o", "json")
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return items


def holder(cluster: Cluster) -> str:
    """Who has the lease: a pod's name and what tells this run of it from others; empty: nobody."""
    get = ("get", "lease", "yett-operator", "-n", SYSTEM, "-o", "jsonpath={.spec.holderIdentity}")
    return cluster.kubectl(*get)


def another_leads(cluster: Cluster, than: str) -> float:
    """Seconds until somebody else has the lease, be it the same pod started again."""
    return eventually(lambda: holder(cluster) not in {"", than}, "another one leads")


def names(cluster: Cluster) -> set[str]:
    """Of the replicas."""
    return {each["metadata"]["name"] for each in pods(cluster)}


def send(cluster: Cluster, pod: str, number: signal.Signals) -> None:
    """A signal to a replica's process, from outside its container."""
    script = """
        for pid in $(pgrep -f '^python -m yett_operator'); do
            if grep -q "pod$0" "/proc/$pid/cgroup"; then kill -s "$1" "$pid"; exit; fi
        done
        echo "there is no such process" >&2; exit 1
    """
    (found,) = (each for each in pods(cluster) if each["metadata"]["name"] == pod)
    box = cluster.node(found["spec"]["nodeName"]).box
    argv = ["/bin/sh", "-c", script, found["metadata"]["uid"], number.name.removeprefix("SIG")]
    box.run(argv, what=f"signal {pod}")


def restarts(cluster: Cluster) -> dict[str, int]:
    """Pod -> how often its container was started again."""
    return {
        each["metadata"]["name"]: sum(c["restartCount"] for c in each["status"].get("containerStatuses", ()))
        for each in pods(cluster)
    }


def metric(cluster: Cluster, pod: str, name: str) -> float:
    """The value of one sample, with its labels as they are written, of a replica."""
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod}:8080/proxy/metrics"
    found = re.search(rf"^{re.escape(name)} (\S+)$", cluster.kubectl("get", "--raw", path), re.MULTILINE)
    return float(found[1]) if found else 0.0


def eventually(condition: Callable[[], object], otherwise: str, seconds: float = 120) -> float:
    """Until it holds; an API server that does not answer makes it not hold.  Seconds that it took."""
    begin = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - begin
        except LabError:
            pass
        assert time.monotonic() < begin + seconds, f"not within {seconds:g} s: {otherwise}"
        time.sleep(0.1)


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
        eventually(lambda: not pods(cluster), "the operator ends")
        yield
    finally:
        cluster.kubectl(*scale, "--replicas=2")
        rolled_out(cluster)
