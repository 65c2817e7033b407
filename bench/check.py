"""Correctness in the same run: what is allowed is served, what is denied never reaches the server."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from bench.request import Shape, head
from bench.rules import Rule, spread
from bench.systems.system import System
from bench.world import PORT

_SAMPLE = 24
"""Rules of a set that are tried, evenly over it; each with what it allows and what it nearly does."""
_TIMEOUT = 2.0


class WrongVerdict(Exception):  # noqa: N818 - what it is
    """A system did what its rules forbid, or forbade what they allow."""


def verify(system: System, rules: tuple[Rule, ...]) -> int:
    """Requests tried; WrongVerdict if the origin saw others than the allowed ones."""
    sample = [rule for rule in spread(rules, _SAMPLE) if rule.method == "GET"]
    allowed = [head("GET", rule.allowed, Shape()) for rule in sample]
    denied = [head("GET", rule.denied, Shape()) for rule in sample if rule.kind in system.kinds]
    denied += [head("DELETE", rule.allowed, Shape()) for rule in sample[:4]]
    before = system.world.served()
    for request in allowed:
        answer = ask(system, [request])
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise WrongVerdict(
                f"{system.label} answered {answer[:40]!r} to {_line(request)}, which a rule allows"
            )
    if system.enforces:
        for request in denied:
            answer = ask(system, [request])
            if answer.startswith(b"HTTP/1.1 200 "):
                raise WrongVerdict(f"{system.label} let {_line(request)} through, which no rule allows")
    else:
        denied = []
    served = system.world.served() - before
    if served != len(allowed):
        raise WrongVerdict(f"{system.label}: the server saw {served} requests instead of {len(allowed)}")
    return len(allowed) + len(denied)


def evasions(system: System, rules: tuple[Rule, ...]) -> list[str]:
    """Which ways around the rules work: names of those by which a denied request reached the server."""
    rule = rules[0]
    denied = f"GET {rule.denied} HTTP/1.1\r\nHost: shop.example\r\n".encode()
    attempts: dict[str, list[bytes]] = {
        "an allowed request line in a header": [denied + f"X: GET {rule.allowed} HTTP/1.1\r\n\r\n".encode()],
        "a request line in two segments": [denied[:-35], denied[-35:-28], denied[-28:] + b"\r\n"],
        "a second request in the same segment": [
            f"GET {rule.allowed} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + denied + b"\r\n"
        ],
    }
    found = []
    for name, pieces in attempts.items():
        before = system.world.served()
        ask(system, pieces)
        time.sleep(0.05)
        fair = 1 if "second request" in name else 0
        if system.world.served() - before > fair:
            found.append(name)
    return found


def ask(system: System, pieces: Sequence[bytes]) -> bytes:
    """Send these segments on a connection of their own; the answer, empty if there was none."""
    with system.world.topology.client.namespace:
        connection = socket.create_connection((system.world.address, PORT), _TIMEOUT)
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(0.02)
                connection.sendall(piece)
            return connection.recv(4096)
        except (ConnectionError, TimeoutError):
            return b""


def _line(request: bytes) -> str:
    return request.split(b" HTTP/")[0].decode()
