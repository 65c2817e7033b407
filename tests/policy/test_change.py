"""What rules change in requests: the reference that the sidecar is compared with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from yett_policy.document import Engine, Verdict
from yett_policy.evaluate import forward, judge_request
from yett_policy.http.change import ChangeOp, HeaderChange, changed, resolved, values_of
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, Request, RuleAction, RulesetSpec
from yett_policy.merge import Claim, Defaults, merge
from yett_policy.reason import Reason
from yett_policy.rulesets import compile_spec
from yett_policy.source.parse import parse_policy

ADD, DELETE, REPLACE, LOG = ChangeOp.ADD, ChangeOp.DELETE, ChangeOp.REPLACE, ChangeOp.LOG


def request(*headers: tuple[bytes, bytes], target: bytes = b"/a") -> Request:
    return Request(b"GET", target, ((b"Host", b"h"), *headers))


def rule(
    ref: str, *changes: HeaderChange, path: str | None = None, action: RuleAction = RuleAction.ALLOW
) -> HttpRule:
    return HttpRule(ref, action, path=path, changes=tuple(sorted(changes)))


def seen(spec: RulesetSpec, asked: Request, secrets: dict[str, str] | None = None) -> list[bytes] | None:
    """The server's values of x-a."""
    passed = forward(spec, asked, secrets or {})
    return None if passed is None else values_of(passed.request.headers, "x-a")


@pytest.mark.parametrize(
    ("changes", "sent", "wanted"),
    [
        ([(ADD, "v")], [], [b"v"]),
        ([(ADD, "v")], [b"u"], [b"u", b"v"]),
        ([(ADD, "v")], [b"u", b"v"], [b"u", b"v"]),
        ([(ADD, "v"), (ADD, "w")], [], [b"v", b"w"]),
        ([(DELETE, "v")], [], []),
        ([(DELETE, "v")], [b"v"], [b"v"]),
        ([(DELETE, "v")], [b"u", b"v", b"V"], [b"v"]),
        ([(DELETE, "v"), (DELETE, "w")], [b"v", b"w"], []),
        ([(REPLACE, "v")], [], [b"v"]),
        ([(REPLACE, "v")], [b"v"], [b"v"]),
        ([(REPLACE, "v")], [b"u", b"v"], [b"v"]),
        ([(REPLACE, "v"), (REPLACE, "w")], [b"u"], [b"w"]),
        ([(DELETE, "v"), (REPLACE, "w")], [b"v"], [b"w"]),
        ([(REPLACE, "v"), (ADD, "w")], [b"w"], [b"v", b"w"]),
        ([(DELETE, "w"), (ADD, "v")], [b"v", b"w"], [b"w", b"v"]),
        ([(LOG, "v")], [b"u"], [b"u"]),
    ],
)
def test_the_server_sees_what_the_changes_of_all_rules_leave(
    changes: list[tuple[ChangeOp, str]], sent: list[bytes], wanted: list[bytes]
) -> None:
    rules = tuple(rule(f"r{i}", HeaderChange("x-a", op, value)) for i, (op, value) in enumerate(changes))
    asked = request(*((b"X-A", value) for value in sent))
    assert seen(RulesetSpec(rules, "default"), asked) == wanted


def test_the_request_is_judged_as_the_client_sent_it() -> None:
    strict = HttpRule("a", headers=(HeaderRule("x-a", HeaderOp.EXACT, "v"),))
    spec = RulesetSpec((strict, rule("b", HeaderChange("x-a", REPLACE, "v"), path="/b")), "default")
    assert seen(spec, request((b"X-A", b"u"), target=b"/a")) is None
    assert seen(spec, request((b"X-A", b"u"), target=b"/b")) == [b"v"]


def test_only_rules_that_allow_the_request_change_it() -> None:
    change = HeaderChange("x-a", REPLACE, "v")
    other = rule("other", change, path="/b")
    deny = HttpRule("deny", RuleAction.DENY, path="/c", changes=(change,))
    watch = HttpRule("watch", RuleAction.AUDIT_DENY, path="/d", changes=(change,))
    spec = RulesetSpec((HttpRule("any"), deny, other, watch), "default")
    assert seen(spec, request(target=b"/a")) == []
    assert seen(spec, request(target=b"/b")) == [b"v"]
    assert seen(spec, request(target=b"/c")) is None
    assert seen(spec, request(target=b"/d")) == []
    assert seen(spec, request(target=b"/a//b")) is None


def test_under_audit_what_no_rule_allows_passes_unchanged() -> None:
    spec = RulesetSpec((rule("r", HeaderChange("x-a", REPLACE, "v"), path="/a"),), "default", audit=True)
    assert judge_request(spec, request(target=b"/b")).verdict is Verdict.AUDIT
    assert seen(spec, request(target=b"/b")) == []
    assert seen(spec, request(target=b"/a//b")) == []
    assert seen(spec, request(target=b"/a")) == [b"v"]


def test_log_records_the_headers_that_are_not_as_wanted() -> None:
    spec = RulesetSpec(
        (rule("r", HeaderChange("x-a", LOG, "v"), HeaderChange("x-b", LOG), HeaderChange("x-c", ADD, "c")),),
        "default",
    )
    passed = forward(spec, request((b"X-A", b"u")))
    assert passed is not None
    assert passed.mismatched == ("x-a", "x-b")
    passed = forward(spec, request((b"X-A", b"v"), (b"x-b", b"")))
    assert passed is not None
    assert passed.mismatched == ()


