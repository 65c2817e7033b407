"""From policies and the facts of a cluster to documents, from scratch or change by change.

Work is done per selector and identity: a new identity is shown to the selectors that could
select it, and only bodies whose policies own one of those are built again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from yett_policy.addresses import Addresses
from yett_policy.app_protocol import AppProtocols, Spoken
from yett_policy.backends import BackendTable
from yett_policy.bodies import Bodies, BodyKey, PolicyId
from yett_policy.body import Body, build_body
from yett_policy.claimants import Claimants, Counted
from yett_policy.cluster import (
    Cluster,
    NamedPort,
    Namespace,
    Node,
    Pod,
    PodFacts,
    Service,
    Slice,
    pod_name,
)
from yett_policy.compiled import Compiled, Delta
from yett_policy.document import Direction, Ruleset
from yett_policy.facts import (
    Blocks,
    Claims,
    Holder,
    is_pod,
)
from yett_policy.http.rule import RulesetSpec
from yett_policy.identity import PROBES, RESERVED, TOO_MANY, Labels, Table, named_ports, one_text, port_key
from yett_policy.index import SelectorIndex
from yett_policy.parts import PROTOCOL_NAMES, ServerPorts
from yett_policy.policy import Policy
from yett_policy.prefix import Packed, packed_host, packed_text
from yett_policy.rulesets import CompileRuleset, Rulesets, compile_spec
from yett_policy.selector import NAMESPACE, Selector, exists

_HOSTS = exists("reserved:host")
_TOO_MANY_LABELS = Policy("Built-in/too-many-labels", 0, exists(TOO_MANY), (), default_deny=(True, True))


def compile(  # noqa: A001 - the verb of this package
    policies: Iterable[Policy],
    cluster: Cluster,
    table: Table | None = None,
    *,
    rulesets: CompileRuleset = compile_spec,
) -> Compiled:
    """Everything from scratch; the order of policies and of the cluster's parts is of no
    importance.  Two policy objects of one source and index: ValueError.
    """
    compiler = Compiler(table, rulesets=rulesets, forbidden=cluster.forbidden)
    by_source: defaultdict[str, list[Policy]] = defaultdict(list)
    for policy in policies:
        by_source[policy.source].append(policy)
    for source, group in by_source.items():
        compiler.put_policies(source, group)
    for namespace in cluster.namespaces:
        compiler.put_namespace(namespace)
    for node in cluster.nodes:
        compiler.put_node(node)
    for pod in cluster.pods:
        compiler.put_pod(pod)
    for service in cluster.services:
        compiler.put_service(service)
    for item in cluster.slices:
        compiler.put_slice(item)
    compiler.set_api_servers(cluster.api_servers)
    compiler.flush()
    return compiler.compiled()


class Compiler:
    """Holds what is known; `put` and `drop` say what changed, `flush` works it out."""

    def __init__(
        self,
        table: Table | None = None,
        *,
        rulesets: CompileRuleset = compile_spec,
        allocate: bool = True,
        forbidden: bool = False,
        counted: Counted = lambda labels: labels,
    ) -> None:
        """`allocate` False: numbers come only from `learn`, and whoever needs one that is not
        known yet keeps what it had until then.  `forbidden`: see `Cluster`.  `counted`: which of a pod's
        labels count; see `count_anew`.
        """
        self._table = table or Table()
        self._rulesets = Rulesets(rulesets)
        self._allocate = allocate
        self._forbidden = forbidden
        self._index = SelectorIndex()
        self._blocks = Blocks()
        self._app_protocols = AppProtocols(self._index)
        self._backends = BackendTable()

        self._policies: dict[PolicyId, Policy] = {}
        self._new_policies: dict[str, Sequence[Policy]] = {}

        self._addresses = Addresses(self._number)
        self._claimants = Claimants(self._addresses, self._blocks, counted)
        self._uses: Counter[Labels] = Counter()
        self._subjects: Counter[int] = Counter()

        self._subject_of: defaultdict[Selector, set[PolicyId]] = defaultdict(set)
        self._peer_of: defaultdict[Selector, set[PolicyId]] = defaultdict(set)
        self._selecting: defaultdict[int, set[PolicyId]] = defaultdict(set)
        self._ports_of_policy: dict[PolicyId, frozenset[tuple[str, str]]] = {}
        self._judging: tuple[set[PolicyId], set[PolicyId]] = (set(), set())
        """Policies that have HTTP rules, by Direction."""

        self._bodies = Bodies(self._build)

        self._changed_identities: dict[int, Labels | None] = {}
        self._changed_pods: dict[Holder, int | None] = {}
        self._stale_identities: set[int] = set()
        self._changed_policies: set[PolicyId] = set()
        self._stale_policies: set[PolicyId] = set()
        """Their peers have changed."""
        self._stale_bodies = False

        self._index.want(_HOSTS)
        for labels in RESERVED:
            self._acquire(labels)
        self._learn_policy((_TOO_MANY_LABELS.source, 0), _TOO_MANY_LABELS)

    # -- what changed

    def put_policies(self, source: str, policies: Sequence[Policy]) -> None:
        """All policies of one source object, in place of those it had."""
        if len({policy.index for policy in policies}) != len(policies):
            raise ValueError(f"{source} is given twice; give each policy object once")
        self._new_policies[source] = tuple(policies)

    def drop_policies(self, source: str) -> None:
        """The source object is gone."""
        self._new_policies[source] = ()

    def put_pod(self, pod: Pod) -> None:
        """A pod that is new or has changed."""
        self.put_facts(pod.name, pod.facts)

    def put_facts(self, name: str, facts: PodFacts) -> None:
        """As `put_pod`."""
        self._claimants.put_pod(name, facts)

    def drop_pod(self, namespace: str, name: str) -> None:
        """A pod is gone; one that was never known is no error."""
        self._claimants.drop_pod(namespace, name)

    def count_anew(self) -> None:
        """Other labels of pods count from now on."""
        self._claimants.count_anew()

    def put_namespace(self, namespace: Namespace) -> None:
        """A namespace that is new or has changed."""
        self._response_of(namespace.name, namespace.forbidden)
        self._claimants.put_namespace(namespace)

    def drop_namespace(self, name: str) -> None:
        """A namespace is gone."""
        self._response_of(name, None)
        self._claimants.drop_namespace(name)

    def _response_of(self, namespace: str, forbidden: bool | None) -> None:
        known = self._claimants.namespaces.get(namespace)
        if forbidden is not (known.forbidden if known is not None else None):
            self._stale_identities |= self._subjects.keys() & self._index.labelled(NAMESPACE, namespace)

    def put_node(self, node: Node) -> None:
        """A node that is new or has changed."""
        self._claimants.put_node(node)

    def drop_node(self, name: str) -> None:
        """A node is gone."""
        self._claimants.drop_node(name)

    def put_service(self, service: Service) -> None:
        """A Service that is new or has changed."""
        self._speak_of(self._app_protocols.put(service))
        self._backends.put_service(service)

    def drop_service(self, namespace: str, name: str) -> None:
        """A Service is gone; one that was never known is no error."""
        self._speak_of(self._app_protocols.drop((namespace, name)))
        self._backends.drop_service((namespace, name))

    def put_slice(self, item: Slice) -> None:
        """An EndpointSlice that is new or has changed."""
        self._backends.put_slice(item)

    def drop_slice(self, namespace: str, name: str) -> None:
        """An EndpointSlice is gone; one that was never known is no error."""
        self._backends.drop_slice((namespace, name))

    def set_api_servers(self, addresses: Iterable[str]) -> None:
        """Addresses of API servers outside the cluster's nodes."""
        self._claimants.set_api_servers(addresses)

    def learn(self, numbers: Mapping[Labels, int]) -> None:
        """Numbers that were given elsewhere; ValueError if a label set has another one already."""
        if not numbers:
            return
        for labels, number in numbers.items():
            if self._table.numbers.get(labels, number) != number:
                raise ValueError(f"{labels} has number {self._table.numbers[labels]} already, not {number}")
        new = {one_text(labels): number for labels, number in numbers.items()}
        self._table = Table({**self._table.numbers, **new})

    def forget(self, labels: Iterable[Labels]) -> frozenset[Labels]:
        """Numbers that are not to be used any more; those in use stay.  Returns what is forgotten."""
        gone = frozenset(each for each in labels if each in self._table.numbers and not self._uses[each])
        self._table = self._table.forget(gone)
        return gone

    # -- what follows

    def gather(self) -> None:
        """Work out already what the changes so far claim, which takes less room than they do."""
        self._update_policies()
        self._claimants.gather()

    def missing(self) -> frozenset[Labels]:
        """Label sets that the changes so far need a number for."""
        self.gather()
        return frozenset(labels for labels in self._claimants.wanted() if not self._table.knows(labels))

    @property
    def table(self) -> Table:
        """Numbers as they are now; keep them over restarts."""
        return self._table

    def flush(self) -> Delta:
        """Work out every change since the last flush."""
        nodes = {name: self._claimants.of_node(name) for name in self._claimants.nodes}
        self.gather()
        prefixes = self._replace(self._claimants.settle(self._is_ready))
        services = self._backends.update(prefixes, self._addresses.identities_at)
        gone, changed, subjects = self._update_documents()
        if self._rulesets.crowded:
            self._rulesets.keep(self._bodies.rulesets())
        identities, pods = self._changed_identities, self._changed_pods
        self._changed_identities, self._changed_pods = {}, {}
        return Delta(
            documents={number: self._bodies.documents[number] for number in sorted(changed)},
            gone=frozenset(gone),
            ipcache={prefix: self._addresses.at(prefix) for prefix in sorted(prefixes)},
            node_addresses={
                name: self._local_addresses(name)
                for name, before in sorted(nodes.items())
                if before != self._claimants.of_node(name)
            },
            subjects=subjects,
            conflicts=self._bodies.conflicts(),
            identities=identities,
            services=services,
            pods=pods,
        )

    def fits(self, spec: RulesetSpec) -> str:
        """Why a ruleset cannot be on the kernel engine; empty if it can.  A flush finds it compiled."""
        return self._rulesets.fits(spec)

    @property
    def rulesets(self) -> Mapping[str, Ruleset]:
        """By digest: those that documents name, and some that they named."""
        return self._rulesets.held

    def ruleset(self, digest: str) -> Ruleset:
        """One that a document names; KeyError otherwise."""
        return self._rulesets.held[digest]

    def compiled(self) -> Compiled:
        """Everything as of the last flush."""
        self._rulesets.keep(self._bodies.rulesets())
        number = self._table.number
        pods = [
            (*pod_name(holder), number(claims.own), tuple(sorted(map(packed_host, claims.prefixes))))
            for holder in self._addresses.pods()
            if (claims := self._addresses.claims(holder)).own is not None
        ]
        return Compiled(
            documents=dict(sorted(self._bodies.documents.items())),
            rulesets=dict(sorted(self._rulesets.held.items())),
            ipcache=self._addresses.ipcache,
            node_addresses={name: self._local_addresses(name) for name in sorted(self._claimants.nodes)},
            identities=dict(sorted((number(labels), labels) for labels in self._uses)),
            pods=tuple(sorted(pods)),
            table=self._table,
            services=dict(sorted(self._backends.rows.items())),
        )

    def _local_addresses(self, node: str) -> dict[str, int]:
        local = self._claimants.of_node(node).as_local
        return dict(sorted((packed_text(prefix), self._table.number(labels)) for prefix, labels in local))

    # -- policies

    def _update_policies(self) -> None:
        if not self._new_policies:
            return
        blocks, probes = set(self._blocks.ip_blocks), self._blocks.denials_of_nodes > 0
        for source, policies in self._new_policies.items():
            new = {(source, policy.index): policy for policy in policies}
            old = [pid for pid in self._policies if pid[0] == source]
            for pid in old:
                if new.get(pid) == self._policies[pid]:
                    del new[pid]
                else:
                    self._forget_policy(pid)
            for pid, policy in new.items():
                self._learn_policy(pid, policy)
        self._new_policies = {}
        # What makes identities: the set of ipBlocks, and whether probes matter.
        same = blocks == set(self._blocks.ip_blocks) and probes is (self._blocks.denials_of_nodes > 0)
        self._claimants.note_policies(remake=not same)

    def _learn_policy(self, pid: PolicyId, policy: Policy) -> None:
        self._policies[pid] = policy
        self._blocks.add(policy, 1)
        self._ports_of_policy[pid] = frozenset(
            (ports.name, PROTOCOL_NAMES[ports.proto])
            for rule in policy.rules_of(Direction.INGRESS)
            for port_rule in rule.ports or ()
            for ports in port_rule.ports
            if ports.name
        )
        for direction in Direction:
            if any(rule.has_http for rule in policy.rules_of(direction)):
                self._judging[direction].add(pid)
        self._index.want(policy.subject)
        self._subject_of[policy.subject].add(pid)
        for number in self._index.selected(policy.subject):
            self._selecting[number].add(pid)
            self._stale_identities.add(number)
        for selector in _peer_selectors(policy):
            self._index.want(selector)
            self._peer_of[selector].add(pid)

    def _forget_policy(self, pid: PolicyId) -> None:
        policy = self._policies.pop(pid)
        self._blocks.add(policy, -1)
        del self._ports_of_policy[pid]
        for judging in self._judging:
            judging.discard(pid)
        for number in self._index.selected(policy.subject):
            self._selecting[number].discard(pid)
            self._stale_identities.add(number)
        self._subject_of[policy.subject].discard(pid)
        self._index.release(policy.subject)
        for selector in _peer_selectors(policy):
            self._peer_of[selector].discard(pid)
            self._index.release(selector)
        self._changed_policies.add(pid)

    # -- claims, identities, addresses

    def _is_ready(self, claims: Claims) -> bool:
        """Whether it has all its numbers, or can get them here."""
        return self._allocate or all(map(self._table.knows, claims.label_sets))

    def _replace(self, new: Mapping[Holder, Claims]) -> set[Packed]:
        """Prefixes whose identity changed."""
        addresses = self._addresses
        old = {holder: addresses.claims(holder) for holder in new}
        changed = [holder for holder in new if new[holder] != old[holder]]
        self._table = self._table.allocate(labels for holder in changed for labels in new[holder].label_sets)
        for holder in changed:
            for labels in new[holder].label_sets:
                self._acquire(labels)
            if (own := new[holder].own) is not None:
                self._become_subject(self._table.number(own), 1)
        for holder in changed:
            addresses.replace(holder, new[holder])
            if (own := old[holder].own) is not None:
                self._become_subject(self._table.number(own), -1)
            for labels in old[holder].label_sets:
                self._release(labels)
            if is_pod(holder):
                own = new[holder].own
                self._changed_pods[holder] = None if own is None else self._table.number(own)
        return addresses.changed()

    def _number(self, labels: Labels) -> int:
        return self._table.number(labels)

    def _become_subject(self, number: int, count: int) -> None:
        before = self._subjects[number]
        self._subjects[number] += count
        if not before or not self._subjects[number]:
            self._stale_identities.add(number)

    def _acquire(self, labels: Labels) -> None:
        self._uses[labels] += 1
        if self._uses[labels] > 1:
            return
        number = self._table.number(labels)
        self._changed_identities[number] = labels
        self._notice(number, self._index.add(number, labels), selected=True)

    def _release(self, labels: Labels) -> None:
        self._uses[labels] -= 1
        if self._uses[labels]:
            return
        del self._uses[labels]
        number = self._table.number(labels)
        self._changed_identities[number] = None
        self._notice(number, self._index.remove(number), selected=False)
        self._selecting.pop(number, None)

    def _notice(self, number: int, selectors: Iterable[Selector], *, selected: bool) -> None:
        """Selectors began or ceased to select an identity."""
        selectors = tuple(selectors)
        if self._app_protocols.notice(number, selectors, selected=selected):
            self._speak_of([number])
        for selector in selectors:
            if selector == _HOSTS:
                self._stale_bodies = True
            self._stale_policies |= self._peer_of.get(selector, set())
            for pid in self._subject_of.get(selector, ()):
                (self._selecting[number].add if selected else self._selecting[number].discard)(pid)
                self._stale_identities.add(number)

    def _speak_of(self, numbers: Collection[int]) -> None:
        """What Services say of the ports of these identities has changed."""
        self._stale_identities.update(numbers)
        for pid in self._judging[Direction.EGRESS] if numbers else ():
            for rule in self._policies[pid].rules_of(Direction.EGRESS):
                if rule.has_http and (
                    rule.peers is None
                    or any(not self._index.selected(peer).isdisjoint(numbers) for peer in rule.peers)
                ):
                    self._stale_policies.add(pid)

    # -- documents

    def _update_documents(self) -> tuple[set[int], set[int], dict[int, frozenset[str]]]:
        """(identities without a document now, identities with another one, who selects them)."""
        gone: set[int] = set()
        subjects: dict[int, frozenset[str]] = {}
        for number in self._stale_identities:
            if self._subjects[number]:
                key = self._key(number)
                self._bodies.join(number, key)
                subjects[number] = frozenset(source for source, _ in key[0])
                continue
            del self._subjects[number]
            if self._bodies.drop(number):
                gone.add(number)
        changed = self._bodies.update(
            self._changed_policies, self._stale_policies, everything=self._stale_bodies
        )
        self._stale_identities, self._stale_bodies = set(), False
        self._changed_policies, self._stale_policies = set(), set()
        return gone, changed, subjects

    def _key(self, number: int) -> BodyKey:
        pids = tuple(sorted(self._selecting.get(number, ())))
        names = frozenset().union(*(self._ports_of_policy[pid] for pid in pids))
        named = tuple(p for p in self.named_ports(number) if (p.name, p.protocol) in names) if names else ()
        judged = not self._judging[Direction.INGRESS].isdisjoint(pids)
        probes = self._index.labels[number].get(PROBES, "")
        ports = ServerPorts(
            named, self.spoken(number) if judged else (), tuple(map(int, filter(None, probes.split(","))))
        )
        forbidden = self._answers(number) and any(self._policies[pid].leaves_response for pid in pids)
        return pids, ports, forbidden

    def _answers(self, number: int) -> bool:
        """Whether denied requests of a subject get a 403 where no policy says."""
        namespace = self._claimants.namespaces.get(self._index.labels[number].get(NAMESPACE, ""))
        wish = namespace.forbidden if namespace is not None else None
        return self._forbidden if wish is None else wish

    def _build(self, key: BodyKey, known: Body | None) -> Body:
        policies = [self._policies[pid].answering(forbidden=key[2]) for pid in key[0]]
        return build_body(policies, key[1], self, self._rulesets.of, known)

    # -- what bodies ask (the protocol Peers)

    def selected(self, selector: Selector) -> Collection[int]:
        """Identities that a selector of a known policy selects."""
        return self._index.selected(selector)

    def with_port(self, name: str, proto: int) -> Collection[int]:
        """Identities that have a port of that name."""
        return self._index.selected(exists(port_key(name, PROTOCOL_NAMES[proto])))

    def named_ports(self, identity: int) -> Sequence[NamedPort]:
        """Of an identity in use."""
        return named_ports(f"{key}={value}" for key, value in self._index.labels[identity].items())

    def spoken(self, identity: int) -> tuple[Spoken, ...]:
        """Ports of an identity in use on which HTTP/2 is spoken."""
        return self._app_protocols.of(identity)

    def speakers(self) -> Collection[int]:
        """Identities that have such a port."""
        return self._app_protocols.speakers()

    def hosts(self) -> Collection[int]:
        """Identities of the node itself."""
        return self._index.selected(_HOSTS)


def _peer_selectors(policy: Policy) -> list[Selector]:
    """Every selector whose identities a body of the policy depends on, each once."""
    found: dict[Selector, None] = {}
    for rule in policy.rules:
        found |= dict.fromkeys(rule.peers or ())
        if rule.peers is None and rule.direction is Direction.EGRESS:
            names = [ports for port_rule in rule.ports or () for ports in port_rule.ports if ports.name]
            found |= {exists(port_key(ports.name, PROTOCOL_NAMES[ports.proto])): None for ports in names}
    return list(found)
