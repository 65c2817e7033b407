"""Packets that are no plain TCP segment: what hides the ports, lies about the sender, or is not HTTP."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from corpus.rules import CLOSED_PORT, PLAIN_PORT, PORTS
from support import packet as pk
from support.judge import GET_PRIVATE, GET_PUBLIC, Judge
from support.nodewire import NodeWire
from support.origin import recorder
from support.rawtcp import ACK, PSH, ClosedError, RawTcp, Wire
from yett_policy.document import Direction
from yett_policy.reason import Reason

pytestmark = [pytest.mark.net, pytest.mark.bpf]


# -- what hides the ports


def test_a_request_in_ip_fragments_is_denied(judge: Judge) -> None:
    raw = judge.connect()
    for piece in pk.fragments(raw.packet(raw.segment(GET_PRIVATE, at=0)), 24):
        raw.wire.send(piece)
    raw.settle(0.02)
    assert judge.delivered(raw) == b""
    assert set(judge.denials()) == {Reason.FRAGMENT}


def test_the_smallest_fragments_and_overlapping_ones_are_denied(judge: Judge) -> None:
    raw = judge.connect()
    good = pk.fragments(raw.packet(raw.segment(GET_PUBLIC, at=0)), 8, ident=7)
    bad = pk.fragments(raw.packet(raw.segment(GET_PRIVATE, at=0)), 8, ident=7)
    for piece in (*good[:-1], *bad):
        raw.wire.send(piece)
    raw.settle(0.02)
    assert judge.delivered(raw) == b""
    assert set(judge.denials()) == {Reason.FRAGMENT}


def test_an_atomic_fragment_is_denied(judge: Judge) -> None:
    """IPv6: a fragment header on a packet that is whole (RFC 6946)."""
    if judge.family == 4:
        judge_more_fragments(judge)
        return
    raw = judge.connect()
    packet = raw.packet(raw.segment(GET_PRIVATE, at=0))
    raw.wire.send(pk.ipv6_extension(packet, 44, b"\0" + struct.pack("!HI", 0, 99)))
    raw.settle(0.02)
    assert judge.delivered(raw) == b""
    assert set(judge.denials()) == {Reason.FRAGMENT}


def judge_more_fragments(judge: Judge) -> None:
    """IPv4: a whole segment that claims that more fragments follow."""
    raw = judge.connect()
    raw.wire.send(pk.ipv4(raw.source, raw.server, raw.segment(GET_PRIVATE, at=0), ident=5, more=True))
    raw.settle(0.02)
    assert judge.delivered(raw) == b""
    assert set(judge.denials()) == {Reason.FRAGMENT}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (60, b"\0" + b"\x01\x04" + bytes(4)),
        (0, b"\0" + b"\x01\x04" + bytes(4)),
        (43, b"\0" + b"\x04\x00" + bytes(4)),
        (51, b"\x04" + bytes(22)),
        (135, b"\0" + bytes(6)),
    ],
    ids=["destination-options", "hop-by-hop", "routing", "authentication", "mobility"],
)
def test_an_ipv6_extension_header_does_not_hide_a_request(kind: int, body: bytes, judge: Judge) -> None:
    raw = RawTcp(judge.wire, (judge.topo.server.v6, PORTS["public"]))
    raw.open()
    raw.wire.send(pk.ipv6_extension(raw.packet(raw.segment(GET_PRIVATE, at=0)), kind, body))
    raw.settle(0.02)
    assert judge.delivered(raw) == b""
    assert set(judge.denials()) <= {Reason.IPV6_EXTENSION}


def test_a_syn_behind_an_ipv6_extension_header_opens_nothing(judge: Judge) -> None:
    raw = RawTcp(judge.wire, (judge.topo.server.v6, PORTS["public"]))
    syn = raw.packet(raw.segment(b"", pk.Flag.SYN, at=-1, ack=0))
    raw.wire.send(pk.ipv6_extension(syn, 60, b"\0\x01\x04" + bytes(4)))
    assert raw.wire.receive(raw.port, 0.05) is None
    assert set(judge.denials()) == {Reason.IPV6_EXTENSION}


@pytest.mark.parametrize(
    "options",
    [
        b"\x83\x07\x04\x0a\x09\x02\x02\x00",
        b"\x07\x07\x04\x00\x00\x00\x00\x00",
        b"\x01\x01\x01\x00",
        b"\x94\x04\0\0",
    ],
    ids=["loose-source-route", "record-route", "no-operation", "router-alert"],
)
def test_ipv4_options_do_not_carry_a_request(options: bytes, judge: Judge) -> None:
    raw = RawTcp(judge.wire, (judge.topo.server.v4, PORTS["public"]))
    raw.open()
    raw.wire.send(pk.ipv4(raw.source, raw.server, raw.segment(GET_PRIVATE, at=0), options=options))
    raw.settle(0.02)
    assert b"GET /pr" not in judge.delivered(raw)
    assert set(judge.denials()) <= {Reason.IP_OPTIONS}  # routers drop some of them before the hook


def test_bytes_behind_the_ip_length_do_not_count(judge: Judge) -> None:
    """Ethernet padding: the frame is longer than the packet."""
    raw = judge.connect()
    raw.wire.send(raw.packet(raw.segment(GET_PUBLIC[:12], at=0)) + b" HTTP/1.1\r\nX: ")
    raw.sent = 12
    raw.send(GET_PUBLIC[12:])
    judge.answered(raw, [GET_PUBLIC])


def test_an_ip_length_beyond_the_frame_is_denied_or_dropped(judge: Judge) -> None:
    raw = RawTcp(judge.wire, (judge.topo.server.v4, PORTS["public"]))
    raw.open()
    raw.wire.send(pk.ipv4(raw.source, raw.server, raw.segment(GET_PRIVATE, at=0), length=1000))
    raw.settle(0.02)
    assert judge.delivered(raw) == b""
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])


# -- what is no IP


@pytest.mark.parametrize("tag", [0, 5, 0xE000], ids=["no-priority", "vlan-5", "priority-7"])
def test_a_vlan_tag_is_denied(tag: int, judge: Judge, node_wire: NodeWire) -> None:
    raw = judge.connect()
    node_wire.send_ip(raw.packet(raw.segment(GET_PRIVATE, at=0)), vlan=tag)
    raw.settle(0.02)
    assert judge.delivered(raw) == b""
    assert set(judge.denials()) == {Reason.VLAN_TAG}


@pytest.mark.parametrize("ethertype", [0x88B5, 0x8863, 0x8864, 0x8847, 0x0005], ids=hex)
def test_an_unknown_ethertype_is_denied(ethertype: int, judge: Judge, node_wire: NodeWire) -> None:
    raw = judge.connect()
    node_wire.send_ip(raw.packet(raw.segment(GET_PRIVATE, at=0)), ethertype=ethertype)
    assert set(judge.denials()) == {Reason.ETHERTYPE}


# -- who speaks


def test_a_pod_cannot_speak_from_another_address(judge: Judge) -> None:
    source = "10.9.1.77" if judge.family == 4 else "fd00:9:1::77"
    raw = RawTcp(judge.wire, judge.address(), source=source)
    raw.inject(b"", pk.Flag.SYN, at=-1, ack=0)
    judge.counted(Reason.SPOOFED_SOURCE)
    raw.inject(GET_PUBLIC, PSH | ACK, at=0, ack=1)
    assert judge.denials() == {Reason.SPOOFED_SOURCE: 2}


def test_an_ipv4_address_in_an_ipv6_header_is_nobodys(judge: Judge) -> None:
    """::ffff:10.9.1.3 on the wire would look like the pod's IPv4 address (RFC 4038, 4.2)."""
    side, server = judge.topo.client, judge.topo.server
    source, target = f"::ffff:{side.raw4}", f"::ffff:{server.v4}"
    segment = pk.tcp(source, target, judge.wire.new_port(), PORTS["public"], 1, 0, pk.Flag.SYN)
    judge.wire.send(pk.ipv6(source, target, segment))
    assert judge.denials(), "it passed"


