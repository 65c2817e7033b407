"""What the policies that the API server holds mean for its pods, by the readable reference semantics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cluster.cluster import Cluster
from yett_policy.cluster import Cluster as Facts
from yett_policy.cluster import NamedPort, Namespace, Node, Pod
from yett_policy.compiled import Compiled
from yett_policy.compiler import compile as compile_policies
from yett_policy.document import Verdict
from yett_policy.explain import explain
from yett_policy.http.rule import Request
from yett_policy.source.parse import parse_policy

_POLICIES = (
    "l7policies,clusterl7policies,networkpolicies,ciliumnetworkpolicies,ciliumclusterwidenetworkpolicies"
)
_TCP = 6


def compiled(cluster: Cluster) -> Compiled:
    """All that the cluster's objects mean now."""
    items = json.loads(cluster.kubectl("get", "pods,namespaces,nodes", "-A", "-o", "json"))["items"]
    by_kind: dict[str, list[dict[str, Any]]] = {"Pod": [], "Namespace": [], "Node": []}
    for item in items:
        by_kind[item["kind"]].append(item)
    facts = Facts(
        tuple(_pod(each) for each in by_kind["Pod"]),
        tuple(
            Namespace(each["metadata"]["name"], each["metadata"].get("labels") or {})
            for each in by_kind["Namespace"]
        ),
        tuple(_node(each) for each in by_kind["Node"]),
    )
    objects = json.loads(cluster.kubectl("get", _POLICIES, "-A", "-o", "json"))["items"]
    return compile_policies([policy for each in objects for policy in parse_policy(_as_written(each))], facts)


def passes(state: Compiled, source: str, target: str, path: str, port: int = 80) -> bool:
    """Whether a GET of pod `source` to pod `target` (namespace/name) goes through."""
    request = Request(b"GET", path.encode(), ((b"Host", target.rpartition("/")[2].encode()),))
    return explain(state, source, target, _TCP, port, request).verdict is not Verdict.DENY


def _as_written(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the API server and the operator have added."""
    metadata = {key: policy["metadata"][key] for key in ("name", "namespace") if key in policy["metadata"]}
    kept = {key: policy[key] for key in ("apiVersion", "kind", "spec", "specs") if key in policy}
    return {**kept, "metadata": metadata}


def _pod(obj: Mapping[str, Any]) -> Pod:
    spec, status = obj["spec"], obj["status"]
    return Pod(
        obj["metadata"]["namespace"],
        obj["metadata"]["name"],
        obj["metadata"].get("labels") or {},
        tuple(each["ip"] for each in status.get("podIPs") or ()),
        tuple(
            NamedPort(port["name"], port["containerPort"], port.get("protocol", "TCP"))
            for container in spec["containers"]
            for port in container.get("ports") or ()
            if port.get("name")
        ),
        host_network=bool(spec.get("hostNetwork")),
        service_account=spec.get("serviceAccountName", "default"),
    )


def _node(obj: Mapping[str, Any]) -> Node:
    addresses = obj["status"]["addresses"]
    return Node(
        obj["metadata"]["name"],
        tuple(each["address"] for each in addresses if each["type"] in {"InternalIP", "ExternalIP"}),
    )
