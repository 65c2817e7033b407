"""Ordinary clients and servers, with kernel sockets on both ends: what users see."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest

from corpus.rules import PORTS
from support.judge import GET_PRIVATE, GET_PUBLIC, Judge
from support.netns import sysctl
from support.origin import IPPROTO_MPTCP, Conversation, End, digest
from yett_policy.reason import Reason

pytestmark = [pytest.mark.net, pytest.mark.bpf]

SOL_MPTCP, MPTCP_INFO = 284, 1
POST = b"POST /upload HTTP/1.1\r\nHost: api\r\n"


@contextlib.contextmanager
def connect(judge: Judge, rules: str = "public", *, proto: int = 0) -> Iterator[socket.socket]:
    kind = socket.AF_INET6 if judge.family == 6 else socket.AF_INET
    with judge.topo.client.namespace:
        client = socket.socket(kind, socket.SOCK_STREAM, proto)
    with client:
        client.settimeout(3)
        client.connect(judge.address(rules))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


def read_responses(client: socket.socket, count: int) -> bytes:
    """Until `count` bodies of the recorder came in."""
    data = b""
    while data.count(b"HTTP/1.1 200") < count or not _complete(data):
        piece = client.recv(1 << 16)
        if not piece:
            break
        data += piece
    return data


def exchange(client: socket.socket, data: bytes, got: bytearray | None = None) -> None:
    """Send, then read to the end into `got`."""
    client.sendall(data)
    while piece := client.recv(1 << 16):
        if got is not None:
            got += piece


def _complete(data: bytes) -> bool:
    head, _, body = data.rpartition(b"\r\n\r\n")
    length = head.rpartition(b"Content-Length: ")[2]
    return length.isdigit() and len(body) >= int(length)


def conversation(judge: Judge, client: socket.socket, rules: str = "public") -> Conversation:
    address, port = client.getsockname()[:2]
    return judge.servers[PORTS[rules]].conversation(address, port)


def ended(judge: Judge, talk: Conversation, rules: str = "public") -> End:
    server = judge.servers[PORTS[rules]]
    assert server.wait(lambda: talk.end is not None), "the server's socket stays open"
    assert talk.end is not None
    return talk.end


# -- resets and answers


def test_a_denied_client_sees_its_connection_reset_at_once(judge: Judge) -> None:
    with connect(judge) as client:
        talk = conversation(judge, client)
        begin = time.monotonic()
        client.sendall(GET_PRIVATE)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        assert time.monotonic() - begin < 0.5
    assert ended(judge, talk) is End.RESET
    assert b"GET /pr" not in bytes(talk.data)
    judge.counted(Reason.POLICY_DENIED_L7)


def test_forbidden_is_answered_with_403_and_a_close(judge: Judge) -> None:
    with connect(judge, "forbidden") as client:
        talk = conversation(judge, client, "forbidden")
        begin = time.monotonic()
        client.sendall(GET_PRIVATE)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
        assert time.monotonic() - begin < 0.5
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert body == b"Access denied\r\n"
    assert b"content-length: 15" in head.lower()
    assert ended(judge, talk, "forbidden") is End.RESET
    assert b"GET /pr" not in bytes(talk.data)
    judge.counted(Reason.POLICY_DENIED_L7)


def test_forbidden_after_an_answered_request_comes_behind_that_answer(judge: Judge) -> None:
    with connect(judge, "forbidden") as client:
        client.sendall(GET_PUBLIC)
        assert digest(GET_PUBLIC) in read_responses(client, 1)
        client.sendall(GET_PRIVATE)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 403 ")


LARGE = b"GET /public HTTP/1.1\r\nHost: api\r\nX-Reply: 8000000\r\n\r\n"


def test_a_denied_request_during_a_long_answer_still_ends_the_connection(judge: Judge) -> None:
    """Bytes of the answer are on their way, so the first reset may miss; the client must not hang."""
    with connect(judge) as client:
        talk = conversation(judge, client)
        client.sendall(LARGE)
        assert client.recv(1000)
        client.sendall(GET_PRIVATE)
        begin = time.monotonic()
        with pytest.raises(ConnectionResetError):
            exchange(client, b"")
        assert time.monotonic() - begin < 1
    assert ended(judge, talk) is End.RESET
    assert b"privat" not in bytes(talk.data)
    assert judge.denials()[Reason.POLICY_DENIED_L7] == 1


def test_forbidden_never_lands_inside_the_answer_to_another_request(judge: Judge) -> None:
    with connect(judge, "forbidden") as client:
        client.sendall(LARGE)
        got = bytearray(client.recv(1000))
        client.sendall(GET_PRIVATE)
        with contextlib.suppress(ConnectionResetError):
            exchange(client, b"", got)
    _, _, body = bytes(got).partition(b"\r\n\r\n")
    assert b"403" not in body[: 8_000_000 + len(digest(LARGE))]


def test_forbidden_after_a_long_answer_that_was_read_to_its_end_is_answered(judge: Judge) -> None:
    with connect(judge, "forbidden") as client:
        client.sendall(LARGE)
        assert digest(LARGE) in read_responses(client, 1)
        client.sendall(GET_PRIVATE)
        got = bytearray()
        exchange(client, b"", got)
    assert got.startswith(b"HTTP/1.1 403 ")


def test_a_malformed_request_is_denied_also_where_denials_are_answered(judge: Judge) -> None:
    with connect(judge, "forbidden") as client:
        client.sendall(b"GET /public HTTP/1.1\r\nHost : api\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            answer = client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 403 ")
    judge.counted(Reason.HTTP_SPACE_BEFORE_COLON)


def test_an_audited_denial_passes_and_is_recorded(judge: Judge) -> None:
    with connect(judge, "audit") as client:
        client.sendall(GET_PRIVATE)
        assert digest(GET_PRIVATE) in read_responses(client, 1)
        client.sendall(GET_PUBLIC)
        assert digest(GET_PUBLIC) in read_responses(client, 1)
    assert any(event["verdict"] == 2 for event in judge.gate.events())


def test_a_denied_request_is_recorded_with_its_first_bytes(judge: Judge) -> None:
    judge.gate.events()
    with connect(judge) as client:
        client.sendall(GET_PRIVATE)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    events = [event for event in judge.gate.events() if event["reason"] == Reason.POLICY_DENIED_L7]
    assert len(events) == 1
    assert bytes(events[0]["head"])[: events[0]["head_len"]].startswith(b"GET /pr")


# -- the same ports again


@pytest.mark.parametrize("ending", ["reset", "fin"])
def test_the_ports_of_an_ended_connection_carry_the_next_one(ending: str, judge: Judge) -> None:
    kind = socket.AF_INET6 if judge.family == 6 else socket.AF_INET
    port = 41_000 + 10 * (ending == "fin") + judge.family
    for _ in range(3):
        with judge.topo.client.namespace:
            client = socket.socket(kind, socket.SOCK_STREAM)
        with client:
            client.settimeout(5)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind((judge.topo.client.address(judge.family), port))
            client.connect(judge.address())
            client.sendall(GET_PUBLIC)
            assert digest(GET_PUBLIC) in read_responses(client, 1)
            if ending == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass
    assert set(judge.denials()) <= {Reason.TCP_HANDSHAKE}  # a SYN that first ended the old connection


# -- many requests, large bodies


def test_keep_alive_requests_are_each_judged(judge: Judge) -> None:
    with connect(judge) as client:
        for _ in range(50):
            client.sendall(GET_PUBLIC)
            assert digest(GET_PUBLIC) in read_responses(client, 1)
        client.sendall(GET_PRIVATE)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    judge.counted(Reason.POLICY_DENIED_L7)


def test_pipelined_requests_in_large_packets_are_all_answered(judge: Judge) -> None:
    count = 1200  # 42 KiB
    with connect(judge) as client:
        client.sendall(GET_PUBLIC * count)
        assert read_responses(client, count).count(b"HTTP/1.1 200") == count
        assert bytes(conversation(judge, client).data) == GET_PUBLIC * count
    judge.undisturbed()


@pytest.mark.parametrize("position", [0, 1, 599, 1198, 1199])
def test_one_denied_request_among_many_in_one_write_never_reaches_the_server(
    position: int, judge: Judge
) -> None:
    requests = [GET_PUBLIC] * 1200
    requests[position] = GET_PRIVATE
    with connect(judge) as client:
        talk = conversation(judge, client)
        with pytest.raises(ConnectionError):
            exchange(client, b"".join(requests))
    ended(judge, talk)
    assert b"privat" not in bytes(talk.data)
    assert b"".join(requests).startswith(bytes(talk.data))
    assert len(talk.data) <= position * len(GET_PUBLIC) + 6
    judge.counted(Reason.POLICY_DENIED_L7)


def test_a_body_of_a_megabyte_by_length_arrives_unchanged(judge: Judge) -> None:
    request = POST + b"Content-Length: 1048576\r\n\r\n" + os.urandom(1 << 20)
    with connect(judge, "post") as client:
        for _ in range(2):
            client.sendall(request)
            assert digest(request) in read_responses(client, 1)
    judge.undisturbed()


@pytest.mark.parametrize("size", [1, 7, 1000, 65536], ids=lambda size: f"chunks-of-{size}")
def test_a_chunked_body_arrives_unchanged(size: int, judge: Judge) -> None:
    total = min(1 << 20, size * 20000)
    chunk = b"%x\r\n" % size + os.urandom(size) + b"\r\n"
    request = POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (total // size) + b"0\r\n\r\n"
    with connect(judge, "post") as client:
        for _ in range(2):
            client.sendall(request)
            assert digest(request) in read_responses(client, 1)
    judge.undisturbed()


def test_a_denied_request_behind_a_megabyte_is_denied(judge: Judge) -> None:
    request = POST + b"Content-Length: 1048576\r\n\r\n" + (GET_PRIVATE * 30000)[: 1 << 20]
    with connect(judge, "post") as client:
        talk = conversation(judge, client, "post")
        client.sendall(request)
        assert digest(request) in read_responses(client, 1)
        client.sendall(GET_PRIVATE)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    ended(judge, talk, "post")
    assert len(talk.data) <= len(request) + 6
    judge.counted(Reason.POLICY_DENIED_L7)


def test_a_server_that_does_not_read_only_slows_the_client_down(judge: Judge) -> None:
    """Zero window, window probes, and a body that waits."""
    server = judge.servers[PORTS["post"]]
    request = POST + b"Content-Length: 8388608\r\n\r\n" + bytes(8 << 20)
    with server.paused(), connect(judge, "post") as client:
        client.settimeout(20)
        sender = threading.Thread(target=client.sendall, args=(request,))
        sender.start()
        time.sleep(0.7)
        assert sender.is_alive()
        server.resume()
        sender.join(20)
        assert digest(request) in read_responses(client, 1)
    judge.undisturbed()


# -- bytes that change after they were judged


_libc = ctypes.CDLL(None, use_errno=True)


def splice_memory(pipe: int, memory: mmap.mmap, size: int) -> None:
    """Put the pages of `memory` into a pipe, not their content (vmsplice(2))."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    vector = (ctypes.c_size_t * 2)(address, size)
    assert _libc.vmsplice(pipe, ctypes.byref(vector), ctypes.c_size_t(1), 0) == size


