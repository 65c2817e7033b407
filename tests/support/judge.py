"""What every hostile test asserts: who got which bytes, who was reset, and what was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corpus.rules import PORTS
from support.enforce import Gate
from support.netns import Topology
from support.origin import Conversation, End, Recorder, digest, eventually
from support.rawtcp import RawTcp, Wire
from yett_policy.reason import Reason

GET_PUBLIC = b"GET /public HTTP/1.1\r\nHost: api\r\n\r\n"
GET_PRIVATE = b"GET /privat HTTP/1.1\r\nHost: api\r\n\r\n"
"""As long as GET_PUBLIC; the first byte no rule can match is at offset 6."""

FOLLOW_UPS = frozenset({Reason.POISONED})
"""Counted for every further packet of a flow that was denied; not a second denial."""

PASSING = frozenset({Reason.TCP_BUSY, Reason.TCP_FUTURE_SEGMENT})
"""An honest bulk transfer may meet these when its packets arrive on two CPUs."""


@dataclass
class Judge:
    """One test's view: connections it makes, denials counted since it began."""

    gate: Gate
    topo: Topology
    wire: Wire
    servers: Mapping[int, Recorder]
    family: int = 4
    _before: Counter[Reason] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was counted so far."""
        self._before = self.gate.denials()

    def denials(self) -> dict[Reason, int]:
        """Denials since the test began, without the packets that followed a denial."""
        counted = self.gate.denials()
        counted.subtract(self._before)
        return {reason: count for reason, count in counted.items() if count and reason not in FOLLOW_UPS}

    def address(self, rules: str = "public") -> tuple[str, int]:
        """Of the server that these rules govern."""
        return self.topo.server.address(self.family), PORTS[rules]

    def connect(self, rules: str = "public", *, isn: int = 0x1000, **options: Any) -> RawTcp:
        """An open userland connection."""
        raw = RawTcp(self.wire, self.address(rules), isn=isn)
        raw.open(**options)
        return raw

    def conversation(self, raw: RawTcp) -> Conversation:
        """What the server's application saw of the connection."""
        return self.servers[raw.server_port].conversation(raw.source, raw.port)

    def delivered(self, raw: RawTcp) -> bytes:
        """Bytes that reached the application, now."""
        return bytes(self.conversation(raw).data)

    # -- verdicts

    def denied(
        self, raw: RawTcp, *reasons: Reason, stream: bytes | None = None, below: int | None = None
    ) -> None:
        """The connection was denied: reset exactly on both sides, counted once, nothing leaked.

        `stream` is what the client meant to send; only a prefix of it shorter than `below`
        bytes may have reached the server.
        """
        assert raw.wait_reset(), f"the client got no reset; counted {self.denials()}"
        assert raw.resets[0].exact, f"the reset is not at the next byte expected: {raw.resets[0]}"
        assert raw.resets[0].segment.checksum_ok, "the reset has a bad checksum"
        self.counted(*reasons)
        if not self.servers[raw.server_port].saw(raw.source, raw.port):
            return  # reset before the application could accept it
        conversation = self.conversation(raw)
        ended = self.servers[raw.server_port].wait(lambda: conversation.end is not None)
        assert ended, f"the server's connection stays open after {reasons}"
        assert conversation.end is End.RESET, f"the server's connection ended with {conversation.end}"
        if stream is not None:
            data = bytes(conversation.data)
            assert stream.startswith(data), f"the server got other bytes: {data[-200:]!r}"
            assert below is None or len(data) < below, f"the deciding byte was delivered: {data[-200:]!r}"

    def counted(self, *reasons: Reason) -> None:
        """Exactly one denial was counted, for one of these reasons."""
        assert eventually(lambda: bool(self.denials())), f"no denial was counted, expected {reasons}"
        counted = self.denials()
        assert len(counted) == 1, f"counted {counted}, expected one of {reasons}"
        ((reason, count),) = counted.items()
        assert reason in reasons, f"denied as {reason.name}, expected one of {reasons}"
        assert count == 1, f"{reason.name} was counted {count} times"

    def nothing_denied(self) -> None:
        """No denial was counted."""
        denials = self.denials()
        assert not denials, f"denied: {denials}"

    def undisturbed(self) -> None:
        """No denial but those that two CPUs on one busy connection give; the sender tries again."""
        denials = self.denials()
        assert set(denials) <= PASSING, f"denied: {denials}"

    def answered(self, raw: RawTcp, requests: Sequence[bytes]) -> None:
        """Every request got its answer, in order, and reached the server byte for byte."""
        ok = raw.wait_responses(len(requests))
        assert ok, f"{raw.responses()} of {len(requests)} answered; counted {self.denials()}; {raw.resets}"
        raw.settle(0.001)
        bodies = [part.split(b"\r\n\r\n", 1)[1] for part in raw.received.split(b"HTTP/1.1 200 OK")[1:]]
        assert bodies == [digest(request) for request in requests]
        assert self.delivered(raw).startswith(b"".join(requests))
        assert not raw.resets
