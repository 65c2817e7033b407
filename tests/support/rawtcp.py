"""A TCP client in user space that can lie: the adversary of the data plane's tests.

It speaks from an address that no kernel owns (see netns.Side.raw4), so no kernel answers
with resets of its own.  Sequence numbers are given as offsets into the request stream:
offset 0 is the first byte after the SYN.
"""

from __future__ import annotations

import itertools
import select
import socket
import struct
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support import packet as pk
from support.netns import Side
from support.packet import Flag, Segment

_ETH_P_ALL = 3
_PACKET_IGNORE_OUTGOING = 23
_SOL_PACKET = 263

ACK, PSH, FIN, SYN, RST, URG = Flag.ACK, Flag.PSH, Flag.FIN, Flag.SYN, Flag.RST, Flag.URG

NOP = b"\x01"
MSS_1460 = b"\x02\x04\x05\xb4"
MD5 = b"\x13\x12" + bytes(16)
"""A TCP-MD5 signature (RFC 2385) that nobody asked for; receivers drop the segment."""
MP_CAPABLE = b"\x1e\x04\x01\x01"
"""MPTCP version 1 without a key, as in a client's SYN (RFC 8684, 3.1)."""
MP_JOIN = b"\x1e\x0c\x10\x01" + bytes(8)


def timestamp(value: int, echo: int = 0) -> bytes:
    """The timestamps option (RFC 7323), aligned."""
    return NOP + NOP + b"\x08\x0a" + struct.pack("!II", value & 0xFFFFFFFF, echo & 0xFFFFFFFF)


class ClosedError(Exception):
    """The peer reset or closed the connection while something else was awaited."""


class Wire:
    """eth0 of a pod, as frames.  Shared by all connections of one side."""

    _ports = itertools.count(20000)

    def __init__(self, side: Side) -> None:
        self.side = side
        with side.namespace:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind(("eth0", _ETH_P_ALL))
        self.socket.setblocking(False)
        self._queues: defaultdict[int, deque[Segment]] = defaultdict(deque)
        self.other: deque[bytes] = deque(maxlen=1000)
        """Frames received that are no TCP for the userland addresses."""

    def close(self) -> None:
        self.socket.close()

    def new_port(self) -> int:
        """A local port that no other connection of this run uses."""
        return next(Wire._ports)

    def send(
        self,
        packet: bytes,
        *,
        vlan: int | None = None,
        ethertype: int | None = None,
        destination: bytes | None = None,
    ) -> None:
        """Send an IP packet to the gateway (or to another MAC address)."""
        kind = pk.ethertype_of(packet) if ethertype is None else ethertype
        target = destination or self.side.gateway_mac
        self.socket.send(pk.frame(target, self.side.mac, packet, kind, vlan=vlan))

    def receive(self, port: int, timeout: float) -> Segment | None:
        """The next segment for a local port, or None after `timeout` seconds."""
        queue = self._queues[port]
        deadline = time.monotonic() + timeout
        while not queue:
            self._drain()
            if queue:
                break
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            select.select([self.socket], [], [], left)
        return queue.popleft()

    def settle_other(self) -> None:
        """Forget the frames that are no TCP."""
        self._drain()
        self.other.clear()

    def wait_other(self, wanted: Callable[[bytes], bool], timeout: float = 1.0) -> bool:
        """Until a frame that is no TCP and is `wanted` came in."""
        deadline = time.monotonic() + timeout
        while not any(map(wanted, self.other)):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            select.select([self.socket], [], [], left)
            self._drain()
        return True

    def _drain(self) -> None:
        while True:
            try:
                frame = self.socket.recv(1 << 17)
            except BlockingIOError:
                return
            segment = pk.parse_tcp(frame[14:])
            if segment and segment.destination in (self.side.raw4, self.side.raw6):
                self._queues[segment.dport].append(segment)
            else:
                self.other.append(frame)


@dataclass(frozen=True)
class Reset:
    """A reset that came in."""

    segment: Segment
    exact: bool
    """Its sequence number is exactly the next byte expected (RFC 5961)."""


