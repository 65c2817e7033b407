"""Who claims addresses: pods, nodes, API servers and CIDR blocks, and what of it is to be worked out again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from yett_policy.addresses import NOTHING, Addresses
from yett_policy.cluster import Namespace, Node, PodFacts, pod_key, pod_name, shared
from yett_policy.facts import (
    Blocks,
    Claims,
    ClaimsOf,
    Holder,
    api_server_claims,
    api_server_holder,
    is_pod,
    node_claims,
    node_holder,
    pod_claims,
)
from yett_policy.identity import Labels

Counted = Callable[[Mapping[str, str]], Mapping[str, str]]
"""Which of a pod's labels count."""


class Claimants:
    """Take changes; `gather` works out what they claim, `settle` gives what is to be put in force."""

    def __init__(self, addresses: Addresses, blocks: Blocks, counted: Counted) -> None:
        """`addresses` has the claims in force."""
        self.namespaces: dict[str, Namespace] = {}
        self.nodes: dict[str, Node] = {}
        self._addresses = addresses
        self._blocks = blocks
        self._counted = counted
        self._api_servers: tuple[str, ...] = ()
        self._new_pods: dict[Holder, PodFacts | None] = {}
        """Whose claims are not worked out yet; of the others all that is kept is those."""
        self._stale_pods: set[Holder] = set()
        self._stale_nodes: set[str] = set()
        self._stale_namespaces: set[str] = set()
        self._stale_others = True
        self._others: set[Holder] = set()
        """That are neither pods nor nodes."""
        self._new = ClaimsOf()
        """To be put in place of those in force."""

    # -- what changed

    def put_pod(self, name: str, facts: PodFacts) -> None:
        """A pod that is new or has changed."""
        key = pod_key(facts.workload.namespace, name)
        self._take_pod(key, PodFacts(shared(facts.workload), facts.prefixes))

    def drop_pod(self, namespace: str, name: str) -> None:
        """A pod is gone; one that was never known is no error."""
        self._take_pod(pod_key(namespace, name), None)

    def _take_pod(self, holder: Holder, facts: PodFacts | None) -> None:
        self._new_pods[holder] = facts
        self._stale_pods.add(holder)

    def count_anew(self) -> None:
        """Other labels of pods count from now on."""
        self._stale_pods.update(self._pods())

    def put_namespace(self, namespace: Namespace) -> None:
        """A namespace that is new or has changed."""
        self.namespaces[namespace.name] = namespace
        self._stale_namespaces.add(namespace.name)

    def drop_namespace(self, name: str) -> None:
        """A namespace is gone."""
        self.namespaces.pop(name, None)
        self._stale_namespaces.add(name)

    def put_node(self, node: Node) -> None:
        """A node that is new or has changed."""
        self.nodes[node.name] = node
        self._stale_nodes.add(node.name)

    def drop_node(self, name: str) -> None:
        """A node is gone."""
        self.nodes.pop(name, None)
        self._stale_nodes.add(name)

    def set_api_servers(self, addresses: Iterable[str]) -> None:
        """Addresses of API servers outside the cluster's nodes."""
        self._api_servers = tuple(addresses)
        self._stale_others = True

    def note_policies(self, *, remake: bool) -> None:
        """Policies changed; `remake`: and with them what makes identities."""
        self._stale_others = True
        if remake:
            self.count_anew()
            self._stale_nodes |= self.nodes.keys()

    # -- what follows

    def gather(self) -> None:
        """Work out what the changes so far claim, which takes less room than they do."""
        if self._stale_namespaces:
            self._stale_pods |= {pod for pod in self._pods() if pod_name(pod)[0] in self._stale_namespaces}
        new: dict[Holder, Claims] = {holder: self._pod_claims(holder) for holder in self._stale_pods}
        for name in self._stale_nodes:
            node = self.nodes.get(name)
            new[node_holder(name)] = NOTHING if node is None else node_claims(node, self._blocks)
        if self._stale_others:
            others = dict(self._blocks.claims())
            others |= {api_server_holder(each): api_server_claims(each) for each in self._api_servers}
            new |= dict.fromkeys(self._others - others.keys(), NOTHING) | others
            self._others = set(others)
        self._new_pods, self._stale_pods, self._stale_nodes, self._stale_namespaces = {}, set(), set(), set()
        self._stale_others = False
        self._new.update(new)

    def wanted(self) -> set[Labels]:
        """All label sets of claims that are to be put in force."""
        return {labels for claims in self._new.values() for labels in claims.label_sets}

    def settle(self, ready: Callable[[Claims], bool]) -> Mapping[Holder, Claims]:
        """Those that are ready, to be put in force by the caller; the others go on waiting."""
        new, self._new = self._new, ClaimsOf()
        settled = ClaimsOf()
        for holder, claims in new.items():
            (settled if ready(claims) else self._new)[holder] = claims
        return settled

    def of_node(self, name: str) -> Claims:
        """In force."""
        return self._addresses.claims(node_holder(name))

    def _pods(self) -> Iterator[Holder]:
        """All that claim anything; one of the host's network never does."""
        return chain(self._addresses.pods(), filter(is_pod, self._new))

    def _pod_claims(self, holder: Holder) -> Claims:
        pod = self._new_pods[holder] if holder in self._new_pods else self._known_pod(holder)
        if pod is None or pod.workload.host_network:
            return NOTHING
        workload = pod.workload
        namespace = self.namespaces.get(workload.namespace)
        keys = self._counted(dict(workload.labels)).keys()
        counted = replace(workload, labels=tuple(each for each in workload.labels if each[0] in keys))
        return pod_claims(pod, counted, namespace.labels if namespace else {}, self._blocks)

    def _known_pod(self, holder: Holder) -> PodFacts | None:
        claims = self._new.get(holder, self._addresses.claims(holder))
        return None if claims.sight.workload is None else PodFacts(claims.sight.workload, claims.prefixes)
