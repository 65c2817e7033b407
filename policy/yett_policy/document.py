"""What a node needs to know, and nothing else: documents, rulesets, addresses.

The compiler makes these values, the loader turns them into map entries.  They are frozen
and their bytes are deterministic: the same policies give the same digest on every run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import NamedTuple, Self

from yett_policy.http.rule import RulesetSpec
from yett_policy.reason import Reason
from yett_policy.service import Backends, Frontend

SCHEMA = 4
"""Revision of these values on the wire and on disk; another number is refused."""


class Direction(IntEnum):
    """Of the policy: INGRESS judges what the endpoint receives as a server."""

    INGRESS = 0
    EGRESS = 1


class Verdict(IntEnum):
    """As `enum verdict` in yett_abi.h."""

    DENY = 0
    ALLOW = 1
    AUDIT = 2
    REDIRECT = 3


class Engine(StrEnum):
    """Who judges the HTTP requests of a ruleset."""

    KERNEL = "kernel"
    SIDECAR = "sidecar"


ANY_PEER = 0
ANY_PROTO = 0


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One key of the policy map, fully resolved.

    `port` with `port_bits` significant leading bits is a power-of-two range (0 bits: every
    port); for ICMP it is the type.  Look-up order, first hit wins: (peer, proto, port),
    (peer, any, any), (any, proto, port), (any, any, any); within one step the longest port
    prefix wins.  The compiler makes a peer's entries complete enough for that to be right,
    and always writes (any, any, any) for both directions: the default.
    """

    direction: Direction
    peer: int
    proto: int
    port: int
    port_bits: int
    verdict: Verdict
    reason: Reason
    rule: int
    """Index into `Document.rules`."""
    ruleset: str = ""
    """Digest of the ruleset that judges requests; empty: L3/L4 only."""
    forbidden: bool = False
    """A denial answers (403) instead of a bare reset."""


class Group(NamedTuple):
    """What is said of several peers alike: of a namespace, of a cluster."""

    entry: Entry
    """As if for anyone."""
    peers: tuple[int, ...]
    """Sorted; ANY_PEER is one."""


@dataclass(frozen=True, slots=True)
class Document:
    """The policy of one identity, both directions."""

    identity: int
    groups: tuple[Group, ...]
    """Sorted; each entry once."""
    rules: tuple[str, ...]
    """Rule references: `Kind/namespace/name:ingress[0].toPorts[0]`, for a default deny
    `Kind/namespace/name:default-deny` (several joined by `, `), for no policy `none`."""
    _digest: str = field(default="", init=False, repr=False, compare=False)
    _entries: tuple[Entry, ...] = field(default=(), init=False, repr=False, compare=False)
    _rulesets: tuple[tuple[str, Direction], ...] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, identity: int, entries: Iterable[Entry], rules: tuple[str, ...]) -> Self:
        """With these entries, in any order."""
        peers: dict[Entry, list[int]] = {}
        for entry in entries:
            peers.setdefault(replace(entry, peer=ANY_PEER), []).append(entry.peer)
        return cls(
            identity,
            tuple(Group(entry, tuple(sorted(found))) for entry, found in sorted(peers.items())),
            rules,
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """One for each peer, sorted; computed once, and only where they are needed one by one."""
        if not self._entries:
            each = (_for_peer(entry, peer) for entry, peers in self.groups for peer in peers)
            object.__setattr__(self, "_entries", tuple(sorted(each, key=_order)))
        return self._entries

    def to_bytes(self) -> bytes:
        """Canonical JSON; equal documents give equal bytes."""
        return canonical({"schema": SCHEMA, **self.to_json()})

    def to_json(self) -> dict[str, object]:
        """Without its schema, groups as rows: direction, peers, proto, port, port_bits, verdict, reason,
        rule, which of `rulesets` (from 1; 0: none), forbidden (0 or 1).
        """
        rulesets = sorted({group.entry.ruleset for group in self.groups} - {""})
        place = {digest: index for index, digest in enumerate(("", *rulesets))}
        rows = [
            (
                each.direction,
                peers,
                each.proto,
                each.port,
                each.port_bits,
                each.verdict,
                each.reason,
                each.rule,
                place[each.ruleset],
                +each.forbidden,
            )
            for each, peers in self.groups
        ]
        return {"identity": self.identity, "entries": rows, "rules": self.rules, "rulesets": rulesets}

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, hex; computed once."""
        if not self._digest:
            object.__setattr__(self, "_digest", hashlib.sha256(self.to_bytes()).hexdigest())
        return self._digest

    @property
    def rulesets(self) -> tuple[tuple[str, Direction], ...]:
        """Digest and direction of every ruleset that entries name, each once, sorted; computed once."""
        if self._rulesets is None:
            named = {(entry.ruleset, entry.direction) for entry, _ in self.groups if entry.ruleset}
            object.__setattr__(self, "_rulesets", tuple(sorted(named)))
        return self._rulesets or ()


def _order(entry: Entry) -> tuple[int, ...]:
    return entry.direction, entry.peer, entry.proto, entry.port, entry.port_bits


def _for_peer(entry: Entry, peer: int) -> Entry:
    """`replace(entry, peer=peer)`, which is too slow for hundreds."""
    return Entry(
        entry.direction,
        peer,
        entry.proto,
        entry.port,
        entry.port_bits,
        entry.verdict,
        entry.reason,
        entry.rule,
        entry.ruleset,
        entry.forbidden,
    )


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The HTTP rules of one (subject, peer, port), compiled."""

    digest: str
    spec: RulesetSpec
    engine: Engine
    engine_reason: str
    """Why this engine, for people: `fits the kernel budget: 312 states, 41,216 bytes`."""
    tier: int = 0
    """Of the kernel tables, see `struct ruleset` in yett_abi.h."""
    tables: bytes = field(default=b"", repr=False)
    """Kernel tables, padded by the loader to the tier's size; empty for the sidecar."""

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one node must have."""

    documents: tuple[Document, ...] = ()
    rulesets: tuple[Ruleset, ...] = ()
    ipcache: tuple[tuple[str, int], ...] = ()
    """(`10.0.0.1/32` or `2001:db8::/64`, identity), sorted.  Anything else is `world`."""
    identities: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """(identity, its labels `source:key=value`), for names in flows."""
    pods: tuple[tuple[str, str, int, tuple[str, ...]], ...] = ()
    """(namespace, name, identity, addresses) of every pod known, for names in flows."""
    services: tuple[tuple[Frontend, Backends], ...] = ()
    """Sorted; egress to one of these addresses is judged by who is behind it."""


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
