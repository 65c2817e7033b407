"""Times and sizes of the sync server, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """All times in seconds."""

    ping: float = 0.8
    silent: float = 2.2
    """No sign of life for so long: the node is reported as gone (the status shows it within 5)."""
    dead: float = 15.0
    """Then the stream is ended; before, a loader that was only busy goes on where it was."""
    hello: float = 10.0
    """For a caller's first message."""
    grace: float = 1.5
    """A stream that ended may come back for so long before the node is reported as gone: a loader
    that only reconnects is not news."""
    spacing: float = 0.05
    spread: float = 0.1
    """Between two updates of one loader, with news of its own node (documents, its pods), or only with what all
    are told: what changes meanwhile goes with the second.  The first change after a quiet time goes at once."""
    refused_first: float = 1.0
    refused_most: float = 30.0
    """Before a snapshot is sent to a loader that refused one; doubles in between."""
    counters: int = 30
    """How often loaders send counters."""
    token: float = 4500.0
    """A stream lives on so long after its last valid token; loaders renew every few minutes, and
    tokens last an hour."""
    messages: int = 2000
    """In ten seconds, of one loader; more ends its stream."""
