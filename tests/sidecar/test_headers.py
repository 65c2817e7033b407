"""Rules about headers that every proxy takes away, makes up or joins: they are about what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from support.http_oracle import parse
from support.netns import Namespace
from support.standalone import FIRST_PORT, PASSED, answer, serving
from yett_policy.evaluate import judge_request
from yett_policy.http.parse import Head
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, RuleAction, RulesetSpec

pytestmark = pytest.mark.net

VALUES = {
    "connection": "close",
    "keep-alive": "timeout=5",
    "proxy-connection": "close",
    "te": "gzip",
    "transfer-encoding": "chunked",
    "upgrade": "h2c",
    "x-forwarded-proto": "http",
    "x-forwarded-for": "192.0.2.1",
    "x-forwarded-client-cert": "Hash=1",
    "x-request-id": "1",
    "forwarded": "for=a",
    "via": "1.1 a",
    "trailer": "x",
    "date": "now",
    "cookie": "a=b",
    "authorization": "Basic YTpi",
    "content-type": "text/plain",
    "user-agent": "a",
    "x-client-trace-id": "1",
}
"""The name of a header, and a value."""
OTHER = "keep-alive"
CONDITIONS = [
    (HeaderOp.PRESENT, False),
    (HeaderOp.ABSENT, False),
    (HeaderOp.EXACT, True),
    (HeaderOp.PREFIX, True),
    (HeaderOp.REGEX, True),
]


def _ruleset(name: str, op: HeaderOp, action: RuleAction, *, valued: bool) -> RulesetSpec:
    condition = HeaderRule(name, op, VALUES[name] if valued else "")
    rest = [HttpRule("rest")] if action is RuleAction.DENY else []
    return RulesetSpec((HttpRule("r", headers=(condition,), action=action), *rest), "default", forbidden=True)


CASES = [
    (name, _ruleset(name, op, action, valued=valued))
    for name, (op, valued), action in product(VALUES, CONDITIONS, (RuleAction.ALLOW, RuleAction.DENY))
]


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    with serving([spec for _, spec in CASES], tmp_path_factory.mktemp("envoy")) as inside:
        yield inside


def test_they_are_judged_as_in_the_kernel_engine(envoy: Namespace) -> None:
    wrong, passed = [], 0
    with envoy:
        for index, (name, spec) in enumerate(CASES):
            for field in ("", f"{name}: {VALUES[name]}\r\n", f"{name.title()}: {OTHER}\r\n"):
                data = f"POST /a HTTP/1.1\r\nHost: a\r\n{field}\r\n".encode()
                if name == "transfer-encoding" and field:
                    data += b"0\r\n\r\n"
                head = parse(spec, data)
                expected = isinstance(head, Head) and judge_request(spec, head.request).passes
                found = answer(FIRST_PORT + index, data) in PASSED
                passed += found
                if found is not expected:
                    wrong.append((name, spec.rules[0], field, expected))
    assert passed > len(CASES)
    assert not wrong


def test_what_a_client_says_in_our_words_is_not_heard(envoy: Namespace) -> None:
    with envoy:
        for index, (name, spec) in enumerate(CASES):
            rule = spec.rules[0]
            if rule.action is RuleAction.ALLOW and rule.headers[0].op is HeaderOp.PRESENT:
                data = f"GET /a HTTP/1.1\r\nHost: a\r\nX-Envoy-Sent-{name}: {VALUES[name]}\r\n\r\n"
                assert answer(FIRST_PORT + index, data.encode()) == 403, name
