"""Envoy dies under open connections: what their clients still send is refused, counted and written down."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from bench.rules import Mix, RuleList, to_spec
from bench.sidecar.redirect import Redirect
from bench.world import PORT

from support.rawtcp import RawTcp, Wire
from yett_loader.sidecar import process

pytestmark = [pytest.mark.net, pytest.mark.bpf]

RULES = RuleList(Mix.MIXED, 1).rules
REQUEST = f"GET {RULES[0].allowed} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


@pytest.fixture
def node() -> Iterator[Redirect]:
    with closing(Redirect()) as made:
        made.apply({PORT: to_spec(RULES)})
        yield made


def _refused(node: Redirect) -> list[dict[str, Any]]:
    return [record for record in node.loader.flows() if record["reason"] == "SIDECAR_DOWN"]


@pytest.mark.parametrize("family", [4, 6])
def test_what_an_open_connection_sends_to_a_dead_envoy_is_refused_with_a_reason(
    node: Redirect, family: int
) -> None:
    topology = node.world.topology
    with closing(Wire(topology.client)) as wire:
        raw = RawTcp(wire, (topology.server.address(family), PORT))
        raw.open()
        raw.send(REQUEST)
        assert raw.wait_responses(1)
        supervisor = process.supervisor(node.loader.directory / "api-sidecar").pid
        assert supervisor
        os.kill(supervisor, signal.SIGSTOP)  # else another Envoy is there at once
        try:
            os.kill(node.envoy, signal.SIGKILL)
            assert raw.until(lambda: raw.finished or bool(raw.resets))  # its kernel closes for it
            raw.settle()
            raw.send(REQUEST)
            deadline = time.monotonic() + 10
            while not _refused(node):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            os.kill(supervisor, signal.SIGCONT)
    record = _refused(node)[0]
    assert (record["verdict"], record["direction"]) == ("deny", "ingress")
    assert (record["source"]["pod"], record["source"]["port"]) == ("client", raw.port)
    assert (record["destination"]["pod"], record["destination"]["port"]) == ("server", PORT)
    assert 'reason="SIDECAR_DOWN"' in node.loader.metrics()
    assert node.world.served() == (family == 4)  # the server has no other