class RawTcp:
    """One connection.  Acknowledges in-order data by itself unless `auto_ack` is off."""

    def __init__(
        self,
        wire: Wire,
        server: tuple[str, int],
        *,
        isn: int = 0x1000,
        port: int | None = None,
        source: str | None = None,
    ) -> None:
        self.wire = wire
        self.server, self.server_port = server
        self.source = source or wire.side.raw_address(6 if ":" in self.server else 4)
        self.port = port or wire.new_port()
        self.isn = isn & 0xFFFFFFFF
        self.sent = 0
        """Offset of the next new byte."""
        self.rcv_nxt = 0
        self.received = b""
        """The reply stream, in order."""
        self.resets: list[Reset] = []
        self.finished = False
        """The server's FIN came."""
        self.acked = 0
        """Offset up to which the server acknowledged."""
        self.auto_ack = True
        self.options = b""
        """TCP options on every segment after the SYN."""

    # -- making segments

    def segment(
        self,
        payload: bytes = b"",
        flags: Flag = PSH | ACK,
        *,
        at: int | None = None,
        ack: int | None = None,
        **fields: Any,
    ) -> bytes:
        """A TCP segment at offset `at` (default: the next new byte)."""
        fields.setdefault("options", self.options)
        return pk.tcp(
            self.source,
            self.server,
            self.port,
            self.server_port,
            self.isn + 1 + (self.sent if at is None else at),
            self.rcv_nxt if ack is None else ack,
            flags,
            payload,
            **fields,
        )

    def packet(self, segment: bytes, *, ttl: int = 64) -> bytes:
        """The segment in an IP packet."""
        return pk.ip_packet(self.source, self.server, segment, ttl=ttl)

    # -- sending

    def inject(
        self,
        payload: bytes = b"",
        flags: Flag = PSH | ACK,
        *,
        ttl: int = 64,
        vlan: int | None = None,
        **fields: Any,
    ) -> None:
        """Send a segment anywhere in the stream without moving the position."""
        self.wire.send(self.packet(self.segment(payload, flags, **fields), ttl=ttl), vlan=vlan)

    def send(self, payload: bytes, flags: Flag = PSH | ACK, *, size: int = 1400, **fields: Any) -> None:
        """Send new bytes in segments of at most `size` bytes; the flags go on the last one.

        What begins one to three bytes into the stream waits for the server's first
        acknowledgement, as a real client would repeat it until then.
        """
        for start in range(0, len(payload), size):
            part = payload[start : start + size]
            last = start + size >= len(payload)
            self.inject(part, flags if last else ACK, **fields)
            self.sent += len(part)
            if size < 4 and self.sent == len(part) and not last:
                self.wait_acked(timeout=0.3)
        if flags & FIN:
            self.sent += 1

    def fin(self) -> None:
        """Close the request direction."""
        self.inject(b"", FIN | ACK)
        self.sent += 1

    def reset(self) -> None:
        """Abort, politely: the server's side forgets the connection."""
        self.inject(b"", RST | ACK)

    # -- receiving

    def open(self, *, timeout: float = 2.0, options: bytes = MSS_1460, syn_data: bytes = b"") -> Segment:
        """Three-way handshake; returns the SYN-ACK, raises TimeoutError or ClosedError."""
        self.inject(syn_data, SYN, at=-1, ack=0, options=options)
        answer = self.wire.receive(self.port, timeout)
        if answer is None:
            raise TimeoutError("no answer to the SYN")
        if answer.flags & RST:
            self.resets.append(Reset(answer, exact=answer.ack == (self.isn + 1) & 0xFFFFFFFF))
            raise ClosedError("the SYN was answered with a reset")
        if answer.flags & (SYN | ACK) != SYN | ACK:
            raise ClosedError(f"the SYN was answered with {answer.flags!r}")
        self.rcv_nxt = answer.end
        self.acked = self._offset(answer.ack)
        self.sent = max(self.sent, self.acked)
        self.inject(b"", ACK)
        return answer

    def _offset(self, ack: int) -> int:
        return (ack - self.isn - 1) & 0xFFFFFFFF

    def step(self, timeout: float) -> Segment | None:
        """Take in one segment (None: nothing came) and acknowledge it if it is in order."""
        segment = self.wire.receive(self.port, timeout)
        if segment is None:
            return None
        if segment.flags & RST:
            self.resets.append(Reset(segment, exact=segment.seq == self.rcv_nxt))
            return segment
        if segment.flags & ACK:
            self.acked = self._offset(segment.ack)
        if segment.seq == self.rcv_nxt and segment.end != segment.seq:
            self.received += segment.payload
            self.finished = self.finished or bool(segment.flags & FIN)
            self.rcv_nxt = segment.end
            if self.auto_ack:
                self.inject(b"", ACK)
        elif segment.end != segment.seq and self.auto_ack:
            self.inject(b"", ACK)
        return segment

    def until(self, done: Callable[[], bool], timeout: float = 2.0) -> bool:
        """Take in segments until `done()`; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not done():
            if self.step(max(0.0, deadline - time.monotonic())) is None and time.monotonic() >= deadline:
                return done()
        return True

    def settle(self, quiet: float = 0.05) -> None:
        """Take in what comes until nothing came for `quiet` seconds."""
        while self.step(quiet) is not None:
            pass

    def wait_acked(self, offset: int | None = None, timeout: float = 2.0) -> bool:
        """Until the server's kernel acknowledged up to `offset` (default: all that was sent)."""
        goal = self.sent if offset is None else offset
        return self.until(lambda: self.acked >= goal or bool(self.resets), timeout) and self.acked >= goal

    def wait_reset(self, timeout: float = 10.0) -> bool:
        """Until a reset comes in."""
        return self.until(lambda: bool(self.resets), timeout)

    def wait_responses(self, count: int, timeout: float = 2.0) -> bool:
        """Until `count` response heads came in, or a reset or FIN."""

        def done() -> bool:
            return self.responses() >= count or bool(self.resets) or self.finished

        return self.until(done, timeout) and self.responses() >= count

    def responses(self) -> int:
        """Number of response heads received."""
        return self.received.count(b"HTTP/1.")
