"""HTTP rules as values: what the compiler hands to the automaton builder and to `decide()`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache

from yett_policy.http.change import HeaderChange
from yett_policy.reason import Reason


class PathKind(StrEnum):
    """How `HttpRule.path` matches the request target (origin form)."""

    REGEX = "regex"
    """RE2 subset, whole value, query included."""
    PREFIX = "prefix"
    """Segment-aware, query ignored: `/api` matches `/api`, `/api/x`, `/api?q`, not `/apix`.
    A trailing slash in the prefix means nothing: `/api/` is `/api`."""
    EXACT = "exact"
    """The path, byte for byte, query ignored."""


class HeaderOp(StrEnum):
    """How a header's value (surrounding spaces and tabs removed) must be."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    REGEX = "regex"
    PRESENT = "present"
    ABSENT = "absent"


class RuleAction(StrEnum):
    """What a matching rule does."""

    ALLOW = "allow"
    DENY = "deny"
    AUDIT_DENY = "audit-deny"
    """A deny rule of a policy with `audit: true`: recorded, not denied."""


@dataclass(frozen=True, slots=True, order=True)
class HeaderRule:
    """A condition on one header.  A header that rules name and that occurs twice is denied."""

    name: str
    """Lower case."""
    op: HeaderOp
    value: str = ""
    """Latin-1 text; case-sensitive."""


@dataclass(frozen=True, slots=True, order=True)
class HttpRule:
    """All conditions of one rule must hold (AND); None means anything."""

    ref: str
    """Kind/namespace/name:ingress[0].toPorts[0].rules.http[1]."""
    action: RuleAction = RuleAction.ALLOW
    method: str | None = None
    """RE2 subset, whole value, case-sensitive."""
    path: str | None = None
    path_kind: PathKind = PathKind.REGEX
    host: str | None = None
    """RE2 subset, whole value of the Host header, compared case-insensitively: the request's
    host is lower-cased first; the port is part of the value if the client sent one."""
    headers: tuple[HeaderRule, ...] = ()
    upgrades: tuple[str, ...] = ()
    """Protocols (lower case) that the request may upgrade to, such as `websocket`."""
    tolerate: tuple[Reason, ...] = ()
    """AMBIGUOUS_* reasons that do not deny a request that this rule allows."""
    forbidden: bool = False
    """For deny rules: answer 403."""
    changes: tuple[HeaderChange, ...] = ()
    """Of allow rules: what the server sees in place of what the client sent; sorted."""


@dataclass(frozen=True, slots=True)
class RulesetSpec:
    """Everything that decides what a ruleset does; its digest names it."""

    rules: tuple[HttpRule, ...]
    """Sorted, without duplicates."""
    default_rule: str
    """Reference that a denial without a matching rule is put down to (which policies ask
    for default deny on this port)."""
    audit: bool = False
    """What no rule allows passes with a verdict of audit.  A DENY rule still denies, and where
    there is one so does what could hide a request from it: broken grammar, ambiguity."""
    forbidden: bool = False
    """A default denial answers 403."""
    chunk_extensions: bool = False
    trailers: bool = False
    engine: str = "Auto"
    """The engine that the policies wish for: Auto, Kernel or Sidecar."""
    app_protocol: str = ""
    """Who says that HTTP/2 is spoken on the port: `kubernetes.io/h2c of Service default/api`."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Secrets that its rules name, sorted."""
        return tuple(sorted({item.secret for rule in self.rules for item in rule.changes} - {""}))

    def to_bytes(self) -> bytes:
        """Canonical JSON; equal specs give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, hex."""
        return _digest(self)


@lru_cache(4096)  # every body that names a spec asks, and most were asked before
def _digest(spec: RulesetSpec) -> str:
    return hashlib.sha256(spec.to_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Request:
    """A request head as the rules see it; all bytes, nothing normalised."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """(name as sent, value without surrounding spaces and tabs), in order."""
    minor: int = 1
