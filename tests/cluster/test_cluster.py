"""The test cluster is a real one: what the other tests on it take for granted."""

from __future__ import annotations

import json
import subprocess

import pytest

from cluster import binaries
from cluster.cluster import Cluster
from cluster.images import yett_images
from cluster.workload import APP, LOADER_CAPABILITIES, applied, echoed, placed, pod
from yett_lab.errors import LabError

pytestmark = pytest.mark.cluster


def test_three_nodes_of_the_built_version_are_ready(cluster: Cluster):
    items = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    versions = {item["metadata"]["name"]: item["status"]["nodeInfo"]["kubeletVersion"] for item in items}
    assert versions == dict.fromkeys(("node1", "node2", "node3"), binaries.version())
    ready = [c["status"] for item in items for c in item["status"]["conditions"] if c["type"] == "Ready"]
    assert ready == ["True"] * 3


def test_the_walk_through_runs_unmodified(cluster: Cluster):
    with applied(cluster, APP):
        answer = echoed(cluster, "http://api-service/public")
    assert (answer["path"], answer["hostname"]) == ("/public", "api-server")


@pytest.mark.parametrize("server", ["node1", "node2"])
def test_a_service_answers_by_name_with_the_clients_own_address(cluster: Cluster, server: str):
    with applied(cluster, placed("node1", server)):
        answer = echoed(cluster, "http://api-service.default.svc.cluster.local/")
        pods = json.loads(cluster.kubectl("get", "pods", "-o", "json"))["items"]
    address = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}
    assert answer["ip"] == address["client"]


def test_the_api_server_reaches_pods(cluster: Cluster):
    with applied(cluster, APP):
        path = "/api/v1/namespaces/default/services/api-service/proxy/from-control"
        assert json.loads(cluster.kubectl("get", "--raw", path))["path"] == "/from-control"


def test_logs_come_from_the_node_of_the_pod(cluster: Cluster):
    with applied(cluster, placed("node2", "node3")):
        echoed(cluster, "http://api-service/logged")
        assert '"GET /logged"' in cluster.kubectl("logs", "api-server")


def test_each_node_has_a_bpffs_of_its_own(cluster: Cluster):
    first, second, _ = (node.box for node in cluster.nodes)
    first.run(["mkdir", "/sys/fs/bpf/mine"], what="pin")
    try:
        assert "mine" in first.run(["ls", "/sys/fs/bpf"], what="list pins")
        assert "mine" not in second.run(["ls", "/sys/fs/bpf"], what="list pins")
        assert "mine" not in subprocess.check_output(["ls", "/sys/fs/bpf"], text=True)
    finally:
        first.run(["rmdir", "/sys/fs/bpf/mine"], what="unpin")


def test_the_loaders_image_loads_the_programs_with_three_capabilities(cluster: Cluster):
    _, loader = yett_images()
    with applied(cluster, pod("loader", loader.reference, LOADER_CAPABILITIES)):
        said = cluster.kubectl("exec", "loader", "--", "yett-loader", "load")
        pins = cluster.node("node1").box.run(["ls", "/sys/fs/bpf/yett"], what="list pins")
        cluster.kubectl("exec", "loader", "--", "yett-loader", "unload")
    assert "/sys/fs/bpf/yett" in said
    assert "v1" in pins


def test_the_operators_image_runs_as_nobody_with_nothing_to_write(cluster: Cluster):
    operator, _ = yett_images()
    with applied(cluster, pod("operator", operator.reference)):
        script = "import os, kopf, kubernetes_asyncio, yett_operator, yett_policy; print(os.getuid())"
        assert cluster.kubectl("exec", "operator", "--", "python", "-c", script) == "65532\n"
        with pytest.raises(LabError, match="Read-only"):
            cluster.kubectl("exec", "operator", "--", "touch", "/opt/yett/x")


def test_a_node_joins_and_its_pods_are_reached_and_it_leaves(cluster: Cluster):
    node = cluster.join()
    try:
        assert node.name == "node4"
        with applied(cluster, placed("node1", node.name)):
            assert echoed(cluster, "http://api-service/")["hostname"] == "api-server"
    finally:
        cluster.leave(node.name)
    assert "node4" not in cluster.kubectl("get", "nodes", "-o", "name")


@pytest.mark.parametrize("service", ["etcd", "kube-apiserver"])
def test_the_cluster_outlives_a_kill_of(cluster: Cluster, service: str):
    with applied(cluster, APP):
        echoed(cluster, "http://api-service/")
        cluster.control.restart(service)
        cluster.control.restart("kube-apiserver")
        assert echoed(cluster, "http://api-service/after")["path"] == "/after"
