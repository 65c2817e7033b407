from __future__ import annotations

import pytest
from hypothesis import given, settings

from support.examples import examples
from support.http_strategies import targets
from yett_policy.document import Verdict
from yett_policy.http.ambiguity import ambiguities
from yett_policy.http.compile import AMBIGUITIES, compile_tables
from yett_policy.http.machine import Machine
from yett_policy.http.rule import HttpRule, PathKind, RulesetSpec
from yett_policy.reason import Reason

DOT, EMPTY = Reason.AMBIGUOUS_DOT_SEGMENT, Reason.AMBIGUOUS_EMPTY_SEGMENT
TOLERANT = compile_tables(RulesetSpec((HttpRule("r", tolerate=tuple(sorted(AMBIGUITIES))),), "d")).data
STRICT = compile_tables(RulesetSpec((HttpRule("r"),), "d")).data


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (b"/", set()),
        (b"/a.b/...?x=../y//;", set()),
        (b"/a/..", {DOT}),
        (b"/./?", {DOT}),
        (b"//", {EMPTY}),
        (b"/%2E%2e/", {Reason.AMBIGUOUS_ENCODED_DOT, DOT}),
        (b"/.%2e", {Reason.AMBIGUOUS_ENCODED_DOT, DOT}),
        (b"/a%2f", {Reason.AMBIGUOUS_ENCODED_SLASH}),
        (b"/a%2f.", {Reason.AMBIGUOUS_ENCODED_SLASH, DOT}),
        (b"/a%5c%00", {Reason.AMBIGUOUS_ENCODED_BACKSLASH, Reason.AMBIGUOUS_ENCODED_NUL}),
        (b"/a%25%32", {Reason.AMBIGUOUS_ENCODED_PERCENT}),
        (b"/..;/", {Reason.AMBIGUOUS_SEMICOLON, DOT, Reason.HTTP_TARGET}),
        (b"/\\a", {Reason.AMBIGUOUS_BACKSLASH, EMPTY, Reason.HTTP_TARGET}),
        (b"/a%", {Reason.AMBIGUOUS_PERCENT}),
        (b"/a%%41", {Reason.AMBIGUOUS_PERCENT}),
        (b"/a%;", {Reason.AMBIGUOUS_PERCENT, Reason.AMBIGUOUS_SEMICOLON, Reason.HTTP_TARGET}),
        (b"/#?#", {Reason.AMBIGUOUS_FRAGMENT}),
        (b"/\x80?\x7f", {Reason.AMBIGUOUS_NON_ASCII}),
    ],
)
def test_what_is_ambiguous_in_a_target(target: bytes, found: set[Reason]) -> None:
    assert ambiguities(target) == found


def judge(tables: bytes, target: bytes) -> tuple[Verdict, Reason]:
    (judgement,) = Machine(tables).feed(b"GET " + target + b" HTTP/1.0\r\n\r\n")
    return judgement.verdict, judgement.reason


@settings(max_examples=examples(600))
@given(targets.filter(lambda t: t[:1] == b"/" and not set(t) & set(b" \t\r\n\x01")))
def test_the_tables_and_the_readable_twin_agree(target: bytes) -> None:
    found = ambiguities(target)
    verdict, reason = judge(STRICT, target)
    assert (verdict is Verdict.ALLOW) == (not found)
    assert verdict is Verdict.ALLOW or reason in found
    verdict, reason = judge(TOLERANT, target)
    assert (verdict is Verdict.ALLOW) == (Reason.HTTP_TARGET not in found)


def test_a_rule_allows_only_the_ambiguities_that_it_tolerates_itself() -> None:
    spec = RulesetSpec(
        (
            HttpRule("a", path="/a", path_kind=PathKind.PREFIX, tolerate=(Reason.AMBIGUOUS_SEMICOLON,)),
            HttpRule(
                "b", path="/b", path_kind=PathKind.PREFIX, tolerate=(Reason.AMBIGUOUS_EMPTY_SEGMENT, DOT)
            ),
        ),
        "d",
    )
    for settle in (False, True):
        tables = compile_tables(spec, settle=settle).data
        assert judge(tables, b"/a/x;y") == (Verdict.ALLOW, Reason.ALLOWED)
        assert judge(tables, b"/a/x;") == (Verdict.ALLOW, Reason.ALLOWED)
        assert judge(tables, b"/a/x//y") == (Verdict.DENY, EMPTY)
        assert judge(tables, b"/b//x") == (Verdict.ALLOW, Reason.ALLOWED)
        assert judge(tables, b"/b/..") == (Verdict.ALLOW, Reason.ALLOWED)
        assert judge(tables, b"/a/..") == (Verdict.DENY, DOT)
        assert judge(tables, b"/b/x;y") == (Verdict.DENY, Reason.AMBIGUOUS_SEMICOLON)
        assert judge(tables, b"/b/..;") == (Verdict.DENY, DOT)
        assert judge(tables, b"/a%2e") == (Verdict.DENY, Reason.POLICY_DENIED_L7)
        assert judge(tables, b"/a/%2e") == (Verdict.DENY, Reason.AMBIGUOUS_ENCODED_DOT)
