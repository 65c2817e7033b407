"""Order, flags and positions of TCP segments, as an adversary chooses them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import packet as pk
from support.judge import GET_PRIVATE, GET_PUBLIC, Judge
from support.netns import sysctl
from support.origin import End
from support.packet import Flag
from support.rawtcp import (
    ACK,
    FIN,
    MP_CAPABLE,
    MP_JOIN,
    MSS_1460,
    PSH,
    RST,
    SYN,
    URG,
    ClosedError,
    RawTcp,
    Wire,
)
from yett_policy.reason import Reason

pytestmark = [pytest.mark.net, pytest.mark.bpf]

POST = b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 3000\r\n\r\n"


# -- order


def test_a_future_segment_of_a_head_is_dropped_and_may_come_again(judge: Judge) -> None:
    raw = judge.connect()
    raw.inject(GET_PUBLIC[20:], at=20)
    raw.settle(0.02)
    raw.inject(GET_PUBLIC[:20], at=0)
    raw.settle(0.02)
    assert judge.delivered(raw) == GET_PUBLIC[:20]
    raw.inject(GET_PUBLIC[20:], at=20)
    raw.sent = len(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])


def test_a_future_segment_is_answered_with_a_duplicate_ack(judge: Judge) -> None:
    """Without it the sender would wait for its timer instead of retransmitting at once."""
    raw = judge.connect()
    raw.inject(GET_PUBLIC[20:], at=20)
    segment = raw.step(0.5)
    assert segment is not None
    assert segment.flags == ACK
    assert segment.ack == (raw.isn + 1) & 0xFFFFFFFF
    assert segment.seq == raw.rcv_nxt
    assert segment.checksum_ok
    assert not segment.payload


def test_segments_of_a_denied_head_in_reverse_order_do_not_assemble(judge: Judge) -> None:
    raw = judge.connect()
    for start in range(len(GET_PRIVATE) - 3, -1, -3):
        raw.inject(GET_PRIVATE[start : start + 3], at=start)
    raw.settle(0.02)
    for start in range(0, len(GET_PRIVATE), 3):
        raw.inject(GET_PRIVATE[start : start + 3], at=start)
    assert raw.wait_reset()
    assert len(judge.delivered(raw)) <= 6
    # Close behind the start a number could belong to another SYN cookie.
    assert set(judge.denials()) <= {
        Reason.TCP_FUTURE_SEGMENT,
        Reason.POLICY_DENIED_L7,
        Reason.TCP_HANDSHAKE,
    }
    assert judge.denials()[Reason.POLICY_DENIED_L7] == 1


def test_segments_inside_a_known_body_may_come_in_any_order(judge: Judge) -> None:
    body = bytes(range(256)) * 12
    request = POST + body[:3000]
    raw = judge.connect("post")
    raw.send(POST)
    for at in (2000, 1000, 0):
        raw.inject(body[at : min(at + 1000, 3000)], at=len(POST) + at)
    raw.sent += 3000
    judge.answered(raw, [request])
    judge.nothing_denied()


def test_a_denied_head_behind_a_reordered_body_is_denied(judge: Judge) -> None:
    raw = judge.connect("post")
    raw.send(POST)
    raw.inject(b"b" * 1000 + GET_PRIVATE, at=len(POST) + 2000)
    raw.inject(b"a" * 1000, at=len(POST))
    raw.inject(b"a" * 1000, at=len(POST) + 1000)
    raw.sent += 3000 + len(GET_PRIVATE)
    assert raw.until(lambda: bool(raw.resets))
    assert b"GET /pr" not in judge.delivered(raw)
    judge.counted(Reason.POLICY_DENIED_L7)


def test_a_segment_far_beyond_the_window_changes_nothing(judge: Judge) -> None:
    raw = judge.connect()
    raw.send(GET_PUBLIC[:10])
    raw.inject(GET_PRIVATE, at=1 << 30)
    raw.inject(GET_PRIVATE, at=(1 << 31) + 5)
    raw.settle(0.02)
    raw.send(GET_PUBLIC[10:])
    if not raw.resets:
        judge.answered(raw, [GET_PUBLIC])
    assert b"privat" not in judge.delivered(raw)


# -- positions


@pytest.mark.parametrize("before_wrap", [0, 1, 2, 5, 16, 30])
def test_a_request_across_the_wrap_of_sequence_numbers_is_judged(before_wrap: int, judge: Judge) -> None:
    raw = judge.connect(isn=(1 << 32) - 1 - before_wrap)
    raw.send(GET_PUBLIC, size=4)
    judge.answered(raw, [GET_PUBLIC])
    raw.send(GET_PRIVATE, size=4)
    judge.denied(raw, Reason.POLICY_DENIED_L7, stream=GET_PUBLIC + GET_PRIVATE, below=len(GET_PUBLIC) + 7)


@pytest.mark.parametrize("garbage", [b"", b"\0", b"X"])
def test_a_keep_alive_probe_does_not_disturb(garbage: bytes, judge: Judge) -> None:
    """Probes carry the last acknowledged byte again, or garbage in its place (RFC 9293, 3.8.4)."""
    raw = judge.connect()
    raw.send(GET_PUBLIC[:9])
    assert raw.wait_acked()
    raw.inject(garbage, ACK, at=8)
    assert raw.step(1) is not None, "the probe was not answered"
    raw.send(GET_PUBLIC[9:])
    judge.answered(raw, [GET_PUBLIC])
    raw.inject(garbage, ACK, at=raw.sent - 1)
    assert raw.step(1) is not None, "the probe was not answered"
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC, GET_PUBLIC])
    judge.nothing_denied()


def test_a_port_may_be_used_again_after_a_clean_close(judge: Judge) -> None:
    first = judge.connect()
    first.send(GET_PUBLIC)
    judge.answered(first, [GET_PUBLIC])
    first.fin()
    assert first.until(lambda: first.finished)
    again = RawTcp(judge.wire, judge.address(), isn=0x40000000, port=first.port)
    again.open()
    again.send(GET_PUBLIC)
    assert again.wait_responses(1)
    judge.nothing_denied()


def test_a_port_may_be_used_again_after_a_denial(judge: Judge) -> None:
    first = judge.connect()
    first.send(GET_PRIVATE)
    judge.denied(first, Reason.POLICY_DENIED_L7)
    again = RawTcp(judge.wire, judge.address(), isn=0x40000000, port=first.port)
    again.open()
    again.send(GET_PUBLIC)
    assert again.wait_responses(1)


def test_a_denied_flow_stays_denied(judge: Judge) -> None:
    raw = judge.connect()
    raw.send(GET_PRIVATE)
    judge.denied(raw, Reason.POLICY_DENIED_L7)
    seen = judge.delivered(raw)
    for at in (0, 5, len(GET_PRIVATE)):
        raw.inject(GET_PUBLIC, at=at)
    raw.settle(0.02)
    assert judge.delivered(raw) == seen
    assert raw.responses() == 0


# -- flags


def test_a_request_with_its_fin_is_answered(judge: Judge) -> None:
    raw = judge.connect()
    raw.send(GET_PUBLIC, FIN | PSH | ACK)
    judge.answered(raw, [GET_PUBLIC])
    assert raw.until(lambda: raw.finished)
    assert judge.servers[raw.server_port].wait(lambda: judge.conversation(raw).end is End.FIN)


@pytest.mark.parametrize("stop", [1, 4, 11, 22, 34])
@pytest.mark.parametrize("separate", [False, True], ids=["with-data", "alone"])
def test_a_fin_inside_a_head_becomes_a_reset(stop: int, separate: bool, judge: Judge) -> None:
    """Some servers execute an unfinished head when the stream ends."""
    raw = judge.connect()
    if separate:
        raw.send(GET_PUBLIC[:stop])
        raw.fin()
    else:
        raw.send(GET_PUBLIC[:stop], FIN | PSH | ACK)
    judge.denied(raw, Reason.TCP_FIN_IN_REQUEST, stream=GET_PUBLIC)


@pytest.mark.parametrize(
    "request_start",
    [POST + b"a" * 10, b"POST /upload HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"],
    ids=["length", "chunked"],
)
def test_a_fin_inside_a_body_becomes_a_reset(request_start: bytes, judge: Judge) -> None:
    raw = judge.connect("post")
    raw.send(request_start)
    raw.fin()
    judge.denied(raw, Reason.TCP_FIN_IN_REQUEST, stream=request_start)


def test_a_fin_between_requests_closes_politely(judge: Judge) -> None:
    raw = judge.connect()
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    raw.fin()
    assert raw.until(lambda: raw.finished)
    judge.nothing_denied()


def test_bytes_behind_a_fin_do_not_pass_unjudged(judge: Judge) -> None:
    raw = judge.connect()
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    raw.inject(b"", FIN | ACK, bad_checksum=True)
    raw.inject(GET_PRIVATE)
    assert raw.until(lambda: bool(raw.resets))
    assert b"privat" not in judge.delivered(raw)


def test_urgent_data_is_denied(judge: Judge) -> None:
    """The urgent byte leaves the stream, so the server would read other bytes than were judged."""
    raw = judge.connect()
    raw.inject(b"GET /pubXlic", PSH | ACK | URG, at=0, urgent=9)
    raw.sent = 12
    judge.denied(raw, Reason.TCP_URGENT, stream=b"", below=1)


@pytest.mark.parametrize("garbage", [b"", b"x"], ids=["empty", "a byte"])
def test_a_probe_before_the_first_byte_is_answered_for_the_server(garbage: bytes, judge: Judge) -> None:
    """A client whose first segment was lost before it left the host has no other way to ask (Linux: a
    device that dropped it); the server could take the probe for the start of the stream.
    """
    raw = judge.connect()
    for _ in range(3):
        raw.inject(garbage, at=-1)
        segment = raw.step(0.5)
        assert segment is not None
        assert segment.flags == ACK
        assert segment.ack == (raw.isn + 1) & 0xFFFFFFFF
        assert segment.window
    assert not judge.delivered(raw)
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])


@pytest.mark.parametrize("when", ["before", "in the handshake", "as a probe"])
def test_urgency_announced_by_an_empty_segment_takes_nothing_out(when: str, judge: Judge) -> None:
    """The receiver remembers the pointer of an empty segment and removes the byte when it comes."""
    if when == "in the handshake":
        raw = RawTcp(judge.wire, judge.address("any"))
        raw.inject(b"", SYN, at=-1, ack=0, options=MSS_1460)
        answer = raw.wire.receive(raw.port, 2)
        assert answer is not None
        raw.rcv_nxt = answer.end
        raw.inject(b"", ACK | URG, urgent=9)
        raw.inject(b"", ACK)
    else:
        raw = judge.connect("any")
        raw.inject(b"", ACK | URG, at=0 if when == "before" else -1, urgent=9 if when == "before" else 10)
    sent = b"GET /pubXlic HTTP/1.1\r\nHost: api\r\n\r\n"
    raw.send(sent)
    raw.until(lambda: bool(raw.resets) or raw.responses() > 0, 0.5)
    raw.settle(0.01)
    if raw.responses():
        assert judge.delivered(raw) == sent
    else:
        assert Reason.TCP_URGENT in judge.denials()


def test_an_urgent_pointer_without_its_flag_is_only_a_number(judge: Judge) -> None:
    raw = judge.connect()
    raw.send(GET_PUBLIC, urgent=9)
    judge.answered(raw, [GET_PUBLIC])


@pytest.mark.parametrize(
    "flags", [SYN | FIN, SYN | RST, FIN, FIN | PSH | URG, RST | FIN, SYN | PSH, PSH], ids=repr
)
def test_flags_that_make_no_sense_carry_nothing_to_the_server(flags: Flag, judge: Judge) -> None:
    raw = judge.connect()
    raw.inject(GET_PRIVATE, flags, at=0)
    raw.settle(0.02)
    assert judge.delivered(raw) == b""
    assert judge.denials() or flags & RST  # a reset may pass: whoever sends it ends only its own connection


def test_a_reset_at_the_wrong_place_does_not_make_the_flow_forgotten(judge: Judge) -> None:
    raw = judge.connect()
    raw.send(GET_PUBLIC[:5])
    for at in (1, 6, 30, 1000, -1):
        raw.inject(b"", RST | ACK, at=at)
        raw.inject(b"", RST, at=at, ack=0)
    raw.inject(b"", RST | ACK, bad_checksum=True)
    raw.send(b"rivat HTTP/1.1\r\n\r\n")
    raw.until(lambda: bool(raw.resets), 1)
    assert len(judge.delivered(raw)) <= 5


def test_a_second_syn_does_not_move_the_position(judge: Judge) -> None:
    """The server goes on with the first sequence number."""
    raw = judge.connect()
    raw.send(GET_PUBLIC[:5])
    raw.inject(b"", SYN, at=5000, ack=0, options=MSS_1460)
    raw.inject(GET_PUBLIC, at=5001)
    raw.inject(b"rivat HTTP/1.1\r\n\r\n", at=5)
    raw.until(lambda: bool(raw.resets), 1)
    assert len(judge.delivered(raw)) <= 5
    assert judge.denials()


def test_two_syns_with_different_numbers_open_one_connection_or_none(judge: Judge) -> None:
    """Whichever the server takes, a request at the other one's position must not pass."""
    for decoy in (0x9000, 0x70000000):
        raw = RawTcp(judge.wire, judge.address(), isn=0x1000)
        raw.inject(b"", SYN, at=-1, ack=0, options=MSS_1460)
        other = RawTcp(judge.wire, judge.address(), isn=decoy, port=raw.port)
        other.inject(b"", SYN, at=-1, ack=0, options=MSS_1460)
        answer = raw.wire.receive(raw.port, 2)
        assert answer is not None
        raw.rcv_nxt = other.rcv_nxt = answer.end
        raw.inject(b"", ACK)
        other.inject(GET_PUBLIC, at=0)
        raw.inject(GET_PRIVATE, at=0)
        raw.settle(0.05)
        server = judge.servers[raw.server_port]
        assert not server.saw(raw.source, raw.port) or b"GET /pr" not in judge.delivered(raw)


