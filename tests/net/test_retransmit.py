"""Second copies of bytes: whichever copy the server takes, it must be one that was judged.

An attacker sends an allowed decoy in a packet that the server drops but a parser might not
(an insertion, as Ptacek and Newsham call it), and then other bytes at the same place.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support import packet as pk
from support.judge import GET_PRIVATE, GET_PUBLIC, Judge
from support.rawtcp import ACK, FIN, MD5, MSS_1460, NOP, PSH, RST, SYN, RawTcp, timestamp
from yett_policy.reason import Reason

pytestmark = [pytest.mark.net, pytest.mark.bpf]

NEVER = 6
"""Offset of the first byte of GET_PRIVATE that no rule allows."""

CAUGHT = (
    Reason.TCP_RETRANSMIT_DIFFERS,
    Reason.TCP_RETRANSMIT_UNKNOWN,
    Reason.POLICY_DENIED_L7,
    Reason.TCP_FLAGS,
    Reason.TCP_HANDSHAKE,
    Reason.TRUNCATED,
    Reason.TCP_FUTURE_SEGMENT,
)


def _bad_ip_checksum(raw: RawTcp) -> None:
    packet = bytearray(raw.packet(raw.segment(GET_PUBLIC, at=0)))
    if packet[0] >> 4 == 4:
        packet[10] ^= 0x55
    else:
        packet[40 + 16] ^= 0x55  # IPv6 has none; TCP's then
    raw.wire.send(bytes(packet))


def _wrong_mac(raw: RawTcp) -> None:
    raw.wire.send(raw.packet(raw.segment(GET_PUBLIC, at=0)), destination=b"\x02\x00\x00\x00\x00\x77")


INSERTIONS = {
    "a bad TCP checksum": lambda raw: raw.inject(GET_PUBLIC, at=0, bad_checksum=True),
    "a bad IP checksum": _bad_ip_checksum,
    "the wrong MAC address": _wrong_mac,
    "a TTL that ends before the server": lambda raw: raw.inject(GET_PUBLIC, at=0, ttl=1),
    "a TTL of 0": lambda raw: raw.inject(GET_PUBLIC, at=0, ttl=0),
    "no ACK flag": lambda raw: raw.inject(GET_PUBLIC, PSH, at=0, ack=0),
    "no flag at all": lambda raw: raw.inject(GET_PUBLIC, pk.Flag(0), at=0),
    "an MD5 signature": lambda raw: raw.inject(GET_PUBLIC, at=0, options=MD5),
    "an ACK of what was never sent": lambda raw: raw.inject(GET_PUBLIC, at=0, ack=raw.rcv_nxt + 100_000),
    "a very old ACK": lambda raw: raw.inject(GET_PUBLIC, at=0, ack=raw.rcv_nxt - (1 << 30)),
    "a SYN flag": lambda raw: raw.inject(GET_PUBLIC, SYN | ACK, at=-1),
    "an inexact RST": lambda raw: raw.inject(GET_PUBLIC, RST | ACK, at=5),
    "a data offset too small": lambda raw: raw.inject(GET_PUBLIC, at=0, data_offset=4),
    "a data offset beyond the packet": lambda raw: raw.inject(GET_PUBLIC[:8], at=0, data_offset=15),
    "FIN and a bad checksum": lambda raw: raw.inject(GET_PUBLIC, FIN | ACK, at=0, bad_checksum=True),
    "options full of rubbish": lambda raw: raw.inject(
        GET_PUBLIC, at=0, options=b"\xfd\x00\x03\x01", bad_checksum=True
    ),
}


@pytest.mark.parametrize("insertion", INSERTIONS.values(), ids=[k.replace(" ", "-") for k in INSERTIONS])
def test_an_allowed_decoy_that_the_server_drops_does_not_open_the_way(
    insertion: Callable[[RawTcp], None], judge: Judge
) -> None:
    raw = judge.connect()
    insertion(raw)
    raw.inject(GET_PRIVATE, at=0)
    raw.sent = len(GET_PRIVATE)
    raw.until(lambda: bool(raw.resets) or raw.responses() > 0, timeout=1)
    assert GET_PRIVATE[: NEVER + 1] not in judge.delivered(raw)
    assert set(judge.denials()) <= set(CAUGHT)
    # Some of these packets are no news to the server either (an old ACK is fine with Linux).
    if raw.responses():
        assert judge.delivered(raw) == GET_PUBLIC
    else:
        assert judge.denials()


def test_a_timestamp_from_the_past_does_not_open_the_way(judge: Judge) -> None:
    """PAWS (RFC 7323, 5): the server drops the decoy silently."""
    raw = RawTcp(judge.wire, judge.address())
    raw.open(options=MSS_1460 + timestamp(1_000_000))
    raw.options = timestamp(1_000_000)
    raw.inject(b"", ACK)
    raw.inject(GET_PUBLIC, at=0, options=timestamp(1))
    raw.inject(GET_PRIVATE, at=0)
    raw.sent = len(GET_PRIVATE)
    judge.denied(
        raw, Reason.TCP_RETRANSMIT_DIFFERS, Reason.POLICY_DENIED_L7, stream=GET_PRIVATE, below=NEVER + 1
    )


def test_a_decoy_split_from_its_replacement_at_every_byte_is_caught(judge: Judge) -> None:
    for cut in range(5, 12):
        judge.restart()
        raw = judge.connect()
        raw.inject(GET_PUBLIC[:cut], at=0, bad_checksum=True)
        raw.inject(GET_PRIVATE[:cut], at=0)
        raw.inject(GET_PRIVATE[cut:], at=cut)
        raw.sent = len(GET_PRIVATE)
        judge.denied(raw, *CAUGHT, stream=GET_PRIVATE, below=NEVER + 1)


def test_an_equal_retransmission_passes(judge: Judge) -> None:
    raw = judge.connect()
    raw.inject(GET_PUBLIC[:10], at=0, bad_checksum=True)
    raw.inject(GET_PUBLIC[:10], at=0)
    raw.inject(GET_PUBLIC[:10], at=0)
    raw.sent = 10
    raw.send(GET_PUBLIC[10:])
    judge.answered(raw, [GET_PUBLIC])
    judge.nothing_denied()


def test_an_equal_retransmission_with_other_borders_passes(judge: Judge) -> None:
    raw = judge.connect()
    for start, stop in ((0, 9), (0, 5), (4, 12), (5, 20), (0, len(GET_PUBLIC))):
        raw.inject(GET_PUBLIC[start:stop], at=start, bad_checksum=stop < len(GET_PUBLIC))
    raw.sent = len(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    judge.nothing_denied()


@pytest.mark.parametrize("start", [0, 4, 9])
def test_an_overlap_with_other_bytes_is_denied(start: int, judge: Judge) -> None:
    raw = judge.connect()
    raw.inject(GET_PUBLIC[:10], at=0, bad_checksum=True)
    other = b"X" * (14 - start)
    raw.inject(other, at=start)
    raw.sent = 14
    judge.denied(raw, Reason.TCP_RETRANSMIT_DIFFERS, stream=b"", below=1)


def test_a_retransmission_that_adds_new_bytes_is_judged_from_there(judge: Judge) -> None:
    raw = judge.connect()
    raw.inject(GET_PUBLIC[:5], at=0)
    raw.inject(GET_PUBLIC[:5] + b"r", at=0)
    raw.sent = 6
    judge.denied(raw, Reason.POLICY_DENIED_L7, stream=GET_PRIVATE, below=NEVER)


def test_bytes_that_the_server_has_acknowledged_may_come_again_in_any_form(judge: Judge) -> None:
    """They cannot reach the application a second time."""
    raw = judge.connect()
    raw.send(GET_PUBLIC)
    judge.answered(raw, [GET_PUBLIC])
    raw.inject(GET_PRIVATE, at=0)
    raw.inject(GET_PUBLIC, at=0)
    raw.settle(0.02)
    if not raw.resets:
        raw.send(GET_PUBLIC)
        judge.answered(raw, [GET_PUBLIC, GET_PUBLIC])
    assert b"privat" not in judge.delivered(raw)


def _lose_and_repeat(judge: Judge, size: int) -> tuple[RawTcp, bytes]:
    """The network loses a head after the hook; an honest sender sends the same bytes again."""
    request = GET_PUBLIC[:-2] + b"X: " + b"x" * size + b"\r\n\r\n"
    pieces = [(at, request[at : at + 1400]) for at in range(0, len(request), 1400)]
    raw = judge.connect()
    for at, piece in pieces:
        raw.inject(piece, at=at, bad_checksum=True)
    # As TCP does: from the first unacknowledged byte on, again and again.
    for _ in range(len(pieces)):
        for at, piece in pieces:
            if at >= raw.acked:
                raw.inject(piece, at=at)
        raw.settle(0.005)
        if raw.acked >= len(request) or raw.resets:
            break
    raw.sent = len(request)
    return raw, request


@pytest.mark.parametrize("size", [2_000, 12_000], ids=lambda size: f"{size}-bytes")
def test_a_long_head_that_was_lost_on_its_way_may_be_sent_again(size: int, judge: Judge) -> None:
    raw, request = _lose_and_repeat(judge, size)
    judge.answered(raw, [request])


def test_a_head_longer_than_what_is_kept_ends_with_an_answer_or_a_reset(judge: Judge) -> None:
    """It cannot be compared as a whole; what must not be is silence."""
    raw, _ = _lose_and_repeat(judge, 40_000)
    assert raw.until(lambda: bool(raw.resets) or raw.responses() > 0)


@pytest.mark.parametrize("count", [10, 40, 400], ids=lambda count: f"{count}-chunks")
def test_small_chunks_that_were_lost_on_their_way_may_be_sent_again(count: int, judge: Judge) -> None:
    head = b"POST /upload HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"1\r\nx\r\n" * count + b"0\r\n\r\n"
    raw = judge.connect("post")
    raw.send(head)
    assert raw.wait_acked()
    pieces = [(at, body[at : at + 1400]) for at in range(0, len(body), 1400)]
    for at, piece in pieces:
        raw.inject(piece, at=len(head) + at, bad_checksum=True)
    for _ in range(20):
        for at, piece in pieces:
            if len(head) + at >= raw.acked:
                raw.inject(piece, at=len(head) + at)
        raw.settle(0.005)
        if raw.acked >= len(head) + len(body) or raw.resets:
            break
    raw.sent += len(body)
    judge.answered(raw, [head + body])


def test_a_chunk_size_that_changes_in_a_retransmission_is_denied(judge: Judge) -> None:
    head = b"POST /upload HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw = judge.connect("post")
    raw.send(head)
    assert raw.wait_acked()
    raw.inject(b"25\r\n", at=len(head), bad_checksum=True)
    raw.inject(b"05\r\n", at=len(head))
    raw.sent += 4
    judge.denied(raw, Reason.TCP_RETRANSMIT_DIFFERS, stream=head, below=len(head) + 1)


def test_body_bytes_may_differ_in_a_retransmission(judge: Judge) -> None:
    """A body is framed by its length alone; no byte of it is ever looked at."""
    head = b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 40\r\n\r\n"
    raw = judge.connect("post")
    raw.send(head)
    raw.inject(b"a" * 20, at=len(head), bad_checksum=True)
    raw.inject(b"b" * 20, at=len(head))
    raw.sent += 20
    raw.send(b"c" * 20)
    judge.answered(raw, [head + b"b" * 20 + b"c" * 20])
    judge.nothing_denied()


def test_a_content_length_that_changes_in_a_retransmission_is_denied(judge: Judge) -> None:
    start = b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: "
    raw = judge.connect("post")
    raw.send(start)
    assert raw.wait_acked()
    raw.inject(b"36\r\n\r\n", at=len(start), bad_checksum=True)
    raw.inject(b"00\r\n\r\n" + GET_PRIVATE, at=len(start))
    raw.sent += 6 + len(GET_PRIVATE)
    judge.denied(raw, Reason.TCP_RETRANSMIT_DIFFERS, stream=start, below=len(start) + 1)


def test_a_retransmission_around_the_wrap_of_sequence_numbers_is_compared(judge: Judge) -> None:
    for before_wrap in (1, 4, 7, 12):
        judge.restart()
        raw = judge.connect(isn=(1 << 32) - before_wrap)
        raw.inject(GET_PUBLIC, at=0, bad_checksum=True)
        raw.inject(GET_PRIVATE, at=0)
        raw.sent = len(GET_PRIVATE)
        judge.denied(raw, Reason.TCP_RETRANSMIT_DIFFERS, stream=GET_PRIVATE, below=NEVER + 1)


def test_options_that_only_fill_do_not_matter(judge: Judge) -> None:
    raw = judge.connect()
    raw.options = NOP * 40
    raw.send(GET_PUBLIC, size=7)
    judge.answered(raw, [GET_PUBLIC])
