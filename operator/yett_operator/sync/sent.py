"""What a loader was sent last of its node's part, and what is different in the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from yett_operator.differing import differing
from yett_operator.ports import NodeSnapshot, PlacedPod, PublishedDocument, PublishedRuleset
from yett_policy.cluster import pod_name
from yett_policy.sync.message import NodeChanges, NodePart


@dataclass(frozen=True, slots=True)
class Sent:
    """A node's part, by reference to what is published: a hundred nodes have a hundred of the same each."""

    documents: tuple[PublishedDocument, ...]
    """Of which there is one for each identity; as a dictionary they take five times the room on each node."""
    rulesets: tuple[PublishedRuleset, ...]
    addresses: Mapping[str, int]
    endpoints: tuple[PlacedPod, ...]
    secrets: Mapping[str, str]
    """Name -> version."""

    @staticmethod
    def of(snapshot: NodeSnapshot) -> Sent:
        """What a loader has that is sent it."""
        return Sent(
            documents=tuple(snapshot.documents.values()),
            rulesets=tuple(snapshot.rulesets.values()),
            addresses=snapshot.node_addresses,
            endpoints=snapshot.endpoints,
            secrets={name: secret.version for name, secret in sorted(snapshot.secrets.items())},
        )

    @property
    def digests(self) -> dict[int, str]:
        """Of the documents, by identity."""
        return {item.identity: item.digest for item in self.documents}

    @property
    def part(self) -> NodePart:
        """As it is sent."""
        return NodePart(
            documents=self.digests,
            rulesets=self._contents,
            addresses=self.addresses,
            endpoints=tuple((*pod_name(pod.key), pod.identity, pod.addresses) for pod in self.endpoints),
            secrets=self.secrets,
        )

    def changes(self, new: Sent) -> NodeChanges:
        """What makes the new part of this one.

        Of the pods only those are looked at that are not the same objects: of a hundred, one came.
        """
        same = set(map(id, self.endpoints)) & set(map(id, new.endpoints))
        return NodeChanges(
            documents=differing(self.digests, new.digests),
            rulesets=differing(self._contents, new._contents),
            addresses=differing(self.addresses, new.addresses),
            endpoints=differing(*(_placed(part.endpoints, same) for part in (self, new))),
            secrets=differing(self.secrets, new.secrets),
        )

    @property
    def _contents(self) -> dict[str, str]:
        return {item.digest: item.content for item in self.rulesets}


def _placed(pods: Iterable[PlacedPod], known: set[int]) -> dict[tuple[str, str], tuple[int, tuple[str, ...]]]:
    return {pod_name(pod.key): (pod.identity, pod.addresses) for pod in pods if id(pod) not in known}
