"""A request head, parsed strictly from left to right: what the grammar tables must agree with.

Readable on purpose, and written without them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NoReturn

from yett_policy.http import layout
from yett_policy.http.ambiguity import places
from yett_policy.http.rule import Request
from yett_policy.reason import Reason

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff\x7f]*")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]*\])(?::[0-9]{1,5})?")
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]*\]):[0-9]{1,5}")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_Test = Callable[[bytes], bool]
FRAMING = ("host", "content-length", "transfer-encoding", "upgrade")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a head is no request, and the offset of the byte that shows it."""

    reason: Reason
    offset: int


@dataclass(frozen=True, slots=True)
class Head:
    """A well-formed head."""

    request: Request
    size: int
    """Bytes, the empty line included."""
    length: int
    """Content-Length, or 0."""
    chunked: bool
    noted: frozenset[Reason]
    """Tolerated ambiguities inside the target."""
    at_end: Reason | None
    """One that the end of the target completed."""


class _Refused(Exception):  # noqa: N818 - not an error, a verdict
    def __init__(self, reason: Reason, offset: int) -> None:
        super().__init__(reason)
        self.refusal = Refusal(reason, offset)


class _Incomplete(Exception):  # noqa: N818 - not an error either
    pass


def parse_head(
    data: bytes,
    *,
    tolerated: Collection[Reason] = (),
    named: Collection[str] = (),
    connect: bool = False,
) -> Head | Refusal | None:
    """The head at the start of `data`; None if it is not complete and nothing is wrong yet.

    `tolerated`: ambiguities that some rule tolerates; `named`: headers that rules name
    (lower case); `connect`: some rule names the method CONNECT.
    """
    within = data[: layout.HEAD_MAX]
    try:
        return _Parser(within, frozenset(tolerated), {*FRAMING, *named}, connect=connect).head()
    except _Refused as refused:
        return refused.refusal
    except _Incomplete:
        return Refusal(Reason.HTTP_HEAD_TOO_LONG, layout.HEAD_MAX) if len(data) > len(within) else None