def test_a_pod_cannot_speak_from_the_nodes_address(judge: Judge) -> None:
    source = judge.topo.client.gateway4 if judge.family == 4 else judge.topo.client.gateway6
    raw = RawTcp(judge.wire, judge.address(), source=source)
    raw.inject(b"", pk.Flag.SYN, at=-1, ack=0)
    judge.counted(Reason.SPOOFED_SOURCE)


def _icmp6(source: str, target: str, kind: int, body: bytes) -> bytes:
    """A neighbour discovery message (RFC 4861): hop limit 255."""
    message = struct.pack("!BBH", kind, 0, 0) + body
    value = pk.checksum(pk.pseudo_header(source, target, 58, len(message)) + message)
    message = message[:2] + struct.pack("!H", value) + message[4:]
    return pk.ipv6(source, target, message, next_header=58, hop_limit=255)


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def test_a_pod_cannot_claim_anothers_address_by_arp(judge: Judge) -> None:
    side = judge.topo.client
    for sender, denied in ((side.v4, {}), ("10.9.1.77", {Reason.SPOOFED_SOURCE: 1})):
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + side.mac + _packed(sender)
        judge.wire.send(body + side.gateway_mac + _packed(side.gateway4), ethertype=0x0806)
        assert judge.denials() == denied


