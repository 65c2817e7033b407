"""The definitions: fresh, bounded, described, and what a real API server makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.apiserver import ApiServer
from yett_operator.crd.__main__ import files

REPOSITORY = Path(__file__).resolve().parents[2]
PLACES = {"own": REPOSITORY / "crds", "cilium": REPOSITORY / "manifests/optional"}
FILES = files()


@pytest.mark.parametrize(("group", "name"), FILES)
def test_the_committed_definitions_are_those_of_the_models(group: str, name: str) -> None:
    assert (PLACES[group] / name).read_text() == FILES[group, name], "stale: run `make crds`"


def test_no_other_definition_is_committed() -> None:
    assert {path.name for path in PLACES["own"].glob("*.yaml")} == {
        name for group, name in FILES if group == "own"
    }


def nodes(schema: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield place, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{place}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{place}[]")


@pytest.mark.parametrize(("group", "name"), FILES)
def test_every_field_is_described_and_bounded(group: str, name: str) -> None:
    definition = yaml.safe_load(FILES[group, name])
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    seen = 0
    for place, node in nodes(schema):
        if place in {"", ".metadata", ".apiVersion", ".kind"}:
            continue
        seen += 1
        assert not {"$ref", "default", "title", "anyOf"} & node.keys(), place
        assert node.get("description") or place.endswith("[]"), f"{place} has no description"
        if "additionalProperties" in node:
            assert "properties" not in node
            assert "maxProperties" in node, place
        match node.get("type"):
            case "array":
                assert "maxItems" in node, place
            case "string":
                assert "maxLength" in node or "enum" in node, place
    assert seen > 2


def policy(spec: dict[str, Any], kind: str = "L7Policy", **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "yett.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "p"},
        "spec": {"endpointSelector": {}, **spec},
        **more,
    }


def to_ports(http: list[dict[str, Any]], **port: Any) -> dict[str, Any]:
    port = {"port": "80", "protocol": "TCP", **port}
    return {
        "ingress": [{"toPorts": [{"ports": [{k: v for k, v in port.items() if v}], "rules": {"http": http}}]}]
    }


REFUSED = [
    ({}, "needs at least one item in ingress, egress, ingressDeny or egressDeny"),
    ({"endpointSelector": None, "ingress": [{}]}, "spec.endpointSelector: Required value"),
    (
        {"ingress": [{"fromEntities": ["world"], "fromEndpoints": [{}]}]},
        "may be given in one item; make each an item of its own",
    ),
    (
        {"ingress": [{"icmps": [{"fields": [{"type": 8}]}], "toPorts": [{"ports": [{"port": "80"}]}]}]},
        "toPorts and icmps cannot go together",
    ),
    ({"egress": [{"toEntities": ["mars"]}]}, 'Unsupported value: "mars"'),
    (to_ports([{"path": "/a", "pathPrefix": "/b"}]), "path excludes pathPrefix and pathExact"),
    (to_ports([{"pathExact": "/a", "pathPrefix": "/b"}]), "pathPrefix excludes pathExact"),
    (to_ports([{"pathPrefix": "b"}]), "spec.ingress[0].toPorts[0].rules.http[0].pathPrefix"),
    (to_ports([{}], protocol=None), "every port must be TCP beside HTTP rules"),
    (to_ports([{}], endPort=79), "endPort is below port"),
    (to_ports([{}], port="http", endPort=80), "endPort cannot go with a named port"),
    (
        {"ingress": [{"toPorts": [{"rules": {"http": [{}]}}]}]},
        "ports is required beside HTTP rules",
    ),
    (
        {
            "endpointSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]},
            "ingress": [{}],
        },
        "operators In and NotIn need at least one value",
    ),
    ({"ingress": [{}], "engine": "Magic"}, 'Unsupported value: "Magic"'),
]


@pytest.mark.cluster
@pytest.mark.parametrize(("spec", "message"), REFUSED)
def test_the_api_server_itself_refuses_what_cannot_be_meant(
    api: ApiServer, spec: dict[str, Any], message: str
) -> None:
    said = api.kubectl(
        "apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(policy(spec)), check=False
    )
    assert message in said
    assert "p created" not in said


@pytest.mark.cluster
def test_the_examples_are_accepted_and_a_second_apply_changes_nothing(api: ApiServer) -> None:
    examples = str(REPOSITORY / "manifests/examples")
    api.kubectl("create", "namespace", "examples")
    first = api.kubectl("apply", "-n", "examples", "-f", examples)
    assert "l7policy.yett.dev/deny-admin created" in first
    again = api.kubectl("apply", "-n", "examples", "-f", examples).splitlines()
    assert again
    assert all(line.endswith("unchanged") for line in again)
    assert api.kubectl("diff", "-n", "examples", "-f", examples) == ""
    api.kubectl("delete", "namespace", "examples", "--wait=false")


@pytest.mark.cluster
def test_a_field_that_the_schema_does_not_know_is_kept_for_the_webhook_to_refuse(api: ApiServer) -> None:
    misspelt = policy({"ingress": [{"fromEndpoint": [{"matchLabels": {"app": "a"}}]}]})
    api.kubectl("create", "--validate=false", "-f", "-", stdin=yaml.safe_dump(misspelt))
    try:
        stored = api.get("l7policies", "p")
        assert stored["spec"]["ingress"] == [{"fromEndpoint": [{"matchLabels": {"app": "a"}}]}]
    finally:
        api.kubectl("delete", "l7p", "p")


@pytest.mark.cluster
def test_explain_and_short_names_read_well(api: ApiServer) -> None:
    text = " ".join(api.kubectl("explain", "l7p.spec.ingress.toPorts.rules.http").split())
    assert "Whole path segments that the path begins with" in text
    assert "<no description>" not in api.kubectl("explain", "--recursive", "polst.status")
    kinds = api.kubectl("api-resources", "--categories=yett")
    for name in ("l7p", "cl7p", "polst", "secid"):
        assert name in kinds
    assert "yett" not in api.kubectl("api-resources", "--categories=all")


@pytest.mark.cluster
def test_a_number_never_gets_other_labels(api: ApiServer) -> None:
    identity = {
        "apiVersion": "yett.dev/v1alpha1",
        "kind": "SecurityIdentity",
        "metadata": {"name": "4711"},
        "spec": {"number": 4711, "labels": ["k8s:app=x"]},
    }
    api.apply(identity)
    identity["spec"]["labels"] = ["k8s:app=y"]  # type: ignore[index]
    said = api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(identity), check=False)
    assert "cannot be changed" in said
    api.kubectl("delete", "secid", "4711")