class _Parser:
    def __init__(self, data: bytes, tolerated: frozenset[Reason], named: set[str], *, connect: bool) -> None:
        self.data = data
        self.at = 0
        self.tolerated = tolerated
        self.named = named
        self.connect = connect
        self.noted: set[Reason] = set()
        self.at_end: Reason | None = None
        self.length = 0
        self.seen: set[str] = set()

    def peek(self) -> int:
        """The next byte; Incomplete if it is not there yet."""
        if self.at >= len(self.data):
            raise _Incomplete
        return self.data[self.at]

    def refuse(self, reason: Reason, at: int | None = None) -> NoReturn:
        raise _Refused(reason, self.at if at is None else at)

    def take(self, pattern: re.Pattern[bytes]) -> bytes:
        match = pattern.match(self.data, self.at)
        assert match is not None  # noqa: S101 - the patterns match the empty string
        self.at = match.end()
        return match[0]

    def line_end(self) -> None:
        """The LF of a CRLF whose CR was read."""
        if self.peek() != ord("\n"):
            self.refuse(Reason.HTTP_BARE_CR)
        self.at += 1

    def head(self) -> Head:
        method = self.method()
        target = self.authority() if method == b"CONNECT" else self.target(method)
        minor = self.version()
        headers = []
        while (field := self.field()) is not None:
            headers.append(field)
        chunked = self.framing(minor, self.at - 1)
        request = Request(method, target, tuple(headers), minor)
        return Head(request, self.at, self.length, chunked, frozenset(self.noted), self.at_end)

    def method(self) -> bytes:
        first = self.peek()
        if first in b"\r\n":
            self.refuse(Reason.HTTP_LEADING_CRLF)
        if first == 0x16:
            self.refuse(Reason.TLS_ON_HTTP_PORT)
        method = self.take(_TOKEN)
        if self.peek() != ord(" ") or not method:
            self.refuse(Reason.HTTP_METHOD)
        if method == b"CONNECT" and not self.connect:
            self.refuse(Reason.CONNECT_DENIED)
        self.at += 1
        return method

    def target(self, method: bytes) -> bytes:
        first = self.peek()
        if first <= 0x20 or first == 0x7F:
            self.refuse(Reason.HTTP_TARGET)
        if method == b"PRI" and first == ord("*"):
            self.refuse(Reason.HTTP2_PREFACE)
        if first != ord("/"):
            self.refuse(Reason.HTTP_TARGET_FORM)
        start = self.at
        target = self.take(_TARGET)
        ended = self.at < len(self.data)
        after = self.data[self.at] if ended else None
        for index, reasons in places(target):
            if index == len(target):
                if after == ord(" "):
                    self.at_end = reasons[0]
                continue
            for reason in reasons:
                if reason not in self.tolerated:
                    self.refuse(reason, start + index)
            if len(reasons) > 1:
                # Only one could be noted.
                structural = [r for r in reasons if r in _STRUCTURAL]
                self.refuse(structural[0], start + index)
            self.noted.update(reasons)
        if self.peek() in b"\r\n":
            self.refuse(Reason.HTTP_VERSION)
        if self.peek() != ord(" "):
            self.refuse(Reason.HTTP_TARGET)
        if self.at_end is not None and self.at_end not in self.tolerated:
            self.refuse(self.at_end)
        self.at += 1
        return target

    def authority(self) -> bytes:
        start = self.at
        match = _AUTHORITY.match(self.data, start)
        if match is not None and match.end() < len(self.data) and self.data[match.end()] == ord(" "):
            self.at = match.end() + 1
            return match[0]
        # Find the byte at which it ceases to be one.
        for end in range(start + 1, len(self.data) + 1):
            if not _begins_authority(self.data[start:end]):
                self.at = end - 1
                byte = self.peek()
                if byte in b"\r\n" and self.at > start:
                    self.refuse(Reason.HTTP_VERSION)
                if byte < 0x20 or byte == 0x7F or (byte == 0x20 and self.at == start):
                    self.refuse(Reason.HTTP_TARGET)
                self.refuse(Reason.HTTP_TARGET_FORM)
        raise _Incomplete

    def version(self) -> int:
        for allowed in (b"H", b"T", b"T", b"P", b"/", b"1", b".", b"01"):
            byte = self.peek()
            if byte not in allowed:
                self.refuse(Reason.HTTP_VERSION)
            self.at += 1
        if self.peek() == ord("\n"):
            self.refuse(Reason.HTTP_BARE_LF)
        if self.peek() != ord("\r"):
            self.refuse(Reason.HTTP_VERSION)
        self.at += 1
        self.line_end()
        return byte - ord("0")

    def field(self) -> tuple[bytes, bytes] | None:
        """One header line; None at the empty line."""
        first = self.peek()
        if first in b" \t":
            self.refuse(Reason.HTTP_OBS_FOLD)
        if first == ord("\n"):
            self.refuse(Reason.HTTP_BARE_LF)
        if first == ord("\r"):
            self.at += 1
            self.line_end()
            return None
        name = self.take(_TOKEN)
        after = self.peek()
        if after in b" \t" and name:
            self.refuse(Reason.HTTP_SPACE_BEFORE_COLON)
        if after != ord(":") or not name:
            self.refuse(Reason.HTTP_HEADER_NAME)
        known = self.known(name.decode("latin-1").lower())
        self.at += 1
        return name, self.value(known)

    def known(self, name: str) -> str | None:
        """The name if rules or framing care about it; aliases and duplicates are refused."""
        if name not in self.named:
            if name.replace("_", "-") in {known.replace("_", "-") for known in self.named}:
                self.refuse(Reason.HTTP_HEADER_UNDERSCORE)
            return None
        if name in self.seen:
            self.refuse(_DUPLICATE.get(name, Reason.HTTP_AMBIGUOUS_HEADER))
        self.seen.add(name)
        return name

    def value(self, known: str | None) -> bytes:
        start = self.at
        raw = self.take(_VALUE)
        value = raw.strip(b" \t")
        lead = start + len(raw) - len(raw.lstrip(b" \t"))
        check = {
            "host": self.check_host,
            "content-length": self.check_length,
            "transfer-encoding": self.check_encoding,
        }.get(known or "")
        if check is not None:
            check(raw.lstrip(b" \t"), lead)
        byte = self.peek()
        if byte == ord("\n"):
            self.refuse(Reason.HTTP_BARE_LF)
        if byte != ord("\r"):
            self.refuse(Reason.HTTP_CONTROL_BYTE)
        self.at += 1
        self.line_end()
        return value

    def check_host(self, value: bytes, at: int) -> None:
        self.check(value, at, Reason.HTTP_HOST, _begins_host, lambda text: _HOST.fullmatch(text) is not None)

    def check_length(self, value: bytes, at: int) -> None:
        def begins(text: bytes) -> bool:
            return text.isdigit() and int(text) <= layout.LENGTH_MAX

        self.check(value, at, Reason.HTTP_CONTENT_LENGTH, begins, begins)
        self.length = int(value.rstrip(b" \t"))

    def check_encoding(self, value: bytes, at: int) -> None:
        def begins(text: bytes) -> bool:
            return b"chunked".startswith(text.lower())

        self.check(value, at, Reason.HTTP_TRANSFER_ENCODING, begins, lambda text: text.lower() == b"chunked")

    def check(self, value: bytes, at: int, reason: Reason, begins: _Test, complete: _Test) -> None:
        """Refuse at the first byte with which `value` no longer begins something complete."""
        for end in range(1, len(value) + 1):
            text = value[:end].rstrip(b" \t")
            if not (begins(text) if len(text) == end else complete(text)):
                self.refuse(reason, at + end - 1)
        after = self.peek()
        if not complete(value.rstrip(b" \t")):
            self.refuse({0x0D: reason, 0x0A: Reason.HTTP_BARE_LF}.get(after, Reason.HTTP_CONTROL_BYTE))

    def framing(self, minor: int, last: int) -> bool:
        chunked = "transfer-encoding" in self.seen
        if minor == 1 and "host" not in self.seen:
            self.refuse(Reason.HTTP_NO_HOST, last)
        if chunked and "content-length" in self.seen:
            self.refuse(Reason.HTTP_LENGTH_AND_ENCODING, last)
        if chunked and minor == 0:
            self.refuse(Reason.HTTP_ENCODING_IN_10, last)
        return chunked


_DUPLICATE = {
    "host": Reason.HTTP_DUPLICATE_HOST,
    "content-length": Reason.HTTP_DUPLICATE_LENGTH,
    "transfer-encoding": Reason.HTTP_DUPLICATE_ENCODING,
}
_STRUCTURAL = {
    Reason.AMBIGUOUS_DOT_SEGMENT,
    Reason.AMBIGUOUS_EMPTY_SEGMENT,
    Reason.AMBIGUOUS_PERCENT,
}


def _begins_host(text: bytes) -> bool:
    return (
        re.fullmatch(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]*\])(?::[0-9]{0,5})?|\[[0-9A-Fa-f:.]*|", text)
        is not None
    )


def _begins_authority(text: bytes) -> bool:
    return _begins_host(text) or _AUTHORITY.fullmatch(text.removesuffix(b" ")) is not None