@pytest.mark.parametrize("between", ["nothing", "inexact reset", "reset with a bad checksum"])
def test_a_repeated_syn_ack_does_not_set_the_position_back(
    between: str, judge: Judge, server_wire: Wire
) -> None:
    """A SYN-ACK that the server sent before the first data may pass the hook after it: the client
    repeats its SYN on one processor and sends data on the other."""
    ours = b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 35\r\n\r\n"
    theirs = b"GET /public HTTP/1.1\r\nHost: api\r\nX: "
    theirs += b"y" * (len(ours) - len(theirs) - 4) + b"\r\n\r\n"
    raw = RawTcp(judge.wire, judge.address("post"))
    answer = raw.open()
    raw.inject(theirs, at=0)
    assert judge.servers[raw.server_port].wait(lambda: judge.delivered(raw) == theirs)
    if between == "inexact reset":
        raw.inject(b"", RST | ACK, at=len(theirs) + 1)
    elif between == "reset with a bad checksum":
        raw.inject(b"", RST | ACK, at=len(theirs), bad_checksum=True)
    raw.inject(b"", SYN, at=-1, ack=0, options=MSS_1460)
    late = pk.tcp(
        raw.server, raw.source, raw.server_port, raw.port, answer.seq, answer.ack, SYN | ACK, options=MSS_1460
    )
    server_wire.send(pk.ip_packet(raw.server, raw.source, late))
    raw.settle(0.01)
    raw.inject(ours, at=0)
    raw.inject(GET_PRIVATE, at=len(ours))
    raw.settle(0.02)
    assert b"GET /pr" not in judge.delivered(raw)


