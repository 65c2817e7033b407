"""PURE: a ruleset as Envoy's route table: the first route that matches a request decides.

Routes change in place, so a change of rules never closes a connection.  Envoy normalises
nothing: the rules see the bytes that the server will see, and what servers read in different
ways is denied in front of them, as in the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from yett_loader.sidecar.changes import CHANGES, change_filters, quoted
from yett_policy.http.change import resolved
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, PathKind, RuleAction, RulesetSpec
from yett_policy.reason import Reason

Json = dict[str, Any]

CLUSTER = "server"
DENY = "deny"
"""The filter of deny.c, which ends a request that is denied as its policy says."""
MODULE: Json = {"name": "yett_deny", "do_not_close": True}
_PER_ROUTE = (
    "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute"
)
ALLOW = "allow|"
"""How the names of routes begin that let a request pass, with nothing to note."""
_FREE = 6
_FRAMING = ("content-length", "transfer-encoding")
_SLASH = r"(?:/|\\|%2[fF]|%5[cC])"
_HEX = "0-9A-Fa-f"
_CAPITAL = re.compile(r"(?<!\\)[A-Z]")

AMBIGUOUS: Mapping[Reason, str] = {
    Reason.AMBIGUOUS_DOT_SEGMENT: rf"[^?]*{_SLASH}(?:\.|%2[eE]){{1,2}}(?:(?:[/\\;#?]|%2[fF]|%5[cC]).*)?",
    Reason.AMBIGUOUS_EMPTY_SEGMENT: rf"[^?]*{_SLASH}{_SLASH}.*",
    Reason.AMBIGUOUS_ENCODED_DOT: r"[^?]*%2[eE].*",
    Reason.AMBIGUOUS_ENCODED_SLASH: r"[^?]*%2[fF].*",
    Reason.AMBIGUOUS_ENCODED_BACKSLASH: r"[^?]*%5[cC].*",
    Reason.AMBIGUOUS_ENCODED_PERCENT: r"[^?]*%25.*",
    Reason.AMBIGUOUS_ENCODED_NUL: r"[^?]*%00.*",
    Reason.AMBIGUOUS_BACKSLASH: r"[^?]*\\.*",
    Reason.AMBIGUOUS_SEMICOLON: r"[^?]*;.*",
    Reason.AMBIGUOUS_FRAGMENT: r".*#.*",
    Reason.AMBIGUOUS_NON_ASCII: r".*[^\x00-\x7e].*",
    # One byte that completes two of them; none may tolerate that.
    Reason.HTTP_TARGET: (
        rf"[^?]*(?:{_SLASH}(?:\.|%2[eE]){{1,2}}(?:[\\;#]|%2[fF]|%5[cC])|{_SLASH}(?:\\|%2[fF]|%5[cC])"
        rf"|%[{_HEX}]?(?:[\\;#]|[^\x00-\x7e])).*"
    ),
    Reason.AMBIGUOUS_PERCENT: rf"[^?]*%(?:|[^{_HEX}].*|[{_HEX}](?:|[^{_HEX}].*))",
}
"""Whole targets (query included) with that ambiguity; the same as `yett_policy.http.ambiguity`."""


def route_table(name: str, spec: RulesetSpec, secrets: Collection[str] = ()) -> Json:
    """RouteConfiguration; the names of its routes are read back by `verdict_of`.

    `secrets`: those that are there; what a rule is without the others, see `resolved`.
    """
    spec = replace(spec, rules=resolved(spec.rules, secrets))
    deny_rules = [rule for rule in spec.rules if rule.action is RuleAction.DENY]
    watched = [rule for rule in spec.rules if rule.action is RuleAction.AUDIT_DENY]
    allow = [rule for rule in spec.rules if rule.action is RuleAction.ALLOW]
    tolerated = {reason for rule in spec.rules for reason in rule.tolerate}
    lenient = spec.audit and not deny_rules
    routes = [
        _refuse(reason, spec, [_target(pattern)], passes=lenient)
        for reason, pattern in AMBIGUOUS.items()
        if reason not in tolerated
    ]
    allowing: list[Json] = []
    once = sorted({_header_name(item.name) for rule in spec.rules for item in rule.headers} - {":authority"})
    for rule in deny_rules:
        route = _deny(Reason.DENY_RULE_L7, rule.ref, _conditions(rule))
        if rule.forbidden != spec.forbidden:
            route["typed_per_filter_config"] = _denial(rule.forbidden, once)
        routes.append(route)
    for rule in allow:
        matchers = _whole(rule, tolerated)
        allowing += [
            _pass("audit", Reason.DENY_RULE_L7, item.ref, matchers + _conditions(item), rule.upgrades)
            for item in watched
        ]
        allowing.append(_pass("allow", Reason.ALLOWED, rule.ref, matchers, rule.upgrades))
    routes += allowing
    if spec.audit and not lenient:
        # What could hide a request from a deny rule does not pass, audit or not.
        routes += [
            _refuse(reason, spec, [*_conditions(rule), _target(AMBIGUOUS[reason])], passes=False)
            for rule in allow
            for reason in sorted(tolerated - set(rule.tolerate))
            if reason in AMBIGUOUS
        ]
    routes.append(_refuse(Reason.POLICY_DENIED_L7, spec, [], passes=spec.audit))
    routes.append({**_deny(Reason.CONNECT_DENIED, spec.default_rule, []), "match": {"connect_matcher": {}}})
    host: Json = {
        "name": name,
        "domains": ["*"],
        "routes": routes,
        "typed_per_filter_config": _denial(spec.forbidden, None if lenient else once),
    }
    changing = [(rule, _whole(rule, tolerated)) for rule in allow if rule.changes]
    if changing:
        # Under audit a header that occurs twice passes, but then no rule allows the request.
        for route in allowing:
            route["metadata"] = {"filter_metadata": {CHANGES: {"unless": once if lenient else []}}}
        filters, program = change_filters(changing)
        host["typed_per_filter_config"] |= filters
        host["metadata"] = {"filter_metadata": {CHANGES: program}}
    return {"name": name, "virtual_hosts": [host]}


def _whole(rule: HttpRule, tolerated: set[Reason]) -> list[Json]:
    """All that must hold for an allow rule to allow, ambiguities that others tolerate included."""
    clear = [
        {**_target(AMBIGUOUS[reason]), "invert_match": True}
        for reason in sorted(tolerated - set(rule.tolerate))
        if reason in AMBIGUOUS
    ]
    return _conditions(rule) + clear


def verdict_of(route: str) -> tuple[str, Reason, str]:
    """(allow, audit or deny; reason; rule) of a route's name."""
    verdict, reason, rule = route.split("|", 2)
    return verdict, Reason[reason], rule


