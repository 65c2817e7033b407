"""The echo server: framing, keep-alive, pipelining."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import yett_lab

ECHO = Path(yett_lab.__file__).with_name("echo.py")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-S", "-E", str(ECHO), str(number)], stdout=subprocess.DEVNULL
    ) as server:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", number)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        yield number
        server.terminate()


def talk(port: int, *pieces: bytes) -> list[dict[str, object]]:
    """Send pieces, half-close, read all answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.01)
        connection.shutdown(socket.SHUT_WR)
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    answers = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        answers.append(json.loads(rest[:length]))
        data = rest[length:]
    return answers


def test_it_says_method_path_query_and_headers(port: int) -> None:
    (answer,) = talk(port, b"PUT /a/b?c=d HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-A: 2\r\n\r\n")
    assert (answer["method"], answer["path"], answer["query"]) == ("PUT", "/a/b", "c=d")
    assert answer["headers"] == {"host": "h", "x-a": "1, 2"}


def test_it_answers_pipelined_requests_in_order(port: int) -> None:
    one = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"
    assert [a["path"] for a in talk(port, one % 1 + one % 2 + one % 3)] == ["/1", "/2", "/3"]


def test_it_reads_bodies_by_length_and_chunked_over_any_split(port: int) -> None:
    by_length = b"POST /l HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    chunked = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
    after = b"GET /after HTTP/1.1\r\nHost: h\r\n\r\n"
    everything = by_length + chunked + after
    for cut in (1, 20, 60, 75, 130, 160):
        answers = talk(port, everything[:cut], everything[cut:])
        assert [(a["path"], a["body"]) for a in answers] == [("/l", "hello"), ("/c", "abcde"), ("/after", "")]


@pytest.mark.parametrize(
    "request_bytes",
    [b"BROKEN\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"],
)
def test_what_it_cannot_read_ends_the_connection(port: int, request_bytes: bytes) -> None:
    (answer,) = talk(port, request_bytes)
    assert "error" in answer
