"""Random adversaries: whatever they send, the bytes that the server got hold no denied request.

The judge is the interpreter of the tables (`Machine`), fed with what the server's kernel
delivered to the application.
"""

from __future__ import annotations

import random
import threading
from functools import cache

import pytest

from corpus.rules import RULESETS
from support.judge import Judge
from support.netns import sysctl
from support.rawtcp import ACK, FIN, MD5, MSS_1460, PSH, RST, SYN, URG, RawTcp
from yett_policy.document import Verdict
from yett_policy.http.compile import compile_tables
from yett_policy.http.machine import Machine

pytestmark = [pytest.mark.net, pytest.mark.bpf]

ROUNDS = 60
"""Connections a test; each with some thirty packets."""

# Three streams of equal length: the honest one, one with a denied request in the place of each
# allowed one, and one whose framing differs (a length that swallows or reveals the next head).
_GOOD = (
    b"GET /public HTTP/1.1\r\nHost: api\r\n\r\n"
    b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 35\r\n\r\n"
    b"GET /privat HTTP/1.1\r\nHost: api\r\n\r\n"
    b"POST /upload HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"23\r\nGET /privat HTTP/1.1\r\nHost: api\r\n\r\n\r\n0\r\n\r\n"
    b"GET /public HTTP/1.1\r\nHost: api\r\n\r\n"
)
STREAMS = (
    _GOOD,
    _GOOD.replace(b"/public", b"/privat"),
    _GOOD.replace(b"Length: 35", b"Length: 00").replace(b"\r\n23\r\n", b"\r\n00\r\n"),
)


@cache
def tables() -> bytes:
    return compile_tables(RULESETS["post"]).data


def holds_a_denied_request(delivered: bytes) -> bool:
    """Whether a denial is complete in these bytes."""
    return any(found.verdict is Verdict.DENY for found in Machine(tables()).feed(delivered))


def test_the_oracle_knows_the_streams() -> None:
    assert len({len(stream) for stream in STREAMS}) == 1
    assert [holds_a_denied_request(stream) for stream in STREAMS] == [False, True, True]


def _attack(raw: RawTcp, dice: random.Random) -> None:
    """Thirty packets around the frontier of the stream."""
    frontier = 0
    for _ in range(dice.randint(10, 40)):
        stream = dice.choices(STREAMS, weights=(6, 2, 2))[0]
        start = max(0, frontier + dice.choice((0, 0, 0, 0, -1, -3, -10, -40, 1, 5, 20)))
        size = dice.choice((0, 1, 1, 2, 4, 7, 16, 40, 200))
        fields: dict[str, object] = {}
        flags = ACK | PSH
        kind = dice.randrange(24)
        if kind == 0:
            fields["bad_checksum"] = True
        elif kind == 1:
            fields["ttl"] = dice.choice((0, 1, 2))
        elif kind == 2:
            fields["options"] = MD5
        elif kind == 3:
            flags = PSH
        elif kind == 4:
            flags |= URG
            fields["urgent"] = dice.randint(0, 20)
        elif kind == 5:
            flags |= FIN
            fields["bad_checksum"] = dice.random() < 0.7
        elif kind == 6:
            flags, size = RST | ACK, 0
            start += dice.choice((-7, 3, 100))
        elif kind == 7:
            flags, size = SYN, 0
        elif kind == 8:
            fields["ack"] = raw.rcv_nxt + dice.choice((1 << 20, -(1 << 20), 1 << 31))
        raw.inject(stream[start : start + size], flags, at=start, **fields)  # type: ignore[arg-type]
        if kind > 8 and start <= frontier:
            frontier = max(frontier, start + size)
        if dice.random() < 0.3:
            raw.step(0.002)


@pytest.mark.parametrize("seed", range(4))
def test_no_sequence_of_segments_brings_a_denied_request_to_the_server(seed: int, judge: Judge) -> None:
    dice = random.Random(seed)
    delivered = 0
    for number in range(ROUNDS):
        isn = dice.choice((0x1000, (1 << 32) - dice.randint(1, 300), (1 << 31) - dice.randint(1, 300)))
        raw = judge.connect("post", isn=isn)
        _attack(raw, dice)
        raw.settle(0.003)
        data = judge.delivered(raw)
        assert not holds_a_denied_request(data), f"seed {seed}, connection {number}: {data!r}"
        delivered += len(data)
        raw.reset()
    assert delivered > 20 * ROUNDS, "hardly a byte reached the server: this test proves nothing"


def _open_ambiguously(judge: Judge, dice: random.Random) -> tuple[RawTcp, list[int]]:
    """Several SYNs on the same ports; one of the answers is taken up.  Also: all the answers' numbers."""
    isn = dice.getrandbits(32)
    raw = RawTcp(judge.wire, judge.address("post"))
    offers: list[tuple[int, int]] = []
    for _ in range(dice.randint(1, 4)):
        raw.isn = (isn + dice.choice((0, 0, 1, 35, 57, 500, -1, -35, -500))) & 0xFFFFFFFF
        raw.inject(b"", SYN, at=-1, ack=0, options=MSS_1460)
        answer = raw.wire.receive(raw.port, 0.05)
        if answer is not None and answer.flags & SYN:
            offers.append(((answer.ack - 1) & 0xFFFFFFFF, answer.end))
    raw.isn, raw.rcv_nxt = dice.choice(offers)
    if dice.random() < 0.5:
        raw.inject(b"", ACK)
    return raw, [number for _, number in offers]


