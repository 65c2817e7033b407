"""Flow records of a node's API, read into one value; nothing in them is trusted.

The fields are described in yett_loader.events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

VERDICTS = {"allow": "FORWARDED", "deny": "DROPPED", "audit": "AUDIT", "redirect": "REDIRECTED"}
"""As the node writes them, and as people read them."""


@dataclass(frozen=True, slots=True)
class End:
    """Client or server of a flow."""

    address: str
    port: int
    namespace: str
    pod: str
    identity: int
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """`namespace/pod`, else the address."""
        if self.pod:
            return f"{self.namespace}/{self.pod}"
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def text(self) -> str:
        """`namespace/pod:port`, or the address and what it stands for: `192.0.2.7:80 (world)`."""
        place = f"{self.name}:{self.port}" if self.port else self.name
        reserved = [label.removeprefix("reserved:") for label in self.labels if label.startswith("reserved:")]
        return place if self.pod or not reserved else f"{place} ({','.join(reserved)})"


@dataclass(frozen=True, slots=True)
class Record:
    """One verdict."""

    raw: Mapping[str, Any]
    time: datetime
    is_request: bool
    verdict: str
    """FORWARDED, DROPPED, AUDIT or REDIRECTED."""
    reason: str
    direction: str
    source: End
    destination: End
    protocol: str
    tcp_flags: str
    reply: bool
    rule: str
    method: str
    target: str
    host: str
    cut: bool
    """The request line was not complete."""
    suppressed: int

    @property
    def kind(self) -> str:
        """The column TYPE."""
        return "http-request" if self.is_request else f"{self.protocol.lower()}-flow"

    @property
    def url(self) -> str:
        """As a client would write it."""
        end = "..." if self.cut else ""
        if not self.target.startswith("/"):
            return self.target + end
        return f"http://{self.host or self.destination.name}{self.target}{end}"


def parse(line: str | bytes) -> Record:
    """One line of the API; ValueError if it is none."""
    try:
        raw = json.loads(line)
        request = raw.get("request") or {}
        return Record(
            raw=raw,
            time=datetime.fromisoformat(raw["time"]).astimezone(UTC),
            is_request=raw["type"] == "request",
            verdict=VERDICTS.get(raw["verdict"], str(raw["verdict"]).upper()),
            reason=str(raw["reason"]),
            direction=str(raw["direction"]),
            source=end(raw["source"]),
            destination=end(raw["destination"]),
            protocol=str(raw["protocol"]),
            tcp_flags=str(raw["tcp_flags"]),
            reply=bool(raw["reply"]),
            rule=str(raw["rule"]),
            method=_sent(request.get("method", "")),
            target=_sent(request.get("target", "")),
            host=_sent(request.get("host", "")),
            cut=bool(request) and not request.get("version"),
            suppressed=int(raw["suppressed"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a flow record without {error}") from None


def _sent(text: object) -> str:
    """Bytes of a request, which the API writes as Latin-1: as UTF-8, what is none as surrogates."""
    try:
        return str(text).encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no node writes that; it is shown as it stands
        return str(text)


def end(raw: Mapping[str, Any]) -> End:
    """One end of a flow, as the API writes it."""
    return End(
        str(raw["address"]),
        int(raw["port"]),
        str(raw["namespace"]),
        str(raw["pod"]),
        int(raw["identity"]),
        tuple(map(str, raw["labels"])),
    )
