"""A client uses a port again while the sidecar still remembers its last connection there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest
from bench.rules import Mix, RuleList, to_spec
from bench.sidecar.redirect import Redirect
from bench.world import PORT

from support.rawtcp import ACK, FIN, RawTcp, Wire

pytestmark = [pytest.mark.net, pytest.mark.bpf]

RULES = RuleList(Mix.MIXED, 1).rules
REQUEST = f"GET {RULES[0].allowed} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()


@pytest.fixture(scope="module")
def node() -> Iterator[Redirect]:
    with closing(Redirect()) as made:
        made.apply({PORT: to_spec(RULES)})
        yield made


@pytest.fixture
def wire(node: Redirect) -> Iterator[Wire]:
    with closing(Wire(node.world.topology.client)) as made:
        yield made


def _waiting(node: Redirect, port: int) -> bool:
    """Whether the sidecar has a connection with that port of a client in TIME-WAIT."""
    with node.world.topology.node:
        command = ["ss", "-tanH", "state", "time-wait", f"( sport = :{PORT} and dport = :{port} )"]
        return bool(subprocess.run(command, capture_output=True, check=True).stdout)


def _end_at_the_same_time(raw: RawTcp) -> None:
    """One request, and a FIN from either side that does not know of the other's."""
    raw.open()
    raw.auto_ack = False
    raw.send(REQUEST)
    assert raw.until(lambda: raw.finished)
    raw.inject(b"", FIN | ACK, ack=raw.rcv_nxt - 1)
    raw.sent += 1
    raw.settle()
    raw.inject(b"", ACK)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("isn", [0x2000, 0x0800], ids=["a later sequence number", "an earlier one"])
def test_a_port_is_free_again_though_both_sides_closed_at_the_same_time(
    node: Redirect, wire: Wire, family: int, isn: int
) -> None:
    address = (node.world.topology.server.address(family), PORT)
    first = RawTcp(wire, address)
    _end_at_the_same_time(first)
    assert _waiting(node, first.port)
    second = RawTcp(wire, address, port=first.port, isn=isn)
    answer = second.open()  # not an answer for the first connection
    assert answer.ack == isn + 1
    assert not _waiting(node, first.port)
    second.send(REQUEST)
    assert second.wait_responses(1)
    second.reset()
