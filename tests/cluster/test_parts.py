"""What of the test cluster can be tested without one."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster import binaries, leftovers, state
from cluster.__main__ import main
from cluster.box import Box
from cluster.certificates import Authority
from cluster.cluster import Cluster
from cluster.errors import ClusterError
from cluster.images import yett_images
from cluster.kubectl import Kubectl
from cluster.network import free_uplink
from cluster.paths import Paths
from cluster.state import State


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "-a", "a-", "a" * 17, "1a"])
def test_a_name_that_would_not_do_as_a_file_or_cgroup_is_refused(name: str):
    with pytest.raises(ClusterError, match="up to 16 lower-case letters"):
        Paths(name)


def test_a_cluster_that_is_not_there_says_so():
    cluster = Cluster(Paths("no-such"))
    assert not cluster.exists
    with pytest.raises(ClusterError, match="cannot find cluster no-such; run `scripts/cluster up`"):
        _ = cluster.nodes
    with pytest.raises(ClusterError, match="cannot enter node1 of cluster no-such: it is not running"):
        Box(cluster.paths, "node1").enter(["true"])


def test_state_survives_saving(tmp_path: Path):
    kept = State(uplink=3, binaries="abc", nodes={1: "10.244.0.0/24", 2: None})
    kept.save(tmp_path / "state.json")
    assert state.load(tmp_path / "state.json") == kept


def test_a_process_that_is_not_the_boxs_is_never_taken_for_its_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cluster.paths.ROOT", tmp_path)
    box = Box(Paths("t"), "node1")
    box.run_directory.mkdir(parents=True)
    (box.run_directory / "box").write_text("1\n")
    assert not box.up


def test_a_change_of_any_source_asks_for_other_binaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = binaries.directory()
    shutil.copytree(binaries.MODULE, tmp_path / "module")
    monkeypatch.setattr(binaries, "MODULE", tmp_path / "module")
    assert binaries.directory() == before
    with (tmp_path / "module/coredns/main.go").open("a") as file:
        file.write("// changed\n")
    assert binaries.directory() != before


def test_every_module_of_kubernetes_is_of_one_version():
    lines = (binaries.MODULE / "go.mod").read_text().splitlines()
    staged = {line.split()[-1] for line in lines if line.strip().startswith("k8s.io/") and "=>" in line}
    assert staged == {binaries.version().replace("v1.", "v0.")}


def test_images_of_yett_change_with_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = tmp_path / "source.py"
    source.write_text("1")
    monkeypatch.setattr("cluster.wheel.inputs", lambda: [source])
    before = [image.digest() for image in yett_images()]
    source.write_text("2")
    assert set(before).isdisjoint(image.digest() for image in yett_images())


def test_a_nodes_certificate_names_it_as_the_api_server_asks_and_verifies(tmp_path: Path):
    authority = Authority(tmp_path / "pki")
    authority.create()
    authority.issue("node1", "system:node:node1", "system:nodes", ["DNS:node1", "IP:10.89.0.11"])
    certificate = str(authority.certificate("node1"))
    subprocess.check_call(["openssl", "verify", "-CAfile", str(authority.certificate()), certificate])
    shown = subprocess.check_output(
        ["openssl", "x509", "-in", certificate, "-noout", "-subject", "-ext", "subjectAltName"], text=True
    )
    assert "O = system:nodes, CN = system:node:node1" in shown
    assert "DNS:node1, IP Address:10.89.0.11" in shown
    assert (authority.key().stat().st_mode & 0o077, authority.directory.stat().st_mode & 0o077) == (0, 0)


def test_a_kubeconfig_carries_everything_and_only_its_owner_reads_it(tmp_path: Path):
    authority = Authority(tmp_path / "pki")
    authority.create()
    authority.issue("admin", "me", "system:masters")
    path = tmp_path / "kubeconfig"
    authority.kubeconfig(path, "admin", "https://192.0.2.1:6443")
    document = json.loads(path.read_text())
    assert path.stat().st_mode & 0o077 == 0
    assert document["clusters"][0]["cluster"]["server"] == "https://192.0.2.1:6443"
    key = base64.b64decode(document["users"][0]["user"]["client-key-data"])
    assert key == authority.key("admin").read_bytes()


def test_the_network_of_a_cluster_overlaps_none_of_the_machine(monkeypatch: pytest.MonkeyPatch):
    taken = [
        {"addr_info": [{"local": "100.64.0.1", "prefixlen": 30}, {"local": "100.64.1.77", "prefixlen": 24}]}
    ]
    monkeypatch.setattr("cluster.network.command", lambda *_, **__: json.dumps(taken))
    assert free_uplink() == 2


def test_what_was_added_is_named_by_its_kind():
    before = {"mount": frozenset({"/"}), "pin": frozenset({"/sys/fs/bpf/a"})}
    after = {"mount": frozenset({"/", "/x"}), "pin": frozenset[str]()}
    assert leftovers.added(before, after) == ["mount /x"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["exec", "client", "--", "curl", "-s", "--", "http://api-service"],
        ["-n", "yett-system", "get", "pods", "--watch"],
        ["--help"],
    ],
)
def test_kubectl_gets_its_arguments_as_they_were_given(arguments: list[str], monkeypatch: pytest.MonkeyPatch):
    ran: list[list[str]] = []
    monkeypatch.setattr(Kubectl, "argv", lambda _self, given: ["kubectl", *given])
    monkeypatch.setattr(os, "execv", lambda _program, argv: ran.append(argv))
    CliRunner().invoke(main, ["--name", "no-such", "kubectl", *arguments], catch_exceptions=False)
    assert ran == [["kubectl", *arguments]]
