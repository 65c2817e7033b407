"""Label selectors of the sources, with the namespace rules applied."""

from __future__ import annotations

from yett_policy.selector import (
    CLUSTER,
    NAMESPACE,
    NAMESPACE_LABELS,
    RESERVED,
    LabelSelector,
    Op,
    Requirement,
)
from yett_policy.source.fields import Labels


def source_key(key: str) -> str:
    """With its source: what has none, or `any:`, means a Kubernetes label."""
    source, colon, rest = key.partition(":")
    if not colon:
        return f"k8s:{key}"
    return f"k8s:{rest}" if source == "any" else key


def requirements(labels: Labels, prefix: str = "") -> list[Requirement]:
    """As written; `prefix` replaces the source of every key."""
    found = []
    for key, value in (labels.matchLabels or {}).items():
        found.append(Requirement(prefix + key if prefix else source_key(key), Op.IN, (value,)))
    for expression in labels.matchExpressions or ():
        key = prefix + expression.key if prefix else source_key(expression.key)
        values = tuple(sorted(set(expression.values or ())))
        found.append(Requirement(key, Op(expression.operator), values))
    return found


def subject_selector(labels: Labels, namespace: str | None) -> LabelSelector:
    """Of a Cilium-like policy: pods only, of its own namespace if it has one.

    A `k8s:`-prefixed namespace in matchLabels is overridden; written plain it is one more
    requirement, which another namespace than the own makes impossible.
    """
    if namespace is None:
        return LabelSelector.of(*requirements(labels), Requirement(CLUSTER, Op.EXISTS))
    kept = {key: value for key, value in (labels.matchLabels or {}).items() if key != NAMESPACE}
    return LabelSelector.of(
        *requirements(labels.model_copy(update={"matchLabels": kept})),
        Requirement(NAMESPACE, Op.IN, (namespace,)),
    )


def peer_selector(labels: Labels, namespace: str | None, *, init: bool) -> LabelSelector:
    """Of a Cilium-like policy: the own namespace unless the selector speaks of namespaces
    or of reserved identities; without a namespace, any pod.
    """
    written = requirements(labels)
    keys = [requirement.key for requirement in written]
    if any(key.startswith(RESERVED) for key in keys):
        return LabelSelector.of(*written)
    if not any(key == NAMESPACE or key.startswith(NAMESPACE_LABELS) for key in keys):
        if namespace is not None:
            written.append(Requirement(NAMESPACE, Op.IN, (namespace,)))
        elif not init:
            written.append(Requirement(NAMESPACE, Op.EXISTS))
    if CLUSTER not in keys:
        written.append(Requirement(CLUSTER, Op.EXISTS))
    return LabelSelector.of(*written)
