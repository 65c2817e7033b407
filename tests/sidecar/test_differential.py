"""The rules mean the same in the sidecar as in the reference: over generated rules and requests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.http_oracle import parse
from support.http_strategies import specs, targets
from support.netns import Namespace
from support.standalone import FIRST_PORT, PASSED, answer, serving
from yett_loader.sidecar.routes import AMBIGUOUS, is_about_host, route_table, verdict_of
from yett_policy.evaluate import judge_request
from yett_policy.http.ambiguity import ambiguities
from yett_policy.http.parse import Head
from yett_policy.http.rule import Request, RuleAction, RulesetSpec
from yett_policy.reason import Reason

SPECS = 200
"""Each has a listener."""


@settings(max_examples=examples(3000))
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


whole_fields = st.lists(
    st.builds(
        lambda name, value: name + b": " + value + b"\r\n",
        st.sampled_from([b"X-A", b"x-b", b"X-A", b"Foo", b"hos", b"x_a", b"y_z", b"Upgrade"]),
        st.sampled_from([b"a", b"ab", b"a b", b"", b"b", b"a, b", b"5"]),
    ),
    max_size=3,
)
whole_heads = st.builds(
    lambda method, target, version, fields: b"".join([method, b" ", target, version, *fields, b"\r\n"]),
    st.sampled_from([b"GET", b"GET", b"GET", b"POST", b"PUT", b"P"]),
    st.sampled_from([b"/a", b"/a/b", b"/", b"/api/v1/items", b"/api/v1/items/3", b"/api?x", b"/a?b=/../"])
    | targets,
    st.sampled_from(
        [
            *(b" HTTP/1.1\r\nHost: " + host + b"\r\n" for host in (b"a", b"a:80", b"b.c", b"A")),
            b" HTTP/1.0\r\nHost: a\r\n",
            b" HTTP/1.0\r\n",
        ]
    ),
    whole_fields,
) | st.builds(
    # Envoy goes by the target, and gives the server that as the Host.
    lambda target, version, fields: b"".join(
        [b"CONNECT ", target, version, b"Host: ", target, b"\r\n", *fields, b"\r\n"]
    ),
    st.sampled_from([b"a.b:443", b"a:80", b"[::1]:1", b"A:80"]),
    st.sampled_from([b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"]),
    whole_fields,
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


def is_stricter(spec: RulesetSpec, request: Request) -> bool:
    """What the sidecar denies though the kernel engine may not (docs/adr/0009)."""
    has_host = any(name.lower() == b"host" for name, _ in request.headers)
    denying = [rule for rule in spec.rules if rule.action is not RuleAction.ALLOW]
    is_doubtful = not has_host and any(map(is_about_host, denying))
    return is_doubtful or b"\x7f" in request.target


@pytest.mark.net
def test_well_formed_requests_get_the_verdict_of_the_reference(
    generated: list[Any], envoy: Namespace
) -> None:
    looser, tighter, compared = [], [], 0
    passed = Counter[str]()
    with envoy:
        for index, (spec, sent) in enumerate(generated):
            for head, data in sent:
                decision = judge_request(spec, head.request)
                status = answer(FIRST_PORT + index, data)
                compared += 1
                passes = status in PASSED
                kind = (
                    "connect" if data.startswith(b"CONNECT") else "hostless" if b"\nHost" not in data else ""
                )
                passed[kind] += passes
                if passes and not decision.passes:
                    looser.append((spec, data, decision))
                if not passes and decision.passes and not is_stricter(spec, head.request):
                    tighter.append((spec, data, decision, status))
    assert compared > 200
    assert min(passed[kind] for kind in ("", "hostless", "connect")) > 20, passed
    assert not looser, looser[0]
    assert not tighter, tighter[0]


def test_the_name_of_a_route_says_verdict_reason_and_rule() -> None:
    spec = RulesetSpec((), "L7Policy/a/b:default-deny")
    (*_, last, _connect) = route_table("r", spec)["virtual_hosts"][0]["routes"]
    assert verdict_of(last["name"]) == ("deny", Reason.POLICY_DENIED_L7, "L7Policy/a/b:default-deny")
