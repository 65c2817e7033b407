"""The rules mean the same in the sidecar as in the reference: over generated rules and requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.http_oracle import parse
from support.http_strategies import specs, targets
from support.netns import Namespace
from support.standalone import FIRST_PORT, answer, serving
from yett_loader.sidecar.routes import AMBIGUOUS, route_table, verdict_of
from yett_policy.evaluate import judge_request
from yett_policy.http.ambiguity import ambiguities
from yett_policy.http.parse import Head
from yett_policy.http.rule import Request, RulesetSpec
from yett_policy.reason import Reason

SPECS = 200


@settings(max_examples=3000)
@given(
    st.builds(
        lambda bits: b"/" + b"".join(bits),
        st.lists(
            st.sampled_from(
                b"/ . .. %2e %2F %5c %25 %00 % %4 %41 ; \\ # \x80 ? a b2 %2E%2e // ...".split(b" ")
            ),
            max_size=7,
        ),
    )
)
def test_the_patterns_find_the_ambiguities_of_the_reference(target: bytes) -> None:
    text = target.decode("latin-1")
    found = {reason for reason, pattern in AMBIGUOUS.items() if re.fullmatch(pattern, text)}
    assert found == ambiguities(target)


whole_heads = st.builds(
    lambda method, target, host, fields: b"".join(
        [method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n", *fields, b"\r\n"]
    ),
    st.sampled_from([b"GET", b"GET", b"GET", b"POST", b"PUT", b"P"]),
    st.sampled_from([b"/a", b"/a/b", b"/", b"/api/v1/items", b"/api/v1/items/3", b"/api?x", b"/a?b=/../"])
    | targets,
    st.sampled_from([b"a", b"a:80", b"b.c", b"A"]),
    st.lists(
        st.builds(
            lambda name, value: name + b": " + value + b"\r\n",
            st.sampled_from([b"X-A", b"x-b", b"X-A", b"Foo", b"hos", b"x_a", b"y_z"]),
            st.sampled_from([b"a", b"ab", b"a b", b"", b"b", b"a, b", b"5"]),
        ),
        max_size=3,
    ),
)
"""Mostly well-formed, for rules of the same few names."""


@pytest.fixture(scope="module")
def generated() -> list[tuple[RulesetSpec, list[Head]]]:
    """Rules, and well-formed requests for each."""
    found: list[tuple[RulesetSpec, list[Head]]] = []

    @settings(
        max_examples=SPECS,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(specs(), st.lists(whole_heads, min_size=12, max_size=30))
    def collect(spec: RulesetSpec, sent: list[bytes]) -> None:
        parsed = [parse(spec, data) for data in sent]
        found.append(
            (spec, [(head, data) for head, data in zip(parsed, sent, strict=True) if isinstance(head, Head)])
        )

    collect()
    return found


@pytest.fixture(scope="module")
def envoy(generated: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    with serving([spec for spec, _ in generated], tmp_path_factory.mktemp("envoy")) as inside:
        yield inside


def is_stricter(request: Request) -> bool:
    """What the sidecar refuses whatever the rules say (docs/adr/0009)."""
    names = {name.lower() for name, _ in request.headers}
    return request.method == b"CONNECT" or b"upgrade" in names


@pytest.mark.net
def test_well_formed_requests_get_the_verdict_of_the_reference(
    generated: list[Any], envoy: Namespace
) -> None:
    looser, tighter, passed, compared = [], [], 0, 0
    with envoy:
        for index, (spec, sent) in enumerate(generated):
            for head, data in sent:
                decision = judge_request(spec, head.request)
                status = answer(FIRST_PORT + index, data)
                compared += 1
                passed += status == 200
                if status == 200 and not decision.passes:
                    looser.append((spec, data, decision))
                if status != 200 and decision.passes and not is_stricter(head.request):
                    tighter.append((spec, data, decision, status))
    assert compared > 200
    assert passed > 20
    assert not looser, looser[0]
    assert not tighter, tighter[0]


def test_the_name_of_a_route_says_verdict_reason_and_rule() -> None:
    spec = RulesetSpec((), "L7Policy/a/b:default-deny")
    (*_, last, _connect) = route_table("r", spec)["virtual_hosts"][0]["routes"]
    assert verdict_of(last["name"]) == ("deny", Reason.POLICY_DENIED_L7, "L7Policy/a/b:default-deny")
