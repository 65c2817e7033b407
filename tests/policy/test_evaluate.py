"""The readable reference: look-up order, requests, ambiguity; and the kernel tables agree with it."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from support.examples import examples
from yett_policy.document import Direction, Document, Entry, Verdict
from yett_policy.evaluate import Decision, Flow, decide, judge_request, look_up
from yett_policy.http.ambiguity import ambiguities
from yett_policy.http.compile import compile_ruleset
from yett_policy.http.machine import Machine
from yett_policy.http.rule import (
    HeaderOp,
    HeaderRule,
    HttpRule,
    PathKind,
    Request,
    RuleAction,
    RulesetSpec,
)
from yett_policy.reason import Reason


def entry(peer: int, proto: int, port: int, bits: int, rule: int) -> Entry:
    return Entry(Direction.INGRESS, peer, proto, port, bits, Verdict.ALLOW, Reason.ALLOWED, rule)


DOCUMENT = Document.of(
    300,
    (
        entry(0, 0, 0, 0, 0),
        entry(0, 6, 80, 16, 1),
        entry(0, 17, 53, 16, 2),
        entry(400, 0, 0, 0, 3),
        entry(400, 6, 0, 0, 4),
        entry(400, 6, 64, 11, 5),
        entry(400, 6, 80, 16, 6),
        entry(500, 6, 443, 16, 7),
    ),
    tuple(f"rule-{i}" for i in range(8)),
)


@pytest.mark.parametrize(
    ("peer", "proto", "port", "rule"),
    [
        (400, 6, 80, 6),  # the longest port prefix
        (400, 6, 81, 5),  # 64 to 95
        (400, 6, 96, 4),
        (400, 17, 53, 3),  # the peer's own default hides what is said of anyone
        (500, 6, 443, 7),
        (500, 6, 80, 1),
        (500, 17, 53, 2),
        (500, 17, 54, 0),
        (600, 6, 80, 1),
        (600, 1, 8, 0),
    ],
)
def test_the_look_up_order_is_peer_before_anyone_and_port_before_all_ports(
    peer: int, proto: int, port: int, rule: int
) -> None:
    flow = Flow(Direction.INGRESS, peer, proto, port)
    assert look_up(DOCUMENT, flow).rule == rule
    assert decide(DOCUMENT, {}, flow).rule == f"rule-{rule}"


def test_a_document_without_a_default_is_an_error_and_not_a_verdict() -> None:
    with pytest.raises(LookupError, match="document 300 has no default for EGRESS"):
        look_up(DOCUMENT, Flow(Direction.EGRESS, 1, 6, 80))


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("/", []),
        ("/a/b.c/..d/e.?x=//../%2f", []),
        ("/a/", []),
        ("/.", ["DOT_SEGMENT"]),
        ("/..", ["DOT_SEGMENT"]),
        ("/a/../b", ["DOT_SEGMENT"]),
        ("/a/..?x", ["DOT_SEGMENT"]),
        ("/a/..;v=1/b", ["DOT_SEGMENT", "SEMICOLON"]),
        ("/%2e./b", ["DOT_SEGMENT", "ENCODED_DOT"]),
        ("/%2Ehidden", ["ENCODED_DOT"]),
        ("//", ["EMPTY_SEGMENT"]),
        ("//a", ["EMPTY_SEGMENT"]),
        ("/a//b", ["EMPTY_SEGMENT"]),
        ("/a%2Fb", ["ENCODED_SLASH"]),
        ("/a%2F/b", ["EMPTY_SEGMENT", "ENCODED_SLASH"]),
        ("/a%5cb", ["ENCODED_BACKSLASH"]),
        ("/a\\..\\b", ["DOT_SEGMENT", "BACKSLASH"]),
        ("/%2561", ["ENCODED_PERCENT"]),
        ("/a%00", ["ENCODED_NUL"]),
        ("/a;b", ["SEMICOLON"]),
        ("/a#b", ["FRAGMENT"]),
        ("/a?b#c", ["FRAGMENT"]),
        ("/\xe9", ["NON_ASCII"]),
        ("/?\xe9", ["NON_ASCII"]),
        ("/%", ["PERCENT"]),
        ("/%4", ["PERCENT"]),
        ("/%zz", ["PERCENT"]),
        ("/%41", []),
        ("/?%zz%2f;\\", []),
    ],
)
def test_each_ambiguity_of_a_target_is_seen(target: str, names: list[str]) -> None:
    found = ambiguities(target.encode("latin-1")) - {Reason.HTTP_TARGET}
    assert found == {Reason[f"AMBIGUOUS_{name}"] for name in names}


def get(target: str, *headers: tuple[str, str], method: str = "GET") -> Request:
    return Request(
        method.encode(),
        target.encode("latin-1"),
        tuple((name.encode(), value.encode("latin-1")) for name, value in headers),
    )


ALLOW = HttpRule("allow", path="/a", path_kind=PathKind.PREFIX)
DENY = HttpRule("deny", RuleAction.DENY, path="/a/secret", path_kind=PathKind.PREFIX)
WATCH = HttpRule("watch", RuleAction.AUDIT_DENY, path="/a/new", path_kind=PathKind.PREFIX)


def test_a_deny_rule_beats_an_allow_rule_and_a_watching_rule_only_marks() -> None:
    spec = RulesetSpec((ALLOW, DENY, WATCH), "default")
    assert judge_request(spec, get("/a")) == Decision(Verdict.ALLOW, Reason.ALLOWED, "allow")
    assert judge_request(spec, get("/a/secret")) == Decision(Verdict.DENY, Reason.DENY_RULE_L7, "deny")
    assert judge_request(spec, get("/a/new")) == Decision(Verdict.AUDIT, Reason.DENY_RULE_L7, "watch")
    assert judge_request(spec, get("/b")) == Decision(Verdict.DENY, Reason.POLICY_DENIED_L7, "default")


def test_an_audit_ruleset_says_what_it_would_deny() -> None:
    spec = RulesetSpec((ALLOW, WATCH), "default", audit=True)
    assert judge_request(spec, get("/b")) == Decision(Verdict.AUDIT, Reason.POLICY_DENIED_L7, "default")
    assert judge_request(spec, get("/a//b")).verdict is Verdict.AUDIT
    assert judge_request(spec, get("/a")).verdict is Verdict.ALLOW


def test_in_an_audit_ruleset_nothing_hides_from_a_rule_that_denies() -> None:
    spec = RulesetSpec((ALLOW, DENY), "default", audit=True)
    assert judge_request(spec, get("/a/secret")).verdict is Verdict.DENY
    assert judge_request(spec, get("/a/x/../secret")).verdict is Verdict.DENY
    assert judge_request(spec, get("/b")).verdict is Verdict.AUDIT


def test_an_ambiguity_passes_only_by_a_rule_that_tolerates_it() -> None:
    tolerant = HttpRule("tolerant", path="/t.*", tolerate=(Reason.AMBIGUOUS_EMPTY_SEGMENT,))
    spec = RulesetSpec((ALLOW, tolerant), "default")
    assert judge_request(spec, get("/t//x")).rule == "tolerant"
    assert judge_request(spec, get("/a//x")).reason is Reason.AMBIGUOUS_EMPTY_SEGMENT
    assert judge_request(spec, get("/t/../x")).reason is Reason.AMBIGUOUS_DOT_SEGMENT
    assert judge_request(spec, get("/t//x")).verdict is Verdict.ALLOW


def test_connect_needs_a_rule_that_spells_it_out() -> None:
    anything = HttpRule("any")
    connect = HttpRule("connect", method="CONNECT|GET")
    request = get("a.test:443", method="CONNECT")
    assert judge_request(RulesetSpec((anything,), "default"), request).reason is Reason.CONNECT_DENIED
    assert judge_request(RulesetSpec((anything, connect), "default"), request).rule == "connect"


def test_a_header_that_rules_name_may_occur_once() -> None:
    spec = RulesetSpec((HttpRule("r", headers=(HeaderRule("x-a", HeaderOp.PRESENT),)),), "default")
    assert judge_request(spec, get("/", ("X-A", "1"))).verdict is Verdict.ALLOW
    assert judge_request(spec, get("/", ("X-A", "1"), ("x-a", "1"))).reason is Reason.HTTP_AMBIGUOUS_HEADER
    assert judge_request(spec, get("/", ("X-A", "1"), ("X-B", "1"), ("X-B", "2"))).verdict is Verdict.ALLOW


def test_the_prefix_slash_covers_every_path() -> None:
    spec = RulesetSpec((HttpRule("r", path="/", path_kind=PathKind.PREFIX),), "default")
    assert judge_request(spec, get("/any/thing?x")).verdict is Verdict.ALLOW


_headers = st.builds(
    HeaderRule,
    st.sampled_from(["x-a", "x-b"]),
    st.sampled_from(HeaderOp),
    st.sampled_from(["1", "12", "ab"]),
)


@st.composite
def specs(draw: st.DrawFn) -> RulesetSpec:
    rules = []
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(PathKind))
        action = draw(st.sampled_from([RuleAction.ALLOW, RuleAction.ALLOW, *RuleAction]))
        path = ["/a.*", "/.*", "/a/b"] if kind is PathKind.REGEX else ["/a", "/a/b", "/"]
        tolerate = draw(
            st.sets(st.sampled_from([r for r in Reason if r.name.startswith("AMBIGUOUS_")]), max_size=3)
        )
        rules.append(
            HttpRule(
                f"r{i}",
                action,
                draw(st.sampled_from([None, "GET", "GET|POST"])),
                draw(st.sampled_from([None, *path])),
                kind,
                draw(st.sampled_from([None, None, "h", ".*"])),
                tuple(sorted(set(draw(st.lists(_headers, max_size=1))))),
                tolerate=tuple(sorted(tolerate)) if action is RuleAction.ALLOW else (),
            )
        )
    return RulesetSpec(tuple(rules), "default", audit=draw(st.booleans()))


_requests = st.builds(
    lambda method, bits, query, host, headers: Request(
        method, b"/" + b"/".join(bits) + query, ((b"Host", host), *headers)
    ),
    st.sampled_from([b"GET", b"POST", b"PUT"]),
    st.lists(
        st.sampled_from([b"a", b"b", b"..", b".", b"", b"%2e", b"a%2f", b"x;y", b"%41", b"\\"]), max_size=3
    ),
    st.sampled_from([b"", b"?q", b"?//"]),
    st.sampled_from([b"h", b"H:80"]),
    st.lists(
        st.tuples(st.sampled_from([b"X-A", b"x-b", b"X-Z"]), st.sampled_from([b"1", b"12", b"ab"])),
        max_size=2,
    ),
)


@settings(max_examples=examples(150))
@given(specs(), _requests)
def test_the_kernel_tables_give_the_verdict_of_the_reference(spec: RulesetSpec, request: Request) -> None:
    tables = compile_ruleset(spec).tables
    assume(tables)
    head = b"%s %s HTTP/1.1\r\n" % (request.method, request.target)
    head += b"".join(b"%s: %s\r\n" % header for header in request.headers) + b"\r\n"
    (judgement,) = Machine(tables).feed(head)
    wanted = judge_request(spec, request)
    assert judgement.verdict is wanted.verdict