@pytest.fixture
def cookies(judge: Judge) -> Iterator[None]:
    """A server under a flood of SYNs: it keeps nothing and believes any of its answers later."""
    with judge.topo.server.namespace:
        sysctl("net/ipv4/tcp_syncookies", 2)
    yield
    with judge.topo.server.namespace:
        sysctl("net/ipv4/tcp_syncookies", 1)


@pytest.mark.usefixtures("cookies")
def test_connections_with_syn_cookies_are_judged(judge: Judge) -> None:
    raw = judge.connect()
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    raw.send(GET_PRIVATE)
    judge.denied(raw, Reason.POLICY_DENIED_L7, stream=GET_PUBLIC + GET_PRIVATE, below=len(GET_PUBLIC) + 7)


@pytest.mark.usefixtures("cookies")
@pytest.mark.parametrize("distance", [1000, 36, -57, -1000])
def test_of_two_syn_cookies_only_the_last_one_counts(distance: int, judge: Judge) -> None:
    """The server would take up the first number; the position follows the second."""
    first = RawTcp(judge.wire, judge.address("post"), isn=0x10000)
    second = RawTcp(judge.wire, judge.address("post"), isn=0x10000 + distance, port=first.port)
    for raw in (first, second):
        raw.inject(b"", SYN, at=-1, ack=0, options=MSS_1460)
        answer = raw.wire.receive(raw.port, 1)
        assert answer is not None
        raw.rcv_nxt = answer.end
    first.inject(b"", ACK)
    first.inject(GET_PRIVATE, at=0)
    first.settle(0.02)
    server = judge.servers[first.server_port]
    assert not server.saw(first.source, first.port) or b"GET /pr" not in judge.delivered(first)


