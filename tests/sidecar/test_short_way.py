"""Both pods on one node: packets of an open connection go straight to the gate, and what to_pod says holds."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from bench import stats
from bench.rules import Mix, RuleList, to_spec
from bench.sidecar.redirect import Redirect
from bench.sidecar.wanted import wanted
from bench.world import PORT

from support.enforce import CLIENT, Ports, document
from support.netns import sysctl
from yett_loader.kernel import Map, Program, abi
from yett_policy.document import Direction

pytestmark = [pytest.mark.net, pytest.mark.bpf]

RULES = RuleList(Mix.MIXED, 1).rules
REQUEST = f"GET {RULES[0].allowed} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
SPEC = to_spec(RULES)


@pytest.fixture
def node() -> Iterator[Redirect]:
    with closing(Redirect()) as made:
        made.apply({PORT: SPEC})
        yield made


def _connect(node: Redirect, port: int = PORT) -> socket.socket:
    with node.world.topology.client.namespace:
        return socket.create_connection((node.world.address, port), 5)


def _ask(connection: socket.socket) -> bytes:
    connection.sendall(REQUEST)
    return connection.recv(4096)[:12]


def _settle(connection: socket.socket) -> None:
    """Requests until the connection may go the short way."""
    for _ in range(10):
        assert _ask(connection) == b"HTTP/1.1 200"
        time.sleep(0.005)


def test_an_open_connection_spares_itself_the_way_through_the_node(node: Redirect) -> None:
    with (
        _connect(node) as connection,
        Program.open(node.loader.pins.programs / "to_pod") as program,
        stats.counting(),
    ):
        _settle(connection)
        batches = []
        for _ in range(5):
            before = stats.runs(program)[0]
            for _ in range(20):
                assert _ask(connection) == b"HTTP/1.1 200"
            batches.append(stats.runs(program)[0] - before)
    assert node.world.served() == 110
    # Envoy's request and Envoy's answer, but not the client's request: that is the third.  The best batch, for
    # a slow machine has lone acknowledgements as well.
    assert min(batches) < 50


def _accepted(node: Redirect, port: int) -> bool:
    """Whether Envoy has heard of the client's connection: a state other than SYN-RECV (RFC 9293, 3.3.2)."""
    with node.world.topology.node:
        listed = subprocess.run(["ss", "-Htan", "dport", "=", f":{port}"], capture_output=True, check=True)
    return [line.split()[0] for line in listed.stdout.decode().splitlines()] == ["ESTAB"]


