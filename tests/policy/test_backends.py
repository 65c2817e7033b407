"""Services and EndpointSlices: who is behind which address, and what policy says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from support.policy_world import fake_ruleset
from yett_policy.cluster import Cluster, Node, Pod, Service, ServicePort, Slice
from yett_policy.compiled import Compiled
from yett_policy.compiler import Compiler
from yett_policy.compiler import compile as compile_all
from yett_policy.document import Verdict
from yett_policy.explain import explain
from yett_policy.identity import HOST, REMOTE_NODE, WORLD
from yett_policy.policy import TCP, UDP
from yett_policy.reason import Reason
from yett_policy.service import BACKENDS_MAX, Backends, Frontend
from yett_policy.source.parse import parse_policy

API, API6 = "10.96.0.10", "fd00:96::a"
PODS = (
    Pod("default", "api-1", {"app": "api"}, ("10.0.1.1", "2001:db8::1")),
    Pod("default", "api-2", {"app": "api"}, ("10.0.1.2", "2001:db8::2")),
    Pod("default", "canary", {"app": "api", "track": "canary"}, ("10.0.1.3",)),
    Pod("default", "client", {"app": "client"}, ("10.0.1.9",)),
)
SERVICE = Service("default", "api", {"app": "api"}, (ServicePort(80, "web", name="http"),), (API, API6))
SLICE = Slice("default", "api-v4", "api", (("http", "TCP", 8080),), ("10.0.1.1", "10.0.1.2"))
FACTS = Cluster(PODS, nodes=(Node("n1", ("10.0.0.1",)),), services=(SERVICE,), slices=(SLICE,))


def egress(*peers: str, http: str = "", name: str = "p", deny: bool = False) -> str:
    """The client may connect to port 8080 of pods with this track (`*`: any, `-`: none)."""
    rules = f", rules: {{http: {http}}}" if http else ""
    items = ""
    for peer in peers:
        track = {"*": "", "-": "matchExpressions: [{key: track, operator: DoesNotExist}], "}.get(
            peer, f"matchExpressions: [{{key: track, operator: In, values: [{peer}]}}], "
        )
        items += f"""
  - toEndpoints: [{{{track}matchLabels: {{app: api}}}}]
    toPorts: [{{ports: [{{port: "8080", protocol: TCP}}]{rules}}}]"""
    return f"""
---
apiVersion: yett.dev/v1alpha1
kind: L7Policy
metadata: {{name: {name}}}
spec:
  endpointSelector: {{matchLabels: {{app: client}}}}
  egress{"Deny" if deny else ""}:{items}
"""


def build(text: str = "", facts: Cluster = FACTS) -> Compiled:
    policies = [each for obj in yaml.safe_load_all(text) if obj for each in parse_policy(obj)]
    return compile_all(policies, facts, rulesets=fake_ruleset)


def identity(compiled: Compiled, name: str) -> int:
    return next(pod[2] for pod in compiled.pods if pod[1] == name)


def names(compiled: Compiled, backends: Backends) -> list[tuple[str, int]]:
    known = {pod[2]: pod[1].partition("-")[0] for pod in compiled.pods}
    known |= {HOST: "host", REMOTE_NODE: "remote-node", WORLD: "world"}
    return [(known[number], port) for number, port in backends]


def rows(facts: Cluster) -> dict[tuple[str, int, int], list[tuple[str, int]]]:
    compiled = build("", facts)
    return {tuple(front): names(compiled, backends) for front, backends in compiled.services.items()}


def test_pods_of_one_identity_are_one_backend_on_the_target_port() -> None:
    assert rows(FACTS) == {(API, TCP, 80): [("api", 8080)], (API6, TCP, 80): []}


def test_each_family_has_the_endpoints_of_its_own_slices() -> None:
    six = replace(SLICE, name="api-v6", addresses=("2001:db8:0::1",))
    assert rows(replace(FACTS, slices=(SLICE, six)))[API6, TCP, 80] == [("api", 8080)]


def test_who_differs_in_identity_or_port_is_a_backend_of_its_own() -> None:
    other = Slice("default", "api-2", "api", (("http", "TCP", 9090),), ("10.0.1.3",))
    found = rows(replace(FACTS, slices=(SLICE, other)))
    assert sorted(found[API, TCP, 80]) == [("api", 8080), ("canary", 9090)]


def test_ports_are_told_apart_by_name_and_protocol() -> None:
    ports = (ServicePort(53, 53, "UDP", "dns"), ServicePort(53, 53, "TCP", "dns-tcp"), ServicePort(9, 9))
    service = replace(SERVICE, ports=ports, addresses=(API,))
    piece = replace(SLICE, ports=(("dns", "UDP", 5353), ("dns-tcp", "TCP", 5354)))
    assert rows(replace(FACTS, services=(service,), slices=(piece,))) == {
        (API, UDP, 53): [("api", 5353)],
        (API, TCP, 53): [("api", 5354)],
        (API, TCP, 9): [],
    }


def test_the_service_of_another_namespace_or_name_has_other_endpoints() -> None:
    for stranger in (replace(SLICE, namespace="prod"), replace(SLICE, service="other")):
        assert rows(replace(FACTS, slices=(stranger,)))[API, TCP, 80] == []


def test_a_service_without_addresses_is_nothing_that_is_translated() -> None:
    assert rows(replace(FACTS, services=(replace(SERVICE, addresses=()),))) == {}


def test_a_backend_on_a_node_counts_as_the_node_itself_and_as_another() -> None:
    piece = replace(SLICE, addresses=("10.0.0.1",))
    assert sorted(rows(replace(FACTS, slices=(piece,)))[API, TCP, 80]) == [
        ("host", 8080),
        ("remote-node", 8080),
    ]


def test_a_backend_outside_the_cluster_is_the_block_that_a_policy_names_or_the_world() -> None:
    piece = replace(SLICE, addresses=("192.0.2.7",))
    facts = replace(FACTS, slices=(piece,))
    assert rows(facts)[API, TCP, 80] == [("world", 8080)]
    text = """
