"""`appProtocol` of Services: which ports it sends to the sidecar, and why."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from support.policy_world import fake_ruleset
from yett_policy.cluster import Cluster, NamedPort, Pod, Service, ServicePort
from yett_policy.compiled import Compiled
from yett_policy.compiler import Compiler
from yett_policy.compiler import compile as compile_all
from yett_policy.document import Direction, Engine, Verdict
from yett_policy.evaluate import Flow, look_up
from yett_policy.policy import TCP
from yett_policy.rulesets import compile_spec
from yett_policy.source.parse import parse_policy

PODS = (
    Pod("default", "api", {"app": "api"}, ("10.0.1.1",), (NamedPort("rpc", 9000),)),
    Pod("default", "old", {"app": "old"}, ("10.0.1.2",)),
    Pod("default", "client", {"app": "client"}, ("10.0.1.3",)),
    Pod("other", "api", {"app": "api"}, ("10.0.2.1",)),
)


def service(word: str, target: int | str = 8080, name: str = "api", **more: Any) -> Service:
    selector = more.pop("selector", {"app": "api"})
    return Service("default", name, selector, (ServicePort(80, target, app_protocol=word, **more),))


def policy(rules: str, subject: str = "api", more: str = "") -> str:
    return f"""
---
apiVersion: yett.dev/v1alpha1
kind: L7Policy
metadata: {{name: p}}
spec:
  endpointSelector: {{matchLabels: {{app: {subject}}}}}
  {more}
  {rules}
