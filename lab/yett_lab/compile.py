"""From a lab's objects and policies to what its nodes enforce, by the policy core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from yett_lab import address
from yett_lab.errors import InputError
from yett_lab.manifest import Manifest
from yett_lab.objects import Objects
from yett_lab.state import State
from yett_policy import cluster as facts
from yett_policy.compiled import Compiled
from yett_policy.compiler import compile as compile_policies
from yett_policy.errors import PolicyError
from yett_policy.http.errors import TooComplex
from yett_policy.identity import Table
from yett_policy.policy import Policy
from yett_policy.source.parse import parse_policy


def compile_lab(current: State, objects: Objects, manifests: Sequence[Manifest]) -> Compiled:
    """Everything that the lab must enforce."""
    return compile_objects(current, objects, manifests)


def compile_objects(current: State, objects: Objects, manifests: Sequence[Manifest]) -> Compiled:
    """What policies mean for these objects; InputError names file and field of what is wrong."""
    found = policies(manifests)
    try:
        return compile_policies(found, cluster(current, objects), table_from_json(current.identities))
    except TooComplex as error:
        raise InputError(f"cannot compile the HTTP rules: {error}; write simpler patterns") from None


def policies(manifests: Sequence[Manifest]) -> list[Policy]:
    """The policies among manifests."""
    found: list[Policy] = []
    for manifest in manifests:
        if manifest.is_policy:
            try:
                found += parse_policy(manifest.body)
            except PolicyError as error:
                raise InputError(f"{manifest.place(error.field)}: {error.message}") from None
    return found


def cluster(current: State, objects: Objects) -> facts.Cluster:
    """The facts that policies need."""
    pods = [
        facts.Pod(
            pod.namespace,
            pod.name,
            dict(pod.labels),
            current.addresses(pod.key),
            tuple(facts.NamedPort(port.name, port.port, port.protocol) for port in pod.ports if port.name),
            service_account=pod.service_account,
        )
        for pod in objects.pods
    ]
    namespaces = [
        facts.Namespace(item.name, dict(item.labels), dict(item.annotations).get(facts.DENY_RESPONSE))
        for item in objects.namespaces
    ]
    nodes = [
        facts.Node(node, (address.node4(index), address.node6(index)))
        for index, node in enumerate(current.nodes, 1)
    ]
    services = [
        facts.Service(
            item.namespace,
            item.name,
            dict(item.selector),
            tuple(
                facts.ServicePort(port.port, port.target, port.protocol, port.name, port.app_protocol)
                for port in item.ports
            ),
        )
        for item in objects.services
    ]
    return facts.Cluster(tuple(pods), tuple(namespaces), tuple(nodes), services=tuple(services))


def table_from_json(value: dict[str, Any]) -> Table:
    """The identity table as the state keeps it."""
    return Table({tuple(labels): number for labels, number in value.get("numbers", ())})


def table_to_json(table: Table) -> dict[str, Any]:
    """The inverse."""
    numbers = sorted((number, labels) for labels, number in table.numbers.items())
    return {"numbers": [[list(labels), number] for number, labels in numbers]}


def _place(manifests: Sequence[Manifest], reference: str) -> str:
    """File of the policy that a rule reference (`Kind/namespace/name:...`) speaks of."""
    source = reference.partition(":")[0]
    for manifest in manifests:
        names = (manifest.kind, manifest.namespace, manifest.name)
        if manifest.is_policy and "/".join(filter(None, names)) == source:
            return f"{manifest.place()}: {reference}"
    return reference
