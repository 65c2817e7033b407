from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.http_strategies import specs, streams
from yett_policy.document import Verdict
from yett_policy.http.compile import compile_tables
from yett_policy.http.machine import Judgement, Machine
from yett_policy.http.regex import _Matcher
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, PathKind, RuleAction, RulesetSpec
from yett_policy.reason import Reason

PUBLIC = HttpRule("public", method="GET", path="/public")


def judge(data: bytes, *rules: HttpRule, **options: bool) -> list[Judgement]:
    return Machine(compile_tables(RulesetSpec(rules, "default", **options)).data).feed(data)


def request(method: str = "GET", target: str = "/public", *fields: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", *fields, "", ""]).encode("latin-1")


@settings(
    max_examples=examples(120), suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)
@given(specs(3), st.booleans(), st.lists(st.tuples(streams(), st.randoms(use_true_random=False)), max_size=6))
def test_no_segmentation_changes_a_judgement(spec: RulesetSpec, settle: bool, cases: list[object]) -> None:
    tables = compile_tables(spec, settle=settle).data
    for stream, random in cases:  # type: ignore[misc, attr-defined]
        whole = Machine(tables).feed(stream)
        pieces, at, machine = [], 0, Machine(tables)
        while at < len(stream):
            size = random.choice([1, 1, 2, 3, 16, 40])
            pieces += machine.feed(stream[at : at + size])
            at += size
        assert pieces == whole


def test_the_article_is_enforced_at_the_first_byte_that_differs() -> None:
    assert judge(request(), PUBLIC)[0].verdict is Verdict.ALLOW
    for stream, offset in [
        (request(target="/private"), 6),
        (request("POST"), 1),
        (request("HEAD"), 0),
        (request(target="/public/"), 11),
        (request(target="/public?x"), 11),
        (request("GETX"), 3),
    ]:
        (denied,) = judge(stream, PUBLIC)
        assert (denied.verdict, denied.reason, denied.offset) == (
            Verdict.DENY,
            Reason.POLICY_DENIED_L7,
            offset,
        )
        assert denied.rule == 1  # the default


def test_a_denial_comes_at_the_first_byte_after_which_no_rule_can_allow() -> None:
    rules = (
        HttpRule("a", method="GET|POST", path=r"/api/v[0-9]+/(items|users)(/[a-z]+)?"),
        HttpRule("b", method="PUT", path="/api/v1/x{2,4}"),
        HttpRule("c", RuleAction.DENY, path="/deny", path_kind=PathKind.PREFIX),
    )
    lines = [_Matcher(f"({rule.method}) ({rule.path}) ") for rule in rules[:2]]
    for line in [
        "GET /api/v1/items ", "GET /api/v12/users/bob ", "GET /api/v/items ", "POST /api/v1/item ", "PUT /api/v1/xx ",
        "PUT /api/v1/xxxxx ", "PUT /api/v1/x ", "GET /deny ", "PATCH /api ", "GET /api/v1/users/b0b ", "GET /api/v1/items/ ",
    ]:  # fmt: skip
        viable = 0
        while viable < len(line) and any(_survives(matcher, line[: viable + 1]) for matcher in lines):
            viable += 1
        judgements = judge(line.encode(), *rules)
        assert [j.offset for j in judgements] == ([] if viable == len(line) else [viable]), line


def _survives(matcher: _Matcher, text: str) -> bool:
    state = matcher.start
    for byte in text.encode():
        state = matcher.step(state, byte)
    return bool(state)


def test_requests_on_one_connection_are_judged_one_by_one() -> None:
    first = request("POST", "/public", "Content-Length: 17").replace(b"POST", b"GET")
    stream = first + b"GET /x HTTP/1.1\r\n" + request() + request(target="/private")
    found = judge(stream, PUBLIC)
    assert [j.verdict for j in found] == [Verdict.ALLOW, Verdict.ALLOW, Verdict.DENY]
    assert found[1].offset == len(first) + 17 + len(request()) - 1


def test_after_a_denial_nothing_more_is_judged() -> None:
    machine = Machine(compile_tables(RulesetSpec((PUBLIC,), "default")).data)
    assert len(machine.feed(request(target="/private") + request())) == 1
    assert machine.over
    assert machine.feed(request()) == []


def test_a_deny_rule_beats_a_wider_allow_at_the_end_of_the_target() -> None:
    deny = HttpRule("deny", RuleAction.DENY, path="/admin", path_kind=PathKind.PREFIX, forbidden=True)
    stream = request(target="/admin/x")
    (denied,) = judge(stream, HttpRule("all"), deny)
    assert (denied.reason, denied.rule, denied.forbidden) == (Reason.DENY_RULE_L7, 1, True)
    assert stream[: denied.offset + 1] == b"GET /admin/x "
    assert judge(request(target="/administrator"), HttpRule("all"), deny)[0].verdict is Verdict.ALLOW


def test_a_deny_rule_with_a_header_waits_for_it() -> None:
    deny = HttpRule("deny", RuleAction.DENY, headers=(HeaderRule("x-bad", HeaderOp.PRESENT),))
    assert judge(request("GET", "/", "X-Bad: 1"), HttpRule("all"), deny)[0].rule == 1
    assert judge(request("GET", "/"), HttpRule("all"), deny)[0].verdict is Verdict.ALLOW


def test_an_audit_deny_marks_what_an_allow_rule_lets_through() -> None:
    mark = HttpRule("mark", RuleAction.AUDIT_DENY, path="/b")
    (audited,) = judge(request(target="/b"), HttpRule("all"), mark)
    assert (audited.verdict, audited.reason, audited.rule) == (Verdict.AUDIT, Reason.DENY_RULE_L7, 1)
    assert judge(request(target="/b"), PUBLIC, mark)[0].verdict is Verdict.DENY


def test_an_audited_ruleset_lets_pass_and_says_so() -> None:
    found = judge(request() + request(target="/x//y") + request("POST", "/"), PUBLIC, audit=True)
    assert [(j.verdict, j.reason) for j in found] == [
        (Verdict.ALLOW, Reason.ALLOWED),
        (Verdict.AUDIT, Reason.POLICY_DENIED_L7),
        (Verdict.AUDIT, Reason.POLICY_DENIED_L7),
    ]
    (broken,) = judge(b"GET /\r\n" + request(), PUBLIC, audit=True)
    assert (broken.verdict, broken.reason) == (Verdict.AUDIT, Reason.HTTP_VERSION)


def test_an_audited_ruleset_with_a_deny_rule_stays_strict_about_the_grammar() -> None:
    deny = HttpRule("deny", RuleAction.DENY, path="/admin", path_kind=PathKind.PREFIX)
    for stream, reason in [
        (request(target="/admin"), Reason.DENY_RULE_L7),
        (b"GET /\r\n", Reason.HTTP_VERSION),
        (request(target="/a/../admin"), Reason.AMBIGUOUS_DOT_SEGMENT),
    ]:
        (denied,) = judge(stream, PUBLIC, deny, audit=True)
        assert (denied.verdict, denied.reason) == (Verdict.DENY, reason)
    assert judge(request(target="/x"), PUBLIC, deny, audit=True)[0].verdict is Verdict.AUDIT


def test_an_upgrade_needs_a_rule_for_every_protocol_offered() -> None:
    rules = (HttpRule("plain"), HttpRule("ws", upgrades=("websocket",)))
    for value, upgrade, rule in [
        ("websocket", True, 1),
        ("WebSocket", True, 1),
        ("websocket , websocket", True, 1),
        ("h2c", False, 0),
        ("websocket, h2c", False, 0),
        ("", False, 0),
    ]:
        (allowed,) = judge(request("GET", "/", f"Upgrade: {value}"), *rules)
        assert (allowed.verdict, allowed.upgrade, allowed.rule) == (Verdict.ALLOW, upgrade, rule)


def test_connect_needs_a_rule_that_spells_it_out() -> None:
    connect = b"CONNECT api.example:443 HTTP/1.1\r\nHost: a\r\n\r\n"
    for method in [None, ".*", "[A-Z]+"]:
        assert judge(connect, HttpRule("r", method=method))[0].reason is Reason.CONNECT_DENIED
    rule = HttpRule("r", method="GET|CONNECT", path=r"api\.example:443")
    (allowed,) = judge(connect, rule)
    assert (allowed.verdict, allowed.upgrade) == (Verdict.ALLOW, True)
    assert judge(connect.replace(b"443", b"444"), rule)[0].reason is Reason.POLICY_DENIED_L7
    anywhere = HttpRule("r", method="CONNECT")
    assert judge(b"CONNECT / HTTP/1.1\r\n", anywhere)[0].reason is Reason.HTTP_TARGET_FORM
    assert judge(b"CONNECT a HTTP/1.1\r\n", anywhere)[0].reason is Reason.HTTP_TARGET_FORM


def test_the_http2_preface_is_named_even_where_policy_would_deny_it() -> None:
    assert judge(b"PRI * HTTP/2.0\r\n\r\n", PUBLIC)[0].reason is Reason.HTTP2_PREFACE
    assert judge(b"PUT ", PUBLIC)[0].offset == 1
    assert judge(b"PRI / HTTP/1.1\r\n", PUBLIC)[0].reason is Reason.POLICY_DENIED_L7


def test_hosts_are_compared_in_lower_case_with_the_port_that_was_sent() -> None:
    rule = HttpRule("r", host=r"api\.example(:8080)?")
    for host, verdict in [
        ("API.Example", Verdict.ALLOW),
        (" api.example:8080 ", Verdict.ALLOW),
        ("api.example:80", Verdict.DENY),
        ("xapi.example", Verdict.DENY),
    ]:
        stream = f"GET / HTTP/1.1\r\nHost:{host}\r\n\r\n".encode()
        assert judge(stream, rule)[0].verdict is verdict
    assert judge(b"GET / HTTP/1.0\r\n\r\n", rule)[0].verdict is Verdict.DENY


def test_header_operators_see_the_value_without_its_spaces() -> None:
    cases = [
        (HeaderOp.EXACT, "a b", ["a b", " a b\t "], ["a  b", "a", "A b", ""]),
        (HeaderOp.PREFIX, "a ", ["a b", " a  b"], ["a", " a "]),
        (HeaderOp.SUFFIX, "b", ["b", "x b ", "bb"], ["bx"]),
        (HeaderOp.REGEX, "[a-c ]*", ["", "a b", " abc "], ["d", "ab d"]),
        (HeaderOp.PRESENT, "", ["", "x"], [None]),
        (HeaderOp.ABSENT, "", [None], ["", "x"]),
    ]
    for op, wanted, yes, no in cases:
        rule = HttpRule("r", headers=(HeaderRule("x-v", op, wanted),))
        for values, verdict in ((yes, Verdict.ALLOW), (no, Verdict.DENY)):
            for value in values:
                fields = [] if value is None else [f"X-V:{value}"]
                assert judge(request("GET", "/", *fields), rule)[0].verdict is verdict, (op, value)


def test_paths_match_as_their_kind_says() -> None:
    cases = [
        (PathKind.PREFIX, "/api", ["/api", "/api/", "/api/x", "/api?q", "/api/x?q"], ["/apix", "/ap", "/"]),
        (PathKind.PREFIX, "/api/", ["/api", "/api/x"], ["/apix"]),
        (PathKind.PREFIX, "/", ["/", "/x", "/?q"], []),
        (PathKind.EXACT, "/a", ["/a", "/a?", "/a?b/c"], ["/a/", "/ab", "/"]),
        (PathKind.REGEX, "/a.*", ["/a", "/a?b", "/ab/c"], ["/", "/b"]),
        (PathKind.REGEX, "/a[?]x=[0-9]+", ["/a?x=1"], ["/a?x=", "/a"]),
    ]
    for kind, path, yes, no in cases:
        for targets, verdict in ((yes, Verdict.ALLOW), (no, Verdict.DENY)):
            for target in targets:
                rule = HttpRule("r", path=path, path_kind=kind)
                assert judge(request(target=target), rule)[0].verdict is verdict, (path, target)


def test_a_rule_that_the_grammar_never_lets_match_denies_at_the_first_byte() -> None:
    (denied,) = judge(request(), HttpRule("r", path="/a b"))
    assert (denied.reason, denied.offset) == (Reason.POLICY_DENIED_L7, 0)


def test_a_host_that_matches_nothing_meets_no_condition_even_if_a_rule_would_take_an_empty_one() -> None:
    rules = (
        HttpRule("r", host="(a)?"),
        HttpRule("s", path="/s", headers=(HeaderRule("host", HeaderOp.EXACT, ""),)),
    )
    for target in ("/", "/s"):
        stream = f"GET {target} HTTP/1.1\r\nHost: b\r\n\r\n".encode()
        assert judge(stream, *rules)[0].reason is Reason.POLICY_DENIED_L7
    assert judge(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", *rules)[0].verdict is Verdict.ALLOW