@pytest.mark.usefixtures("cookies")
@pytest.mark.parametrize("below", [1, 2, 3])
def test_no_byte_gets_in_front_of_the_stream(below: int, judge: Judge) -> None:
    """A cookie is good for the number below, too: there the server takes it for another MSS."""
    raw = RawTcp(judge.wire, judge.address("any"))
    raw.inject(b"", SYN, at=-1, ack=0, options=MSS_1460)
    answer = raw.wire.receive(raw.port, 1)
    assert answer is not None
    raw.rcv_nxt = answer.end
    for at in range(-below, 0):
        raw.inject(b"X", at=at)
    raw.send(GET_PUBLIC)
    raw.settle(0.02)
    server = judge.servers[raw.server_port]
    assert not server.saw(raw.source, raw.port) or not judge.delivered(raw).startswith(b"X")


@pytest.mark.usefixtures("cookies")
def test_a_syn_cookie_in_the_middle_of_a_connection_does_not_move_the_position(
    judge: Judge, server_wire: Wire
) -> None:
    """As above, but the answer to the second SYN comes after the first data."""
    ours = b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 35\r\n\r\n"
    theirs = GET_PUBLIC[:-2] + b"X: " + b"y" * 100 + b"\r\n\r\n"
    raw = RawTcp(judge.wire, judge.address("post"))
    answer = raw.open()
    raw.inject(theirs, at=0)
    assert judge.servers[raw.server_port].wait(lambda: judge.delivered(raw) == theirs)
    place = len(theirs) - len(ours)
    raw.inject(b"", SYN, at=place - 1, ack=0, options=MSS_1460)
    late = pk.tcp(
        raw.server,
        raw.source,
        raw.server_port,
        raw.port,
        answer.seq + 77777,
        raw.isn + 1 + place,
        SYN | ACK,
        options=MSS_1460,
    )
    server_wire.send(pk.ip_packet(raw.server, raw.source, late))
    raw.settle(0.01)
    for acknowledged in (answer.seq + 1, answer.seq + 77778, raw.rcv_nxt):
        raw.inject(ours, at=place, ack=acknowledged)
        raw.inject(GET_PRIVATE, at=len(theirs), ack=acknowledged)
    raw.settle(0.02)
    assert b"GET /pr" not in judge.delivered(raw)