def test_without_its_secret_a_rule_matches_nothing_or_uses_the_value() -> None:
    bare = rule("a", HeaderChange("x-a", REPLACE, None, "n/s"))
    spec = RulesetSpec((bare,), "default")
    assert seen(spec, request()) is None
    assert seen(spec, request(), {"n/s": "of the secret"}) == [b"of the secret"]
    spec = RulesetSpec((rule("a", HeaderChange("x-a", REPLACE, "fallback", "n/s")),), "default")
    assert seen(spec, request()) == [b"fallback"]
    assert seen(spec, request(), {"n/s": "of the secret"}) == [b"of the secret"]
    assert seen(spec, request(), {"n/other": "of another"}) == [b"fallback"]
    assert spec.secrets == ("n/s",)
    assert resolved(spec.rules, ()) == (rule("a", HeaderChange("x-a", REPLACE, "fallback")),)


changes = st.builds(
    HeaderChange, st.sampled_from(["x-a", "x-b"]), st.sampled_from([ADD, DELETE, LOG]), st.sampled_from("uvw")
)
fields = st.lists(
    st.tuples(st.sampled_from([b"X-A", b"x-b", b"x-z"]), st.sampled_from([b"u", b"v", b""])), max_size=5
)


@given(fields, st.lists(changes, max_size=5), st.randoms())
def test_the_order_of_rules_does_not_matter(
    headers: list[tuple[bytes, bytes]], made: list[HeaderChange], random: object
) -> None:
    shuffled = list(made)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, two = (changed(headers, each, {}) for each in (made, shuffled))
    assert sorted(one) == sorted(two)
    assert [field for field in one if field[0] == b"x-z"] == [
        field for field in headers if field[0] == b"x-z"
    ]
    assert sorted(changed(one, made, {})) == sorted(one) or any(item.op is DELETE for item in made)


# -- from policies to rulesets --------------------------------------------------------------


def claims(text: str, *, audit: bool = False, name: str = "p") -> list[Claim]:
    body = f"""
apiVersion: yett.dev/v1alpha1
kind: L7Policy
metadata: {{name: {name}, namespace: n}}
spec:
  audit: {str(audit).lower()}
  endpointSelector: {{}}
  {text}"""
    (policy,) = parse_policy(yaml.safe_load(body))
    return [
        Claim(policy, ports.ref, item.deny, ports.http) for item in policy.rules for ports in item.ports or ()
    ]


PORT = 'toPorts: [{ports: [{port: "80", protocol: TCP}]'
CHANGING = f"ingress: [{{{PORT}, rules: {{http: [{{path: /a, headerMatches: [{{name: X-A, value: v, mismatch: REPLACE}}]}}]}}}}]}}]"
PLAIN = f"ingress: [{{{PORT}}}]}}]"
DENY = Defaults(("L7Policy/n/p:default-deny",))


def test_a_ruleset_that_changes_headers_goes_to_the_sidecar_and_says_why() -> None:
    outcome = merge(claims(CHANGING), DENY)
    assert outcome.ruleset is not None
    ruleset = compile_spec(outcome.ruleset)
    assert (ruleset.engine, ruleset.engine_reason) == (Engine.SIDECAR, "a rule changes header x-a")
    ruleset = compile_spec(replace(outcome.ruleset, engine="Kernel"))
    assert ruleset.engine is Engine.SIDECAR
    assert "a rule changes header x-a" in ruleset.engine_reason


def test_a_change_is_part_of_the_digest() -> None:
    outcome = merge(claims(CHANGING), DENY)
    other = merge(claims(CHANGING.replace("value: v", "value: w")), DENY)
    assert outcome.ruleset is not None
    assert other.ruleset is not None
    assert outcome.ruleset.digest != other.ruleset.digest


@pytest.mark.parametrize(
    ("beside", "defaults", "host", "reason"),
    [
        (claims(PLAIN, name="q"), DENY, False, Reason.ALLOWED),
        ([], Defaults(), False, Reason.NOT_ENFORCED),
        ([], DENY, True, Reason.HOST),
    ],
)
def test_headers_are_changed_whatever_else_lets_the_request_pass(
    beside: list[Claim], defaults: Defaults, host: bool, reason: Reason
) -> None:
    outcome = merge([*claims(CHANGING), *beside], defaults, host=host)
    assert outcome.reason is reason
    assert outcome.ruleset is not None
    assert seen(outcome.ruleset, request(target=b"/a")) == [b"v"]
    assert seen(outcome.ruleset, request(target=b"/b")) == []
    assert forward(outcome.ruleset, request(target=b"/b//a")) is None  # it could hide from the change
    assert outcome.ruleset.default_rule


def test_a_policy_that_only_records_changes_nothing() -> None:
    outcome = merge(claims(CHANGING, audit=True), Defaults(audited=DENY.enforced))
    assert outcome.ruleset is not None
    assert seen(outcome.ruleset, request(target=b"/a")) == []
    assert compile_spec(outcome.ruleset).engine is Engine.KERNEL


@pytest.mark.parametrize(
    "watching",
    [PLAIN.replace("ingress:", "ingressDeny:"), f"ingress: [{{{PORT}, rules: {{http: [{{path: /c}}]}}}}]}}]"],
)
def test_a_policy_that_only_records_keeps_no_other_from_changing(watching: str) -> None:
    both = [*claims(CHANGING), *claims(watching, audit=True, name="q")]
    outcome = merge(both, Defaults((), ("L7Policy/n/q:default-deny",)))
    assert outcome.ruleset is not None
    assert seen(outcome.ruleset, request(target=b"/a")) == [b"v"]
    assert seen(outcome.ruleset, request(target=b"/b")) == []
    assert judge_request(outcome.ruleset, request(target=b"/b")).verdict is Verdict.AUDIT
