"""The harness itself, without enforcement: what the other tests take for granted."""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
import time
from collections.abc import Iterator

import pytest

from support import packet as pk
from support.netns import Topology
from support.origin import End, Recorder, digest, recorder
from support.rawtcp import ACK, PSH, RST, URG, ClosedError, RawTcp, Wire

pytestmark = pytest.mark.net

GET = b"GET /public HTTP/1.1\r\nHost: api\r\n\r\n"


@pytest.fixture(scope="module")
def direction() -> str:
    """The server's pod is the one that matters here."""
    return "ingress"


@pytest.fixture(scope="module")
def server(topo: Topology) -> Iterator[Recorder]:
    """The recording server on port 80."""
    with recorder(topo.server.namespace, 80) as made:
        yield made


@pytest.fixture
def raw(topo: Topology, wire: Wire, family: int) -> RawTcp:
    return RawTcp(wire, (topo.server.address(family), 80))


def test_a_kernel_client_reaches_the_server_through_the_node(
    topo: Topology, server: Recorder, family: int
) -> None:
    with topo.client.namespace, socket.create_connection((topo.server.address(family), 80), 2) as client:
        client.sendall(GET)
        assert client.recv(4096).endswith(digest(GET))


def test_the_userland_client_is_answered(raw: RawTcp, server: Recorder) -> None:
    raw.open()
    raw.send(GET)
    assert raw.wait_responses(1)
    assert raw.received.endswith(digest(GET))
    assert not raw.resets
    raw.reset()
    conversation = server.conversation(raw.source, raw.port)
    assert server.wait(lambda: conversation.end is End.RESET)
    assert bytes(conversation.data) == GET


def test_sequence_numbers_may_wrap_in_the_middle_of_a_request(
    topo: Topology, wire: Wire, server: Recorder
) -> None:
    raw = RawTcp(wire, (topo.server.v4, 80), isn=2**32 - 10)
    raw.open()
    raw.send(GET, size=1)
    assert raw.wait_responses(1)


def test_the_second_of_two_differing_copies_never_reaches_the_application(
    topo: Topology, wire: Wire, server: Recorder
) -> None:
    raw = RawTcp(wire, (topo.server.v4, 80))
    raw.open()
    raw.inject(b"GET /aaaaaa", at=0)
    raw.inject(b"GET /bbbbbb", at=0)
    raw.sent = 11
    raw.send(b" HTTP/1.1\r\n\r\n")
    assert raw.wait_responses(1)
    assert server.conversation(raw.source, raw.port).heads == [b"GET /aaaaaa HTTP/1.1"]


def test_a_segment_with_a_bad_checksum_is_ignored_by_the_server(raw: RawTcp, server: Recorder) -> None:
    raw.open()
    raw.inject(b"GET /private", at=0, bad_checksum=True)
    raw.send(GET)
    assert raw.wait_responses(1)
    assert bytes(server.conversation(raw.source, raw.port).data) == GET


def test_the_server_reassembles_ip_fragments(raw: RawTcp, server: Recorder) -> None:
    raw.open()
    for piece in pk.fragments(raw.packet(raw.segment(GET)), 24):
        raw.wire.send(piece)
    raw.sent += len(GET)
    assert raw.wait_responses(1)


def test_a_closed_port_answers_with_a_reset(topo: Topology, wire: Wire, family: int) -> None:
    raw = RawTcp(wire, (topo.server.address(family), 81))
    with pytest.raises(ClosedError):
        raw.open()
    assert raw.resets[0].exact


def test_a_reset_from_the_client_must_be_exact(raw: RawTcp, server: Recorder) -> None:
    raw.open()
    conversation = server.conversation(raw.source, raw.port)
    raw.inject(b"", RST | ACK, at=5)
    raw.send(GET)
    assert raw.wait_responses(1)
    raw.reset()
    assert server.wait(lambda: conversation.end is End.RESET)


def test_an_urgent_byte_leaves_the_stream(raw: RawTcp, server: Recorder) -> None:
    """Why urgent data is an attack: the application reads other bytes than were sent."""
    raw.open()
    raw.inject(b"GET /pubXlic", PSH | ACK | URG, at=0, urgent=9)
    raw.sent = 12
    raw.send(b" HTTP/1.1\r\n\r\n")
    assert raw.wait_responses(1)
    assert server.conversation(raw.source, raw.port).heads == [b"GET /public HTTP/1.1"]


def test_an_urgent_pointer_on_an_empty_segment_takes_a_byte_out_of_later_data(
    raw: RawTcp, server: Recorder
) -> None:
    """The flag and the byte need not be in one packet."""
    raw.open()
    raw.inject(b"", ACK | URG, urgent=9)
    raw.send(b"GET /pubXlic HTTP/1.1\r\n\r\n")
    assert raw.wait_responses(1)
    assert server.conversation(raw.source, raw.port).heads == [b"GET /public HTTP/1.1"]


def test_bytes_of_a_file_that_change_after_the_send_are_delivered_changed(
    topo: Topology, server: Recorder
) -> None:
    """Why the bytes that are judged must be made private: a page-cache page stays the sender's."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file, server.paused():
        file.write(GET)
        file.flush()
        with (
            mmap.mmap(file.fileno(), len(GET)) as pages,
            topo.client.namespace,
            socket.create_connection((topo.server.v4, 80), 2) as client,
        ):
            conversation = server.conversation(*client.getsockname()[:2])
            assert os.sendfile(client.fileno(), file.fileno(), 0, len(GET)) == len(GET)
            time.sleep(0.05)
            pages[5:11] = b"privat"
            server.resume()
            assert server.wait(lambda: len(conversation.data) == len(GET))
            assert bytes(conversation.data).startswith(b"GET /privat ")