apiVersion: yett.dev/v1alpha1
kind: L7Policy
metadata: {name: p}
spec: {endpointSelector: {}, egress: [{toCIDR: [192.0.2.0/24]}]}
"""
    compiled = build(text, facts)
    (backends,) = [backends for front, backends in compiled.services.items() if front.address == API]
    ((number, _),) = backends
    assert "cidr:192.0.2.0/24" in compiled.identities[number]
    assert explain(compiled, "client", API, TCP, 80).verdict is Verdict.ALLOW


def test_two_services_with_one_external_address_may_get_each_others_connections() -> None:
    other = Service("default", "canary", {}, SERVICE.ports, (API,))
    piece = replace(SLICE, name="canary", service="canary", addresses=("10.0.1.3",))
    facts = replace(FACTS, services=(SERVICE, other), slices=(SLICE, piece))
    assert sorted(rows(facts)[API, TCP, 80]) == [("api", 8080), ("canary", 8080)]


def test_too_many_kinds_of_backends_are_one_more_than_can_be_judged() -> None:
    pods = tuple(Pod("default", f"p{i}", {"n": str(i)}, (f"10.1.0.{i}",)) for i in range(40))
    piece = replace(SLICE, addresses=tuple(pod.addresses[0] for pod in pods))
    compiled = build("", replace(FACTS, pods=pods, slices=(piece,)))
    assert len(compiled.services[Frontend(API, TCP, 80)]) == BACKENDS_MAX + 1


def decision(text: str, *pieces: Slice) -> tuple[Verdict, Reason]:
    compiled = build(text, replace(FACTS, slices=pieces or (SLICE,)))
    found = explain(compiled, "client", API, TCP, 80)
    assert found.egress is not None
    assert found.ingress is None, "which of them gets the connection is not known"
    assert (found.destination.name, found.destination.subject) == (API, None)
    return found.egress.verdict, found.egress.reason


BOTH = (SLICE, replace(SLICE, name="canary", addresses=("10.0.1.3",)))


@pytest.mark.parametrize(
    ("text", "pieces", "wanted"),
    [
        ("", BOTH, (Verdict.ALLOW, Reason.NOT_ENFORCED)),
        (egress("*"), (SLICE,), (Verdict.ALLOW, Reason.ALLOWED)),
        (egress("canary"), (SLICE,), (Verdict.DENY, Reason.POLICY_DENIED)),
        (egress("-"), (SLICE,), (Verdict.ALLOW, Reason.ALLOWED)),
        (egress("-"), BOTH, (Verdict.DENY, Reason.POLICY_DENIED)),
        (egress("*") + egress("canary", name="q", deny=True), BOTH, (Verdict.DENY, Reason.DENY_RULE)),
        (egress("*", http="[{path: /a}]"), BOTH, (Verdict.ALLOW, Reason.ALLOWED)),
        (
            egress("-", http="[{path: /a}]") + egress("canary", http="[{path: /b}]", name="q"),
            BOTH,
            (Verdict.DENY, Reason.SERVICE_MIXED),
        ),
        (egress("*"), (replace(SLICE, addresses=()),), (Verdict.DENY, Reason.SERVICE_WITHOUT_BACKENDS)),
    ],
    ids=str,
)
def test_a_service_is_as_open_as_its_most_closed_backend(
    text: str, pieces: tuple[Slice, ...], wanted: tuple[Verdict, Reason]
) -> None:
    assert decision(text, *pieces) == wanted


def test_rows_change_with_identities_and_not_with_every_pod() -> None:
    compiler = Compiler(rulesets=fake_ruleset)
    for pod in PODS:
        compiler.put_pod(pod)
    compiler.put_service(SERVICE)
    compiler.put_slice(SLICE)
    assert set(compiler.flush().services) == {Frontend(API, TCP, 80), Frontend(API6, TCP, 80)}
    compiler.put_pod(Pod("default", "api-3", {"app": "api"}, ("10.0.1.4",)))
    compiler.put_slice(replace(SLICE, addresses=(*SLICE.addresses, "10.0.1.4")))
    assert compiler.flush().services == {}
    compiler.put_slice(replace(SLICE, addresses=("10.0.1.2",)))
    assert compiler.flush().services == {}
    before = compiler.compiled().services[Frontend(API, TCP, 80)]
    compiler.put_pod(replace(PODS[1], labels={"app": "api", "track": "canary"}))
    changed: dict[Frontend, Any] = dict(compiler.flush().services)
    assert list(changed) == [Frontend(API, TCP, 80)]
    assert changed[Frontend(API, TCP, 80)] != before
    compiler.drop_slice("default", "api-v4")
    assert compiler.flush().services == {Frontend(API, TCP, 80): ()}
    compiler.drop_service("default", "api")
    assert compiler.flush().services == {Frontend(API, TCP, 80): None, Frontend(API6, TCP, 80): None}