"""


def ports(port: str, end: str = "") -> str:
    last = f", endPort: {end}" if end else ""
    return (
        f'toPorts: [{{ports: [{{port: "{port}"{last}, protocol: TCP}}], rules: {{http: [{{method: GET}}]}}}}]'
    )


INGRESS = f"ingress: [{{{ports('8080')}}}]"


def build(text: str, *services: Service) -> Compiled:
    policies = [each for obj in yaml.safe_load_all(text) if obj for each in parse_policy(obj)]
    return compile_all(policies, Cluster(PODS, services=services), rulesets=compile_spec)


def engine(
    compiled: Compiled, port: int = 8080, *, direction: Direction = Direction.INGRESS, peer: str = "client"
) -> tuple[str, str]:
    """Engine and its reason for a connection to, or from, the subject; empty: no HTTP rules."""
    names = {f"{pod[0]}/{pod[1]}": pod[2] for pod in compiled.pods}
    server, client = names["default/api"], names["default/client"]
    subject, other = (server, names["default/" + peer]) if direction is Direction.INGRESS else (client, 0)
    if direction is Direction.EGRESS:
        other = names[peer if "/" in peer else "default/" + peer]
    entry = look_up(compiled.documents[subject], Flow(direction, other, TCP, port))
    if not entry.ruleset:
        return "", ""
    ruleset = compiled.rulesets[entry.ruleset]
    assert (entry.verdict is Verdict.REDIRECT) == (ruleset.engine is Engine.SIDECAR)
    return str(ruleset.engine), ruleset.engine_reason


@pytest.mark.parametrize("word", ["kubernetes.io/h2c", "h2c", "http2", "HTTP2", "grpc", "grpc-web"])
def test_a_word_for_http_2_sends_the_port_to_the_sidecar_and_is_the_reason(word: str) -> None:
    assert engine(build(policy(INGRESS), service(word))) == (
        "sidecar",
        f"appProtocol {word} of Service default/api",
    )


@pytest.mark.parametrize(
    "word", ["", "http", "https", "tls", "tcp", "kubernetes.io/ws", "kubernetes.io/wss", "example.com/grpc"]
)
def test_any_other_word_leaves_the_choice_as_it_was(word: str) -> None:
    assert engine(build(policy(INGRESS), service(word)))[0] == "kernel"
    assert build(policy(INGRESS), service(word)) == build(policy(INGRESS))


def test_only_the_port_that_the_service_leads_to_is_concerned_also_within_a_range() -> None:
    compiled = build(policy(f"ingress: [{{{ports('8000', '9000')}}}]"), service("grpc"))
    assert [engine(compiled, port)[0] for port in (8000, 8079, 8080, 8081, 9000)] == [
        "kernel",
        "kernel",
        "sidecar",
        "kernel",
        "kernel",
    ]
    last = build(policy(f"ingress: [{{{ports('60000', '65535')}}}]"), service("grpc", 65535))
    assert engine(last, 65535)[0] == "sidecar"
    assert engine(last, 65534)[0] == "kernel"


def test_a_target_port_by_name_is_the_pods_own_port() -> None:
    text = policy(f"ingress: [{{{ports('9000')}}}, {{{ports('80')}}}]")
    compiled = build(text, service("grpc", "rpc"))
    assert engine(compiled, 9000)[0] == "sidecar"
    assert engine(compiled, 80)[0] == "kernel"


def test_a_service_speaks_only_of_pods_that_it_selects_in_its_own_namespace() -> None:
    assert engine(build(policy(INGRESS), service("grpc", selector={"app": "old"})))[0] == "kernel"
    assert engine(build(policy(INGRESS), service("grpc", selector={})))[0] == "kernel"
    elsewhere = Service("other", "api", {"app": "api"}, (ServicePort(80, 8080, app_protocol="grpc"),))
    assert engine(build(policy(INGRESS), elsewhere))[0] == "kernel"
    assert engine(build(policy(INGRESS), service("grpc", protocol="UDP")))[0] == "kernel"


def test_of_two_services_the_first_by_name_is_the_reason() -> None:
    compiled = build(policy(INGRESS), service("grpc", name="b"), service("h2c", name="a"))
    assert engine(compiled)[1] == "appProtocol h2c of Service default/a"


def test_egress_rules_follow_what_each_peer_speaks() -> None:
    for rule in ("toEndpoints: [{}], ", ""):
        text = policy(f"egress: [{{{rule}{ports('8080')}}}]", "client")
        compiled = build(text, service("grpc"))
        sides = {
            peer: engine(compiled, direction=Direction.EGRESS, peer=peer)[0]
            for peer in ("api", "old", "other/api")
        }
        assert sides["api"] == "sidecar"
        assert sides["old"] == "kernel"
        assert sides["other/api"] == ("" if rule else "kernel")


def test_egress_rules_without_http_and_those_of_other_ports_do_not_care() -> None:
    text = policy('egress: [{toPorts: [{ports: [{port: "8080", protocol: TCP}]}]}]', "client")
    assert build(text, service("grpc")) == build(text)
    text = policy(f"egress: [{{{ports('81')}}}]", "client")
    assert engine(build(text, service("grpc")), 81, direction=Direction.EGRESS, peer="api")[0] == "kernel"
    assert engine(build(text, service("grpc")), 8080, direction=Direction.EGRESS, peer="api")[0] == ""


def test_a_policy_that_asks_for_the_kernel_gets_it_with_a_warning_in_the_reason() -> None:
    name, reason = engine(build(policy(INGRESS, more="engine: Kernel"), service("grpc")))
    assert name == "kernel"
    assert reason.startswith("fits the kernel budget: ")
    assert reason.endswith(
        "; the policy asks for the kernel, which denies the HTTP/2 of appProtocol grpc of Service default/api"
    )


def test_a_policy_that_asks_for_the_sidecar_is_the_reason_itself() -> None:
    text = policy(INGRESS, more="engine: Sidecar")
    assert engine(build(text, service("grpc")))[1] == "the policy asks for the sidecar"
    assert build(text, service("grpc")) == build(text)


def test_what_a_service_says_moves_the_port_and_back_and_touches_nobody_else() -> None:
    compiler = Compiler(rulesets=fake_ruleset)
    for pod in PODS:
        compiler.put_pod(pod)
    compiler.put_policies("p", parse_policy(next(yaml.safe_load_all(policy(INGRESS)))))
    before = compiler.flush().documents
    compiler.put_service(service("http"))
    assert not compiler.flush().documents
    compiler.put_service(service("grpc"))
    moved = compiler.flush().documents
    assert len(moved) == 1
    compiler.put_service(service("grpc"))
    assert not compiler.flush().documents
    compiler.drop_service("default", "api")
    back = compiler.flush().documents
    assert back == {number: before[number] for number in moved}
    compiler.drop_service("default", "never-known")
    assert not compiler.flush().documents
