"""What passes is what was sent: the server and the client see each other, not Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.behind import EMPTY, ask, through
from yett_policy.http.rule import HttpRule, RulesetSpec

pytestmark = pytest.mark.net

EVERYTHING = RulesetSpec((HttpRule("r"),), "default")


def headers(text: bytes) -> set[tuple[bytes, bytes]]:
    """But the length of nothing, which Envoy may add."""
    fields = (line.partition(b":")[::2] for line in text.split(b"\r\n") if b":" in line)
    return {(name, value.strip()) for name, value in fields if name.lower() != b"content-length"}


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"X-Forwarded-Proto: https\r\n",
        b"x-forwarded-proto: http\r\n",
        b"X-Forwarded-Client-Cert: Hash=1\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=a\r\nVia: 1.1 a\r\n",
        b"X-Request-Id: 1\r\nTraceparent: 00-1-1-00\r\nUser-Agent: a b\r\nCookie: a=b; c=d\r\n",
        b"Expect: 100-continue\r\nContent-Length: 0\r\n",
        b"A-lOnE: \xff\x80\r\nEmpty:\r\n",
    ],
)
def test_the_server_gets_the_headers_that_were_sent_and_no_others(tmp_path: Path, fields: bytes) -> None:
    with through(EVERYTHING, tmp_path, EMPTY) as (inside, server):
        assert ask(inside, b"POST /a HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n").startswith(b"HTTP/1.1 200")
    (got,) = server.got
    assert headers(got) == headers(b"Host: a\r\n" + fields)


def test_what_ends_at_each_connection_is_not_passed_on(tmp_path: Path) -> None:
    fields = b"Connection: x-a\r\nX-A: 1\r\nKeep-Alive: 5\r\nProxy-Connection: a\r\nTE: gzip\r\nX-Envoy-Sent-Te: a\r\n"
    with through(EVERYTHING, tmp_path, EMPTY) as (inside, server):
        ask(inside, b"GET /a HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
    assert server.got == [b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"]


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_what_a_server_says_before_its_answer_reaches_the_client(tmp_path: Path, interim: bytes) -> None:
    reply = b"HTTP/1.1 " + interim + b"\r\n\r\n" + EMPTY
    with through(EVERYTHING, tmp_path, reply) as (inside, _):
        request = b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
        got = ask(inside, request, heads=2)
    assert got.startswith(b"HTTP/1.1 " + interim[:3])
    assert got.count(b"HTTP/1.1 200") == 1


def test_a_server_may_refuse_what_it_is_asked_to_expect(tmp_path: Path) -> None:
    reply = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"
    with through(EVERYTHING, tmp_path, reply) as (inside, _):
        got = ask(inside, b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 417")


@pytest.mark.parametrize(
    "fields", [b"".join(b"X-%d: a\r\n" % number for number in range(500)), b"X: " + 500_000 * b"a" + b"\r\n"]
)
def test_answers_may_have_many_and_long_headers(tmp_path: Path, fields: bytes) -> None:
    with through(EVERYTHING, tmp_path, EMPTY.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n")) as (inside, _):
        got = ask(inside, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200")
    assert fields in got