def test_a_pod_cannot_claim_anothers_address_by_neighbour_advertisement(judge: Judge) -> None:
    side = judge.topo.client
    for target, denied in ((side.v6, {}), ("fd00:9:1::77", {Reason.SPOOFED_SOURCE: 1})):
        body = struct.pack("!I", 0x60000000) + _packed(target) + b"\x02\x01" + side.mac
        judge.wire.send(_icmp6(side.v6, side.gateway6, 136, body))
        assert judge.denials() == denied


@pytest.mark.parametrize("kind", [134, 137], ids=["router-advertisement", "redirect"])
@pytest.mark.parametrize("source", ["fe80::1", "fd00:9:1::2"])
def test_a_pod_is_no_router(kind: int, source: str, judge: Judge) -> None:
    """CVE-2020-10749: on a bridge, the other pods would send it their traffic."""
    side = judge.topo.client
    if kind == 134:
        body, target = struct.pack("!BBHII", 64, 0, 1800, 0, 0), "ff02::1"
    else:
        body, target = struct.pack("!I", 0) + _packed(source) + _packed(side.v6), side.gateway6
    judge.wire.send(_icmp6(source, target, kind, body))
    assert judge.denials(), "it passed"


def test_the_node_reaches_its_pod_whatever_the_policy_says(judge: Judge) -> None:
    address, _ = judge.address()
    with judge.topo.node, socket.create_connection((address, PORTS["public"]), 2) as probe:
        probe.sendall(GET_PRIVATE)
        assert probe.recv(4096).startswith(b"HTTP/1.1 200")
    judge.nothing_denied()


# -- what is no HTTP


def test_a_port_without_http_rules_passes_any_bytes(judge: Judge) -> None:
    raw = RawTcp(judge.wire, (judge.address()[0], PLAIN_PORT))
    raw.open()
    blob = bytes(range(256)) * 4
    raw.send(blob)
    assert raw.wait_acked()
    assert judge.servers[PLAIN_PORT].wait(lambda: judge.delivered(raw) == blob)
    judge.nothing_denied()


def test_a_port_that_no_rule_allows_is_refused(judge: Judge) -> None:
    raw = RawTcp(judge.wire, (judge.address()[0], CLOSED_PORT))
    with pytest.raises((TimeoutError, ClosedError)):
        raw.open(timeout=0.1)
    judge.counted(Reason.POLICY_DENIED)
    assert not judge.servers[CLOSED_PORT].saw(raw.source, raw.port)


