"""What users do with kubectl: many policies at once, explain, roles; and what yett leaves on their objects."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cluster import Cluster
from cluster.operator import SYSTEM, eventually, pods
from cluster.prober import policy
from yett_lab.errors import LabError

pytestmark = pytest.mark.cluster

MANY = 2000
NAMESPACE = "many"


def test_two_thousand_policies_are_applied_and_deleted_and_users_objects_stay_theirs(
    yett: Cluster, tmp_path: Path
):
    write(tmp_path)
    before = identities(yett)
    try:
        yett.kubectl("create", "namespace", NAMESPACE)
        begin = time.monotonic()
        said = yett.kubectl("apply", "-f", str(tmp_path), timeout=600)
        assert said.count("created") == MANY
        print(f"{MANY} policies are applied in {time.monotonic() - begin:.0f} s")
        took = eventually(lambda: ready(yett) == MANY, f"all {MANY} are ready", 600)
        print(f"all are ready {took:.0f} s later")

        begin = time.monotonic()
        said = yett.kubectl("apply", "-f", str(tmp_path), timeout=600)
        print(f"applied again in {time.monotonic() - begin:.0f} s")
        assert [line for line in said.splitlines() if not line.endswith(" unchanged")] == []
        assert said.count("unchanged") == MANY
        some = tmp_path / "some"
        some.mkdir()
        for number in range(0, MANY, 100):
            (some / f"{number}.yaml").write_text((tmp_path / f"{number:04}.yaml").read_text())
        assert yett.kubectl("diff", "-f", str(some), timeout=120) == ""
        untouched(yett)
    finally:
        begin = time.monotonic()
        yett.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=600)
        print(f"all are gone after {time.monotonic() - begin:.0f} s")
    assert json.loads(yett.kubectl("get", "policystatus", "-n", NAMESPACE, "-o", "json"))["items"] == []
    assert identities(yett) <= before


def write(directory: Path) -> None:
    for number in range(MANY):
        made = policy(f"hear-{number}", f"/path-{number}")
        made["metadata"]["namespace"] = NAMESPACE
        made["spec"]["endpointSelector"] = {"matchLabels": {"app": f"app-{number % 250}"}}
        (directory / f"{number:04}.yaml").write_text(yaml.safe_dump(made))


def ready(cluster: Cluster) -> int:
    path = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
    return (
        cluster.kubectl("get", "l7policies", "-n", NAMESPACE, "-o", f"jsonpath={path}").split().count("True")
    )


def identities(cluster: Cluster) -> set[str]:
    return set(cluster.kubectl("get", "securityidentities", "-o", "name").split())


def untouched(cluster: Cluster) -> None:
    """All of users' metadata is theirs, and of their objects we own the status and nothing else."""
    get = ("get", "l7policies", "-n", NAMESPACE, "-o", "json", "--show-managed-fields")
    for item in json.loads(cluster.kubectl(*get, timeout=120))["items"]:
        metadata = item["metadata"]
        assert set(metadata.get("annotations", {})) == {"kubectl.kubernetes.io/last-applied-configuration"}
        assert not metadata.get("labels")
        assert not metadata.get("finalizers")
        assert not metadata.get("ownerReferences")
        assert metadata["generation"] == 1
        ours = [each for each in metadata["managedFields"] if not each["manager"].startswith("kubectl")]
        assert {(each["manager"], each.get("subresource")) for each in ours} == {("yett-operator", "status")}
        assert [set(each["fieldsV1"]) for each in ours] == [{"f:status"}]


def test_pods_and_namespaces_and_policies_of_others_are_never_written_to(yett: Cluster):
    get = (
        "get",
        "pods,namespaces,nodes,services,networkpolicies",
        "-A",
        "-o",
        "json",
        "--show-managed-fields",
    )
    items = json.loads(yett.kubectl(*get))["items"]
    assert items
    for item in items:
        managers = {each["manager"] for each in item["metadata"].get("managedFields", [])}
        assert "yett-operator" not in managers, item["metadata"]["name"]


