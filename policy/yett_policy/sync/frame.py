"""Frames (a tag, and JSON, deflated where that pays), and websocket messages made of frames.

Compressed here and not by the websocket: what goes to every node is compressed once, and no
connection holds a window of its own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

from yett_policy.sync.reader import Malformed, Value, parse

SUBPROTOCOL = "yett.sync.v1"
"""The version of the protocol; a change that an older side would misread gets another number."""

PLAIN, DEFLATED = b"\0", b"\1"
_LENGTH = struct.Struct(">I")
BUNDLE = 16 << 10
"""Bytes that a sender puts into one websocket message, if there is more than one frame: one record of TLS."""
DEFLATE_FROM = 256
"""Bytes below which deflate saves next to nothing."""
DEFLATE_ONE_FROM = 4096
"""Bytes below which it costs more than it saves if only one loader gets the frame."""

TO_LOADER_LIMIT = 8 << 20
"""Bytes of a frame to a loader, tag included: the largest ruleset fits, deflated or not."""
TO_OPERATOR_LIMIT = 1 << 20
INFLATED_LIMIT = 16 << 20
"""Bytes of JSON in one frame; more is refused before it is made."""


def pack(body: bytes, deflate_from: int = DEFLATE_FROM) -> bytes:
    """A frame around JSON."""
    if len(body) < deflate_from:
        return PLAIN + body
    return DEFLATED + zlib.compress(body, 1)


def unpack(frame: bytes, limit: int) -> Value:
    """The JSON in a frame of at most `limit` bytes; Malformed if there is none."""
    if len(frame) > limit:
        raise Malformed(f"frame: {len(frame)} bytes, at most {limit} are taken")
    tag, body = frame[:1], frame[1:]
    if tag == PLAIN:
        return parse(body, "message")
    if tag != DEFLATED:
        raise Malformed(f"frame: its tag is {tag.hex() or 'missing'}, not 00 or 01")
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(body, INFLATED_LIMIT + 1)
    except zlib.error as error:
        raise Malformed(f"frame: not deflated: {error}") from None
    if len(data) > INFLATED_LIMIT:
        raise Malformed(f"frame: more than {INFLATED_LIMIT} bytes when inflated")
    if not inflate.eof or inflate.unused_data:
        raise Malformed("frame: cut short, or longer than what was deflated")
    return parse(data, "message")


def bundle(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Websocket messages that carry the frames in this order, each after its length."""
    together: list[bytes] = []
    size = 0
    for frame in frames:
        if together and size + len(frame) > BUNDLE:
            yield b"".join(together)
            together, size = [], 0
        together += (_LENGTH.pack(len(frame)), frame)
        size += len(frame) + _LENGTH.size
    if together:
        yield b"".join(together)


def unbundle(message: bytes) -> Iterator[bytes]:
    """The frames of a websocket message; Malformed if it is cut."""
    place = 0
    while place < len(message):
        if len(message) - place < _LENGTH.size:
            raise Malformed("message: it ends within the length of a frame")
        (length,) = _LENGTH.unpack_from(message, place)
        place += _LENGTH.size
        if length > len(message) - place:
            raise Malformed(f"message: a frame of {length} bytes, {len(message) - place} are left")
        yield message[place : place + length]
        place += length
