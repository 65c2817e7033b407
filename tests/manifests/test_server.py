"""The manifests before a real API server: it takes them, and isolation.yaml refuses what it should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.apiserver import ApiServer, api_server

REPOSITORY = Path(__file__).resolve().parents[2]

SECURITY = {
    "privileged": ("no pod of yett-system runs privileged", {"privileged": True}),
    "capability": ("only the loader has capabilities", {"capabilities": {"add": ["NET_ADMIN"]}}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("api"), "--allow-privileged") as found:
        found.kubectl("apply", "-k", str(REPOSITORY / "manifests"))
        yield found


def pod(account: str, security: dict[str, Any], **spec: Any) -> str:
    container = {"name": "c", "image": "i", "securityContext": security}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "yett-system"},
            "spec": {"serviceAccountName": account, "containers": [container], **spec},
        }
    )


def tried(server: ApiServer, text: str) -> str:
    return server.kubectl("create", "--dry-run=server", "-f", "-", stdin=text, check=False)


def test_a_second_apply_changes_nothing(server: ApiServer):
    assert server.kubectl("diff", "-k", str(REPOSITORY / "manifests")) == ""
    said = server.kubectl("apply", "-k", str(REPOSITORY / "manifests")).splitlines()
    # kubectl sends the selector of a PodDisruptionBudget every time, changed or not.
    changed = [line for line in said if not line.endswith("unchanged")]
    assert changed in ([], ["poddisruptionbudget.policy/yett-operator configured"])


def test_the_optional_kinds_are_taken(server: ApiServer):
    server.kubectl("apply", "-k", str(REPOSITORY / "manifests/optional"))


def test_the_pods_of_our_templates_are_admitted(server: ApiServer):
    for kind, name in (
        ("deployment", "yett-operator"),
        ("daemonset", "yett-loader"),
        ("daemonset", "yett-sidecar"),
    ):
        found = yaml.safe_load(server.kubectl("get", kind, name, "-n", "yett-system", "-o", "yaml"))
        template = found["spec"]["template"]
        template["spec"].pop("priorityClassName")  # an API server alone has not made the system's yet
        text = yaml.safe_dump(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "yett-system"}}
            | {"spec": template["spec"]}
        )
        assert "pod/p created" in tried(server, text)


@pytest.mark.parametrize("case", SECURITY)
def test_other_pods_have_no_power(server: ApiServer, case: str):
    sentence, security = SECURITY[case]
    assert sentence in tried(server, pod("yett-operator", security))


def test_the_sidecar_has_one_capability_and_one_directory(server: ApiServer):
    host = {"hostNetwork": True}
    one = {"capabilities": {"add": ["NET_ADMIN"]}}
    mine = [{"name": "v", "hostPath": {"path": "/run/yett/loader-sidecar"}}]
    pins = [{"name": "v", "hostPath": {"path": "/sys/fs/bpf"}}]
    assert "pod/p created" in tried(server, pod("yett-sidecar", one, volumes=mine, **host))
    assert "the sidecar only NET_ADMIN" in tried(
        server, pod("yett-sidecar", {"capabilities": {"add": ["BPF"]}})
    )
    assert "the sidecar only /run/yett" in tried(server, pod("yett-sidecar", one, volumes=pins))
    assert "nothing its processes" in tried(server, pod("yett-sidecar", one, hostPID=True, **host))


def test_the_loader_has_no_other_capability(server: ApiServer):
    assert "only BPF, NET_ADMIN and PERFMON" in tried(
        server, pod("yett-loader", {"capabilities": {"add": ["SYS_ADMIN"]}})
    )


def test_other_pods_have_nothing_of_the_host(server: ApiServer):
    volume = [{"name": "v", "hostPath": {"path": "/sys/fs/bpf"}}]
    assert "only the loader mounts" in tried(server, pod("yett-operator", {}, volumes=volume))
    assert "only the loader and the sidecar use the host's network" in tried(
        server, pod("yett-operator", {}, hostNetwork=True)
    )
    everything = [{"name": "v", "hostPath": {"path": "/"}}]
    assert "only the loader mounts" in tried(server, pod("yett-loader", {}, volumes=everything))
    assert "only the loader and the sidecar use the host's network" in tried(
        server, pod("yett-loader", {}, hostPID=True)
    )
