"""Identities: a number for each set of security-relevant labels.

The numbers are compared across nodes and restarts, so the table that holds them is an
argument of everything that needs numbers, and allocation is a pure step from one table to
the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from sys import intern

from yett_policy.cluster import NamedPort, Workload, one
from yett_policy.prefix import Prefix
from yett_policy.selector import CLUSTER, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT

Labels = tuple[str, ...]
"""Sorted `source:key=value`, without `=` where the value is empty."""

HOST = 1
WORLD = 2
REMOTE_NODE = 6
KUBE_APISERVER = 7
HOST_APISERVER = 16

RESERVED: Mapping[Labels, int] = {
    ("reserved:host",): HOST,
    ("reserved:world",): WORLD,
    ("reserved:unmanaged",): 3,
    ("reserved:health",): 4,
    ("reserved:init",): 5,
    ("reserved:remote-node",): REMOTE_NODE,
    ("reserved:kube-apiserver", "reserved:remote-node"): KUBE_APISERVER,
    ("reserved:ingress",): 8,
    ("reserved:host", "reserved:kube-apiserver"): HOST_APISERVER,
}
"""Numbers that never change."""

FIRST_POD = 256
FIRST_ADDRESS = 1 << 24
"""Identities that stand for addresses: CIDRs, and pods or nodes inside an ipBlock."""

CLUSTER_NAME = "default"


LABELS_MAX, LABEL_LIMIT = 256, 1024
"""Labels of an identity, and characters of one: what a SecurityIdentity holds."""
TOO_MANY = "reserved:too-many-labels"
"""The one label of pods that have more of them, or longer ones.  Nobody can say which policies select such a pod, so it
is denied everything: who may label pods must not get rid of policies by that.
"""

PROBES = "probe:TCP"
"""The label that holds the ports that a pod's kubelet probes."""


def pod_labels(pods: Workload, namespace_labels: Mapping[str, str], *, probes: bool = False) -> Labels:
    """The labels that make the identity of pods; `probes`: the ports of their probes too.

    Their named ports are among them: a policy that says `http` means 8080 on one pod and 80 on
    another, so pods that differ there must differ in number.  What a pod says of its own
    namespace by labels of its own does not count.
    """
    return _pod_labels(pods, one(tuple(namespace_labels.items())), probes)


@lru_cache(maxsize=4096)
def _pod_labels(pods: Workload, namespace_labels: tuple[tuple[str, str], ...], probes: bool) -> Labels:
    """Pods of one workload share the object."""
    labels = {f"k8s:{key}": value for key, value in pods.labels}
    labels = {key: value for key, value in labels.items() if not key.startswith(NAMESPACE_LABELS)}
    labels |= {f"{NAMESPACE_LABELS}{key}": value for key, value in namespace_labels}
    labels[f"{NAMESPACE_LABELS}kubernetes.io/metadata.name"] = pods.namespace
    labels[NAMESPACE] = pods.namespace
    labels[SERVICE_ACCOUNT] = pods.service_account
    labels[CLUSTER] = CLUSTER_NAME
    numbers: dict[str, set[int]] = {}
    for port in pods.named_ports:
        numbers.setdefault(port_key(port.name, port.protocol), set()).add(port.port)
    labels |= {key: ",".join(map(str, sorted(held))) for key, held in numbers.items()}
    if probes and pods.probes:
        labels[PROBES] = ",".join(map(str, sorted(pods.probes)))
    found = canonical_labels(labels)
    # One more may come to them: see `inside_block`.
    return found if len(found) < LABELS_MAX and max(map(len, found)) <= LABEL_LIMIT else (TOO_MANY,)


def port_key(name: str, protocol: str) -> str:
    """The label that holds a named port's numbers."""
    return f"port:{name.lower()}/{protocol}"


def named_ports(labels: Iterable[str]) -> tuple[NamedPort, ...]:
    """The named ports in the labels of an identity."""
    ports = []
    for key, value in parse_labels(labels).items():
        if key.startswith("port:"):
            name, _, protocol = key.removeprefix("port:").partition("/")
            ports += [one(NamedPort(name, int(number), protocol)) for number in value.split(",")]
    return tuple(sorted(ports))


def cidr_labels(prefix: Prefix) -> Labels:
    """Of addresses outside the cluster that a policy names."""
    return (f"cidr:{prefix}", "reserved:world")


def inside_block(labels: Labels, block: Prefix) -> Labels:
    """The same pod or node, seen by an address inside `block`: the smallest ipBlock or
    exception that covers the address.  Only ipBlocks look at this label.
    """
    return tuple(sorted((*labels, f"block:{block}")))


def canonical_labels(labels: Mapping[str, str]) -> Labels:
    """As text, sorted."""
    return one_text(sorted(f"{key}={value}" if value else key for key, value in labels.items()))


def one_text(labels: Iterable[str]) -> Labels:
    """With one object for equal ones: nearly every label is in many sets, and every set in several places."""
    return tuple(map(intern, labels))


def parse_labels(labels: Iterable[str]) -> dict[str, str]:
    """The inverse: `source:key` -> value."""
    return {intern(key): intern(value) for key, _, value in (label.partition("=") for label in labels)}


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers given so far.  What is no longer in use stays until it is forgotten."""

    numbers: Mapping[Labels, int] = field(default_factory=dict)
    _top: tuple[int, int] | None = field(default=None, compare=False, repr=False)
    """Highest number given to pods and to addresses, once it is known."""

    def allocate(self, wanted: Iterable[Labels]) -> Table:
        """A table that has a number for each label set wanted; old numbers stay as they are.

        The result depends on the set of what is wanted, not on its order.
        """
        new = sorted(set(wanted) - self.numbers.keys() - RESERVED.keys())
        if not new:
            return self
        numbers = dict(self.numbers)
        pod, address = self._top or (
            max((n for n in numbers.values() if n < FIRST_ADDRESS), default=FIRST_POD - 1),
            max((n for n in numbers.values() if n >= FIRST_ADDRESS), default=FIRST_ADDRESS - 1),
        )
        for labels in new:
            if stands_for_address(labels):
                address += 1
                numbers[labels] = address
            else:
                pod += 1
                numbers[labels] = pod
        return Table(numbers, (pod, address))

    def forget(self, labels: Iterable[Labels]) -> Table:
        """Without label sets that nothing uses any more; their numbers may be given again."""
        gone = set(labels)
        return Table({known: number for known, number in self.numbers.items() if known not in gone})

    def knows(self, labels: Labels) -> bool:
        """Whether labels have a number."""
        return labels in self.numbers or labels in RESERVED

    def number(self, labels: Labels) -> int:
        """Of labels that were allocated; KeyError otherwise."""
        reserved = RESERVED.get(labels)
        return self.numbers[labels] if reserved is None else reserved


def stands_for_address(labels: Iterable[str]) -> bool:
    """Whether an identity is told by address, not by whose address it is."""
    return any(label.startswith(("cidr:", "block:")) for label in labels)
