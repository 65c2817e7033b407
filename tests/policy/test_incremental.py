"""Change by change or from scratch: the same result."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.policy_world import cluster, fake_ruleset, policy_objects
from yett_policy.cluster import Cluster, NamedPort, Namespace, Node, Pod, Service, ServicePort, Slice
from yett_policy.compiled import Compiled, Delta
from yett_policy.compiler import Compiler
from yett_policy.compiler import compile as compile_all
from yett_policy.document import Document
from yett_policy.identity import Labels, parse_labels
from yett_policy.policy import Policy
from yett_policy.prefix import packed_prefix, packed_text
from yett_policy.service import Backends, Frontend
from yett_policy.source.parse import parse_policy

NAMES = ["a", "b", "c"]

pods = st.builds(
    Pod,
    namespace=st.sampled_from(["default", "prod"]),
    name=st.sampled_from(NAMES),
    labels=st.sampled_from([{"app": "x"}, {"app": "y"}, {"app": "x", "tier": "t"}]),
    addresses=st.sampled_from([("10.0.1.1",), ("10.0.2.1",), ("10.0.2.2", "2001:db8::1"), ()]),
    named_ports=st.sampled_from([(), (NamedPort("web", 80),), (NamedPort("web", 8080),)]),
    probes=st.sampled_from([(), (80,), (80, 8080)]),
    host_network=st.sampled_from([False, False, False, True]),
)
namespaces = st.builds(
    Namespace,
    name=st.sampled_from(["default", "prod"]),
    labels=st.sampled_from([{}, {"team": "red"}, {"team": "blue"}]),
    deny_response=st.sampled_from([None, None, "Reset", "Forbidden", "forbidden"]),
)
nodes = st.builds(
    Node,
    name=st.sampled_from(["n1", "n2"]),
    addresses=st.sampled_from([("10.0.0.1",), ("10.0.0.2", "2001:db8::2")]),
    api_server=st.booleans(),
)
services = st.builds(
    Service,
    namespace=st.sampled_from(["default", "prod"]),
    name=st.sampled_from(NAMES),
    selector=st.sampled_from([{}, {"app": "x"}, {"tier": "t"}]),
    ports=st.lists(
        st.builds(
            ServicePort,
            port=st.just(1),
            target=st.sampled_from([80, 8080, "web"]),
            app_protocol=st.sampled_from(["", "grpc", "kubernetes.io/h2c", "https"]),
        ),
        max_size=2,
    ).map(tuple),
    addresses=st.sampled_from([(), ("10.96.0.1",), ("10.96.0.1", "2001:db8:96::1"), ("10.96.0.2",)]),
)
slices = st.builds(
    Slice,
    namespace=st.sampled_from(["default", "prod"]),
    name=st.sampled_from(NAMES),
    service=st.sampled_from(NAMES),
    ports=st.sampled_from([(("", "TCP", 80),), (("", "TCP", 8080), ("", "UDP", 53)), ()]),
    addresses=st.sampled_from(
        [
            (),
            ("10.0.1.1",),
            ("10.0.2.1", "10.0.2.2"),
            ("2001:db8::1",),
            ("10.0.0.1",),
            ("192.0.2.1", "10.0.1.1"),
        ]
    ),
)
changes = st.one_of(
    st.tuples(st.just("policy"), st.sampled_from(NAMES), st.lists(policy_objects, min_size=1, max_size=1)),
    st.tuples(st.just("no policy"), st.sampled_from(NAMES)),
    st.tuples(st.just("pod"), pods),
    st.tuples(st.just("pod"), pods),
    st.tuples(st.just("no pod"), st.sampled_from(["default", "prod"]), st.sampled_from(NAMES)),
    st.tuples(st.just("namespace"), namespaces),
    st.tuples(st.just("no namespace"), st.sampled_from(["default", "prod"])),
    st.tuples(st.just("node"), nodes),
    st.tuples(st.just("no node"), st.sampled_from(["n1", "n2"])),
    st.tuples(st.just("api"), st.sampled_from([(), ("192.0.2.1",)])),
    st.tuples(st.just("service"), services),
    st.tuples(st.just("service"), services),
    st.tuples(st.just("slice"), slices),
    st.tuples(st.just("slice"), slices),
    st.tuples(st.just("no slice"), st.sampled_from(["default", "prod"]), st.sampled_from(NAMES)),
    st.tuples(st.just("no service"), st.sampled_from(["default", "prod"]), st.sampled_from(NAMES)),
)


class Model:
    """What the facts are after some changes."""

    def __init__(self) -> None:
        self.policies: dict[str, list[Policy]] = {}
        self.pods: dict[str, Pod] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.nodes: dict[str, Node] = {}
        self.api: tuple[str, ...] = ()
        self.services: dict[tuple[str, str], Service] = {}
        self.slices: dict[tuple[str, str], Slice] = {}

    def apply(self, change: tuple[Any, ...], compiler: Compiler) -> None:
        match change:
            case ("policy", name, [obj]):
                policies = parse_policy({**obj, "metadata": {**obj["metadata"], "name": name}})
                policies = [replace(policy, source=name) for policy in policies]
                self.policies[name] = policies
                compiler.put_policies(name, policies)
            case ("no policy", name):
                self.policies.pop(name, None)
                compiler.drop_policies(name)
            case ("pod", pod):
                self.pods[pod.key] = pod
                compiler.put_pod(pod)
            case ("no pod", namespace, name):
                self.pods.pop(f"{namespace}/{name}", None)
                compiler.drop_pod(namespace, name)
            case ("namespace", namespace):
                self.namespaces[namespace.name] = namespace
                compiler.put_namespace(namespace)
            case ("no namespace", name):
                self.namespaces.pop(name, None)
                compiler.drop_namespace(name)
            case ("node", node):
                self.nodes[node.name] = node
                compiler.put_node(node)
            case ("no node", name):
                self.nodes.pop(name, None)
                compiler.drop_node(name)
            case ("api", addresses):
                self.api = addresses
                compiler.set_api_servers(addresses)
            case ("service", service):
                self.services[service.key] = service
                compiler.put_service(service)
            case ("no service", namespace, name):
                self.services.pop((namespace, name), None)
                compiler.drop_service(namespace, name)
            case ("slice", item):
                self.slices[item.key] = item
                compiler.put_slice(item)
            case ("no slice", namespace, name):
                self.slices.pop((namespace, name), None)
                compiler.drop_slice(namespace, name)

    def cluster(self) -> Cluster:
        return Cluster(
            tuple(self.pods.values()),
            tuple(self.namespaces.values()),
            tuple(self.nodes.values()),
            self.api,
            tuple(self.services.values()),
            tuple(self.slices.values()),
        )

    def from_scratch(self, compiler: Compiler) -> Compiled:
        policies = [policy for group in reversed(self.policies.values()) for policy in group]
        return compile_all(policies, self.cluster(), compiler.table, rulesets=fake_ruleset)


def update(held: dict[Any, Any], changes: Mapping[Any, Any]) -> None:
    for key, value in changes.items():
        if value is None:
            held.pop(key, None)
        else:
            held[key] = value


class Follower:
    """Somebody who knows only the deltas."""

    def __init__(self) -> None:
        self.documents: dict[int, Document] = {}
        self.ipcache: dict[str, int] = {}
        self.node_addresses: dict[str, dict[str, int]] = {}
        self.identities: dict[int, Labels] = {}
        self.pods: dict[str, int] = {}
        self.services: dict[Frontend, Backends] = {}
        self.subjects: dict[int, frozenset[str]] = {}

    def follow(self, delta: Delta) -> None:
        self.documents |= delta.documents
        self.subjects |= delta.subjects
        for number in delta.gone:
            del self.documents[number]
            del self.subjects[number]
        update(self.identities, delta.identities)
        update(self.pods, delta.pods)
        update(self.ipcache, {packed_text(prefix): number for prefix, number in delta.ipcache.items()})
        update(self.services, delta.services)
        self.node_addresses |= {name: dict(held) for name, held in delta.node_addresses.items()}


@settings(max_examples=examples(250), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(changes, min_size=1, max_size=3), min_size=1, max_size=8))
def test_any_history_of_changes_ends_where_a_compile_from_scratch_does(
    history: list[list[tuple[Any, ...]]],
) -> None:
    compiler, model, follower = Compiler(rulesets=fake_ruleset), Model(), Follower()
    for step in history:
        for change in step:
            model.apply(change, compiler)
        follower.follow(compiler.flush())
        now = compiler.compiled()
        assert now == model.from_scratch(compiler)
        assert follower.documents == now.documents
        assert follower.ipcache == now.ipcache
        assert follower.services == now.services
        for name, held in now.node_addresses.items():
            assert follower.node_addresses.get(name, {}) == held
        assert follower.identities == now.identities
        assert follower.pods == {f"{pod[0]}/{pod[1]}": pod[2] for pod in now.pods}
        assert follower.subjects == selecting(now, [p for group in model.policies.values() for p in group])


def selecting(compiled: Compiled, policies: list[Policy]) -> dict[int, frozenset[str]]:
    return {
        number: frozenset(
            policy.source
            for policy in policies
            if policy.subject.holds(parse_labels(compiled.identities[number]))
        )
        for number in compiled.documents
    }


@settings(max_examples=examples(120), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(changes, min_size=1, max_size=3), min_size=1, max_size=6), st.randoms())
def test_numbers_that_come_late_and_one_by_one_lead_to_the_same_end(
    history: list[list[tuple[Any, ...]]], random: Any
) -> None:
    compiler, model, follower = Compiler(rulesets=fake_ruleset, allocate=False), Model(), Follower()
    for number in compiler.missing():
        pytest.fail(f"needs {number} from the start")
    for step in history:
        for change in step:
            model.apply(change, compiler)
        while missing := compiler.missing():
            follower.follow(compiler.flush())
            labels = random.choice(sorted(missing))
            compiler.learn({labels: compiler.table.allocate([labels]).number(labels)})
        follower.follow(compiler.flush())
        now = compiler.compiled()
        assert now == model.from_scratch(compiler)
        assert follower.documents == now.documents
        assert follower.ipcache == now.ipcache
        assert follower.services == now.services


def test_a_pod_keeps_what_it_had_until_its_new_number_is_known() -> None:
    compiler = Compiler(rulesets=fake_ruleset, allocate=False)
    compiler.put_pod(Pod("default", "x", {"app": "x"}, ("10.0.0.1",)))
    assert compiler.flush().pods == {}
    (labels,) = compiler.missing()
    compiler.learn({labels: 300})
    assert compiler.flush().pods == {"default/x": 300}
    compiler.put_pod(Pod("default", "x", {"app": "y"}, ("10.0.0.1",)))
    assert compiler.flush() == Delta()
    assert compiler.compiled().ipcache == {"10.0.0.1/32": 300}
    (labels,) = compiler.missing()
    compiler.learn({labels: 301})
    assert compiler.flush().ipcache == {packed_prefix("10.0.0.1"): 301}


def test_a_number_that_contradicts_another_is_refused() -> None:
    compiler = Compiler(rulesets=fake_ruleset, allocate=False)
    compiler.learn({("k8s:app=x",): 300})
    with pytest.raises(ValueError, match="has number 300 already, not 301"):
        compiler.learn({("k8s:app=x",): 301})


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(policy_objects, min_size=1, max_size=5), st.randoms())
def test_the_order_of_input_does_not_change_a_byte(objects: list[dict[str, Any]], random: Any) -> None:
    policies = [
        policy
        for i, obj in enumerate(objects)
        for policy in parse_policy({**obj, "metadata": {**obj["metadata"], "name": f"p{i}"}})
    ]
    facts = cluster()
    first = compile_all(policies, facts, rulesets=fake_ruleset)
    random.shuffle(policies)
    mixed = list(facts.pods)
    random.shuffle(mixed)
    again = compile_all(policies, replace(facts, pods=tuple(mixed)), rulesets=fake_ruleset)
    assert [d.to_bytes() for d in again.documents.values()] == [
        d.to_bytes() for d in first.documents.values()
    ]
    assert again == first


def world(policy: str = "") -> Compiler:
    compiler = Compiler(rulesets=fake_ruleset)
    for i, app in enumerate(["x", "y", "z"]):
        compiler.put_pod(Pod("default", app, {"app": app}, (f"10.0.0.{i + 1}",)))
    compiler.put_policies(
        "L7Policy/default/p",
        parse_policy(
            {
                "apiVersion": "yett.dev/v1alpha1",
                "kind": "L7Policy",
                "metadata": {"name": "p"},
                "spec": {
                    "endpointSelector": {"matchLabels": {"app": "x"}},
                    "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "y"}}]}],
                },
            }
        ),
    )
    compiler.flush()
    return compiler


def test_a_pod_of_a_known_identity_touches_no_document() -> None:
    compiler = world()
    compiler.put_pod(Pod("default", "y2", {"app": "y"}, ("10.0.0.9",)))
    delta = compiler.flush()
    assert delta.documents == {}
    assert list(delta.ipcache) == [packed_prefix("10.0.0.9")]


def test_a_new_identity_touches_only_documents_whose_selectors_match() -> None:
    compiler = world()
    compiler.put_pod(Pod("default", "y2", {"app": "y", "tier": "t"}, ("10.0.0.9",)))
    delta = compiler.flush()
    by_name = {name: number for _, name, number, _ in compiler.compiled().pods}
    assert set(delta.documents) == {by_name["x"], by_name["y2"]}
    compiler.put_pod(Pod("default", "q", {"app": "q"}, ("10.0.0.8",)))
    delta = compiler.flush()
    by_name = {name: number for _, name, number, _ in compiler.compiled().pods}
    assert set(delta.documents) == {by_name["q"]}


def test_nothing_new_is_an_empty_delta() -> None:
    compiler = world()
    assert compiler.flush() == Delta()
    for pod in (Pod("default", "y", {"app": "y"}, ("10.0.0.2",)),):
        compiler.put_pod(pod)
    assert compiler.flush() == Delta()


def test_numbers_survive_a_restart() -> None:
    compiler = world()
    before = {name: number for _, name, number, _ in compiler.compiled().pods}
    again = Compiler(compiler.table, rulesets=fake_ruleset)
    again.put_pod(Pod("default", "a-new-one", {"app": "a"}, ("10.0.0.1",)))
    again.put_pod(Pod("default", "z", {"app": "z"}, ("10.0.0.3",)))
    again.flush()
    after = {name: number for _, name, number, _ in again.compiled().pods}
    assert after["z"] == before["z"]
    assert after["a-new-one"] not in before.values()


def test_two_pods_with_one_address_do_not_depend_on_the_order_of_events() -> None:
    first, second = Pod("default", "a", {"app": "x"}, ("10.0.0.1",)), Pod("default", "b", {}, ("10.0.0.1",))
    found = []
    for order in ((first, second), (second, first)):
        compiler = Compiler(rulesets=fake_ruleset)
        for pod in order:
            compiler.put_pod(pod)
        compiler.flush()
        found.append(compiler.compiled())
    assert found[0] == found[1]


def test_one_source_given_twice_is_refused() -> None:
    policy = parse_policy(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "p"},
            "spec": {"podSelector": {}},
        }
    )
    with pytest.raises(ValueError, match="NetworkPolicy/default/p is given twice"):
        compile_all(policy * 2, Cluster(), rulesets=fake_ruleset)


_DIGESTS = """
import hashlib, sys
sys.path.insert(0, {tests!r})
from support.policy_world import cluster, fake_ruleset
from yett_policy.compiler import compile
from yett_policy.source.parse import parse_policy
labels = [{{"app": "x"}}, {{"tier": "t"}}, {{}}]
policies = [
    policy
    for i, chosen in enumerate(labels)
    for policy in parse_policy({{
        "apiVersion": "yett.dev/v1alpha1", "kind": "ClusterL7Policy", "metadata": {{"name": f"p{{i}}"}},
        "spec": {{
            "endpointSelector": {{"matchLabels": chosen}},
            "ingress": [{{"fromEntities": ["cluster", "world"]}}, {{"toPorts": [
                {{"ports": [{{"port": "80", "protocol": "TCP"}}, {{"port": "web", "protocol": "TCP"}}],
                  "rules": {{"http": [{{"method": "GET"}}, {{"path": "/a", "headers": ["X-A", "X-B: 1"]}}]}}}}]}}],
            "egress": [{{"toCIDRSet": [{{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}}]}}],
        }},
    }})
]
compiled = compile(policies, cluster(), rulesets=fake_ruleset)
whole = b"".join(document.to_bytes() for document in compiled.documents.values())
print(hashlib.sha256(whole + repr(compiled.snapshot("n1")).encode()).hexdigest())
"""


def test_the_bytes_do_not_depend_on_the_seed_of_hashes() -> None:
    script = _DIGESTS.format(tests=str(Path(__file__).parents[1]))
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(found) == 1


def test_a_number_in_use_is_not_forgotten() -> None:
    compiler = world()
    x = next(labels for labels, number in compiler.table.numbers.items() if "k8s:app=x" in labels)
    assert compiler.forget([x]) == frozenset()
    compiler.drop_pod("default", "x")
    compiler.flush()
    assert compiler.forget([x]) == {x}
    assert not compiler.table.knows(x)


def test_rulesets_that_nothing_names_do_not_pile_up() -> None:
    compiler = world()
    for i in range(300):
        policy = {
            "apiVersion": "yett.dev/v1alpha1",
            "kind": "L7Policy",
            "metadata": {"name": "q"},
            "spec": {
                "endpointSelector": {},
                "ingress": [
                    {
                        "toPorts": [
                            {
                                "ports": [{"port": "80", "protocol": "TCP"}],
                                "rules": {"http": [{"path": f"/{i}"}]},
                            }
                        ]
                    }
                ],
            },
        }
        compiler.put_policies("L7Policy/default/q", parse_policy(policy))
        delta = compiler.flush()
        for document in delta.documents.values():
            for entry in document.entries:
                assert not entry.ruleset or compiler.ruleset(entry.ruleset)
    assert len(compiler.rulesets) < 80
