"""Loaders come and go under load, as ordinary pods with the capabilities of their manifest: nobody notices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
import yaml

from cluster.cluster import Cluster
from cluster.loader import (
    DAEMONSET,
    SYSTEM,
    kill,
    loaders,
    next_version,
    pod_on,
    rolled_out,
    set_image,
    yettctl,
)
from cluster.prober import NAMESPACE, Prober, policy
from support.capabilities import mask

pytestmark = pytest.mark.cluster


def test_the_loader_runs_with_the_capabilities_of_its_manifest(yett: Cluster):
    for node in yett.nodes:
        status = ("grep", "-E", "^Cap(Eff|Bnd)", "/proc/1/status")
        said = yett.kubectl("exec", "-n", SYSTEM, pod_on(yett, node), "--", *status)
        assert said.split() == ["CapEff:", f"{mask():016x}", "CapBnd:", f"{mask():016x}"]


def rollout(cluster: Cluster) -> None:
    cluster.kubectl("rollout", "restart", "-n", SYSTEM, DAEMONSET)


def deletion(cluster: Cluster) -> None:
    for node in cluster.nodes:
        pod = pod_on(cluster, node)
        cluster.kubectl("delete", "pod", "-n", SYSTEM, pod, "--force", "--grace-period=0")


def killing(cluster: Cluster) -> None:
    for node in cluster.nodes:
        kill(node)


@pytest.mark.parametrize("end", [rollout, deletion, killing])
def test_nobody_notices_that_loaders_are_replaced(
    yett: Cluster, prober: Prober, end: Callable[[Cluster], None]
):
    before = loaders(yett)
    with prober.under_load():
        end(yett)
        others_are_ready(yett, before)
    takes_news(prober)
    prober.check()
    tells(yett)


def test_nobody_notices_an_upgrade_to_another_object(yett: Cluster, prober: Prober):
    before, judging = loaders(yett), programs(yett)
    with next_version(yett) as image:
        with prober.under_load():
            set_image(yett, image)
            others_are_ready(yett, before)
        assert not set(programs(yett).values()) & set(judging.values())
        takes_news(prober)
    prober.check()


def others_are_ready(cluster: Cluster, before: dict[str, str], seconds: float = 240) -> None:
    """Wait until every node has a ready loader that is none of these."""
    deadline = time.monotonic() + seconds
    while (now := loaders(cluster)).keys() != before.keys() or set(now.values()) & set(before.values()):
        assert time.monotonic() < deadline, f"not all loaders were replaced within {seconds:g} s"
        time.sleep(0.5)
    rolled_out(cluster)


def takes_news(prober: Prober) -> None:
    """A policy that changes now is in force on every node, and the status says so."""
    with prober.under_load():
        for path in ("/private", "/public"):
            prober.change("apply", "-f", "-", stdin=yaml.safe_dump(policy(path=path)))
            print(f"the change is in force everywhere after {prober.agree():.2f} s")
    prober.following()


def tells(cluster: Cluster) -> None:
    """The commands that read answer, on each node, from the kernel's maps."""
    for node in cluster.nodes:
        name = f"{NAMESPACE}/hear-{node.name}"
        assert "node: OK" in yettctl(cluster, node, "status")
        assert f"hear-{node.name}" in yettctl(cluster, node, "endpoint", "list")
        assert "L7Policy/probe/hear" in yettctl(cluster, node, "bpf", "policy", "get", name)
        assert "friend-" in yettctl(cluster, node, "bpf", "ct", "list", name)


def programs(cluster: Cluster) -> dict[str, int]:
    """Node -> id of the program that judges what pods receive."""
    found = {}
    for node in cluster.nodes:
        pod = pod_on(cluster, node)
        said = json.loads(cluster.kubectl("exec", "-n", SYSTEM, pod, "--", "yett-loader", "status"))
        found[node.name] = int(said["programs"]["to_pod"]["id"])
    return found
