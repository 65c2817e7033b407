"""The rules applied to a parsed head, in plain Python: what the tables must agree with."""

from __future__ import annotations

from dataclasses import dataclass

from yett_policy.document import Verdict
from yett_policy.http.alternatives import names_connect
from yett_policy.http.compile import AMBIGUITIES
from yett_policy.http.machine import Judgement, Machine
from yett_policy.http.parse import Head, Refusal, parse_head
from yett_policy.http.regex import matches
from yett_policy.http.rule import HeaderOp, HttpRule, PathKind, RuleAction, RulesetSpec
from yett_policy.reason import Reason


@dataclass(frozen=True)
class Expected:
    """What the oracle says about one head."""

    verdict: Verdict
    reason: Reason
    rule: int
    offset: int
    upgrade: bool = False


def path_matches(rule: HttpRule, target: bytes) -> bool:
    if rule.path is None:
        return True
    if rule.path_kind is PathKind.REGEX:
        return matches(rule.path, target)
    path = target.split(b"?")[0]
    wanted = rule.path.encode("latin-1")
    if rule.path_kind is PathKind.EXACT:
        return path == wanted
    wanted = wanted.rstrip(b"/")
    return path == wanted or path.startswith(wanted + b"/")


def header_matches(op: HeaderOp, wanted: str, value: bytes | None) -> bool:
    if op is HeaderOp.ABSENT:
        return value is None
    if value is None:
        return False
    data = wanted.encode("latin-1")
    return {
        HeaderOp.PRESENT: lambda: True,
        HeaderOp.EXACT: lambda: value == data,
        HeaderOp.PREFIX: lambda: value.startswith(data),
        HeaderOp.SUFFIX: lambda: value.endswith(data),
        HeaderOp.REGEX: lambda: matches(wanted, value),
    }[op]()


def line_matches(rule: HttpRule, method: bytes, target: bytes) -> bool:
    return (rule.method is None or matches(rule.method, method)) and path_matches(rule, target)


def fields_match(rule: HttpRule, head: Head) -> bool:
    values = {name.decode("latin-1").lower(): value for name, value in reversed(head.request.headers)}
    host = values.get("host")
    if rule.host is not None and (host is None or not matches(rule.host, host.lower())):
        return False
    return all(header_matches(header.op, header.value, values.get(header.name)) for header in rule.headers)


def may_upgrade(rule: HttpRule, head: Head) -> bool:
    offered = [value for name, value in head.request.headers if name.lower() == b"upgrade"]
    if not rule.upgrades or not offered:
        return False
    return all(
        part.strip(b" \t").lower().decode("latin-1") in rule.upgrades for part in offered[0].split(b",")
    )


def parse(spec: RulesetSpec, data: bytes) -> Head | Refusal | None:
    tolerated = {reason for rule in spec.rules for reason in rule.tolerate}
    named = {header.name for rule in spec.rules for header in rule.headers}
    return parse_head(
        data,
        tolerated=AMBIGUITIES if spec.audit and not denies(spec) else tolerated,
        named=named,
        connect=any(map(names_connect, spec.rules)),
    )


def denies(spec: RulesetSpec) -> bool:
    return any(rule.action is RuleAction.DENY for rule in spec.rules)


def line_rules(spec: RulesetSpec, head: Head) -> list[int]:
    """Rules that match the request line; allows only if they bear the ambiguity at its end."""
    connect = head.request.method == b"CONNECT"
    found = []
    for index, rule in enumerate(spec.rules):
        if not line_matches(rule, head.request.method, head.request.target):
            continue
        if rule.action is RuleAction.ALLOW:
            if connect and not names_connect(rule):
                continue
            if head.at_end is not None and head.at_end not in rule.tolerate:
                continue
        found.append(index)
    return found


def judge(spec: RulesetSpec, head: Head) -> Expected:
    """The verdict on a whole head."""
    last = head.size - 1
    matching = [i for i in line_rules(spec, head) if fields_match(spec.rules[i], head)]
    default = len(spec.rules)
    audit_rule = None
    for index in matching:
        if spec.rules[index].action is RuleAction.DENY:
            return Expected(Verdict.DENY, Reason.DENY_RULE_L7, index, last)
        if spec.rules[index].action is RuleAction.AUDIT_DENY and audit_rule is None:
            audit_rule = index
    allows = [i for i in matching if spec.rules[i].action is RuleAction.ALLOW]
    fitting = [i for i in allows if head.noted <= set(spec.rules[i].tolerate)]
    if fitting:
        fitting.sort(key=lambda i: (not may_upgrade(spec.rules[i], head), i))
        upgrade = may_upgrade(spec.rules[fitting[0]], head) or head.request.method == b"CONNECT"
        if audit_rule is not None:
            return Expected(Verdict.AUDIT, Reason.DENY_RULE_L7, audit_rule, last, upgrade)
        return Expected(Verdict.ALLOW, Reason.ALLOWED, fitting[0], last, upgrade)
    reason = Reason.POLICY_DENIED_L7
    if allows:
        reason = min(head.noted - set(spec.rules[_last_searched(spec, allows)].tolerate))
    audited = spec.audit and not (allows and denies(spec))
    return Expected(Verdict.AUDIT if audited else Verdict.DENY, reason, default, last)


def _last_searched(spec: RulesetSpec, allows: list[int]) -> int:
    return allows[-1]


def compare(spec: RulesetSpec, data: bytes, judgements: list[Judgement]) -> None:
    """Assert that what the machine said of the first head of `data` is right."""
    head = parse(spec, data)
    first = judgements[0] if judgements else None
    default = len(spec.rules)
    enforcing = not spec.audit or denies(spec)
    if not isinstance(head, Head):
        end = len(data) if head is None else head.offset
        if first is None:
            assert head is None, f"machine silent, parser {head}"
            return
        if head is not None and first.reason is head.reason and first.offset == head.offset:
            assert first.rule == default
            assert first.verdict is (Verdict.DENY if enforcing else Verdict.AUDIT)
            return
        # Only policy may speak first, and only on the request line.
        assert first.reason in {Reason.POLICY_DENIED_L7, Reason.DENY_RULE_L7} or (
            first.reason.name.startswith("AMBIGUOUS") and data[first.offset] == 0x20
        ), (first, head)
        assert first.offset < end, (first, head)
        assert data[: first.offset].count(b"\n") == 0
        assert first.verdict is Verdict.DENY
        return
    assert first is not None, f"machine silent, parser {head}"
    expected = judge(spec, head)
    if first.offset == expected.offset:
        assert Expected(first.verdict, first.reason, first.rule, first.offset, first.upgrade) == expected
        return
    # Denied early: on the request line, because no allow rule matches it.
    assert first.offset < expected.offset
    assert data[: first.offset].count(b"\n") == 0
    assert first.verdict is Verdict.DENY
    matching = line_rules(spec, head)
    line = [spec.rules[i].action for i in matching]
    if first.reason is Reason.DENY_RULE_L7:
        # Of several, one that asks for no header: it need not wait for the others.
        rule = spec.rules[first.rule]
        assert first.rule in matching
        assert (rule.action, rule.host, rule.headers) == (RuleAction.DENY, None, ())
        assert expected.reason is Reason.DENY_RULE_L7
    else:
        assert RuleAction.ALLOW not in line, (first, expected)
        assert not spec.audit
        assert expected.verdict is Verdict.DENY


def run(tables: bytes, data: bytes) -> list[Judgement]:
    return Machine(tables).feed(data)
