"""Packets as bytes: build and parse Ethernet, IPv4, IPv6 and TCP, correct or wrong on purpose."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import ip_address

IPPROTO_TCP = 6
IPPROTO_UDP = 17
ETH_IPV4 = 0x0800
ETH_IPV6 = 0x86DD
ETH_VLAN = 0x8100


class Flag(IntFlag):
    """TCP flags."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment as received."""

    source: str
    destination: str
    sport: int
    dport: int
    seq: int
    ack: int
    flags: Flag
    window: int
    options: bytes
    payload: bytes
    checksum_ok: bool
    """False also for a segment whose checksum the kernel left to the hardware."""
    ttl: int

    @property
    def end(self) -> int:
        """The sequence number after this segment."""
        size = len(self.payload) + bool(self.flags & Flag.SYN) + bool(self.flags & Flag.FIN)
        return (self.seq + size) & 0xFFFFFFFF


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: str, destination: str, proto: int, length: int) -> bytes:
    """What TCP and UDP checksums cover beside the segment."""
    src, dst = ip_address(source).packed, ip_address(destination).packed
    if len(src) == 4:
        return src + dst + struct.pack("!BBH", 0, proto, length)
    return src + dst + struct.pack("!IHBB", length, 0, 0, proto)


def tcp(
    source: str,
    destination: str,
    sport: int,
    dport: int,
    seq: int,
    ack: int,
    flags: Flag,
    payload: bytes = b"",
    *,
    window: int = 65535,
    options: bytes = b"",
    urgent: int = 0,
    data_offset: int | None = None,
    bad_checksum: bool = False,
    reserved: int = 0,
) -> bytes:
    """A TCP segment; `options` are padded to a multiple of four bytes."""
    options += b"\0" * (-len(options) % 4)
    words = 5 + len(options) // 4 if data_offset is None else data_offset
    head = struct.pack(
        "!HHIIBBHHH",
        sport,
        dport,
        seq & 0xFFFFFFFF,
        ack & 0xFFFFFFFF,
        words << 4 | reserved,
        int(flags),
        window,
        0,
        urgent,
    )
    segment = head + options + payload
    value = checksum(pseudo_header(source, destination, IPPROTO_TCP, len(segment)) + segment)
    if bad_checksum:
        value ^= 0x5555
    return segment[:16] + struct.pack("!H", value) + segment[18:]


def udp(source: str, destination: str, sport: int, dport: int, payload: bytes = b"") -> bytes:
    """A UDP datagram."""
    length = 8 + len(payload)
    head = struct.pack("!HHHH", sport, dport, length, 0)
    value = checksum(pseudo_header(source, destination, IPPROTO_UDP, length) + head + payload) or 0xFFFF
    return head[:6] + struct.pack("!H", value) + payload


def ipv4(
    source: str,
    destination: str,
    payload: bytes,
    *,
    proto: int = IPPROTO_TCP,
    ttl: int = 64,
    ident: int = 0,
    fragment: int = 0,
    more: bool = False,
    options: bytes = b"",
    length: int | None = None,
    ihl: int | None = None,
) -> bytes:
    """An IPv4 packet; `fragment` is the offset in bytes, `options` a multiple of four bytes."""
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        4 << 4 | (size // 4 if ihl is None else ihl),
        0,
        size + len(payload) if length is None else length,
        ident,
        (0x2000 if more else 0) | fragment // 8,
        ttl,
        proto,
        0,
        ip_address(source).packed,
        ip_address(destination).packed,
    )
    head += options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(
    source: str,
    destination: str,
    payload: bytes,
    *,
    next_header: int = IPPROTO_TCP,
    hop_limit: int = 64,
    length: int | None = None,
) -> bytes:
    """An IPv6 packet; extension headers are part of `payload`."""
    return (
        struct.pack("!IHBB", 6 << 28, len(payload) if length is None else length, next_header, hop_limit)
        + ip_address(source).packed
        + ip_address(destination).packed
        + payload
    )


def ip_packet(
    source: str, destination: str, payload: bytes, *, proto: int = IPPROTO_TCP, ttl: int = 64
) -> bytes:
    """A plain packet of whatever family the addresses are."""
    if ":" in source:
        return ipv6(source, destination, payload, next_header=proto, hop_limit=ttl)
    return ipv4(source, destination, payload, proto=proto, ttl=ttl)


def fragments(packet: bytes, size: int, *, ident: int = 0x1234) -> list[bytes]:
    """Cut an IPv4 or IPv6 packet into fragments whose payloads have `size` bytes (of eight)."""
    v6 = packet[0] >> 4 == 6
    head = 40 if v6 else (packet[0] & 15) * 4
    body = packet[head:]
    pieces = []
    for at in range(0, len(body), size):
        part, more = body[at : at + size], at + size < len(body)
        if v6:
            extension = struct.pack("!BBHI", packet[6], 0, at | more, ident)
            pieces.append(
                packet[:4] + struct.pack("!HB", 8 + len(part), 44) + packet[7:40] + extension + part
            )
        else:
            new = bytearray(packet[:head])
            struct.pack_into("!HHH", new, 2, head + len(part), ident, (0x2000 if more else 0) | at // 8)
            struct.pack_into("!H", new, 10, 0)
            struct.pack_into("!H", new, 10, checksum(bytes(new)))
            pieces.append(bytes(new) + part)
    return pieces


def ipv6_extension(packet: bytes, kind: int, body: bytes) -> bytes:
    """Insert an extension header of type `kind` right after the IPv6 header.

    `body` is what follows the next-header byte, a multiple of eight bytes minus one.
    """
    extension = bytes([packet[6]]) + body
    length = struct.unpack_from("!H", packet, 4)[0] + len(extension)
    return packet[:4] + struct.pack("!HB", length, kind) + packet[7:40] + extension + packet[40:]


def frame(
    destination: bytes, source: bytes, payload: bytes, ethertype: int, *, vlan: int | None = None
) -> bytes:
    """An Ethernet frame, with an 802.1Q tag (priority and id together) if asked."""
    tag = b"" if vlan is None else struct.pack("!HH", ETH_VLAN, vlan)
    return destination + source + tag + struct.pack("!H", ethertype) + payload


def ethertype_of(packet: bytes) -> int:
    """IPv4 or IPv6, by the version nibble."""
    return ETH_IPV6 if packet[0] >> 4 == 6 else ETH_IPV4


def parse_tcp(packet: bytes) -> Segment | None:
    """The TCP segment of an unfragmented IPv4 or IPv6 packet, else None."""
    if len(packet) < 40:
        return None
    if packet[0] >> 4 == 4:
        head, total = (packet[0] & 15) * 4, struct.unpack_from("!H", packet, 2)[0]
        if packet[9] != IPPROTO_TCP:
            return None
        src, dst, ttl = packet[12:16], packet[16:20], packet[8]
    else:
        head, total = 40, 40 + struct.unpack_from("!H", packet, 4)[0]
        if packet[6] != IPPROTO_TCP:
            return None
        src, dst, ttl = packet[8:24], packet[24:40], packet[7]
    segment = packet[head:total]
    if len(segment) < 20:
        return None
    sport, dport, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", segment)
    source, destination = str(ip_address(src)), str(ip_address(dst))
    size = (offset >> 4) * 4
    covered = pseudo_header(source, destination, IPPROTO_TCP, len(segment)) + segment
    return Segment(
        source,
        destination,
        sport,
        dport,
        seq,
        ack,
        Flag(flags),
        window,
        segment[20:size],
        segment[size:],
        checksum(covered) == 0,
        ttl,
    )
