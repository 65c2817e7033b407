"""The CustomResourceDefinitions, as objects."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from yett_operator.crd import bounds, models
from yett_operator.crd.schema import Generator, Schema
from yett_policy.source import cilium

CONDITIONS = "conditions"
_BY_TYPE = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
_OWN_BOUNDS: dict[tuple[str, str], Schema] = {
    ("RollUp", CONDITIONS): _BY_TYPE,
    ("PolicyStatusStatus", CONDITIONS): _BY_TYPE,
    # Not a map: with server-side apply one that loses its last item becomes null.
    ("PolicyStatusStatus", "failedNodes"): {"x-kubernetes-list-type": "atomic"},
    ("SecurityIdentitySpec", "labels"): {"x-kubernetes-list-type": "atomic"},
    ("SecurityIdentitySpec", "number"): {"format": "int64"},
}
_FIXED = [
    bounds.rule("self == oldSelf", "cannot be changed; delete the object, the operator makes a new one")
]
_OWN_RULES = {"SecurityIdentitySpec": _FIXED, "PolicyRef": _FIXED}

_CILIUM_BOUNDS = bounds.BOUNDS | {
    (model, field): {**bound, "maxItems": 4096}
    for (model, field), bound in bounds.BOUNDS.items()
    if "maxItems" in bound
}


@dataclass(frozen=True, slots=True)
class Column:
    """Of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""

    def to_json(self) -> Schema:
        """As the CRD has it."""
        return {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.path,
            **({"description": self.description} if self.description else {}),
            **({"priority": 1} if self.wide else {}),
        }


def condition(name: str, part: str = "status") -> str:
    """JSON path of a part of a condition."""
    return f'.status.conditions[?(@.type=="{name}")].{part}'


AGE = Column("Age", ".metadata.creationTimestamp", "date")
_READY = Column("Ready", condition("Ready"), description="Whether the policy is in force wherever it applies")
_POLICY_COLUMNS = (
    _READY,
    Column("Enforced", ".status.enforced", description="Nodes that have it in force, of those that need it"),
    Column("Engine", ".status.engine", description="Who judges HTTP requests"),
    Column("Reason", condition("Ready", "reason"), wide=True),
    Column("Message", condition("Ready", "message"), wide=True),
    AGE,
)
_STATUS_COLUMNS = (
    Column("Policy", ".spec.policy.name", description="Name of the policy"),
    Column("Enforced", ".status.enforced", description="Nodes that have it in force, of those that need it"),
    Column("Engine", ".status.engine", description="Who judges HTTP requests"),
    Column("Denied", ".status.requests.denied", "integer", description="Flows and requests denied"),
    _READY,
    Column("Kind", ".spec.policy.kind", wide=True),
    Column("Reason", condition("Ready", "reason"), wide=True),
    Column("Message", condition("Ready", "message"), wide=True),
    Column("Version", ".status.policyGeneration", "integer", wide=True, description="Of the policy"),
    Column("Digest", ".status.documentDigest", wide=True),
    AGE,
)
_IDENTITY_COLUMNS = (
    Column("Labels", ".spec.labels", description="Labels that the number stands for"),
    AGE,
)


def crd(
    group: str,
    version: str,
    kind: str,
    plural: str,
    short: tuple[str, ...],
    columns: tuple[Column, ...],
    schema: Schema,
    *,
    namespaced: bool,
    status: bool = True,
    category: str | None = "yett",
) -> Schema:
    """One definition with one version."""
    names: Schema = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": list(short),
    }
    if category:
        names["categories"] = [category]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": names,
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    **({"subresources": {"status": {}}} if status else {}),
                    "additionalPrinterColumns": [column.to_json() for column in columns],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def root(description: str, **parts: Schema) -> Schema:
    """The schema of a whole object."""
    return {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "API version of the kind."},
            "kind": {"type": "string", "description": "Kind of the object."},
            "metadata": {"type": "object"},
            **parts,
        },
    }


def _policy(kind: str, plural: str, short: str, *, namespaced: bool) -> Schema:
    spec = Generator(bounds.BOUNDS, bounds.RULES, keep_unknown=True).schema(cilium.Spec)
    spec["required"] = ["endpointSelector"]
    spec["description"] = "What the policy asks for."
    scope = "one namespace" if namespaced else "every namespace"
    schema = root(
        f"L7 (HTTP) and L4 policy for pods of {scope}, enforced in the kernel of every node.",
        spec=spec,
        specs=_more_specs(),
        status=_own(models.RollUp),
    )
    return crd("yett.dev", "v1alpha1", kind, plural, (short,), _POLICY_COLUMNS, schema, namespaced=namespaced)


def _more_specs() -> Schema:
    """Several policies in one object; what is in them, webhook and operator check."""
    return {
        "type": "array",
        "maxItems": 64,
        "description": "Further policies under the same name, each as spec.",
        "items": {
            "type": "object",
            "description": "As spec.",
            "x-kubernetes-preserve-unknown-fields": True,
        },
    }


def _own(model: type[BaseModel]) -> Schema:
    return Generator(_OWN_BOUNDS, _OWN_RULES).schema(model)


def _cilium(kind: str, plural: str, short: tuple[str, ...], *, namespaced: bool) -> Schema:
    """As far as yett reads it.  No rules: what Cilium's own CRD lets pass is for the webhook to judge."""
    spec = Generator(_CILIUM_BOUNDS, {}, l7=False, keep_unknown=True).schema(cilium.Spec)
    spec["description"] = "What the policy asks for."
    schema = root(
        "Policy of Cilium, as far as yett enforces it.",
        spec=spec,
        specs=_more_specs(),
        status={
            "type": "object",
            "description": "Not written by yett.",
            "x-kubernetes-preserve-unknown-fields": True,
        },
    )
    del schema["required"]
    return crd("cilium.io", "v2", kind, plural, short, (AGE,), schema, namespaced=namespaced, category=None)


def own_kinds() -> dict[str, Schema]:
    """File name -> the definition, of the kinds of yett."""
    status = _own(models.PolicyStatus)
    identity = _own(models.SecurityIdentity)
    return {
        "l7policies.yaml": _policy("L7Policy", "l7policies", "l7p", namespaced=True),
        "clusterl7policies.yaml": _policy("ClusterL7Policy", "clusterl7policies", "cl7p", namespaced=False),
        "policystatuses.yaml": crd(
            "yett.dev",
            "v1alpha1",
            "PolicyStatus",
            "policystatuses",
            ("polst",),
            _STATUS_COLUMNS,
            root(status["description"], **status["properties"]),
            namespaced=True,
        ),
        "securityidentities.yaml": crd(
            "yett.dev",
            "v1alpha1",
            "SecurityIdentity",
            "securityidentities",
            ("secid",),
            _IDENTITY_COLUMNS,
            root(identity["description"], **identity["properties"]),
            namespaced=False,
            status=False,
        ),
    }


def cilium_kinds() -> dict[str, Schema]:
    """For clusters without Cilium."""
    return {
        "ciliumnetworkpolicies.yaml": _cilium(
            "CiliumNetworkPolicy", "ciliumnetworkpolicies", ("cnp", "ciliumnp"), namespaced=True
        ),
        "ciliumclusterwidenetworkpolicies.yaml": _cilium(
            "CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies", ("ccnp",), namespaced=False
        ),
    }
