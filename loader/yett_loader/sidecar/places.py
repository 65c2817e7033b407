"""PURE: which listener judges for which policy entries.

A connection stays with the listener that took it, so a listener belongs to places (entries of
documents), not to rules: when rules change the entries keep their port and Envoy gets new routes
for it.  Entries with equal rules share one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from yett_policy.document import Direction, Engine, Entry, Snapshot

FIRST_PORT = 61_001
"""Above what the kernel gives to clients (net.ipv4.ip_local_port_range)."""
LAST_PORT = 65_535

Key = tuple[int, int, int, int, int, int]
"""Identity, direction, peer, protocol, port, bits of a policy entry."""


@dataclass(frozen=True, slots=True)
class Places:
    """Ports given."""

    ports: Mapping[tuple[str, Direction], int] = field(default_factory=dict)
    """Digest of a ruleset and direction -> port of the listener."""
    entries: Mapping[Key, int] = field(default_factory=dict)

    def entries_of(self, port: int) -> frozenset[Key]:
        """What the listener at `port` judges for."""
        return frozenset(key for key, number in self.entries.items() if number == port)


def place(snapshot: Snapshot, previous: Places) -> Places:
    """Ports for all rulesets of the sidecar; those of `previous` where entries are the same.

    A ruleset for which no port is left has none: it is denied.
    """
    sidecar = {item.digest for item in snapshot.rulesets if item.engine is Engine.SIDECAR}
    wanted: dict[tuple[str, Direction], list[Key]] = {}
    governed: set[int] = set()
    for document in snapshot.documents:
        for entry in document.entries:
            if entry.ruleset in sidecar:
                key = _key(document.identity, entry)
                wanted.setdefault((entry.ruleset, entry.direction), []).append(key)
                governed.update(range(entry.port, entry.port + (1 << (16 - entry.port_bits))))
    ports: dict[tuple[str, Direction], int] = {}
    taken: set[int] = set()
    votes = {
        ruleset: Counter(previous.entries[key] for key in keys if key in previous.entries)
        for ruleset, keys in wanted.items()
    }
    # The same ruleset keeps its port first, then whoever has most of a port's entries.
    order = sorted(wanted, key=lambda item: (item not in previous.ports, -sum(votes[item].values()), item))
    for ruleset in order:
        candidates = [port for port, _ in votes[ruleset].most_common()]
        if ruleset in previous.ports:
            candidates.insert(0, previous.ports[ruleset])
        port = next((number for number in candidates if number not in taken), 0)
        if port:
            ports[ruleset] = port
            taken.add(port)
    # A port that is still open under the old rules must not greet new entries yet.
    used = taken | set(previous.ports.values()) | governed
    for ruleset in order:
        if ruleset not in ports:
            port = next((number for number in range(FIRST_PORT, LAST_PORT + 1) if number not in used), 0)
            if port:
                ports[ruleset] = port
                used.add(port)
    return Places(ports, {key: ports[ruleset] for ruleset in ports for key in wanted[ruleset]})


def _key(identity: int, entry: Entry) -> Key:
    return (identity, entry.direction, entry.peer, entry.proto, entry.port, entry.port_bits)
