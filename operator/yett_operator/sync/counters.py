"""What the sync server counts; whoever serves metrics reads it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Since the operator started."""

    streams: int = 0
    """Open now."""
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Callers and streams, by reason."""
    updates: Counter[str] = field(default_factory=Counter)
    """By kind: snapshot, delta."""
    problems: Counter[str] = field(default_factory=Counter)
    """Updates that a loader took nothing of, by its reason."""
    acks: int = 0
    sent_bytes: int = 0
    sent_at: float = 0.0
    """When an update was last handed to the network, in seconds since 1970; 0: none was."""
    received_bytes: int = 0

    def sent(self) -> None:
        """An update has been handed to the network."""
        self.sent_at = time.time()

    def samples(self) -> list[tuple[str, str, dict[str, str], float]]:
        """(name, kind, labels, value) of every series, for Prometheus."""
        return [
            ("yett_sync_streams", "gauge", {}, self.streams),
            ("yett_sync_streams_accepted_total", "counter", {}, self.accepted),
            ("yett_sync_acks_total", "counter", {}, self.acks),
            ("yett_sync_sent_bytes_total", "counter", {}, self.sent_bytes),
            ("yett_sync_last_sent_timestamp_seconds", "gauge", {}, self.sent_at),
            ("yett_sync_received_bytes_total", "counter", {}, self.received_bytes),
            *(
                (name, "counter", {label: key}, count)
                for name, label, counts in (
                    ("yett_sync_refused_total", "reason", self.refused),
                    ("yett_sync_updates_total", "kind", self.updates),
                    ("yett_sync_update_problems_total", "problem", self.problems),
                )
                for key, count in sorted(counts.items())
            ),
        ]