@pytest.fixture
def udp_server(judge: Judge) -> Iterator[socket.socket]:
    with judge.topo.server.namespace:
        server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", PLAIN_PORT))
        server.settimeout(1)
        yield server


def test_udp_to_a_port_that_only_tcp_may_use_is_denied(judge: Judge, udp_server: socket.socket) -> None:
    kind = socket.AF_INET6 if judge.family == 6 else socket.AF_INET
    with judge.topo.client.namespace, socket.socket(kind, socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", (judge.address()[0], PLAIN_PORT))
    judge.counted(Reason.POLICY_DENIED)
    udp_server.settimeout(0.05)
    with pytest.raises(TimeoutError):
        udp_server.recv(100)


def test_an_echo_request_that_no_rule_allows_is_denied(judge: Judge) -> None:
    source, target = judge.topo.client.raw_address(judge.family), judge.address()[0]
    if judge.family == 4:
        body = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
        body = body[:2] + struct.pack("!H", pk.checksum(body)) + body[4:]
        judge.wire.send(pk.ipv4(source, target, body, proto=1))
    else:
        body = struct.pack("!BBHHH", 128, 0, 0, 1, 1)
        value = pk.checksum(pk.pseudo_header(source, target, 58, len(body)) + body)
        judge.wire.send(
            pk.ipv6(source, target, body[:2] + struct.pack("!H", value) + body[4:], next_header=58)
        )
    judge.counted(Reason.POLICY_DENIED)


def test_an_unknown_ip_protocol_is_denied(judge: Judge) -> None:
    source, target = judge.topo.client.raw_address(judge.family), judge.address()[0]
    judge.wire.send(pk.ip_packet(source, target, bytes(40), proto=47))
    judge.counted(Reason.PROTOCOL, Reason.POLICY_DENIED)


def test_address_resolution_works_under_a_closed_policy(judge: Judge) -> None:
    """ARP and neighbour discovery are no business of a policy."""
    kind = "-6" if judge.family == 6 else "-4"
    for side in judge.topo.sides:
        side.namespace.run(["ip", kind, "neigh", "flush", "dev", "eth0"])
    with judge.topo.node:
        for side in judge.topo.sides:
            judge.topo.node.run(["ip", kind, "neigh", "del", side.address(judge.family), "dev", side.ifname])
    with judge.topo.client.namespace, socket.create_connection(judge.address(), 3) as client:
        client.sendall(GET_PUBLIC)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_replies_of_a_connection_that_the_pod_opened_pass(judge: Judge) -> None:
    """The server's pod opens a connection to the client's; ingress rules say nothing of it."""
    with recorder(judge.topo.client.namespace, 8080) as there:
        address = judge.topo.client.address(judge.family)
        with judge.topo.server.namespace, socket.create_connection((address, 8080), 2) as outgoing:
            outgoing.sendall(GET_PRIVATE)
            assert outgoing.recv(4096).startswith(b"HTTP/1.1 200")
        assert there.total() == 1
    judge.nothing_denied()


def _icmp_error(judge: Judge, quoted: bytes, *, kind: int, code: int) -> bytes:
    """An ICMP error about a packet, from the server's address to the client's."""
    source, target = judge.address()[0], judge.topo.client.raw_address(judge.family)
    body = struct.pack("!BBHI", kind, code, 0, 1400) + quoted[:60]
    if judge.family == 4:
        value = pk.checksum(body)
        return pk.ipv4(source, target, body[:2] + struct.pack("!H", value) + body[4:], proto=1)
    value = pk.checksum(pk.pseudo_header(source, target, 58, len(body)) + body)
    return pk.ipv6(source, target, body[:2] + struct.pack("!H", value) + body[4:], next_header=58)


def test_an_icmp_error_about_a_live_connection_passes(judge: Judge, server_wire: Wire) -> None:
    """Path MTU discovery would break without."""
    raw = judge.connect()
    quoted = raw.packet(raw.segment(GET_PUBLIC, at=0))
    kind, code = (3, 4) if judge.family == 4 else (2, 0)
    judge.wire.settle_other()
    server_wire.send(_icmp_error(judge, quoted, kind=kind, code=code))
    assert judge.wire.wait_other(lambda frame: quoted[:40] in frame), "the error did not arrive"
    judge.nothing_denied()


def test_an_icmp_error_about_nothing_is_judged_like_any_packet(judge: Judge, server_wire: Wire) -> None:
    stranger = RawTcp(judge.wire, judge.address(), port=9)
    quoted = stranger.packet(stranger.segment(GET_PUBLIC, at=0))
    kind, code = (3, 4) if judge.family == 4 else (2, 0)
    judge.wire.settle_other()
    server_wire.send(_icmp_error(judge, quoted, kind=kind, code=code))
    # Nothing governs the server's egress or the client's ingress, so it may pass, but as no relative.
    related = sum(count for (_, reason), count in judge.gate.counters().items() if reason is Reason.RELATED)
    judge.wire.wait_other(lambda frame: quoted[:40] in frame, 0.05)
    assert related == sum(
        count for (_, reason), count in judge.gate.counters().items() if reason is Reason.RELATED
    )


def test_a_server_that_answers_a_syn_with_a_syn_gets_no_connection(judge: Judge, server_wire: Wire) -> None:
    """Simultaneous open and the split handshake (RFC 9293, 3.5): who is the client would be unclear."""
    port = PORTS["public"]
    raw = RawTcp(judge.wire, (judge.topo.server.raw_address(judge.family), port))
    raw.inject(b"", pk.Flag.SYN, at=-1, ack=0)
    evil = RawTcp(server_wire, (raw.source, raw.port), port=port, source=raw.server)
    assert server_wire.receive(port, 1) is not None
    evil.inject(b"", pk.Flag.SYN, at=-1, ack=0)
    answer = judge.wire.receive(raw.port, 0.1)
    assert answer is None or not answer.flags & pk.Flag.SYN
    assert Reason.TCP_HANDSHAKE in judge.denials()


def test_answers_to_a_datagram_that_the_pod_sent_pass(judge: Judge) -> None:
    """The governed pod asks; without its question the same datagram would be denied."""
    kind = socket.AF_INET6 if judge.family == 6 else socket.AF_INET
    governed, other = (
        judge.topo.sides[::-1] if judge.gate.direction is Direction.INGRESS else judge.topo.sides
    )
    with governed.namespace:
        inside = socket.socket(kind, socket.SOCK_DGRAM)
    with other.namespace:
        outside = socket.socket(kind, socket.SOCK_DGRAM)
    with inside, outside:
        inside.bind(("", 0))
        outside.bind(("", 0))
        inside.settimeout(0.5)
        outside.settimeout(0.5)
        there = (other.address(judge.family), outside.getsockname()[1])
        here = (governed.address(judge.family), inside.getsockname()[1])
        if judge.gate.direction is Direction.EGRESS:
            inside.sendto(b"question", there)
            judge.counted(Reason.POLICY_DENIED)
            outside.sendto(b"question", here)
            assert inside.recv(100) == b"question"
            inside.sendto(b"answer", there)
            assert outside.recv(100) == b"answer"
            return
        outside.sendto(b"unasked", here)
        judge.counted(Reason.POLICY_DENIED)
        inside.sendto(b"question", there)
        assert outside.recv(100) == b"question"
        outside.sendto(b"answer", here)
        assert inside.recv(100) == b"answer"


def test_the_counters_are_the_oracle_so_a_quiet_second_counts_nothing(judge: Judge) -> None:
    time.sleep(0.3)
    judge.nothing_denied()
