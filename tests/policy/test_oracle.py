"""The compiler and `decide()` against the slow reading of the same YAML."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from support import policy_oracle as oracle
from support.examples import examples
from support.policy_world import (
    ENDS,
    NAMESPACES,
    NODE,
    PODS,
    cluster,
    crowded_objects,
    fake_ruleset,
    policy_objects,
)
from yett_policy.compiler import compile as compile_all
from yett_policy.explain import explain
from yett_policy.http.rule import Request
from yett_policy.policy import ICMP, PROTOCOLS
from yett_policy.source.parse import parse_policy

TARGETS = ["/", "/a", "/a/b", "/ab", "/b?x=1", "/a//b", "/a/../b"]

asks = st.builds(
    oracle.Ask,
    source=st.sampled_from(ENDS),
    destination=st.sampled_from(ENDS),
    protocol=st.sampled_from(["TCP", "TCP", "TCP", "UDP", "SCTP", "ICMP"]),
    port=st.sampled_from([0, 8, 79, 80, 81, 443, 8080, 8081, 65535]),
    method=st.sampled_from(["GET", "POST", "get", None]),
    target=st.sampled_from(TARGETS),
    headers=st.sampled_from(
        [(), (("X-A", "1"),), (("x-a", "12"), ("Host", "A.test")), (("Host", "a.test"),), (("X-A", ""),)]
    ),
)


def yett(objects: list[dict[str, Any]], ask: oracle.Ask) -> str:
    compiled = compile_all(
        [policy for obj in objects for policy in parse_policy(obj)], cluster(), rulesets=fake_ruleset
    )
    request = None
    if ask.method is not None and ask.protocol == "TCP":
        request = Request(
            ask.method.encode(),
            ask.target.encode(),
            tuple((name.encode(), value.encode()) for name, value in ask.headers),
        )
    found = explain(
        compiled,
        ask.source.address,
        ask.destination.address,
        {**PROTOCOLS, "ICMP": ICMP}[ask.protocol],
        ask.port,
        request,
        node=NODE,
    )
    note(str(found))
    return found.verdict.name.lower()


def check(objects: list[dict[str, Any]], questions: list[oracle.Ask]) -> None:
    objects = [{**obj, "metadata": {**obj["metadata"], "name": f"p{i}"}} for i, obj in enumerate(objects)]
    world = oracle.World(objects, NAMESPACES)
    for ask in questions:
        note(str(ask))
        assert yett(objects, ask) == oracle.verdict(world, ask)


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(policy_objects, max_size=5), st.lists(asks, min_size=1, max_size=8))
def test_the_compiled_documents_mean_what_the_policies_say(
    objects: list[dict[str, Any]], questions: list[oracle.Ask]
) -> None:
    check(objects, questions)


requests = st.builds(
    oracle.Ask,
    source=st.sampled_from([*PODS[:3], ENDS[6]]),
    destination=st.just(PODS[0]),
    protocol=st.just("TCP"),
    port=st.sampled_from([80, 80, 80, 81]),
    method=st.sampled_from(["GET", "POST", None]),
    target=st.sampled_from(TARGETS),
    headers=st.sampled_from([(), (("X-A", "1"),)]),
)


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(crowded_objects, min_size=1, max_size=4), st.lists(requests, min_size=1, max_size=8))
def test_rules_that_meet_on_one_port_mean_what_the_policies_say(
    objects: list[dict[str, Any]], questions: list[oracle.Ask]
) -> None:
    check(objects, questions)
