"""The corpus against real servers: what they execute, not what a specification says."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping

import pytest

from corpus import confusion, framing
from corpus.case import Case
from corpus.rules import RULESETS
from support.enforce import Gate, Ports
from support.enforce import gate as make_gate
from support.netns import Topology
from support.origin import eventually
from support.origins import KINDS, Origin
from support.rawtcp import RawTcp, Wire
from yett_policy.document import Direction

pytestmark = [pytest.mark.net, pytest.mark.bpf]

PORT = 200
"""Of the first kind; two a kind: one for the grammar, one for `GET /public` only."""

DENIED = [case for case in (*framing.CASES, *confusion.CASES) if not case.allowed and len(case.whole) <= 400]
FOR_GRAMMAR = [case for case in DENIED if case.rules == "any"]
FOR_POLICY = [case for case in DENIED if case.rules == "public"]


@pytest.fixture(scope="module")
def direction() -> str:
    """The server's pod is the one that matters here."""
    return "ingress"


@pytest.fixture(scope="module")
def origins(topo: Topology) -> Iterator[Mapping[str, Origin]]:
    """All kinds, started side by side."""
    made = {kind: Origin(kind, topo.server.namespace, PORT + number) for number, kind in enumerate(KINDS)}
    try:
        for origin in made.values():
            origin.ready()
        yield made
    finally:
        for origin in made.values():
            origin.close()


@pytest.fixture(scope="module")
def gates(topo: Topology) -> Iterator[Gate]:
    """The server's pod, governed; `rules_of` switches between the two rulesets."""
    with make_gate(topo, Direction.INGRESS) as made:
        yield made


def _ports(rules: str) -> Ports:
    return {PORT + number: RULESETS[rules] for number in range(len(KINDS))}


def _attack(wire: Wire, topo: Topology, origin: Origin, case: Case, size: int) -> None:
    raw = RawTcp(wire, (topo.server.v4, origin.port))
    raw.open()
    raw.send(case.whole, size=size)
    raw.fin()
    assert raw.wait_reset(), f"{case.name}: the connection was not reset"


@pytest.mark.parametrize("kind", KINDS)
def test_the_origin_answers_what_is_allowed(
    kind: str, origins: Mapping[str, Origin], gates: Gate, topo: Topology
) -> None:
    gates.apply(_ports("public"))
    origin, before = origins[kind], len(origins[kind].executed())
    for address in (topo.server.v4, topo.server.v6):
        with topo.client.namespace, socket.create_connection((address, origin.port), 2) as client:
            for _ in range(3):
                client.sendall(b"GET /public HTTP/1.1\r\nHost: api\r\n\r\n")
                answer = b""
                while not answer.endswith(b"ok"):
                    answer += client.recv(4096)
                assert answer.startswith(b"HTTP/1.1 200")
    assert eventually(lambda: len(origin.executed()) == before + 6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rules", "cases"), [("any", FOR_GRAMMAR), ("public", FOR_POLICY)], ids=["grammar", "policy"]
)
@pytest.mark.parametrize("size", [1400, 1], ids=["whole", "byte-by-byte"])
def test_no_denied_request_is_executed(
    kind: str,
    rules: str,
    cases: list[Case],
    size: int,
    origins: Mapping[str, Origin],
    gates: Gate,
    topo: Topology,
    wire: Wire,
) -> None:
    gates.apply(_ports(rules))
    origin, before = origins[kind], len(origins[kind].executed())
    for case in cases:
        if size > 1 or len(case.whole) <= 120:
            _attack(wire, topo, origin, case, size)
    executed = origin.executed()[before:]
    # The heads of the chunk cases are allowed; a server may act on them before the bad chunk.
    assert all(line in {"POST '/public'", "POST /public"} for line in executed), executed
    if rules == "public":
        assert executed == []
