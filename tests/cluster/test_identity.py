"""Who a pod is: its labels now, never those of whoever had its address before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cluster.cluster import Cluster
from cluster.history import Probe
from cluster.operator import without_operator
from cluster.prober import NAMESPACE, Prober, address_of, client, said_by, server, start, target

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def no_more_pods(prober: Prober) -> Iterator[None]:
    """Takes away the pods that a test adds."""
    yield
    added = ("former", "latter", "asker")
    prober.cluster.kubectl("delete", "pod", "-n", NAMESPACE, "--ignore-not-found", *added)


def test_a_change_of_a_pods_labels_moves_its_verdicts(yett: Cluster, prober: Prober):
    for name, group in (("friend-node1", "stranger"), ("stranger-node2", "friend")):
        with prober.under_load():
            prober.change("label", "pod", "-n", NAMESPACE, name, f"group={group}", "--overwrite")
            print(f"{name} is a {group} everywhere after {prober.agree():.2f} s")
    prober.check()


def test_a_change_of_a_namespaces_labels_moves_the_verdicts_of_its_pods(yett: Cluster, prober: Prober):
    for team in ("outside", "inside"):
        with prober.under_load():
            prober.change("label", "namespace", NAMESPACE, f"team={team}", "--overwrite")
            print(f"all pods are {team} after {prober.agree():.2f} s")
    prober.check()


def test_a_pod_with_the_address_of_a_deleted_one_is_denied_from_its_first_packet(
    yett: Cluster, prober: Prober
):
    servers = [target(yett, name) for name in prober.servers]
    born(prober, client("former", "node1", "friend", servers))
    until(prober, "former", "/public", passed=True)
    reborn(prober, "former", client("latter", "node1", "stranger", servers))
    heard(prober, "latter", 3)
    assert not passed(prober, "latter")
    prober.check()


def test_it_is_denied_also_while_there_is_no_operator_to_say_who_it_is(yett: Cluster, prober: Prober):
    servers = [target(yett, name) for name in prober.servers]
    born(prober, client("former", "node1", "friend", servers))
    until(prober, "former", "/public", passed=True)
    with without_operator(yett):
        reborn(prober, "former", client("latter", "node1", "stranger", servers))
        heard(prober, "latter", 3)
        assert not passed(prober, "latter")
    prober.agree()
    # Until its loader is connected again, a node may take the newcomer for the pod that it knew there.
    prober.following()
    since = time.monotonic()
    heard(prober, "latter", 3, since)
    assert not passed(prober, "latter", since)
    prober.check()


def test_a_friend_with_the_address_of_a_stranger_is_let_in(yett: Cluster, prober: Prober):
    servers = [target(yett, name) for name in prober.servers]
    born(prober, client("former", "node1", "stranger", servers))
    heard(prober, "former", 1)
    assert not passed(prober, "former")
    reborn(prober, "former", client("latter", "node1", "friend", servers))
    until(prober, "latter", "/public", passed=True)
    assert {probe.path for probe in passed(prober, "latter")} == {"/public"}
    prober.check()


def test_a_server_with_the_address_of_a_deleted_one_is_not_talked_to(yett: Cluster, prober: Prober):
    born(prober, server("former", "node1", {"app": "wanted"}))
    yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(only_to("wanted")))
    wait = ("wait", "-n", NAMESPACE, "l7policy/only-to", "--for=condition=Ready", "--timeout=30s")
    yett.kubectl(*wait)
    born(prober, client("asker", "node2", "asker", [target(yett, "former")]))
    until(prober, "asker", "/public", passed=True)
    yett.kubectl("wait", "-n", NAMESPACE, "l7policy/only-to", "--for=condition=Ready", "--timeout=30s")
    since = reborn(prober, "former", server("latter", "node1", {"app": "other"}))
    heard(prober, "asker", 3, since)
    assert not passed(prober, "asker", since)
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


def born(prober: Prober, pod: dict[str, Any]) -> str:
    """Make a pod; its address."""
    start(prober.cluster, [pod])
    return address_of(prober.cluster, pod["metadata"]["name"])


def reborn(prober: Prober, former: str, pod: dict[str, Any]) -> float:
    """Delete a pod of node1 and make another with its address, once the node has it free; when that was."""
    cluster = prober.cluster
    address = address_of(cluster, former)
    given = cluster.node("node1").box.directory / "lib/cni/networks/pods"
    cluster.kubectl("delete", "pod", "-n", NAMESPACE, former, "--wait=false")
    deadline = time.monotonic() + 30
    while (given / address).exists():
        assert time.monotonic() < deadline, f"{former} keeps its address"
        time.sleep(0.005)
    freed = time.monotonic()
    network, _, number = address.rpartition(".")
    (given / "last_reserved_ip.0").write_text(f"{network}.{int(number) - 1}")
    assert born(prober, pod) == address
    return freed


def passed(prober: Prober, name: str, since: float = 0.0) -> list[Probe]:
    """Requests of a client of node1 or node2 that passed."""
    return [probe for probe in said(prober, name) if probe.passed and probe.begin > since]


def said(prober: Prober, name: str) -> list[Probe]:
    """All requests of this test's pod of that name; one of an earlier test may have left its log."""
    found = [probe for node in ("node1", "node2") for probe in said_by(prober.cluster.node(node), name)]
    return [probe for probe in found if probe.begin >= prober.began]


def heard(prober: Prober, name: str, times: int, since: float = 0.0) -> None:
    """Wait until each series of a client has so many requests."""
    deadline = time.monotonic() + 60
    while True:
        counts = Counter(probe.series for probe in said(prober, name) if probe.begin > since)
        if counts and min(counts.values()) >= times:
            return
        assert time.monotonic() < deadline, f"no load: {name} made only {counts} requests"
        time.sleep(0.2)


def until(prober: Prober, name: str, path: str, *, passed: bool) -> None:
    """Wait until the newest requests of a client for a path have this verdict."""
    deadline = time.monotonic() + 60
    while True:
        newest = {probe.series: probe.passed for probe in said(prober, name) if probe.path == path}
        if newest and set(newest.values()) == {passed}:
            return
        assert time.monotonic() < deadline, f"{name} has other verdicts for {path}: {newest}"
        time.sleep(0.2)
