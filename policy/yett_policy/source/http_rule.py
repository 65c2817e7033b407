"""Models of HTTP rules, as policies state them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from yett_policy.http.change import name_problem, value_problem
from yett_policy.http.regex import RegexError
from yett_policy.http.regex import check as check_regex
from yett_policy.source.fields import NAME_PATTERN, HeaderName, Latin1, Model, l7_only, refusal

# The fields' names are those of the API.
# ruff: noqa: N815

_COMPARED = (
    "a request cannot be compared with a Secret without changing it; write value, or mismatch: REPLACE"
)


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


class SecretRef(Model):
    """A Secret that has one key."""

    namespace: Annotated[str, Field(max_length=63, pattern=NAME_PATTERN)] | None = None
    """Namespace of the Secret. Left out: the policy's own, and it can be no other."""
    name: Annotated[str, Field(max_length=253, pattern=NAME_PATTERN)]
    """Name of the Secret; its one value is that of the header."""


class HeaderMatch(Model):
    """A condition on one header of a request."""

    name: HeaderName
    """Name of the header, in any case, like Content-Type."""
    operator: Annotated[
        Literal["Exact", "Prefix", "Suffix", "Regex", "Present", "Absent"] | None,
        l7_only("remove operator, or make the policy an L7Policy"),
    ] = None
    """How the value is compared. Exact, Prefix, Suffix and Regex need a value; Present and Absent take
    none. Left out: Exact if there is a value, else Present."""
    value: Latin1 | None = None
    """What the value of the header is compared with, case-sensitively, without surrounding spaces, like
    application/json."""
    secret: SecretRef | None = None
    """Where the value comes from, with mismatch only. While the Secret is not there value stands for it,
    and without value the rule matches nothing."""
    mismatch: Literal["", "LOG", "ADD", "DELETE", "REPLACE"] | None = None
    """What becomes of a header that is not so, of a request that the rule allows: LOG records it, ADD
    appends the value, DELETE removes what is another value, REPLACE sets the value. Left out: the rule
    does not match."""

    def check(self) -> None:
        """A value goes with the operators that compare, or with what is changed."""
        if self.mismatch:
            self._check_change(self.mismatch)
        elif self.secret is not None:
            raise refusal(_COMPARED, "secret")
        if self.operator in {"Present", "Absent"} and self.value:
            raise refusal(f"operator {self.operator} takes no value; remove it", "value")
        if self.operator in {"Exact", "Prefix", "Suffix", "Regex"} and self.value is None:
            raise refusal(f"operator {self.operator} needs a value", "value")
        if self.operator in {"Prefix", "Suffix"} and not self.value:
            raise refusal(f"operator {self.operator} with an empty value is Present; write that", "operator")
        if self.operator == "Regex" and self.value is not None:
            _regex(self.value, "value")

    def _check_change(self, mismatch: str) -> None:
        if self.operator not in {None, "Exact"}:
            raise refusal(f"mismatch {mismatch} compares whole values; remove operator", "operator")
        if problem := name_problem(self.name):
            raise refusal(problem, "name")
        if not self.value and self.secret is None and (mismatch != "LOG" or self.operator):
            raise refusal(f"mismatch {mismatch} needs a value or a secret", "value")
        if self.value and (problem := value_problem(self.value)):
            raise refusal(problem, "value")


class Http(Model):
    """One HTTP rule: every condition must hold."""

    method: Regex | None = None
    """Regular expression (RE2 subset) that the whole method must match, case-sensitively, like GET|HEAD.
    Left out: any method."""
    path: Regex | None = None
    """Regular expression (RE2 subset) that the whole request target must match, query included, like
    /api/v[0-9]+/.*. Left out: any path."""
    pathPrefix: Annotated[Latin1 | None, l7_only('write path: "/api(/.*)?" or make it an L7Policy')] = None
    """Whole path segments that the path begins with, query ignored: /api matches /api and /api/x, not
    /apix. Excludes path and pathExact."""
    pathExact: Annotated[Latin1 | None, l7_only("write path, or make it an L7Policy")] = None
    """The path, byte for byte, query ignored, like /orders. Excludes path and pathPrefix."""
    host: Regex | None = None
    """Regular expression (RE2 subset) that the whole Host header must match, compared in lower case, like
    api[.]example[.]com. Left out: any host."""
    headers: list[Latin1] | None = None
    """Headers that must be there, each as a name alone or as 'Name: value', like 'X-Token: 1'."""
    headerMatches: list[HeaderMatch] | None = None
    """Conditions on headers; all of them must hold."""
    upgrades: Annotated[
        list[Literal["websocket"]] | None,
        l7_only("make it an L7Policy"),
    ] = None
    """Protocols that the request may upgrade the connection to; what follows is not judged. Left out:
    none."""
    allowAmbiguous: Annotated[list[AmbiguityName] | None, l7_only("make it an L7Policy")] = None
    """Forms of the target that servers read in different ways and that this rule lets pass all the same.
    Left out: each of them is denied."""

    def check(self) -> None:
        """At most one way to name the path; prefixes and exact paths are plain text; one REPLACE each."""
        replaced: set[str] = set()
        for i, match in enumerate(self.headerMatches or ()):
            if match.mismatch == "REPLACE":
                if match.name.lower() in replaced:
                    raise refusal(
                        f"{match.name} is replaced twice; keep one of them", f"headerMatches[{i}].name"
                    )
                replaced.add(match.name.lower())
        given = [f for f in ("path", "pathPrefix", "pathExact") if getattr(self, f) is not None]
        if len(given) > 1:
            raise refusal(f"excludes {given[0]}; keep one of them", given[1])
        for field in ("pathPrefix", "pathExact"):
            value = getattr(self, field)
            if value is not None and not value.startswith("/"):
                raise refusal(f"{value!r} must begin with '/'", field)
            if value is not None and ("?" in value or "#" in value):
                raise refusal(f"{value!r} must be a path without query or fragment", field)
