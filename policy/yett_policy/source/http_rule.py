"""Models of HTTP rules, as policies state them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator

from yett_policy.http.regex import RegexError
from yett_policy.http.regex import check as check_regex
from yett_policy.source.fields import HeaderName, Latin1, Model, l7_only, refusal

# The fields' names are those of the API.
# ruff: noqa: N815

_MUTATION = "changing headers is not supported yet; remove mismatch, and the rule matches only requests that have the header"
_SECRET = "header values from Secrets are not supported yet; remove secret, or write the value"  # noqa: S105


def _regex(pattern: str, field: str = "") -> str:
    try:
        check_regex(pattern)
    except RegexError as error:
        raise refusal(str(error), field) from error
    return pattern


def _regex_field(pattern: str) -> str:
    return _regex(pattern)


Regex = Annotated[Latin1, AfterValidator(_regex_field)]
AmbiguityName = Literal[
    "DotSegment", "EmptySegment", "EncodedDot", "EncodedSlash", "EncodedBackslash", "EncodedPercent",
    "EncodedNul", "Backslash", "Semicolon", "Fragment", "NonAscii", "Percent",
]  # fmt: skip


def _no_mutation(value: object) -> object:
    if isinstance(value, str) and value in {"ADD", "DELETE", "REPLACE", "LOG"}:
        raise refusal(_MUTATION)
    return value


class HeaderMatch(Model):
    """A condition on one header of a request."""

    refuses: ClassVar[Mapping[str, str]] = {
        "secret": _SECRET,
    }

    name: HeaderName
    operator: Annotated[
        Literal["Exact", "Prefix", "Suffix", "Regex", "Present", "Absent"] | None,
        l7_only("remove operator, or make the policy an L7Policy"),
    ] = None
    value: Latin1 | None = None
    mismatch: Annotated[Literal[""] | None, BeforeValidator(_no_mutation)] = None

    def check(self) -> None:
        """A value goes with the operators that compare."""
        if self.operator in {"Present", "Absent"} and self.value:
            raise refusal(f"operator {self.operator} takes no value; remove it", "value")
        if self.operator in {"Exact", "Prefix", "Suffix", "Regex"} and self.value is None:
            raise refusal(f"operator {self.operator} needs a value", "value")
        if self.operator in {"Prefix", "Suffix"} and not self.value:
            raise refusal(f"operator {self.operator} with an empty value is Present; write that", "operator")
        if self.operator == "Regex" and self.value is not None:
            _regex(self.value, "value")


class Http(Model):
    """One HTTP rule: every condition must hold."""

    method: Regex | None = None
    path: Regex | None = None
    pathPrefix: Annotated[Latin1 | None, l7_only('write path: "/api(/.*)?" or make it an L7Policy')] = None
    pathExact: Annotated[Latin1 | None, l7_only("write path, or make it an L7Policy")] = None
    host: Regex | None = None
    headers: list[Latin1] | None = None
    headerMatches: list[HeaderMatch] | None = None
    upgrades: Annotated[
        list[Literal["websocket"]] | None,
        l7_only("make it an L7Policy"),
    ] = None
    allowAmbiguous: Annotated[list[AmbiguityName] | None, l7_only("make it an L7Policy")] = None

    def check(self) -> None:
        """At most one way to name the path; prefixes and exact paths are plain text."""
        given = [f for f in ("path", "pathPrefix", "pathExact") if getattr(self, f) is not None]
        if len(given) > 1:
            raise refusal(f"excludes {given[0]}; keep one of them", given[1])
        for field in ("pathPrefix", "pathExact"):
            value = getattr(self, field)
            if value is not None and not value.startswith("/"):
                raise refusal(f"{value!r} must begin with '/'", field)
            if value is not None and ("?" in value or "#" in value):
                raise refusal(f"{value!r} must be a path without query or fragment", field)
