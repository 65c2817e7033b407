"""The requests of a load, byte for byte: heads of a given size, bodies by length or in chunks."""

from __future__ import annotations

from dataclasses import dataclass

from bench.rules import UPLOAD, Rule, spread

HOST = "shop.example"
_BROWSER = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)"),
    ("Accept", "application/json"),
    ("Accept-Encoding", "gzip, br"),
)
_CHUNK = 16384
_VARIETY = 30
"""Requests that a load cycles through, each allowed by another rule."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a request looks like, whichever rule allows it."""

    head: int = 300
    """Bytes of the head, CRLFs included; heads cannot be shorter than their target asks."""
    body: int | None = None
    """None: a GET; else a POST with so many bytes."""
    chunked: bool = False
    close: bool = False
    """Ask for the end of the connection: one request each."""


def head(method: str, target: str, shape: Shape) -> bytes:
    """A head of exactly `shape.head` bytes, if the least it needs is not more."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {HOST}"]
    if shape.close:
        lines.append("Connection: close")
    if shape.body is not None:
        lines.append("Transfer-Encoding: chunked" if shape.chunked else f"Content-Length: {shape.body}")
    for name, value in _BROWSER:
        if len("\r\n".join([*lines, f"{name}: {value}"])) + 4 <= shape.head:
            lines.append(f"{name}: {value}")
    number = 0
    while (missing := shape.head - len("\r\n".join(lines)) - 4) > 0:
        # No padding header shorter than 8 bytes: its line would have no value.
        size = missing if missing <= 160 else min(120, missing - 40)
        name = f"X-Ctx-{number}"
        value = "k3v9" * 40
        if size < len(name) + 5:
            lines[-1] += "x" * size
            break
        lines.append(f"{name}: {value[: size - len(name) - 4]}")
        number += 1
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def body(shape: Shape) -> bytes:
    """The bytes after the head."""
    if not shape.body:
        return b"0\r\n\r\n" if shape.body == 0 and shape.chunked else b""
    data = b"0123456789abcdef" * (shape.body // 16)
    if not shape.chunked:
        return data
    pieces = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def requests(rules: tuple[Rule, ...], shape: Shape) -> list[bytes]:
    """What a load cycles through: all allowed."""
    if shape.body is not None:
        return [head("POST", UPLOAD.allowed, shape) + body(shape)]
    return [head(rule.method, rule.allowed, shape) for rule in spread(rules, _VARIETY)]
