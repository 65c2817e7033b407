"""Loaders come and go under load, as ordinary pods with the capabilities of their manifest: nobody notices."""

from __future__ import annotations

import copy
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
from cluster.node import Node
from cluster.prober import NAMESPACE, POLICY, Prober, probing
from support.capabilities import of_the_loader

pytestmark = pytest.mark.cluster

CONFINED = f"{sum(1 << {'NET_ADMIN': 12, 'PERFMON': 38, 'BPF': 39}[name] for name in of_the_loader()):016x}"


def test_the_loader_runs_with_the_capabilities_of_its_manifest(yett: Cluster):
    for node in yett.nodes:
        exec_ = (
            "exec",
            "-n",
            SYSTEM,
            pod_on(yett, node),
            "--",
            "grep",
            "-E",
            "^Cap(Eff|Bnd)",
            "/proc/1/status",
        )
        assert yett.kubectl(*exec_).split() == ["CapEff:", CONFINED, "CapBnd:", CONFINED]


def rollout(cluster: Cluster, _nodes: list[Node]) -> None:
    cluster.kubectl("rollout", "restart", "-n", SYSTEM, DAEMONSET)
    rolled_out(cluster)


def deletion(cluster: Cluster, nodes: list[Node]) -> None:
    for node in nodes:
        delete = ("delete", "pod", "-n", SYSTEM, pod_on(cluster, node), "--force", "--grace-period=0")
        cluster.kubectl(*delete)
    rolled_out(cluster)


def killing(cluster: Cluster, nodes: list[Node]) -> None:
    for node in nodes:
        kill(node)
        until_ready(cluster, node, other_than=loaders(cluster).get(node.name, ""))


def until_ready(cluster: Cluster, node: Node, other_than: str) -> None:
    deadline = time.monotonic() + 60
    while loaders(cluster).get(node.name) in (None, other_than):
        assert time.monotonic() < deadline, f"the loader on {node.name} was not restarted within 60 s"
        time.sleep(0.2)


@pytest.mark.parametrize("ending", [rollout, deletion, killing])
def test_nobody_notices_that_loaders_are_replaced(
    yett: Cluster, ending: Callable[[Cluster, list[Node]], None]
):
    with probing(yett) as prober:
        before = loaders(yett)
        with prober.under_load():
            ending(yett, yett.nodes)
        after = loaders(yett)
        assert after.keys() == before.keys()
        assert not set(after.values()) & set(before.values())
        prober.check()
        takes_news(yett, prober)
        prober.check()
        tells(yett)


def test_nobody_notices_an_upgrade_to_another_object(yett: Cluster):
    with probing(yett) as prober:
        before = programs(yett)
        with next_version(yett) as image:
            with prober.under_load():
                set_image(yett, image)
                rolled_out(yett)
            after = programs(yett)
            assert not set(after.values()) & set(before.values())
            prober.check()
            takes_news(yett, prober)
        prober.check()


def takes_news(cluster: Cluster, prober: Prober) -> None:
    """A policy that changes now is in force everywhere, and the status says so."""
    other = copy.deepcopy(POLICY)
    (rule,) = other["spec"]["ingress"]  # type: ignore[index]
    rule["toPorts"][0]["rules"]["http"][0]["path"] = "/private"
    for policy in (other, POLICY):
        with prober.under_load():
            prober.change("apply", "-f", "-", stdin=yaml.safe_dump(policy))
            print(f"the change is in force after {prober.agree():.2f} s")
        get = ("get", "policystatus", "-n", NAMESPACE, "-o", "jsonpath={.items[*].status.enforced}")
        wanted, deadline = f"{len(cluster.nodes)}/{len(cluster.nodes)}", time.monotonic() + 20
        while (said := cluster.kubectl(*get)) != wanted:
            assert time.monotonic() < deadline, f"the status says {said}, not {wanted}"
            time.sleep(0.2)


def tells(cluster: Cluster) -> None:
    """The commands that read answer, on each node, from the kernel's maps."""
    for node in cluster.nodes:
        name = f"{NAMESPACE}/hear-{node.name}"
        assert "enforcing" in yettctl(cluster, node, "status").lower()
        assert f"hear-{node.name}" in yettctl(cluster, node, "endpoint", "list")
        assert "http" in yettctl(cluster, node, "bpf", "policy", "get", name)
        assert "friend-" in yettctl(cluster, node, "bpf", "ct", "list", name)


def programs(cluster: Cluster) -> dict[str, int]:
    """Node -> id of the program that judges what pods receive."""
    found = {}
    for node in cluster.nodes:
        pod = pod_on(cluster, node)
        said = json.loads(cluster.kubectl("exec", "-n", SYSTEM, pod, "--", "yett-loader", "status"))
        found[node.name] = int(said["programs"]["to_pod"]["id"])
    return found
