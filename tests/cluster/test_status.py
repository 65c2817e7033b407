"""`kubectl get policystatus` tells the truth: about nodes that do not follow, and about policies that are wrong."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml

from cluster.cluster import Cluster
from cluster.operator import eventually
from cluster.paths import REPOSITORY
from cluster.prober import NAMESPACE, POLICY, address_of, policy, probing, serving
from support.argo import health as health_of
from yett_lab.errors import LabError

pytestmark = pytest.mark.cluster

PROMPT = 5.0
"""Seconds in which whatever a node lacks must be visible."""
_LOADER = "^/opt/yett/bin/python.*/yett-loader run "


def status(cluster: Cluster, name: str = "l7policy-hear") -> dict[str, Any]:
    """Of a policy, as the API server holds it."""
    found = cluster.kubectl("get", "policystatus", "-n", NAMESPACE, name, "-o", "json")
    answer: dict[str, Any] = json.loads(found).get("status") or {}
    return answer


def conditions(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in found["conditions"]}


def shows(cluster: Cluster, node: str, reason: str) -> float:
    """Seconds until the status names the node with the reason, and only it."""

    def shown() -> bool:
        found = status(cluster)
        failed = [(each["node"], each["reason"]) for each in found["failedNodes"]]
        return failed == [(node, reason)] and found["enforced"] == "2/3"

    took = eventually(shown, f"the status shows that {node} is {reason}", PROMPT)
    ready = conditions(status(cluster))["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "PartiallyProgrammed")
    return took


def whole(cluster: Cluster) -> float:
    """Seconds until all nodes have it in force again."""
    return eventually(lambda: status(cluster)["enforced"] == "3/3", "the status says 3/3")


def test_a_loader_that_hangs_is_shown(yett: Cluster):
    with serving(yett):
        box = yett.node("node2").box
        box.run(["pkill", "-STOP", "-f", _LOADER], what="stop the loader")
        try:
            print(f"a loader that hangs is shown after {shows(yett, 'node2', 'Disconnected'):.1f} s")
        finally:
            box.run(["pkill", "-CONT", "-f", _LOADER], what="let the loader go on")
        print(f"and its return after {whole(yett):.1f} s")


def test_a_pod_that_cannot_be_governed_is_shown(yett: Cluster):
    with serving(yett):
        box = yett.node("node3").box
        address = address_of(yett, "hear-node3")
        route = box.run(["ip", "-o", "route", "get", address], what="find the pod's interface").split()
        box.run(["ip", "link", "del", route[route.index("dev") + 1]], what="remove the pod's interface")
        print(f"a pod without its interface is shown after {shows(yett, 'node3', 'NotAttached'):.1f} s")


INVALID = {
    "a number too high": ({"port": "80000", "protocol": "TCP"}, "spec.ingress[0].toPorts[0].ports[0].port"),
    "a range upside down": (
        {"port": "80", "endPort": 70, "protocol": "TCP"},
        "endPort is below port; swap them",
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_the_api_server_refuses_what_the_schema_can_see(yett: Cluster, case: str):
    port, sentence = INVALID[case]
    wrong = policy()
    wrong["metadata"]["namespace"] = "default"
    wrong["spec"]["ingress"][0]["toPorts"][0]["ports"] = [port]
    with pytest.raises(LabError) as refused:
        yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(wrong))
    assert sentence in str(refused.value)


def test_a_policy_that_is_wrong_is_refused_and_if_stored_the_last_good_one_stays_in_force(yett: Cluster):
    wrong = policy(path="/public(")
    field = "spec.ingress[0].toPorts[0].rules.http[0].path"
    with probing(yett) as prober:
        with pytest.raises(LabError) as refused:
            yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(wrong))
        assert field in str(refused.value)
        sentence = str(refused.value)[str(refused.value).index(field) :].strip()
        print(f"refused: {sentence}")
        with prober.under_load():
            yett.kubectl("delete", "validatingwebhookconfiguration", "yett-operator")
            try:
                # The reference still is that for the last good one.
                yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(wrong))
            finally:
                yett.kubectl("apply", "-k", str(REPOSITORY / "manifests"))
            eventually(lambda: conditions(status(yett))["Accepted"]["status"] == "False", "it is refused")
            found = conditions(status(yett))
            assert found["Accepted"]["message"] == sentence
            assert "an older version stays in force on 3/3 nodes" in found["Programmed"]["message"]
            own = json.loads(yett.kubectl("get", "l7policy", "-n", NAMESPACE, "hear", "-o", "json"))
            assert conditions(own["status"])["Accepted"]["message"] == sentence
            events = ("get", "events", "-n", NAMESPACE, "--field-selector", "reason=PolicyRejected")
            eventually(lambda: sentence in yett.kubectl(*events), "there is an event")
            prober.agree()
        health = health_of("L7Policy", own)
        assert (health["status"], sentence in health["message"]) == ("Degraded", True)
        # The leader fills in the CA again; until then nobody can change a policy.
        good = yaml.safe_dump(POLICY)
        eventually(lambda: yett.kubectl("apply", "-f", "-", stdin=good), "policies are taken again", 90)
        prober.ready()
        prober.check()


@pytest.mark.parametrize("kind", ["L7Policy", "PolicyStatus"])
def test_argo_cd_says_of_the_objects_what_the_status_says(yett: Cluster, kind: str):
    name = "hear" if kind == "L7Policy" else "l7policy-hear"

    def health() -> str:
        found = yett.kubectl("get", kind, "-n", NAMESPACE, name, "-o", "json")
        return health_of(kind, json.loads(found))["status"]

    with serving(yett):
        assert health() == "Healthy"
        box = yett.node("node1").box
        box.run(["pkill", "-STOP", "-f", _LOADER], what="stop the loader")
        try:
            eventually(lambda: health() == "Degraded", f"{kind} is degraded", PROMPT)
        finally:
            box.run(["pkill", "-CONT", "-f", _LOADER], what="let the loader go on")
        eventually(lambda: health() == "Healthy", f"{kind} is healthy again")
        begin = time.monotonic()
        yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(policy(path="/private")))
        seen = [health()]
        while seen[-1] != "Healthy":
            assert time.monotonic() < begin + 30
            seen.append(health())
        assert set(seen) <= {"Progressing", "Healthy"}
