"""What a rule changes in the headers of the requests that it allows.

The server sees, of each header that rules change: the values that every DELETE wants to stay, or
just that of the REPLACE where there is one, and then the value of each ADD that is not among
them.  So the order of rules is of no importance, and what the client sent is looked at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yett_policy.http.rule import HttpRule

Field = tuple[bytes, bytes]
"""Name as sent, and value."""

_NEVER = {
    "host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "trailer", "trailers",
    "keep-alive", "expect", "http2-settings",
}  # fmt: skip
VALUE_LIMIT = 4096
"""Bytes of a value; a request head has at most 60 KiB."""


class ChangeOp(StrEnum):
    """What becomes of a header that is not as the rule wants it."""

    LOG = "log"
    """Nothing; the access record says so."""
    ADD = "add"
    DELETE = "delete"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True, order=True)
class HeaderChange:
    """One of a rule's headerMatches with a mismatch."""

    name: str
    """Lower case."""
    op: ChangeOp
    value: str | None = None
    """Printable ASCII.  None: of LOG, that the header must be there; with a secret, that the rule
    matches nothing without it."""
    secret: str = ""
    """`namespace/name` of a Secret whose one value goes before `value`."""

    @property
    def wanted(self) -> str:
        """For people; never the value of a secret."""
        if self.secret:
            return f"secret {self.secret}"
        return "" if self.value is None else self.value


def name_problem(name: str) -> str:
    """Why a header cannot be changed; empty if it can."""
    lower = name.lower()
    if lower in _NEVER or lower.startswith((":", "proxy-")):
        return f"{name} says how the request is sent and cannot be changed; remove mismatch"
    if lower.startswith("x-envoy-"):
        return f"{name} is an order to the sidecar and cannot be changed; choose another name"
    if "_" in name:
        return f"{name} has an underscore, which servers take for a hyphen, and cannot be changed; write a hyphen"
    return ""


def value_problem(value: str) -> str:
    """Why a header cannot be given this value; empty if it can.  Says nothing of the value itself."""
    if not value:
        return "is empty; write a value"
    if len(value) > VALUE_LIMIT:
        return f"is longer than {VALUE_LIMIT} characters"
    if not all(" " <= char <= "~" for char in value):
        return "has characters that are not printable ASCII"
    if value.strip(" ") != value:
        return "begins or ends with a space, which no header keeps"
    return ""


def resolved(rules: Iterable[HttpRule], secrets: Collection[str]) -> tuple[HttpRule, ...]:
    """The rules as they stand while only `secrets` are there.

    Without its secret a change has its value, and a rule of a change that has none matches nothing.
    """
    found = []
    for rule in rules:
        changes = [item if item.secret in secrets else replace(item, secret="") for item in rule.changes]
        lost = any(
            old.secret and not new.secret and new.value is None
            for old, new in zip(rule.changes, changes, strict=True)
        )
        if not lost:
            found.append(replace(rule, changes=tuple(changes)) if rule.changes else rule)
    return tuple(found)


def changed(
    headers: Sequence[Field], changes: Iterable[HeaderChange], secrets: Mapping[str, str]
) -> tuple[Field, ...]:
    """Headers as the server must see them; `secrets`: the values of those that are named."""
    by_name: dict[str, list[HeaderChange]] = {}
    for item in changes:
        by_name.setdefault(item.name, []).append(item)
    result = list(headers)
    for name, items in by_name.items():
        before = values_of(headers, name)
        after = _values(before, items, secrets)
        if after != before:
            result = [field for field in result if field[0].lower() != name.encode()]
            result += [(name.encode(), value) for value in after]
    return tuple(result)


def mismatched(
    headers: Sequence[Field], changes: Iterable[HeaderChange], secrets: Mapping[str, str]
) -> tuple[str, ...]:
    """Names of headers that are not as the rules want them, sorted."""
    return tuple(
        sorted({item.name for item in changes if not _fits(values_of(headers, item.name), item, secrets)})
    )


def values_of(headers: Iterable[Field], name: str) -> list[bytes]:
    """All values of a header, in order."""
    return [value for sent, value in headers if sent.lower() == name.encode()]


def _values(before: list[bytes], items: list[HeaderChange], secrets: Mapping[str, str]) -> list[bytes]:
    wanted = {
        op: [_value(item, secrets) for item in items if item.op is op]
        for op in (ChangeOp.DELETE, ChangeOp.REPLACE, ChangeOp.ADD)
    }
    after = [value for value in before if all(value == keep for keep in wanted[ChangeOp.DELETE])]
    if wanted[ChangeOp.REPLACE]:
        after = [wanted[ChangeOp.REPLACE][-1]]
    for value in wanted[ChangeOp.ADD]:
        if value not in after:
            after.append(value)
    return after


def _fits(values: list[bytes], item: HeaderChange, secrets: Mapping[str, str]) -> bool:
    if item.value is None and not item.secret:
        return bool(values)
    if item.op is ChangeOp.DELETE:
        return all(value == _value(item, secrets) for value in values)
    if item.op is ChangeOp.REPLACE:
        return values == [_value(item, secrets)]
    return _value(item, secrets) in values


def _value(item: HeaderChange, secrets: Mapping[str, str]) -> bytes:
    return (secrets[item.secret] if item.secret else item.value or "").encode()
