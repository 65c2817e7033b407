from __future__ import annotations

import pytest
import re2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.examples import examples
from yett_policy.http.regex import RegexError, check, matches

OPTIONS = re2.Options()
OPTIONS.encoding = re2.Options.Encoding.LATIN1
OPTIONS.log_errors = False

REFUSED = [
    ("(a)\\1", "back-references and octal escapes are not supported (at offset 3)"),
    ("(?P<x>a)(?P=x)", "back-references are not supported (at offset 8)"),
    ("a(?=b)", "look-around is not supported (at offset 1)"),
    ("a(?<!b)", "look-around is not supported (at offset 1)"),
    ("/a\\b", "word boundaries are not supported (at offset 2)"),
    ("/\\pL", "Unicode classes are not supported; values are bytes (at offset 1)"),
    ("\\C", r"\C is not supported; write [\x00-\xff] (at offset 0)"),
    ("\\Qa.b\\E", r"\Q..\E quoting is not supported; escape each character (at offset 0)"),
    ("a++", "a repetition cannot be repeated or be possessive; use a group (at offset 2)"),
    ("a**", "a repetition cannot be repeated or be possessive; use a group (at offset 2)"),
    ("a{2}{3}", "a repetition cannot be repeated or be possessive; use a group (at offset 4)"),
    ("^*", "an anchor cannot be repeated (at offset 0)"),
    ("*a", "there is nothing that `*` could repeat (at offset 0)"),
    ("(|+)", "there is nothing that `+` could repeat (at offset 2)"),
    ("a{,3}", "this `{` begins no repetition {n}, {n,} or {n,m}; write \\{ for the character (at offset 1)"),
    ("/users/{id}", "this `{` begins no repetition {n}, {n,} or {n,m}; write \\{ for the character (at offset 7)"),
    ("a{3,2}", "the repetition {3,2} has its bounds in the wrong order (at offset 1)"),
    ("a{1001}", "a repetition of more than 1000 (at offset 1)"),
    ("(a{100}){11}", "repetitions multiply to more than 1000 (at offset 0)"),
    ("(a", "this group is not closed (at offset 0)"),
    ("a)", "this `)` closes no group; write \\) for the character (at offset 1)"),
    ("[a", "this class is not closed (at offset 0)"),
    ("[]", "this class is not closed (at offset 0)"),
    ("[b-a]", "the range b-a has its ends in the wrong order (at offset 1)"),
    ("[a-\\d]", "a range cannot end in a class (at offset 1)"),
    ("[[:foo:]]", "this POSIX class is not known; write \\[ for the character (at offset 1)"),
    ("a\\", "the pattern ends in a lone backslash (at offset 1)"),
    ("\\y", "the escape \\y is not known (at offset 0)"),
    ("\\x{100}", "\\x{100} is no byte (at offset 0)"),
    ("\\xg0", "\\x takes two hexadecimal digits, or some in braces (at offset 0)"),
    ("a(?i)b", "this group is not supported; flags are (?i), (?s) and (?is), at the very start (at offset 1)"),
    ("(?m)^a", "this group is not supported; flags are (?i), (?s) and (?is), at the very start (at offset 0)"),
    ("(?P<a>x)(?P<a>y)", "the group name a is used twice (at offset 8)"),
    ("(?i)\xe5", "(?i) folds ASCII letters only; write both cases of the others (at offset 0)"),
    ("/\u20ac", "the character '\\u20ac' is no byte; values are compared as bytes (Latin-1) (at offset 1)"),
    ("(" * 101 + ")" * 101, "groups nest more than 100 deep (at offset 100)"),
    ("a" * 4097, "a pattern of 4,097 characters is over the limit of 4,096 (at offset 4096)"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "message"), REFUSED, ids=lambda value: value[:20])
def test_what_is_outside_the_subset_is_refused_with_what_and_where(pattern: str, message: str) -> None:
    with pytest.raises(RegexError) as caught:
        check(pattern)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("/public", b"/public", b"/public/"),
        ("/public", b"/public", b"x/public"),
        ("^/a$", b"/a", b"^/a$"),
        ("/a$", b"/a", b"/a\n"),
        (r"\A/a\z", b"/a", b"/ab"),
        ("", b"", b"a"),
        ("(^a|b)c", b"ac", b"aac"),
        ("(a|b$)*", b"ab", b"aba"),
        ("[[:alpha:]]+", b"ab", b"a]"),
        ("[]a]+", b"]a", b"[a"),
        ("[^a]", b"\n", b"a"),
        (".", b"\xff", b"\n"),
        ("(?s).", b"\n", b""),
        ("(?i)get", b"GeT", b"G\xe8t"),
        ("a{2,3}?", b"aaa", b"aaaa"),
        (r"\x2f\x{2F}", b"//", b"/"),
        (r"[\w-.]+", b"a-.", b"/"),
        ("(?P<id>[0-9]+)|(?<n>x)", b"12", b"y"),
    ],
)
def test_a_pattern_matches_the_whole_value(pattern: str, yes: bytes, no: bytes) -> None:
    assert matches(pattern, yes)
    assert not matches(pattern, no)


TOKENS = [
    *"abAB/.*+?|()^$-_1Kk{}[]", "[a-c]", "[^a]", "[^/]", "\\d", "\\W", "\\s", "[[:alpha:]]", "[^[:upper:]b]",
    "[a\\d-]", "{2}", "{1,2}", "{0}", "{,2}", "{3,}", "(?:", "(?P<x>", "\\A", "\\z", "\xe5", "\xb5", "\xff",
    "\\x41", "\\x{e5}", "\\.", "\\_", "\\b", "[]a]", "[a-c-e]", "[\\w-.]", "[--/]", "[^-]", "[+--]",
    "[\\]-a]", "[[:^digit:]]", "[[]", "[a-\\d]", "(?i)", "(?s)", "\\Q", "\\pN", "(?=", "\\1", "\\n", "\\v",
]  # fmt: skip
patterns = st.lists(st.sampled_from(TOKENS), max_size=9).map("".join)
values = st.lists(st.sampled_from(list(b"abAB/1-\n_Kk\xe5\xc5\xb5\xffe c].\x0b")), max_size=6).map(bytes)


@settings(max_examples=examples(1500))
@given(patterns, st.lists(values, min_size=1, max_size=8))
@example("(?i)\\Aa[^[:upper:]b]", [b"A\n"])
@example("(a|^b)*$", [b"b", b"ab", b""])
def test_what_is_accepted_re2_accepts_with_the_same_language(pattern: str, data: list[bytes]) -> None:
    try:
        check(pattern)
    except RegexError:
        return
    oracle = re2.compile(pattern.encode("latin-1"), OPTIONS)
    for value in data:
        assert matches(pattern, value) == bool(oracle.fullmatch(value)), (pattern, value)


@settings(max_examples=examples(300))
@given(st.text(st.characters(max_codepoint=0xFF), max_size=12))
def test_no_text_makes_the_parser_fail_otherwise(pattern: str) -> None:
    try:
        check(pattern)
    except RegexError:
        return
    re2.compile(pattern.encode("latin-1"), OPTIONS)


def test_common_patterns_are_accepted() -> None:
    for pattern in ["/api/v[0-9]+/.*", "GET|HEAD", r"/users/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
                    r"(?i).*\.example\.com(:[0-9]+)?", "/a/?", "[^?]*"]:  # fmt: skip
        check(pattern)