def test_data_before_the_handshake_is_complete_does_not_pass(judge: Judge) -> None:
    raw = RawTcp(judge.wire, judge.address())
    raw.inject(GET_PRIVATE, at=0, ack=1)
    raw.settle(0.02)
    assert not judge.servers[raw.server_port].saw(raw.source, raw.port)
    assert judge.denials()


def test_a_reply_that_nobody_asked_for_does_not_open_a_flow(judge: Judge) -> None:
    raw = RawTcp(judge.wire, judge.address())
    raw.inject(b"", SYN | ACK, at=-1, ack=77)
    raw.settle(0.02)
    raw.inject(GET_PRIVATE, at=0, ack=78)
    raw.settle(0.02)
    assert not judge.servers[raw.server_port].saw(raw.source, raw.port)


# -- options of the SYN


def test_data_in_a_syn_is_denied_and_the_client_may_fall_back(judge: Judge) -> None:
    """TCP Fast Open, RFC 7413."""
    raw = RawTcp(judge.wire, judge.address())
    with pytest.raises((TimeoutError, ClosedError)):
        raw.open(syn_data=GET_PUBLIC, timeout=0.1)
    judge.counted(Reason.TCP_SYN_DATA)
    fallback = RawTcp(judge.wire, judge.address(), port=raw.port)
    fallback.open()
    fallback.send(GET_PUBLIC)
    assert fallback.wait_responses(1)


@pytest.mark.parametrize("option", [MP_CAPABLE, MP_JOIN], ids=["capable", "join"])
def test_a_multipath_offer_ends_as_plain_tcp_or_nowhere(option: bytes, judge: Judge) -> None:
    raw = RawTcp(judge.wire, judge.address())
    try:
        answer = raw.open(options=MSS_1460 + option, timeout=0.2)
    except (TimeoutError, ClosedError):
        assert judge.denials()
        return
    assert b"\x1e" not in answer.options
    raw.send(GET_PRIVATE)
    judge.denied(raw, Reason.POLICY_DENIED_L7, stream=GET_PRIVATE, below=7)


def test_every_segment_of_one_byte_is_judged(judge: Judge) -> None:
    raw = judge.connect()
    raw.send(GET_PUBLIC, size=1)
    judge.answered(raw, [GET_PUBLIC])
    raw.send(GET_PRIVATE, size=1)
    judge.denied(raw, Reason.POLICY_DENIED_L7, stream=GET_PUBLIC + GET_PRIVATE, below=len(GET_PUBLIC) + 7)
