"""What `kubectl apply -k manifests/` installs; that it runs is shown on the cluster (make demo-cluster)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from yett_loader.__main__ import API
from yett_loader.sidecar.process import DRAIN, LOCK
from yett_operator.settings import Settings
from yett_operator.sync.auth import AUDIENCE

REPOSITORY = Path(__file__).resolve().parents[2]
Object = dict[str, Any]

WRITES = {"create", "update", "patch", "delete", "deletecollection", "*"}
OURS = {
    "l7policies/status",
    "clusterl7policies/status",
    "policystatuses",
    "policystatuses/status",
    "securityidentities",
}


def one(manifests: list[Object], kind: str, name: str) -> Object:
    (found,) = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def container(manifests: list[Object], kind: str, name: str) -> tuple[Object, Object]:
    spec = one(manifests, kind, name)["spec"]["template"]["spec"]
    (found,) = spec["containers"]
    return spec, found


def operator_rules(manifests: list[Object]) -> list[Object]:
    return [*one(manifests, "ClusterRole", "yett-operator")["rules"]]


def test_every_kind_is_installed_and_nothing_else_is_left_out(manifests: list[Object]):
    names = {each["metadata"]["name"] for each in manifests if each["kind"] == "CustomResourceDefinition"}
    files = {
        yaml.safe_load(path.read_text())["metadata"]["name"] for path in (REPOSITORY / "crds").glob("*.yaml")
    }
    assert names == files
    kinds = {each["kind"] for each in manifests}
    assert kinds >= {"Namespace", "Deployment", "DaemonSet", "PodDisruptionBudget", "Service"}
    assert "Secret" not in kinds
    assert "NetworkPolicy" not in kinds


def test_the_loader_has_three_capabilities_and_a_reason_for_each(manifests: list[Object]):
    spec, loader = container(manifests, "DaemonSet", "yett-loader")
    security = loader["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"]}
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert "privileged" not in security
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec.get("hostPID", False)
    text = (REPOSITORY / "manifests/base/loader/daemonset.yaml").read_text()
    for line in text.splitlines():
        if line.strip() in {"- BPF", "- NET_ADMIN", "- PERFMON"}:
            raise AssertionError(f"no reason beside {line.strip()}")


def test_the_loader_calls_the_operator_where_it_listens_with_a_token_for_it(manifests: list[Object]):
    spec, loader = container(manifests, "DaemonSet", "yett-loader")
    service = one(manifests, "Service", "yett-operator")
    ports = {each["name"]: each["port"] for each in service["spec"]["ports"]}
    settings = Settings()
    assert ports == {"webhook": settings.webhook_port, "sync": settings.sync_port, "http": settings.http_port}
    (url,) = [each for each in loader["args"] if each.startswith("--operator=")]
    host = url.removeprefix("--operator=wss://").rpartition(":")[0]
    assert host in settings.names
    assert url.endswith(f":{settings.sync_port}")
    (volume,) = [each for each in spec["volumes"] if "projected" in each]
    token, authority = volume["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == AUDIENCE
    assert authority["configMap"]["name"] == "yett-operator-ca"
    assert spec["automountServiceAccountToken"] is False


def test_the_sidecar_has_one_capability_and_shares_one_directory_with_the_loader(manifests: list[Object]):
    spec, sidecar = container(manifests, "DaemonSet", "yett-sidecar")
    security = sidecar["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["hostNetwork"] is True
    assert spec["automountServiceAccountToken"] is False
    (volume,) = spec["volumes"]
    (mount,) = sidecar["volumeMounts"]
    assert volume["hostPath"]["path"] == mount["mountPath"] == str(LOCK.parent)
    # Where the loader looks for it: beside its own socket, in the directory that it mounts.
    loader_spec, loader = container(manifests, "DaemonSet", "yett-loader")
    assert "--outer-sidecar" in loader["args"]
    assert API.with_name(f"{API.stem}-sidecar") == LOCK.parent
    (api,) = [each for each in loader_spec["volumes"] if each["name"] == "api"]
    assert api["hostPath"]["path"] == str(API.parent)
    assert sidecar["image"] == loader["image"]
    assert spec["terminationGracePeriodSeconds"] >= 2 * DRAIN


def test_the_operators_pods_are_restricted(manifests: list[Object]):
    spec, operator = container(manifests, "Deployment", "yett-operator")
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert operator["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert operator["securityContext"]["allowPrivilegeEscalation"] is False
    assert operator["securityContext"]["readOnlyRootFilesystem"] is True
    assert not any("hostPath" in each for each in spec["volumes"])
    assert not spec.get("hostNetwork", False)


def test_the_operator_has_two_replicas_of_which_one_may_be_evicted(manifests: list[Object]):
    assert one(manifests, "Deployment", "yett-operator")["spec"]["replicas"] == 2
    assert one(manifests, "PodDisruptionBudget", "yett-operator")["spec"]["maxUnavailable"] == 1


def test_everything_has_probes_and_resources(manifests: list[Object]):
    for kind, name in (
        ("Deployment", "yett-operator"),
        ("DaemonSet", "yett-loader"),
        ("DaemonSet", "yett-sidecar"),
    ):
        _, found = container(manifests, kind, name)
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= found.keys()
        assert found["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in found["resources"]["limits"]


def test_the_operator_writes_nothing_of_users_but_our_status(manifests: list[Object]):
    for rule in operator_rules(manifests):
        writes = WRITES & set(rule["verbs"])
        if not writes:
            continue
        assert "*" not in rule["resources"] + rule["verbs"] + rule["apiGroups"]
        if rule["apiGroups"] == ["yett.dev"]:
            assert set(rule["resources"]) <= OURS
        elif rule["apiGroups"] == ["admissionregistration.k8s.io"]:
            assert rule["resourceNames"] == ["yett-operator"]
        else:
            assert set(rule["resources"]) <= {"events", "tokenreviews"}
            assert writes == {"create"}


def test_nobody_reads_secrets_of_other_namespaces(manifests: list[Object]):
    for each in manifests:
        if each["kind"] == "ClusterRole":
            resources = {name for rule in each["rules"] for name in rule["resources"]}
            assert not resources & {"secrets", "*"}, each["metadata"]["name"]
    role = one(manifests, "Role", "yett-operator")
    for rule in role["rules"]:
        if "secrets" in rule["resources"]:
            assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["yett-operator-tls"]


def test_the_loader_has_no_rights_at_all(manifests: list[Object]):
    for each in manifests:
        if each["kind"] in {"RoleBinding", "ClusterRoleBinding"}:
            assert "yett-loader" not in {subject["name"] for subject in each["subjects"]}


def test_users_rights_come_with_view_edit_and_admin(manifests: list[Object]):
    label = "rbac.authorization.k8s.io/aggregate-to-"
    roles = {
        name: {
            key.removeprefix(label)
            for key in one(manifests, "ClusterRole", name)["metadata"]["labels"]
            if label in key
        }
        for name in ("yett-view", "yett-edit", "yett-admin")
    }
    assert roles == {
        "yett-view": {"view", "edit", "admin"},
        "yett-edit": {"edit", "admin"},
        "yett-admin": {"admin"},
    }
    (rule,) = one(manifests, "ClusterRole", "yett-view")["rules"]
    assert not WRITES & set(rule["verbs"])
    for name in ("yett-edit", "yett-admin"):
        (rule,) = one(manifests, "ClusterRole", name)["rules"]
        assert "policystatuses" not in rule["resources"]


def test_admission_is_only_asked_about_policies(manifests: list[Object]):
    hooks = one(manifests, "ValidatingWebhookConfiguration", "yett-operator")["webhooks"]
    assert {each["name"]: each["failurePolicy"] for each in hooks} == {
        "policies.yett.dev": "Fail",
        "others.yett.dev": "Ignore",
    }
    for each in hooks:
        assert each["sideEffects"] == "None"
        assert each["timeoutSeconds"] <= 5
        assert each["matchConditions"]
        for rule in each["rules"]:
            assert "*" not in rule["resources"] + rule["apiGroups"]
            if rule["apiGroups"] != ["yett.dev"]:
                assert each["failurePolicy"] == "Ignore"
