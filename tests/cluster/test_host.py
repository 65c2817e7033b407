"""What comes from the node itself reaches its pods; what comes from pods is judged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from cluster.cluster import Cluster
from cluster.prober import address_of
from yett_lab.errors import LabError

pytestmark = pytest.mark.cluster

NAMESPACE = "probed"
POLICY = {
    "apiVersion": "yett.dev/v1alpha1",
    "kind": "L7Policy",
    "metadata": {"name": "server", "namespace": NAMESPACE},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "server"}},
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


def pod(name: str, image: str, **container: object) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "nodeName": "node1",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": name, "image": image, "imagePullPolicy": "IfNotPresent", **container}],
        },
    }


@pytest.fixture
def namespace(yett: Cluster) -> Iterator[None]:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(space))
    yield
    yett.kubectl("delete", "namespace", NAMESPACE, timeout=120)


@pytest.mark.usefixtures("namespace")
def test_a_pod_is_ready_by_a_path_that_no_pod_may_ask_for(yett: Cluster):
    probe = {"httpGet": {"path": "/healthz", "port": 80}, "periodSeconds": 1, "failureThreshold": 1}
    client = pod("client", "appropriate/curl", command=["sleep", "3600"])
    server = pod("server", "mendhak/http-https-echo", readinessProbe=probe)
    yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([POLICY, client, server]))
    for what in ("l7policy/server", "pod/client", "pod/server"):
        yett.kubectl("wait", "-n", NAMESPACE, what, "--for=condition=Ready", "--timeout=60s", timeout=70)
    address = address_of(yett, "server", NAMESPACE)

    def ask(path: str) -> str:
        curl = ("curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}{path}")
        return yett.kubectl("exec", "-n", NAMESPACE, "client", "--", *curl)

    assert ask("/public") == "200"
    with pytest.raises(LabError, match="reset by peer"):
        ask("/healthz")
    asked = yett.kubectl("logs", "-n", NAMESPACE, "server")
    assert '"GET /healthz"' in asked  # the kubelet did
    ready = (
        "get",
        "pod",
        "server",
        "-n",
        NAMESPACE,
        "-o",
        "jsonpath={.status.conditions[?(@.type=='Ready')].status}",
    )
    assert yett.kubectl(*ready) == "True"