KINDS = {
    "l7policies": ("l7policy", "l7p"),
    "clusterl7policies": ("clusterl7policy", "cl7p"),
    "policystatuses": ("policystatus", "polst"),
    "securityidentities": ("securityidentity",),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_known_by_its_names_and_explained(yett: Cluster, kind: str):
    for name in (kind, *KINDS[kind]):
        yett.kubectl("get", name, "-A")
    said = yett.kubectl("explain", kind, "--recursive=false")
    assert "DESCRIPTION:" in said
    assert "<empty>" not in said


@pytest.mark.parametrize("field", ["spec", "spec.ingress.toPorts.rules.http", "status.conditions"])
def test_every_field_is_explained(yett: Cluster, field: str):
    said = yett.kubectl("explain", f"l7policy.{field}")
    assert "<empty>" not in said
    assert "<no description>" not in said


def test_the_category_lists_all_of_yett(yett: Cluster):
    one = policy()
    one["metadata"]["namespace"] = "default"
    yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(one))
    try:
        eventually(
            lambda: (
                {"l7policy.yett.dev/hear", "policystatus.yett.dev/l7policy-hear"}
                <= set(yett.kubectl("get", "yett", "-o", "name").split())
            ),
            "the category has both",
        )
        header = yett.kubectl("get", "policystatus").splitlines()[0].split()
        assert header == ["NAME", "POLICY", "ENFORCED", "ENGINE", "DENIED", "READY", "AGE"]
    finally:
        yett.kubectl("delete", "l7policy", "hear")


RIGHTS = [
    # role, verb, resource, whether in a namespace of one's own
    ("view", "get", "l7policies", True),
    ("view", "list", "policystatuses", True),
    ("view", "create", "l7policies", False),
    ("view", "patch", "policystatuses", False),
    ("edit", "create", "l7policies", True),
    ("edit", "delete", "l7policies", True),
    ("edit", "patch", "l7policies/status", False),
    ("edit", "create", "clusterl7policies", False),
    ("edit", "update", "policystatuses", False),
    ("admin", "create", "l7policies", True),
    ("admin", "delete", "policystatuses", False),
    ("admin", "create", "securityidentities", False),
]


@pytest.fixture(scope="module")
def users(yett: Cluster):
    for role in ("view", "edit", "admin"):
        yett.kubectl("create", "rolebinding", f"some-{role}", f"--clusterrole={role}", f"--user=some-{role}")
    yield
    for role in ("view", "edit", "admin"):
        yett.kubectl("delete", "rolebinding", f"some-{role}")


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(("role", "verb", "resource", "may"), RIGHTS)
def test_the_cluster_roles_of_users_have_their_rights(
    yett: Cluster, role: str, verb: str, resource: str, may: bool
):
    name, _, subresource = resource.partition("/")
    can = ("auth", "can-i", verb, f"{name}.yett.dev", f"--subresource={subresource}", "--as", f"some-{role}")
    try:
        said = yett.kubectl(*can)
    except LabError:  # the answer is no
        said = "no"
    assert said.strip() == ("yes" if may else "no")


def test_the_operator_is_nobody_and_can_write_nothing(yett: Cluster):
    assert pods(yett)
    for pod in pods(yett):
        name = pod["metadata"]["name"]
        process = yett.kubectl("exec", "-n", SYSTEM, name, "--", "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in process.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["65532"] * 4
        assert (fields["CapEff"], fields["CapBnd"]) == ("0" * 16, "0" * 16)
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
        with pytest.raises(LabError, match="Read-only"):
            yett.kubectl("exec", "-n", SYSTEM, name, "--", "touch", "/opt/yett/x")


def test_the_operators_pods_are_admitted_where_only_restricted_ones_are(yett: Cluster):
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "restricted", "labels": level}}
    found = json.loads(yett.kubectl("get", "deployment", "-n", SYSTEM, "yett-operator", "-o", "json"))
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod"}
    pod["metadata"] = {"name": "operator", "namespace": "restricted"}
    pod["spec"] = copy.deepcopy(found["spec"]["template"]["spec"])
    pod["spec"] |= {"serviceAccountName": "default", "priorityClassName": None}
    try:
        yett.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(space))
        account = ("get", "serviceaccount", "default", "-n", "restricted")
        eventually(lambda: yett.kubectl(*account), "the namespace has its service account")
        said = yett.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))
        assert "pod/operator created" in said
        pod["spec"]["hostNetwork"] = True
        with pytest.raises(LabError, match="violates PodSecurity"):
            yett.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))
    finally:
        yett.kubectl("delete", "namespace", "restricted", "--ignore-not-found", timeout=90)
