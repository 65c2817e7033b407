"""From manifests to pods and services: what is read, warned of, refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from yett_lab import manifest, parse
from yett_lab.errors import InputError
from yett_lab.objects import Objects, ServicePort


def read(*bodies: dict[str, Any], images: dict[str, str] | None = None) -> tuple[Objects, list[str]]:
    text = yaml.safe_dump_all(bodies)
    return parse.objects(manifest.parse(text, "f.yaml"), images or {})


def pod(name: str = "a", image: str = "busybox", **container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": image, **container}]},
    }


def service(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}


def deployment(replicas: int, *, image: str = "busybox", selector: str = "w") -> dict[str, Any]:
    template = {
        "metadata": {"labels": {"app": "w"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": selector}}, "template": template},
    }


def test_what_a_service_says_is_spoken_is_kept() -> None:
    found, _ = read(service(ports=[{"port": 80, "appProtocol": "kubernetes.io/h2c"}]))
    assert found.services[0].ports == (ServicePort(80, 80, app_protocol="kubernetes.io/h2c"),)


def test_a_pod_is_read_with_command_environment_and_ports() -> None:
    found, warnings = read(
        pod(
            command=["sleep"],
            args=["1"],
            env=[{"name": "A", "value": "b"}],
            ports=[{"containerPort": 80, "name": "http"}],
        )
    )
    container = found.pods[0].containers[0]
    assert (container.command, container.args, container.env) == (("sleep",), ("1",), (("A", "b"),))
    assert container.ports[0].port == 80
    assert found.pods[0].key == "default/a"
    assert [n.name for n in found.namespaces] == ["default"]
    assert warnings == []


def test_a_deployment_makes_replicas_whose_names_do_not_change() -> None:
    three, _ = read(deployment(3))
    one, _ = read(deployment(1))
    other, _ = read(deployment(1, image="nginx"))
    assert len({p.name for p in three.pods}) == 3
    assert one.pods[0] in three.pods
    assert other.pods[0].name != one.pods[0].name
    assert all(p.namespace == "shop" and p.labels == (("app", "w"),) for p in three.pods)


def test_a_service_reads_named_and_missing_target_ports() -> None:
    found, _ = read(service(selector={"app": "a"}, ports=[{"port": 80, "targetPort": "http"}, {"port": 81}]))
    assert found.services[0].ports == (ServicePort(80, "http"), ServicePort(81, 81))


def test_a_headless_service_has_no_address() -> None:
    found, _ = read(service(clusterIP="None"))
    assert found.services[0].headless


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        (service(type="ExternalName"), "service/s left out"),
        (service(type="NodePort"), "serves the cluster IP only"),
        ({**pod(), "spec": {**pod()["spec"], "hostNetwork": True}}, "pod/a left out"),
        ({**pod(), "spec": {**pod()["spec"], "initContainers": [{}]}}, "spec.initContainers: not run"),
    ],
)
def test_what_a_lab_cannot_do_is_said(body: dict[str, Any], warning: str) -> None:
    _, warnings = read(body)
    assert len(warnings) == 1
    assert warning in warnings[0]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (
            pod(image="corp/api:1"),
            "spec.containers[0].image: no stand-in is known for 'corp/api:1'; say what",
        ),
        (pod(name="../x"), "metadata.name: expected at most 253 lower-case"),
        (pod(ports=[{"containerPort": "80"}]), "spec.containers[0].ports[0].containerPort: expected a whole"),
        (pod(ports=[{"containerPort": 70000}]), "a whole number from 1 to 65535, got '70000'"),
        (
            pod(env=[{"name": "A", "value": 1}]),
            "spec.containers[0].env[0].value: expected a string (put quotes",
        ),
        (pod(env=[{"name": "A", "valueFrom": {}}]), "env[0].valueFrom: a lab has no source for it"),
        (pod(command="sleep"), "spec.containers[0].command: expected a list, got 'sleep'"),
        ({**pod(), "spec": {}}, "spec.containers: expected at least one container"),
        ({**pod(), "spec": 3}, "spec: expected a mapping, got '3'"),
        (service(clusterIP="10.0.0.1"), "spec.clusterIP: expected an address in 10.96.0.0/16"),
        (service(type="Odd"), "spec.type: expected one of ClusterIP"),
        (deployment(1, selector="x"), "spec.selector.matchLabels: expected labels that"),
        (deployment(101), "spec.replicas: expected a whole number from 0 to 100"),
    ],
)
def test_bad_objects_are_one_sentence_with_file_and_field(body: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as error:
        read(body)
    assert str(error.value).startswith("f.yaml: ")
    assert complaint in str(error.value)


def test_an_image_of_the_users_own_runs_with_its_stand_in() -> None:
    found, _ = read(pod(image="corp/api:1"), images={"corp/api": "sleep 1"})
    assert found.pods[0].containers[0].image == "corp/api:1"


def test_a_pod_with_its_own_command_needs_no_stand_in() -> None:
    found, _ = read(pod(image="corp/api:1", command=["sleep", "1"]))
    assert found.pods[0].containers[0].command == ("sleep", "1")
