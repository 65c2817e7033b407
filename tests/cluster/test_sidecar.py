"""The sidecar engine as the manifests have it: Envoy in pods of its own, with one capability."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cluster.cluster import Cluster
from cluster.workload import applied, curl, echoed, placed
from yett_lab.errors import LabError

pytestmark = pytest.mark.cluster

POLICY: dict[str, Any] = {
    "apiVersion": "yett.dev/v1alpha1",
    "kind": "L7Policy",
    "metadata": {"name": "by-sidecar"},
    "spec": {
        "engine": "Sidecar",
        "endpointSelector": {"matchLabels": {"app": "api-server"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"app": "client"}}],
                "toPorts": [
                    {
                        "ports": [{"port": "80", "protocol": "TCP"}],
                        "rules": {"http": [{"method": "GET", "path": "/public"}]},
                    }
                ],
            }
        ],
    },
}


@pytest.fixture(params=["one node", "two nodes"])
def pods(yett: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    with applied(yett, placed("node1", "node1" if request.param == "one node" else "node2")):
        echoed(yett, "http://api-service/")
        yield


@pytest.mark.usefixtures("pods")
def test_requests_through_a_service_are_judged_by_the_sidecar(yett: Cluster):
    try:
        yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(POLICY))
        wait = ("wait", "l7policy/by-sidecar", "--for=condition=Ready", "--timeout=60s")
        yett.kubectl(*wait, timeout=70)
        answer = echoed(yett, "http://api-service/public")
        assert (answer["path"], answer["hostname"]) == ("/public", "api-server")
        address = yett.kubectl("get", "pod", "client", "-o", "jsonpath={.status.podIP}")
        assert answer["ip"] == address  # the server still sees the client's own
        for arguments in (("http://api-service/private",), ("-X", "POST", "http://api-service/public")):
            with pytest.raises(LabError, match=r"Empty reply|reset by peer"):
                curl(yett, *arguments)
    finally:
        yett.kubectl("delete", "l7policy", "by-sidecar", "--ignore-not-found")


@pytest.mark.usefixtures("pods")
def test_a_rollout_of_the_loader_costs_the_sidecar_no_connection(yett: Cluster):
    """The Envoy that ran before runs on, and is the new loader's."""
    forbidden = {**POLICY, "spec": {**POLICY["spec"], "denyResponse": "Forbidden"}}
    pods = ("get", "pods", "-n", "yett-system", "-l", "app.kubernetes.io/name=yett-sidecar", "-o", "name")
    try:
        yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(forbidden))
        yett.kubectl("wait", "l7policy/by-sidecar", "--for=condition=Ready", "--timeout=60s", timeout=70)
        before = yett.kubectl(*pods)
        yett.kubectl("rollout", "restart", "-n", "yett-system", "daemonset/yett-loader")
        roll = ("rollout", "status", "-n", "yett-system", "daemonset/yett-loader", "--timeout=180s")
        yett.kubectl(*roll, timeout=190)
        assert echoed(yett, "http://api-service/public")["path"] == "/public"
        assert curl(yett, "-o", "/dev/null", "-w", "%{http_code}", "http://api-service/private") == "403"
        assert yett.kubectl(*pods) == before
    finally:
        yett.kubectl("delete", "l7policy", "by-sidecar", "--ignore-not-found")
