"""CONNECT, requests without a Host, and what is counted: through a real Envoy to a server that writes all down."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from support.behind import EMPTY, through
from support.netns import Namespace
from support.sidecarlab import eventually
from support.standalone import FIRST_PORT
from yett_loader.sidecar.counts import let_through
from yett_policy.http.change import ChangeOp, HeaderChange
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, RuleAction, RulesetSpec

pytestmark = pytest.mark.net

CONNECT = b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"
HIDDEN = b"GET /private HTTP/1.1\r\nHost: a\r\n\r\n"
PLAIN = b"GET /public HTTP/1.0\r\n\r\n"


def ruleset(*rules: HttpRule) -> RulesetSpec:
    return RulesetSpec(rules, "default", forbidden=True)


def framed(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def ask(inside: Namespace, head: bytes, *more: bytes) -> list[bytes]:
    """What comes back after each of these; after the end of the connection, nothing."""
    with inside, socket.create_connection(("127.0.0.1", FIRST_PORT), timeout=5) as connection:
        said = []
        for part in (head, *more):
            try:
                connection.sendall(part)
                said.append(connection.recv(65536))
            except OSError:
                said.append(b"")
        return said


def answer(inside: Namespace, sent: bytes) -> bytes:
    """The block of headers that comes back over HTTP/2."""
    with inside, socket.create_connection(("127.0.0.1", FIRST_PORT), timeout=5) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as frames:
            while head := frames.read(9):
                payload = frames.read(int.from_bytes(head[:3], "big"))
                if head[3] == HEADERS:
                    return payload
    raise AssertionError("the connection ended without an answer")


HEADERS = 1
OK = b"HTTP/1.1 200 OK\r\n\r\n"
REFUSED = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"


def test_a_connect_that_a_rule_spells_out_is_a_tunnel_to_the_server_and_to_no_other_place(
    tmp_path: Path,
) -> None:
    with through(ruleset(HttpRule("r", method="CONNECT")), tmp_path, OK) as (inside, server):
        head, echo = ask(inside, CONNECT, b"hello")
        assert head.startswith(b"HTTP/1.1 200")
        assert echo == b"HELLO"
        (got,) = server.got
    assert got.lower().startswith(b"connect a.test:443 http/1.1\r\nhost: a.test:443\r\n")
    assert got.endswith(b"\r\n\r\nhello")


def test_a_connect_of_http2_is_a_tunnel_only_where_a_rule_spells_it_out(tmp_path: Path) -> None:
    head = b"\x02\x07CONNECT\x01\x0aa.test:443"
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + framed(4, 0, 0) + framed(1, 4, 1, head)
    for rule, seen in ((HttpRule("r", method="CONNECT"), 1), (HttpRule("r"), 0)):
        with through(ruleset(rule), tmp_path, OK) as (inside, server):
            assert (b"403" in answer(inside, sent)) is not bool(seen)
            assert eventually(lambda: len(server.got) == seen)  # noqa: B023 - called at once


def test_nothing_behind_a_connect_reaches_a_server_that_refuses_it(tmp_path: Path) -> None:
    with through(ruleset(HttpRule("r", method="CONNECT")), tmp_path, REFUSED) as (inside, server):
        head, _ = ask(inside, CONNECT + HIDDEN, HIDDEN)
        assert head.startswith(b"HTTP/1.1 405")
        assert len(server.got) == 1
        assert b"/private" not in server.got[0]


@pytest.mark.parametrize(
    "rule",
    [
        HttpRule("any method"),
        HttpRule("pattern", method=".*"),
        HttpRule("another target", method="CONNECT", path="b.test:443"),
        HttpRule("another host", method="CONNECT", host="b.test:443"),
    ],
    ids=lambda rule: rule.ref,
)
def test_no_other_connect_gets_through(tmp_path: Path, rule: HttpRule) -> None:
    with through(ruleset(rule), tmp_path, OK) as (inside, server):
        assert ask(inside, CONNECT)[0].startswith(b"HTTP/1.1 403")
        assert not server.got


def test_a_deny_rule_denies_a_connect_that_another_allows(tmp_path: Path) -> None:
    deny = HttpRule("d", RuleAction.DENY, path="a.test:443", forbidden=True)
    with through(ruleset(deny, HttpRule("r", method="CONNECT")), tmp_path, OK) as (inside, server):
        assert ask(inside, CONNECT)[0].startswith(b"HTTP/1.1 403")
        assert not server.got


def test_a_server_sees_its_own_address_where_a_client_named_no_host(tmp_path: Path) -> None:
    with through(ruleset(HttpRule("r", path="/public")), tmp_path, EMPTY) as (inside, server):
        assert b" 200 " in ask(inside, PLAIN)[0]
        assert b" 200 " in ask(inside, b"GET /public HTTP/1.0\r\nHost: b\r\n\r\n")[0]
        # What Envoy puts in the place of a Host, said by the client itself.
        assert b" 200 " in ask(inside, b"GET /public HTTP/1.1\r\nHost: !\r\n\r\n")[0]
        lines = b"".join(server.got).lower().split(b"\r\n")
        hosts = [line for line in lines if line.startswith(b"host:")]
    own = f"host: 127.0.0.1:{FIRST_PORT}".encode()
    assert hosts == [own, b"host: b", own]


@pytest.mark.parametrize("host", [b"", b"Host: !\r\n"], ids=["none", "what stands for none"])
@pytest.mark.parametrize(
    ("rule", "passes"),
    [
        (HttpRule("r", host=".*"), False),
        (HttpRule("r", headers=(HeaderRule("host", HeaderOp.PRESENT),)), False),
        (HttpRule("r", headers=(HeaderRule("host", HeaderOp.REGEX, ".*"),)), False),
        (HttpRule("r", headers=(HeaderRule("host", HeaderOp.EXACT, "!"),)), False),
        (HttpRule("r", headers=(HeaderRule("host", HeaderOp.PREFIX, "!"),)), False),
        (HttpRule("r", headers=(HeaderRule("host", HeaderOp.ABSENT),)), True),
    ],
)
def test_no_rule_about_the_host_matches_a_host_that_was_made_up(
    tmp_path: Path, rule: HttpRule, passes: bool, host: bytes
) -> None:
    request = b"GET / HTTP/1.0\r\n" + host + b"\r\n"
    with through(ruleset(rule), tmp_path, EMPTY) as (inside, _):
        assert (b" 200 " in ask(inside, request)[0]) is passes
    # To a rule that denies by host, it could be any.
    deny = replace(rule, ref="d", action=RuleAction.DENY, forbidden=True)
    with through(ruleset(deny, HttpRule("r")), tmp_path, EMPTY) as (inside, server):
        assert b" 403 " in ask(inside, request)[0]
        assert not server.got


def test_a_request_without_a_host_is_denied_where_its_host_says_what_is_changed(tmp_path: Path) -> None:
    change = HeaderChange("x-a", ChangeOp.ADD, "b")
    rules = (HttpRule("r", host="a", changes=(change,)), HttpRule("s", path="/public"))
    with through(ruleset(*rules), tmp_path, EMPTY) as (inside, server):
        assert b" 403 " in ask(inside, PLAIN)[0]
        assert not server.got


def test_what_is_let_through_is_counted_by_rule_in_a_file_that_outlives_envoy(tmp_path: Path) -> None:
    spec = ruleset(HttpRule("a", path="/public"), HttpRule("b", path="/other"))
    for turn in (1, 2):
        with through(spec, tmp_path, EMPTY) as (inside, _):
            for _ in range(3):
                assert b" 200 " in ask(inside, PLAIN)[0]
            assert b" 200 " in ask(inside, PLAIN.replace(b"/public", b"/other"))[0]
            assert b" 403 " in ask(inside, PLAIN.replace(b"/public", b"/private"))[0]
        assert sorted(let_through(tmp_path / "allowed")) == [
            ("ingress", "a", 3 * turn),
            ("ingress", "b", turn),
        ]
