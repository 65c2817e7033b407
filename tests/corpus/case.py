"""What a corpus entry is."""

from __future__ import annotations

from dataclasses import dataclass

from yett_policy.reason import Reason


@dataclass(frozen=True, slots=True)
class Case:
    """One request (or the start of one) and what must become of it."""

    name: str
    data: bytes
    """Allowed: the whole request.  Denied: up to and including the byte that must never reach
    the server, at the latest; whatever the engine denies earlier is fine."""
    rest: bytes = b""
    """What an attacker sends after `data`."""
    reasons: tuple[Reason, ...] = ()
    """Why it is denied (any of them); empty: it is allowed."""
    rules: str = "any"
    """The ruleset it is sent to, see rules.py."""

    @property
    def allowed(self) -> bool:
        """Whether the server must get it and answer."""
        return not self.reasons

    @property
    def whole(self) -> bytes:
        """Everything that the client sends."""
        return self.data + self.rest

    @property
    def id(self) -> str:
        """For pytest."""
        return f"{self.rules}: {self.name}".replace(" ", "_")


def allow(name: str, data: bytes, rules: str = "any") -> Case:
    """A request that must be answered."""
    return Case(name, data, rules=rules)


def deny(name: str, data: bytes, rest: bytes, *reasons: Reason, rules: str = "any") -> Case:
    """A request that must not be answered."""
    if not reasons:
        raise ValueError(f"case {name!r} is denied without a reason")
    return Case(name, data, rest, reasons, rules)