def _refuse(reason: Reason, spec: RulesetSpec, matchers: list[Json], *, passes: bool) -> Json:
    """What no rule allows: denied, or passed and noted."""
    if passes:
        return _pass("audit", reason, spec.default_rule, matchers, ())
    return _deny(reason, spec.default_rule, matchers)


def _denial(forbidden: bool, once: Sequence[str] | None) -> Json:
    """How a request is denied, and the headers that it must not have twice, or under another spelling; see
    deny.c.  None: whatever it has.
    """
    words = ["answer" if forbidden else "reset"]
    if once is not None:
        words += once
        aliases = {alias for name in (*_FRAMING, *once) for alias in _aliases(name)} - {*once}
        words += [f"!{alias}" for alias in sorted(aliases)]
    text = " ".join(words)
    config = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text}
    return {DENY: {"@type": _PER_ROUTE, "dynamic_module_config": MODULE, "filter_config": config}}


def _aliases(name: str) -> Iterator[str]:
    """The name with some of its hyphens as underscores, or the other way round, as CGI reads it."""
    parts = re.split("[-_]", name)
    free = min(len(parts) - 1, _FREE)  # of very long names, the rest goes together
    for marks in product("-_", repeat=free):
        every = (*marks, *(len(parts) - 1 - free) * marks[-1:], "")
        alias = "".join(map("".join, zip(parts, every, strict=True)))
        if alias != name:
            yield alias


def _deny(reason: Reason, rule: str, matchers: list[Json]) -> Json:
    return {
        "name": f"deny|{reason.name}|{rule}",
        "match": {"prefix": "/", "headers": matchers},
        "direct_response": {"status": 403, "body": {"inline_string": "Access denied\r\n"}},
    }


def _pass(verdict: str, reason: Reason, rule: str, matchers: list[Json], upgrades: Iterable[str]) -> Json:
    action: Json = {"cluster": CLUSTER, "timeout": "0s"}
    configs = [{"upgrade_type": name, "enabled": True} for name in upgrades]
    if configs:
        action["upgrade_configs"] = configs
    return {
        "name": f"{verdict}|{reason.name}|{rule}",
        "match": {"prefix": "/", "headers": matchers},
        "route": action,
    }


def _conditions(rule: HttpRule) -> list[Json]:
    found = []
    if rule.method is not None:
        found.append(_regex(":method", rule.method))
    if rule.path is not None:
        found.append(_path(rule.path, rule.path_kind))
    if rule.host is not None:
        found.append(_host(rule.host))
    return found + [_header(item) for item in rule.headers]


def _host(pattern: str) -> Json:
    """The rules see a host in lower case, Envoy as it was sent: so letters match in either case, but
    a capital that the pattern asks for is never there.
    """
    if _CAPITAL.search(pattern.replace("A-Za-z", "a-z").replace("a-zA-Z", "a-z")):
        return {"name": ":authority", "present_match": True, "invert_match": True}
    return _regex(":authority", f"(?i:{pattern})")


def _path(path: str, kind: PathKind) -> Json:
    if kind is PathKind.REGEX:
        return _target(path)
    if kind is PathKind.EXACT:
        return _target(quoted(path) + r"(?:\?.*)?")
    return _target(quoted(path.rstrip("/")) + r"(?:/[^?]*)?(?:\?.*)?")


def _header(item: HeaderRule) -> Json:
    name = _header_name(item.name)
    if item.op is HeaderOp.ABSENT:
        return {"name": name, "present_match": True, "invert_match": True}
    if item.op is HeaderOp.PRESENT or (item.op in (HeaderOp.PREFIX, HeaderOp.SUFFIX) and not item.value):
        return {"name": name, "present_match": True}
    if item.op is HeaderOp.REGEX:
        return _regex(name, item.value)
    return {"name": name, "string_match": {item.op.value: item.value}}


def _header_name(name: str) -> str:
    return ":authority" if name == "host" else name


def _target(pattern: str) -> Json:
    return _regex(":path", pattern)


def _regex(name: str, pattern: str) -> Json:
    return {"name": name, "string_match": {"safe_regex": {"regex": pattern}}}
