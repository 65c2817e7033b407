"""What can be wrong with what a user wrote."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PolicyError(ValueError):
    """One thing in a policy that is refused: where, and what to write instead.

    `str()` is one sentence that begins with the field path.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        """`spec.ingress[0].toPorts[1].rules.dns`; empty: the document itself."""
        self.message = message
        self.others: tuple[PolicyError, ...] = ()
        """Further errors of the same document, in the order of its fields."""


class Severity(StrEnum):
    """Of a finding."""

    ERROR = "error"
    """Refused: nothing of the policy is in force."""
    WARNING = "warning"
    """Accepted, and probably not what was meant."""
    INFO = "info"
    """Accepted, and worth knowing."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What `lint` has to say about one field."""

    code: str
    """`YETT1007`; append-only."""
    severity: Severity
    field: str
    message: str
