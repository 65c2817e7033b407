"""Selectors over labels and over addresses, as values.

Labels are `source:key` -> value.  Sources: `k8s` (of pods and their namespaces), `reserved`
(host, world, ...), `cidr` (addresses outside the cluster), `block` (addresses of pods and
nodes inside an ipBlock) and `port` (a pod's named ports).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from yett_policy.prefix import Prefix

NAMESPACE = "k8s:io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "k8s:io.cilium.k8s.namespace.labels."
SERVICE_ACCOUNT = "k8s:io.cilium.k8s.policy.serviceaccount"
CLUSTER = "k8s:io.cilium.k8s.policy.cluster"
RESERVED = "reserved:"


class Op(StrEnum):
    """Of a requirement; as in Kubernetes, NOT_IN holds where the key is absent too."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    NOT_EXISTS = "DoesNotExist"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """A condition on one label."""

    key: str
    """With its source: `k8s:app`."""
    op: Op
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it."""
        match self.op:
            case Op.IN:
                return labels.get(self.key) in self.values
            case Op.NOT_IN:
                return self.key not in labels or labels[self.key] not in self.values
            case Op.EXISTS:
                return self.key in labels
            case Op.NOT_EXISTS:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Identities that meet every requirement; without requirements: all of them."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, *requirements: Requirement) -> LabelSelector:
        """Canonical: equal meanings written in another order are equal values."""
        return cls(tuple(sorted(set(requirements))))

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it."""
        return all(requirement.holds(labels) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class CidrSelector:
    """Addresses inside `network` and outside every one of `excepts`."""

    network: Prefix
    excepts: tuple[Prefix, ...] = ()
    everyone: bool = False
    """Kubernetes' ipBlock: addresses of pods and nodes too.  Otherwise only what is outside
    the cluster, as Cilium means it."""

    def covers(self, prefix: Prefix) -> bool:
        """Whether every address of `prefix` is selected, given that neither the network nor
        an exception lies strictly inside it (each of them is a prefix of its own).
        """
        return self.network.covers(prefix) and not any(hole.covers(prefix) for hole in self.excepts)


Selector = LabelSelector | CidrSelector


def exists(key: str) -> LabelSelector:
    """Whatever has the label."""
    return LabelSelector.of(Requirement(key, Op.EXISTS))
