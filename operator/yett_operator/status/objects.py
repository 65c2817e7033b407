"""Statuses as objects of the API."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from yett_operator.kube.client import Json
from yett_operator.kube.slim import SlimPolicy
from yett_operator.status.rollup import SHOWN, RollUp

API_VERSION = "yett.dev/v1alpha1"
OWN_KINDS = {"L7Policy": "l7policies", "ClusterL7Policy": "clusterl7policies"}
"""Kinds whose own status we write."""
_NAME_MAX = 253


def policy_path(policy: SlimPolicy) -> str:
    """Of a policy of our own kinds."""
    place = f"namespaces/{policy.namespace}/" if policy.namespace else ""
    return f"/apis/{API_VERSION}/{place}{OWN_KINDS[policy.kind]}/{policy.name}"


def status_name(policy: SlimPolicy) -> str:
    """Name of the PolicyStatus: kind and name; a long one is cut and made unique."""
    name = f"{policy.kind.lower()}-{policy.name}"
    if len(name) <= _NAME_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: _NAME_MAX - 17]}-{digest}"


def status_path(namespace: str, name: str) -> str:
    """Of a PolicyStatus."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/policystatuses/{name}"


def status_object(policy: SlimPolicy, namespace: str) -> Json:
    """The PolicyStatus without its status.  It goes when the policy goes.

    The version of the policy is in its spec, so that its own generation grows with it: whoever
    compares that with observedGeneration (kubectl wait, kstatus, Argo CD) is not misled by what the
    status said of the version before.
    """
    reference = {
        "apiVersion": policy.api_version,
        "kind": policy.kind,
        "name": policy.name,
        "uid": policy.uid,
    }
    inner = {**reference, **({"namespace": policy.namespace} if policy.namespace else {})}
    return {
        "apiVersion": API_VERSION,
        "kind": "PolicyStatus",
        "metadata": {
            "name": status_name(policy),
            "namespace": namespace,
            "ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": False}],
        },
        "spec": {"policy": inner, "policyGeneration": policy.generation},
    }


def conditions(roll: RollUp, generation: int, before: Mapping[str, Any], now: datetime) -> list[Json]:
    """With the time of the last change of each; `generation`: of the object that they are written
    to; `before`: its status as it was.
    """
    old = {each.get("type"): each for each in before.get("conditions") or ()}
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = []
    for each in roll.conditions:
        same = old.get(each.type, {}).get("status") == each.status
        found.append(
            {
                "type": each.type,
                "status": each.status,
                "observedGeneration": generation,
                "lastTransitionTime": old[each.type]["lastTransitionTime"] if same else stamp,
                "reason": each.reason,
                "message": each.message,
            }
        )
    return found


def summary(details: Mapping[str, Any]) -> Json:
    """The status of a policy of our own kinds, by that of its PolicyStatus: nobody must keep both."""
    generation = details["policyGeneration"]
    return {
        "observedGeneration": generation,
        "enforced": details["enforced"],
        "engine": details["engine"],
        "conditions": [{**each, "observedGeneration": generation} for each in details["conditions"]],
    }


def details(
    roll: RollUp,
    *,
    generation: int,
    digest: str,
    engine: tuple[str, str],
    pods: int,
    requests: Mapping[str, int],
    last_accepted: Json | None,
    before: Mapping[str, Any],
    now: datetime,
) -> Json:
    """The status of a PolicyStatus; `generation`: its own."""
    return {
        "observedGeneration": generation,
        "policyGeneration": roll.generation,
        "documentDigest": digest,
        "enforced": f"{roll.enforced}/{roll.desired}",
        "engine": engine[0],
        "engineReason": engine[1][:1024],
        "pods": pods,
        "nodes": {"desired": roll.desired, "enforced": roll.enforced, "failed": len(roll.failed)},
        "failedNodes": [
            {"node": each.node, "reason": each.reason, "message": each.message}
            for each in roll.failed[:SHOWN]
        ],
        "requests": dict(requests),
        "conditions": conditions(roll, generation, before, now),
        **({"lastAccepted": last_accepted} if last_accepted is not None else {}),
    }


def without_times(status: Mapping[str, Any]) -> Json:
    """What makes a write worth while: everything but when it changed."""
    bare = [
        {key: value for key, value in each.items() if key != "lastTransitionTime"}
        for each in status.get("conditions") or ()
    ]
    return {**status, "conditions": bare}