def test_a_client_that_says_nothing_is_handed_over_late_and_heard_all_the_same(node: Redirect) -> None:
    with _connect(node) as silent, _connect(node) as quick:
        port = silent.getsockname()[1]
        assert _ask(quick) == b"HTTP/1.1 200"
        assert _accepted(node, quick.getsockname()[1])
        deadline = time.monotonic() + 20
        while not _accepted(node, port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert _ask(silent) == b"HTTP/1.1 200"


def test_a_client_that_ends_without_a_word_leaves_nothing_behind(node: Redirect) -> None:
    with _connect(node) as connection:
        port = connection.getsockname()[1]
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert _flags(node, "bench/server", port) >= {"fin_request", "closed"}
    assert not _accepted(node, port)


def _counter(node: Redirect, file: str, group: str, name: str) -> int:
    """What the node's kernel has counted."""
    with node.world.topology.node:
        names, values = [
            line.split()
            for line in Path("/proc/thread-self/net", file).read_text().splitlines()
            if line.startswith(f"{group}: ")
        ]
    return int(dict(zip(names, values, strict=True))[name])


def _forwarded(node: Redirect) -> int:
    """Packets that the node has passed on."""
    return _counter(node, "snmp", "Ip", "ForwDatagrams")


def test_a_connection_that_began_with_a_cookie_is_served_too(node: Redirect) -> None:
    """As all do while many clients say nothing: those that Envoy has not heard of yet are limited in number."""
    with node.world.topology.node:
        sysctl("net/ipv4/tcp_syncookies", 2)
    with _connect(node) as connection:
        assert _ask(connection) == b"HTTP/1.1 200"
    assert _counter(node, "netstat", "TcpExt", "SyncookiesRecv") == 1


def _flags(node: Redirect, endpoint: str, port: int) -> set[str]:
    """Of the flow that a client's port has there."""
    return next(
        set(flow["flags"]) for flow in node.loader.connections(endpoint) if flow["source"]["port"] == port
    )


def _least_forwarded(node: Redirect, connection: Callable[[], None]) -> int:
    """Packets that the node passes on for one connection; more where a second begins meanwhile."""
    passed = []
    for _ in range(5):
        before = _forwarded(node)
        connection()
        passed.append(_forwarded(node) - before)
    return min(passed)


def test_only_its_beginning_passes_the_node_and_both_ends_know_of_the_rest(node: Redirect) -> None:
    def connection() -> None:
        with _connect(node) as opened:
            port = opened.getsockname()[1]
            assert _flags(node, "bench/server", port) >= {"established", "redirected"}
            assert _ask(opened) == b"HTTP/1.1 200"
            opened.shutdown(socket.SHUT_WR)
            assert opened.recv(1) == b""
        for endpoint in ("bench/client", "bench/server"):
            assert _flags(node, endpoint, port) >= {"fin_request", "closed"}

    assert _least_forwarded(node, connection) == 1


def test_a_reset_goes_the_long_way_where_connection_tracking_sees_it(node: Redirect) -> None:
    def connection() -> None:
        with _connect(node) as opened:
            port = opened.getsockname()[1]
            assert _ask(opened) == b"HTTP/1.1 200"
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert "closed" in _flags(node, "bench/server", port)

    assert _least_forwarded(node, connection) == 2


def test_an_end_that_the_servers_flow_cannot_hear_of_goes_the_long_way(node: Redirect) -> None:
    """Without that flow to_pod must judge, and what it then finds in the middle of a stream it resets."""
    with _connect(node) as connection:
        _settle(connection)
        here = connection.getsockname()[1]
        with Map.open(node.loader.pins.maps / "flows") as flows:
            (key,) = [
                key
                for key, _ in flows.items()
                if abi.unpack("flow_key", key)["local_port"] == socket.htons(PORT)
                and abi.unpack("flow_key", key)["remote_port"] == socket.htons(here)
            ]
            flows.delete(key)
        connection.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


_TRACKED = """\
table inet kube {
  chain forward {
    type filter hook forward priority filter
    ct state invalid counter drop
    ct state established counter
  }
}
"""
"""As kube-proxy has it."""


def _counters(node: Redirect) -> list[int]:
    """Packets that connection tracking called invalid, and those it knew."""
    with node.world.topology.node:
        listed = subprocess.run(
            ["nft", "-j", "list", "table", "inet", "kube"], capture_output=True, check=True
        )
    rules = [item["rule"]["expr"] for item in json.loads(listed.stdout)["nftables"] if "rule" in item]
    return [part["counter"]["packets"] for rule in rules for part in rule if "counter" in part]


def test_connection_tracking_that_sees_some_packets_only_is_content_with_them(node: Redirect) -> None:
    with node.world.topology.node:
        subprocess.run(["nft", "-f", "-"], input=_TRACKED, text=True, check=True)
    with _connect(node) as connection:
        seen = _counters(node)[1]
        deadline = time.monotonic() + 60
        while (
            _counters(node)[1] <= seen + 2
        ):  # until it has gone the long way twice more, after more than one window
            assert time.monotonic() < deadline
            for _ in range(50):
                assert _ask(connection) == b"HTTP/1.1 200"
        assert node.world.served() > 100
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    invalid, known = _counters(node)
    assert not invalid
    assert known > seen + 2


def _known(node: Redirect, port: int) -> tuple[str, int]:
    """State of the client's connection as connection tracking has it, and for how many seconds."""
    with node.world.topology.node:
        known = Path("/proc/thread-self/net/nf_conntrack").read_text().splitlines()
    (found,) = [line.split() for line in known if f"sport={port} dport={PORT}" in line]
    return found[5], int(found[4])


@pytest.mark.parametrize("reset", [False, True])
def test_connection_tracking_does_not_take_what_has_ended_for_alive(node: Redirect, reset: bool) -> None:
    """Its entry would stay for a day."""
    with node.world.topology.node:
        subprocess.run(["nft", "-f", "-"], input=_TRACKED, text=True, check=True)
    with _connect(node) as connection:
        port = connection.getsockname()[1]
        deadline = time.monotonic() + 10
        while _known(node, port)[0] != "ESTABLISHED":  # until a second begins, with a packet the long way
            assert time.monotonic() < deadline
            assert _ask(connection) == b"HTTP/1.1 200"
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
    assert _known(node, port)[1] <= 120
    assert not _counters(node)[0]


def test_a_connection_on_the_short_way_is_reset_when_the_kernel_engine_takes_over(node: Redirect) -> None:
    with _connect(node) as connection:
        _settle(connection)
        served = node.world.served()
        node.apply({PORT: SPEC}, "Kernel")
        with pytest.raises(ConnectionResetError):
            _ask(connection)
    assert node.world.served() == served
    with _connect(node) as connection:
        assert _ask(connection) == b"HTTP/1.1 200"


def test_a_connection_on_the_short_way_ends_when_its_port_is_closed(node: Redirect) -> None:
    with _connect(node) as connection:
        _settle(connection)
        served = node.world.served()
        node.apply({PORT + 1: SPEC})
        with pytest.raises(ConnectionResetError):
            _ask(connection)
    assert node.world.served() == served


def _read_on(connection: socket.socket) -> None:
    """For as long as something comes."""
    while connection.recv(1 << 20):
        pass


@contextmanager
def _endless(node: Redirect, port: int) -> Iterator[None]:
    """A server whose one answer does not end before its connection does; which it must by then."""

    def answer() -> None:
        with suppress(OSError), listening.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
            while True:
                connection.sendall(bytes(65536))

    with node.world.topology.server.namespace:
        listening = socket.create_server(("", port))
    listening.settimeout(10)
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)
        listening.close()
    assert not thread.is_alive(), "Envoy still waits for more of the answer"