@pytest.mark.parametrize("cookies", [1, 2], ids=["backlog", "cookies"])
@pytest.mark.parametrize("seed", range(2))
def test_no_opening_makes_a_denied_request_reach_the_server(seed: int, cookies: int, judge: Judge) -> None:
    dice = random.Random(seed)
    with judge.topo.server.namespace:
        sysctl("net/ipv4/tcp_syncookies", cookies)
    served = 0
    try:
        for number in range(ROUNDS):
            raw, numbers = _open_ambiguously(judge, dice)
            for stream in (dice.choice(STREAMS), dice.choice(STREAMS)):
                at = dice.choice((0, 0, 1, 10, 35))
                raw.inject(stream[at : at + dice.choice((20, 35, 120))], at=at, ack=dice.choice(numbers))
                if dice.random() < 0.3:
                    raw.inject(b"", SYN, at=-1 + dice.choice((0, 0, 20, 57)), ack=0, options=MSS_1460)
                raw.step(0.002)
            _attack(raw, dice)
            raw.settle(0.002)
            if judge.servers[raw.server_port].saw(raw.source, raw.port):
                served += 1
                data = judge.delivered(raw)
                assert not holds_a_denied_request(data), f"seed {seed}, connection {number}: {data!r}"
            raw.reset()
    finally:
        with judge.topo.server.namespace:
            sysctl("net/ipv4/tcp_syncookies", 1)
    assert served > ROUNDS // 10, "hardly any connection was opened: this test proves nothing"


@pytest.mark.parametrize("seed", range(4))
def test_an_honest_sender_that_loses_and_repeats_is_always_answered(seed: int, judge: Judge) -> None:
    """Loss, reordering, other segment borders: the bytes are always the same, so all must arrive."""
    dice = random.Random(seed)
    for number in range(ROUNDS // 2):
        raw = judge.connect("post", isn=dice.getrandbits(32))
        for _ in range(400):
            if raw.acked >= len(_GOOD) or raw.resets:
                break
            start = raw.acked + dice.choice((0, 0, 0, 5, 30, 100))
            part = _GOOD[start : start + dice.choice((1, 3, 20, 60, 400))]
            raw.inject(part, at=start, bad_checksum=dice.random() < 0.3)
            raw.step(0.002)
        raw.sent = len(_GOOD)
        assert not raw.resets, f"seed {seed}, connection {number}: {judge.denials()}"
        assert raw.wait_responses(4), f"seed {seed}, connection {number}: {judge.denials()}"
        assert judge.delivered(raw) == _GOOD
        raw.reset()


@pytest.mark.parametrize("seed", range(3))
def test_two_processors_on_one_connection_do_not_let_a_denied_request_through(
    seed: int, judge: Judge
) -> None:
    """The same place is filled with good and bad bytes by two threads at once."""
    dice = random.Random(seed)
    for number in range(20):
        raw = judge.connect("post")
        frames = [
            [
                raw.packet(raw.segment(stream[at : at + 5], at=at, bad_checksum=dice.random() < 0.3))
                for at in range(0, 70, 5)
                for _ in range(3)
            ]
            for stream in STREAMS[:2]
        ]
        ready = threading.Barrier(2)

        def spray(packets: list[bytes], ready: threading.Barrier = ready) -> None:
            ready.wait()
            for packet in packets:
                judge.wire.send(packet)

        threads = [threading.Thread(target=spray, args=(packets,)) for packets in frames]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raw.settle(0.003)
        data = judge.delivered(raw)
        assert not holds_a_denied_request(data), f"seed {seed}, connection {number}: {data!r}"
        raw.reset()


def test_a_thousand_connections_at_once_are_each_judged(judge: Judge) -> None:
    """More connections in mid-head than there are slots for the bytes of one head."""
    connections = [RawTcp(judge.wire, judge.address("post")) for _ in range(1000)]
    for raw in connections:
        raw.inject(b"", SYN, at=-1, ack=0, options=MSS_1460)
    for raw in connections:
        answer = raw.wire.receive(raw.port, 3)
        assert answer is not None
        raw.rcv_nxt = answer.end
        raw.inject(b"", ACK)
        raw.send(_GOOD[:9])
    for number, raw in enumerate(connections):
        raw.send(STREAMS[0][9:35] if number % 2 else b"ivat HTTP/1.1\r\n\r\n")
    for number, raw in enumerate(connections):
        if number % 2:
            assert raw.wait_responses(1, 5), f"connection {number}: {judge.denials()}"
        else:
            assert raw.wait_reset(5), f"connection {number}: {judge.denials()}"
        raw.reset()
