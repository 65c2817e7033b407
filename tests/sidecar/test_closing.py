"""How connections end at Envoy: no answer is cut short, and who is denied need not wait for it."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from support.behind import EMPTY, SERVER, ask, through
from support.netns import Namespace, sysctl
from support.sidecarlab import eventually
from support.standalone import FIRST_PORT, serving
from yett_policy.http.rule import HttpRule, RuleAction, RulesetSpec

pytestmark = pytest.mark.net

SIZE = 40_000
"""Bytes that Envoy holds in one buffer, and the kernel does not take."""
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + bytes(SIZE)
PUBLIC = HttpRule("r", method="GET", path="/public")
LAST = b"GET /public HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
FORBIDDEN = RulesetSpec((PUBLIC,), "default", forbidden=True)
DENIED = b"GET /private HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = bytes(4 << 20)
UPLOAD = b"POST /private HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY)


def read_late(inside: Namespace, sent: bytes) -> bytes:
    """All that comes, by a client that looks away for longer than any turn of Envoy's loop."""
    with inside, socket.socket() as connection:
        sysctl("net/ipv4/tcp_wmem", "4096 4096 4096")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", FIRST_PORT))
        connection.sendall(sent)
        time.sleep(1)
        got = bytearray()
        while data := connection.recv(65536):
            got += data
        return bytes(got)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_client_that_reads_late_gets_all_of_its_last_answer(tmp_path: Path, version: bytes) -> None:
    with through(FORBIDDEN, tmp_path, LARGE) as (inside, _):
        got = read_late(inside, LAST.replace(b"1.1", version))
    assert got.endswith(LARGE[-SIZE:])


@pytest.mark.parametrize("forbidden", [False, True])
def test_an_answer_is_not_cut_short_by_a_denial_that_follows_it(tmp_path: Path, forbidden: bool) -> None:
    spec = RulesetSpec((PUBLIC,), "default", forbidden=forbidden)
    first = LAST.replace(b"Connection: close\r\n", b"")
    with through(spec, tmp_path, LARGE) as (inside, _):
        got = read_late(inside, first + DENIED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    head, _, rest = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert rest[:SIZE] == bytes(SIZE)
    assert (b" 403 " in rest[SIZE:]) is forbidden


def test_who_is_denied_without_a_reply_sees_the_end_at_once(tmp_path: Path) -> None:
    spec = RulesetSpec((PUBLIC,), "default")
    with through(spec, tmp_path, EMPTY) as (inside, server), inside:
        for request in (DENIED, DENIED.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n")):
            with socket.create_connection(("127.0.0.1", FIRST_PORT), timeout=10) as connection:
                connection.sendall(request)
                assert connection.recv(4096) == b""
    assert server.got == []


def test_a_403_reaches_a_client_that_has_not_yet_sent_all_of_its_body(tmp_path: Path) -> None:
    with through(FORBIDDEN, tmp_path, EMPTY) as (inside, server), inside:
        with socket.create_connection(("127.0.0.1", FIRST_PORT), timeout=10) as connection:
            for _ in range(2):  # it stays open
                connection.sendall(UPLOAD)
                for part in (BODY[:1000], BODY[1000:]):
                    time.sleep(0.1)
                    connection.sendall(part)
                assert connection.recv(4096).startswith(b"HTTP/1.1 403")
        body = tmp_path / "body"
        body.write_bytes(BODY)
        for _ in range(20):
            seen = subprocess.run(
                [
                    *("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary", f"@{body}"),
                    *("-H", "Expect:", f"http://127.0.0.1:{FIRST_PORT}/private"),
                ],
                capture_output=True,
                text=True,
                check=False,
                timeout=20,
            )
            assert seen.stdout == "403", seen
    assert server.got == []


@pytest.mark.parametrize(
    "head",
    [
        b"POST /private HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
        b"GET /private HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    ],
)
def test_a_403_does_not_wait_for_what_will_not_come(tmp_path: Path, head: bytes) -> None:
    with through(FORBIDDEN, tmp_path, EMPTY) as (inside, _):
        assert ask(inside, head).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "spec",
    [
        RulesetSpec((PUBLIC,), "default", forbidden=True, audit=True),
        RulesetSpec(
            (HttpRule("all"), HttpRule("w", method="POST", action=RuleAction.AUDIT_DENY)), "d", forbidden=True
        ),
    ],
)
def test_a_body_passes_where_the_denial_is_only_noted(tmp_path: Path, spec: RulesetSpec) -> None:
    request = UPLOAD.replace(b"%d" % len(BODY), b"3") + b"abc"
    with through(spec, tmp_path, EMPTY) as (inside, server):
        with inside, socket.create_connection(("127.0.0.1", FIRST_PORT), timeout=10) as connection:
            connection.sendall(request)
            assert eventually(lambda: server.got and server.got[0].endswith(b"abc"))
        assert len(server.got) == 1


def test_a_403_follows_a_body_in_chunks_and_its_trailers(tmp_path: Path) -> None:
    request = b"POST /private HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with through(FORBIDDEN, tmp_path, EMPTY) as (inside, server):
        for end in (b"0\r\n\r\n", b"0\r\nX-T: 1\r\n\r\n"):
            assert ask(inside, request + b"3\r\nabc\r\n" + end).startswith(b"HTTP/1.1 403")
    assert server.got == []


def test_a_403_comes_in_the_midst_of_a_body_that_is_far_too_long(tmp_path: Path) -> None:
    with (
        through(FORBIDDEN, tmp_path, EMPTY) as (inside, _),
        inside,
        socket.create_connection(("127.0.0.1", FIRST_PORT), timeout=10) as connection,
    ):
        connection.sendall(UPLOAD.replace(b"%d" % len(BODY), b"%d" % (1 << 40)))
        sent = 0
        with suppress(OSError):
            while sent < 1 << 30:
                sent += connection.send(BODY)
    assert 0 < sent < 1 << 30


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
def test_a_safe_request_is_sent_again_when_the_server_ends_a_kept_connection(
    tmp_path: Path, method: bytes
) -> None:
    spec = RulesetSpec((HttpRule("r"),), "default")
    request = LAST.replace(b"GET", method)
    with through(spec, tmp_path, EMPTY, heads=1) as (inside, server):
        assert [ask(inside, request)[:12] for _ in range(3)] == 3 * [b"HTTP/1.1 200"]
    assert [got.count(method) for got in server.got] == [2, 2, 1]


def test_another_request_ends_as_the_server_ended_it(tmp_path: Path) -> None:
    spec = RulesetSpec((HttpRule("r"),), "default", forbidden=True)
    request = b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    with through(spec, tmp_path, EMPTY, heads=1) as (inside, server):
        assert ask(inside, request)[:12] == b"HTTP/1.1 200"
        assert ask(inside, request) == b""
    assert [got.count(b"POST") for got in server.got] == [2]


def test_a_connection_that_is_not_used_is_left_before_the_server_leaves_it(tmp_path: Path) -> None:
    spec = RulesetSpec((HttpRule("r"),), "default")
    with (
        serving([spec], tmp_path, server=SERVER) as inside,
        inside,
        socket.create_server(("127.0.0.1", SERVER)) as server,
        socket.create_connection(("127.0.0.1", FIRST_PORT), timeout=10) as client,
    ):
        client.sendall(LAST)
        server.settimeout(10)
        kept, _ = server.accept()
        with kept:
            kept.settimeout(10)
            assert kept.recv(4096).startswith(b"GET /public")
            kept.sendall(EMPTY)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            assert kept.recv(4096) == b""
