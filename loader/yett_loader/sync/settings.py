"""Where the operator is, and the times of the stream, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from yett_loader.errors import NotReady

PATH = "/v1/sync"
PORT = 8443


@dataclass(frozen=True, slots=True)
class Operator:
    """Its address; of the replicas that the name resolves to, one is followed."""

    host: str
    port: int
    path: str

    @staticmethod
    def parse(url: str) -> Operator:
        """From `wss://host:port`; NotReady if it is nothing of the kind."""
        try:
            parts = urlsplit(url)
            port = parts.port or PORT
            (parts.hostname or "").encode("idna")  # what a look-up does first
        except ValueError as error:
            raise NotReady(f"cannot use operator {url!r}: {error}; write wss://HOST:PORT") from None
        if parts.scheme != "wss" or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise NotReady(
                f"cannot use operator {url!r}: write wss://HOST:PORT (the stream carries a token, so only TLS)"
            )
        return Operator(parts.hostname, port, parts.path if parts.path not in {"", "/"} else PATH)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files that Kubernetes renews; read again for each connection."""

    token_file: Path
    ca_file: Path


@dataclass(frozen=True, slots=True)
class Times:
    """Only tests change them."""

    connect: float = 5.0
    silent: float = 6.0
    """The operator pings every second: nothing for so long means that it is gone."""
    retry_first: float = 0.5
    retry_most: float = 10.0
    """Between attempts to connect; each is a random part of a span that doubles."""
    lived: float = 5.0
    """A connection that held so long was a good one: the next attempt waits as after the first."""
    renew: float = 300.0
    """Between tokens on an open stream."""
    again: float = 5.0
    """Before what could not be put in force is tried again."""
    report: float = 0.05
    """Between two reports that answer no update."""
