"""Who a pod is: its labels now, never those of whoever had its address before."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import yaml

from cluster.cluster import Cluster
from cluster.operator import without_operator
from cluster.prober import NAMESPACE, Prober, address_of, client, probing, said_by, server, start, target

pytestmark = pytest.mark.cluster


def test_a_change_of_a_pods_labels_moves_its_verdicts(yett: Cluster):
    with probing(yett) as prober:
        for name, group in (("friend-node1", "stranger"), ("stranger-node2", "friend")):
            with prober.under_load():
                prober.change("label", "pod", "-n", NAMESPACE, name, f"group={group}", "--overwrite")
                print(f"{name} is a {group} everywhere after {prober.agree():.2f} s")
        prober.check()


def test_a_change_of_a_namespaces_labels_moves_the_verdicts_of_its_pods(yett: Cluster):
    with probing(yett) as prober:
        for team in ("outside", "inside"):
            with prober.under_load():
                prober.change("label", "namespace", NAMESPACE, f"team={team}", "--overwrite")
                print(f"all pods are {team} after {prober.agree():.2f} s")
        prober.check()


@pytest.mark.parametrize("operator", ["an operator", "no operator"])
def test_a_pod_with_the_address_of_a_deleted_one_is_denied_from_its_first_packet(
    yett: Cluster, operator: str
):
    with probing(yett) as prober:
        servers = [target(yett, name) for name in prober.servers]
        address = born(prober, client("former", "node1", "friend", servers))
        until(prober, "former", "/public", passed=True)
        with during(yett, operator):
            assert reborn(prober, "former", client("latter", "node1", "stranger", servers)) == address
            heard(prober, "latter", 3)
        heard(prober, "latter", 5)
        passed = [probe for probe in said_by(yett.node("node1"), "latter") if probe.passed]
        assert not passed
        prober.check()


@pytest.mark.parametrize("operator", ["an operator", "no operator"])
def test_a_pod_with_the_address_of_a_stranger_gets_what_is_its_own(yett: Cluster, operator: str):
    with probing(yett) as prober:
        servers = [target(yett, name) for name in prober.servers]
        address = born(prober, client("former", "node1", "stranger", servers))
        heard(prober, "former", 1)
        with during(yett, operator):
            assert reborn(prober, "former", client("latter", "node1", "friend", servers)) == address
        until(prober, "latter", "/public", passed=True)
        assert not any(probe.passed for probe in said_by(yett.node("node1"), "former"))
        assert not any(
            probe.passed for probe in said_by(yett.node("node1"), "latter") if probe.path == "/private"
        )
        prober.check()


@pytest.mark.parametrize("operator", ["an operator", "no operator"])
def test_a_server_with_the_address_of_a_deleted_one_is_not_let_talk_to(yett: Cluster, operator: str):
    with probing(yett) as prober:
        address = born(prober, server("former", "node1", {"app": "wanted"}))
        yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(only_to("wanted")))
        wait = ("wait", "-n", NAMESPACE, "l7policy/only-to", "--for=condition=Ready", "--timeout=30s")
        yett.kubectl(*wait)
        born(prober, client("asker", "node2", "asker", [target(yett, "former")]))
        until(prober, "asker", "/public", passed=True)
        with during(yett, operator):
            assert reborn(prober, "former", server("latter", "node1", {"app": "other"})) == address
            since = time.monotonic()
            heard(prober, "asker", 3, since)
        heard(prober, "asker", 5, since)
        assert not any(probe.passed for probe in said_by(yett.node("node2"), "asker") if probe.begin > since)
        prober.check()


def only_to(app: str) -> dict[str, object]:
    """Clients of the group `asker` may talk to servers with this label, and to nobody else."""
    port = {"ports": [{"port": "80", "protocol": "TCP"}]}
    egress = [{"toEndpoints": [{"matchLabels": {"app": app}}], "toPorts": [port]}]
    return {
        "apiVersion": "yett.dev/v1alpha1",
        "kind": "L7Policy",
        "metadata": {"name": "only-to", "namespace": NAMESPACE},
        "spec": {"endpointSelector": {"matchLabels": {"group": "asker"}}, "egress": egress},
    }


def during(cluster: Cluster, operator: str) -> AbstractContextManager[None]:
    """Inside there is an operator, or none."""
    return without_operator(cluster) if operator == "no operator" else nullcontext()


def born(prober: Prober, pod: dict[str, object]) -> str:
    """Make a pod; its address."""
    start(prober.cluster, [pod])
    return address_of(prober.cluster, pod["metadata"]["name"])  # type: ignore[index]


def reborn(prober: Prober, former: str, pod: dict[str, object]) -> str:
    """Delete a pod of node1 and make another with its address, as soon as the node gives it away again."""
    cluster = prober.cluster
    address = address_of(cluster, former)
    reserved = cluster.node("node1").box.directory / "lib/cni/networks/pods"
    cluster.kubectl("delete", "pod", "-n", NAMESPACE, former, "--wait=false")
    deadline = time.monotonic() + 30
    while (reserved / address).exists():
        assert time.monotonic() < deadline, f"{former} keeps its address"
        time.sleep(0.005)
    before = address.rpartition(".")
    Path(reserved / "last_reserved_ip.0").write_text(f"{before[0]}.{int(before[2]) - 1}")
    return born(prober, pod)


def heard(prober: Prober, name: str, times: int, since: float = 0.0) -> None:
    """Wait until each series of a client has so many requests, on node1 or node2."""
    deadline = time.monotonic() + 60
    while True:
        said = [
            probe
            for node in ("node1", "node2")
            for probe in said_by(prober.cluster.node(node), name)
            if probe.begin > since
        ]
        counts = dict.fromkeys({probe.series for probe in said}, 0)
        for probe in said:
            counts[probe.series] += 1
        if counts and min(counts.values()) >= times:
            return
        assert time.monotonic() < deadline, f"no load: {name} made only {counts} requests"
        time.sleep(0.2)


def until(prober: Prober, name: str, path: str, *, passed: bool) -> None:
    """Wait until the newest requests of a client for a path have this verdict."""
    deadline = time.monotonic() + 60
    while True:
        newest = {
            probe.series: probe.passed
            for node in ("node1", "node2")
            for probe in said_by(prober.cluster.node(node), name)
            if probe.path == path
        }
        if newest and set(newest.values()) == {passed}:
            return
        assert time.monotonic() < deadline, f"{name} has other verdicts for {path}: {newest}"
        time.sleep(0.2)
