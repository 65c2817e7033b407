"""Reverse-path filtering on the node: whatever an administrator or udev sets, packets come through the gate."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bench.rules import Mix, RuleList, to_spec
from bench.sidecar.redirect import Redirect
from bench.world import PORT

from support.netns import sysctl
from yett_loader.sidecar.gate import NAME

pytestmark = [pytest.mark.net, pytest.mark.bpf]

RULES = RuleList(Mix.MIXED, 1).rules
REQUEST = f"GET {RULES[0].allowed} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
SETTING = "net/ipv4/conf/{}/rp_filter"


@pytest.fixture
def node() -> Iterator[Redirect]:
    with closing(Redirect()) as made:
        made.apply({PORT: to_spec(RULES)})
        yield made


def _set(node: Redirect, interface: str, value: int) -> None:
    with node.world.topology.node:
        sysctl(SETTING.format(interface), value)


def _await(node: Redirect, value: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        with node.world.topology.node:
            found = Path("/proc/sys", SETTING.format(NAME)).read_text().strip()
        if found == value:
            return
        assert time.monotonic() < deadline, f"{found} is not {value}"
        time.sleep(0.01)


def _ask(node: Redirect) -> bytes:
    with (
        node.world.topology.client.namespace,
        socket.create_connection((node.world.address, PORT), 5) as connection,
    ):
        connection.sendall(REQUEST)
        return connection.recv(4096)[:12]


def test_there_is_none_where_the_node_has_none(node: Redirect) -> None:
    _await(node, "0")
    assert _ask(node) == b"HTTP/1.1 200"


def test_it_is_loose_where_the_nodes_becomes_strict(node: Redirect) -> None:
    _set(node, "all", 1)
    try:
        _await(node, "2")
        assert _ask(node) == b"HTTP/1.1 200"
    finally:
        _set(node, "all", 0)
    _await(node, "0")
    assert _ask(node) == b"HTTP/1.1 200"


def test_nothing_is_lost_where_the_nodes_is_loose(node: Redirect) -> None:
    _set(node, "all", 2)
    try:
        assert _ask(node) == b"HTTP/1.1 200"
    finally:
        _set(node, "all", 0)


def test_what_another_sets_for_the_gate_does_not_stay(node: Redirect) -> None:
    """systemd-udevd gives new interfaces the settings of sysctl.d, perhaps after the loader did."""
    _set(node, NAME, 1)
    _await(node, "0")
    assert _ask(node) == b"HTTP/1.1 200"


def test_a_node_that_is_strict_from_the_beginning_has_a_loose_gate() -> None:
    with closing(Redirect()) as made:
        _set(made, "all", 1)
        made.apply({PORT: to_spec(RULES)})
        _await(made, "2")
        assert _ask(made) == b"HTTP/1.1 200"
