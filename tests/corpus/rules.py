"""The rulesets of the corpus, one a port, so that one policy serves every case."""

from __future__ import annotations

from typing import Any

from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, PathKind, RulesetSpec
from yett_policy.reason import Reason

_REF = "L7Policy/test/corpus:ingress[0].toPorts[{}].rules.http[{}]"


def _spec(*rules: HttpRule, **options: Any) -> RulesetSpec:
    return RulesetSpec(
        rules=tuple(sorted(rules, key=lambda rule: rule.ref)),
        default_rule="L7Policy/test/corpus:default-deny",
        **options,
    )


def _ref(port: int, rule: int = 0) -> str:
    return _REF.format(port, rule)


PORTS: dict[str, int] = {
    "any": 80,
    "public": 81,
    "prefix": 82,
    "host": 83,
    "header": 84,
    "regex": 85,
    "post": 86,
    "forbidden": 87,
    "upgrade": 88,
    "connect": 89,
    "audit": 90,
    "chunky": 91,
    "tolerant": 92,
    "multipath": 93,
}
"""Port of each ruleset's server."""

PLAIN_PORT = 99
"""Allowed at L4, no HTTP rules."""

CLOSED_PORT = 98
"""Nothing allows it."""

RULESETS: dict[str, RulesetSpec] = {
    # Anything that the grammar lets through: what is denied here is denied by the grammar.
    "any": _spec(HttpRule(_ref(0))),
    "public": _spec(HttpRule(_ref(1), method="GET", path="/public")),
    "prefix": _spec(HttpRule(_ref(2), method="GET|POST", path="/api", path_kind=PathKind.PREFIX)),
    "host": _spec(HttpRule(_ref(3), method="GET", path="/public", host=r"api\.example")),
    "header": _spec(
        HttpRule(
            _ref(4), method="GET", path="/public", headers=(HeaderRule("x-token", HeaderOp.EXACT, "secret"),)
        ),
    ),
    "regex": _spec(HttpRule(_ref(5), method="GET", path=r"/item/[0-9]+(\?.*)?")),
    "post": _spec(
        HttpRule(_ref(6, 0), method="GET", path="/public"),
        HttpRule(_ref(6, 1), method="POST", path="/upload", path_kind=PathKind.EXACT),
    ),
    "forbidden": _spec(HttpRule(_ref(7), method="GET|POST", path="/public"), forbidden=True),
    "upgrade": _spec(HttpRule(_ref(8), method="GET", path="/chat", upgrades=("websocket",))),
    "connect": _spec(HttpRule(_ref(9), method="CONNECT")),
    "audit": _spec(HttpRule(_ref(10), method="GET", path="/public"), audit=True),
    "chunky": _spec(HttpRule(_ref(11), method="POST", path="/upload"), chunk_extensions=True, trailers=True),
    "multipath": _spec(HttpRule(_ref(13), method="GET", path="/public")),
    "tolerant": _spec(
        HttpRule(
            _ref(12, 0),
            method="GET",
            path="/tolerant/.*",
            tolerate=(Reason.AMBIGUOUS_SEMICOLON, Reason.AMBIGUOUS_ENCODED_SLASH),
        ),
        HttpRule(_ref(12, 1), method="GET", path="/strict/.*"),
    ),
}