@pytest.mark.parametrize("before", [None, {PORT + 2: None}])
def test_an_answer_that_goes_on_ends_when_its_clients_egress_is_forbidden(
    node: Redirect, before: Ports | None
) -> None:
    """Also that of a client of whose egress nothing spoke, and whose flow answers did not ask for."""
    node.apply({PORT + 2: SPEC})
    made = wanted(node.world.topology, {PORT + 2: SPEC})

    def may(ports: Ports | None) -> None:
        documents = (document(CLIENT, Direction.EGRESS, ports), *made.snapshot.documents[1:])
        node.loader.push(replace(made, snapshot=replace(made.snapshot, documents=documents)))

    may(before)
    with _endless(node, PORT + 2), _connect(node, PORT + 2) as connection:
        connection.sendall(REQUEST)
        assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        may({})
        with pytest.raises(ConnectionResetError):
            _read_on(connection)


def test_the_short_way_is_not_for_another_pod(node: Redirect) -> None:
    """Packets with the client's address and ports from the server's pod: its own address is missing."""
    with _connect(node) as connection:
        _settle(connection)
        served = node.world.served()
        here, there = connection.getsockname(), connection.getpeername()
        server = node.world.topology.server.namespace
        with server, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
            raw.sendto(_segment(here, there, REQUEST), (there[0], 0))
        assert _ask(connection) == b"HTTP/1.1 200"
    assert node.world.served() == served + 1


def _segment(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """An IPv4 packet with an ACK that carries `payload`; the kernel fills in length and sum of its head."""
    head = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0])
    ports = source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    tcp = ports + bytes(8) + bytes([0x50, 0x18, 0xFF, 0xFF, 0, 0, 0, 0])
    return head + socket.inet_aton(source[0]) + socket.inet_aton(destination[0]) + tcp + payload