def os_splice(source: int, target: int, size: int) -> int:
    """splice(2), which Python has since 3.10 but not everywhere."""
    return int(_libc.splice(source, None, target, None, ctypes.c_size_t(size), 0))


@contextlib.contextmanager
def shared_file(content: bytes) -> Iterator[tuple[int, mmap.mmap]]:
    """A page-cache file that we can change while the kernel still sends from it."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.write(content)
        file.flush()
        with mmap.mmap(file.fileno(), len(content)) as pages:
            yield file.fileno(), pages


def test_a_head_that_changes_in_the_page_cache_after_it_was_judged_is_delivered_as_judged(
    judge: Judge,
) -> None:
    server = judge.servers[PORTS["public"]]
    with shared_file(GET_PUBLIC) as (file, pages), server.paused(), connect(judge) as client:
        talk = conversation(judge, client)
        assert os.sendfile(client.fileno(), file, 0, len(GET_PUBLIC)) == len(GET_PUBLIC)
        time.sleep(0.05)
        pages[:] = GET_PRIVATE
        server.resume()
        assert server.wait(lambda: len(talk.data) == len(GET_PUBLIC))
        assert bytes(talk.data) == GET_PUBLIC
    judge.nothing_denied()


def test_a_chunk_size_that_changes_in_the_page_cache_is_delivered_as_judged(judge: Judge) -> None:
    server = judge.servers[PORTS["post"]]
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    rest = b"\r\n" + GET_PRIVATE + b"\r\n0\r\n\r\n"
    honest, forged = head + b"%02x" % len(GET_PRIVATE) + rest, head + b"00" + rest
    with shared_file(honest) as (file, pages), server.paused(), connect(judge, "post") as client:
        talk = conversation(judge, client, "post")
        assert os.sendfile(client.fileno(), file, 0, len(honest)) == len(honest)
        time.sleep(0.05)
        pages[:] = forged
        server.resume()
        assert server.wait(lambda: len(talk.data) == len(honest))
        assert bytes(talk.data).startswith(honest[: len(head) + 4])
        assert bytes(talk.data).endswith(b"\r\n0\r\n\r\n")


def test_bytes_that_change_in_the_senders_memory_are_delivered_as_judged(judge: Judge) -> None:
    """vmsplice: the pages of the packet are those of the process."""
    server = judge.servers[PORTS["public"]]
    with mmap.mmap(-1, mmap.PAGESIZE) as page, server.paused(), connect(judge) as client:
        talk = conversation(judge, client)
        page[: len(GET_PUBLIC)] = GET_PUBLIC
        reader, writer = os.pipe()
        try:
            splice_memory(writer, page, len(GET_PUBLIC))
            assert os_splice(reader, client.fileno(), len(GET_PUBLIC)) == len(GET_PUBLIC)
        finally:
            os.close(reader)
            os.close(writer)
        time.sleep(0.05)
        page[: len(GET_PUBLIC)] = GET_PRIVATE
        server.resume()
        assert server.wait(lambda: len(talk.data) == len(GET_PUBLIC))
        assert bytes(talk.data) == GET_PUBLIC
    judge.nothing_denied()


# -- what the SYN may ask for


def test_a_multipath_client_falls_back_to_plain_tcp_and_is_judged(judge: Judge) -> None:
    with connect(judge, "multipath", proto=IPPROTO_MPTCP) as client:
        client.sendall(GET_PUBLIC)
        assert digest(GET_PUBLIC) in read_responses(client, 1)
        with pytest.raises(OSError, match=r"not (supported|available)"):  # it is a plain connection now
            client.getsockopt(SOL_MPTCP, MPTCP_INFO, 64)
        client.sendall(GET_PRIVATE)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    judge.counted(Reason.POLICY_DENIED_L7)


def test_a_fast_open_client_falls_back_and_is_judged(judge: Judge) -> None:
    for side in judge.topo.sides:
        with side.namespace:
            sysctl("net/ipv4/tcp_fastopen", 0x607)
    server = judge.servers[PORTS["public"]]
    server.enable_fast_open()
    kind = socket.AF_INET6 if judge.family == 6 else socket.AF_INET
    for request, allowed in ((GET_PUBLIC, True), (GET_PRIVATE, False)):
        judge.restart()
        with judge.topo.client.namespace, socket.socket(kind, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.sendto(request, socket.MSG_FASTOPEN, judge.address())
            if allowed:
                assert digest(request) in read_responses(client, 1)
            else:
                with pytest.raises(ConnectionResetError):
                    client.recv(100)
                if server.saw(*client.getsockname()[:2]):
                    talk = conversation(judge, client)
                    ended(judge, talk)
                    assert b"GET /pr" not in bytes(talk.data)
                assert judge.denials().get(Reason.POLICY_DENIED_L7) == 1


# -- another protocol on the same connection


UPGRADE = b"GET /chat HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"


def test_a_request_that_offers_h2c_is_answered_like_any_other(judge: Judge) -> None:
    """The JDK's client offers it by default; blocking the header would block Java."""
    request = (
        b"GET /public HTTP/1.1\r\nHost: api\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    with connect(judge) as client:
        for _ in range(3):
            client.sendall(request)
            assert digest(request) in read_responses(client, 1)
        client.sendall(GET_PRIVATE)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    judge.counted(Reason.POLICY_DENIED_L7)


@pytest.mark.parametrize("pieces", [1, 3, 40], ids=lambda pieces: f"answer-in-{pieces}-pieces")
def test_a_server_that_switches_protocols_without_a_rule_is_cut_off(pieces: int, judge: Judge) -> None:
    with judge.servers[PORTS["upgrade"]].switching(pieces), connect(judge, "upgrade") as client:
        talk = conversation(judge, client, "upgrade")
        got = bytearray()
        with pytest.raises(ConnectionResetError):
            exchange(client, UPGRADE % b"h2c", got)
        assert b"101 Sw" not in got
    assert ended(judge, talk, "upgrade") is End.RESET
    judge.counted(Reason.UPGRADE_DENIED)


def test_an_upgrade_that_a_rule_allows_becomes_opaque(judge: Judge) -> None:
    with judge.servers[PORTS["upgrade"]].switching(1), connect(judge, "upgrade") as client:
        talk = conversation(judge, client, "upgrade")
        client.sendall(UPGRADE % b"websocket")
        assert client.recv(4096).startswith(b"HTTP/1.1 101")
        client.sendall(b"\x81\x85\0\0\0\0hello")
        assert judge.servers[PORTS["upgrade"]].wait(lambda: bytes(talk.data).endswith(b"hello"))
    judge.nothing_denied()


def test_an_upgrade_that_the_server_declines_stays_http(judge: Judge) -> None:
    with connect(judge, "upgrade") as client:
        request = UPGRADE % b"websocket"
        client.sendall(request)
        assert digest(request) in read_responses(client, 1)
        client.sendall(GET_PRIVATE)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    judge.counted(Reason.POLICY_DENIED_L7)


def test_an_upgrade_behind_a_pipelined_request_is_still_noticed(judge: Judge) -> None:
    """The 101 is not the first response after the request with Upgrade was seen."""
    first = b"GET /chat HTTP/1.1\r\nHost: api\r\n\r\n"
    with judge.servers[PORTS["upgrade"]].switching(1), connect(judge, "upgrade") as client:
        client.sendall(first + UPGRADE % b"h2c")
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(4096):
                got += piece
    assert b"101 Sw" not in got
    assert Reason.UPGRADE_DENIED in judge.denials()


def test_bytes_sent_before_the_switch_are_still_judged(judge: Judge) -> None:
    with judge.servers[PORTS["upgrade"]].switching(1), connect(judge, "upgrade") as client:
        talk = conversation(judge, client, "upgrade")
        client.sendall(UPGRADE % b"websocket" + GET_PRIVATE)
        with contextlib.suppress(ConnectionError):
            while client.recv(4096):
                pass
    ended(judge, talk, "upgrade")
    assert b"privat" not in bytes(talk.data)


def test_connect_is_denied_without_a_rule(judge: Judge) -> None:
    with connect(judge) as client:
        client.sendall(b"CONNECT api:443 HTTP/1.1\r\nHost: api:443\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    judge.counted(Reason.CONNECT_DENIED, Reason.POLICY_DENIED_L7)


def test_connect_that_a_rule_allows_becomes_a_tunnel(judge: Judge) -> None:
    with judge.servers[PORTS["connect"]].switching(1), connect(judge, "connect") as client:
        talk = conversation(judge, client, "connect")
        client.sendall(b"CONNECT api:443 HTTP/1.1\r\nHost: api:443\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        client.sendall(b"\x16\x03\x01hello")
        assert judge.servers[PORTS["connect"]].wait(lambda: bytes(talk.data).endswith(b"hello"))
    judge.nothing_denied()
