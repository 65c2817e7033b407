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

from yett_loader.sidecar.changes import CHANGES, Conditions, change_filters, quoted
from yett_policy.document import Direction
from yett_policy.http import regex
from yett_policy.http.alternatives import names_connect
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
NO_HOST = "!"
"""What Envoy says is the Host of a request of HTTP/1.0 that has none.  No server sees it (deny.c); a client that
says it is taken for one that says nothing, so rules that deny by Host deny both."""
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


_DENIED = "="
"""To deny.c: whatever has this text is denied."""
SENT = {
    name: f"x-envoy-sent-{name}"
    for name in (
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-proto",
    )
}
"""What Envoy takes away or makes up before it looks for a route -> what the listener calls a copy of what was
sent.  No client can send these names; the server sees none of them.
"""
_AGAIN: Json = {
    "retry_on": "reset",
    "num_retries": 1,
    "retry_back_off": {"base_interval": "0.001s"},
    "retriable_request_headers": [
        {"name": ":method", "string_match": {"exact": method}}
        for method in ("GET", "HEAD", "OPTIONS", "TRACE")
    ],
}
"""A server may end a kept connection just as a request is on its way (RFC 9112, section 9.3.1).  Envoy shares
connections to it among those of a client, so a client's first request could meet that; safe methods are sent
again, of others the client hears what Envoy has heard (deny.c).
"""


def route_table(
    name: str, spec: RulesetSpec, secrets: Collection[str] = (), direction: Direction = Direction.INGRESS
) -> Json:
    """RouteConfiguration; the names of its routes are read back by `verdict_of`.

    `secrets`: those that are there; what a rule is without the others, see `resolved`.  `direction`: under
    which what is let through is counted.
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
    once = sorted({item.name for rule in spec.rules for item in rule.headers} - {"host"})
    words = _words(None if lenient else once)
    changing = [rule for rule in allow if rule.changes]
    if any(is_about_host(rule) for rule in changing):
        words.append("?")  # the changes would be judged by the Host that the server is to see

    def denying(*, connect: bool) -> Iterator[Json]:
        for rule in deny_rules:
            route = _deny(Reason.DENY_RULE_L7, rule.ref, _conditions(rule, connect=connect), connect=connect)
            if rule.forbidden != spec.forbidden:
                route["typed_per_filter_config"] = _denial(rule.forbidden, [_DENIED, *words])
            yield route

    def letting(*, connect: bool) -> Iterator[Json]:
        for rule in allow:
            if connect and not names_connect(rule):
                continue
            matchers = _conditions(rule, connect=connect) if connect else _whole(rule, tolerated)
            for item in watched:
                both = matchers + _conditions(item, connect=connect)
                yield _pass("audit", Reason.DENY_RULE_L7, item.ref, both, rule.upgrades, connect=connect)
            route = _pass("allow", Reason.ALLOWED, rule.ref, matchers, rule.upgrades, connect=connect)
            counted = f"{direction.name.lower()} {rule.ref}"
            yield {**route, "typed_per_filter_config": _denial(spec.forbidden, words, counted)}

    routes += denying(connect=False)
    allowing = list(letting(connect=False))
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
    named = any(map(names_connect, allow))
    if named:  # else the kernel engine reads no further than the method
        routes += denying(connect=True)
        connecting = list(letting(connect=True))
        allowing += connecting
        routes += connecting
    routes.append(
        _refuse(Reason.CONNECT_DENIED, spec, [], passes=spec.audit if named else lenient, connect=True)
    )
    host: Json = {
        "name": name,
        "domains": ["*"],
        "routes": routes,
        "retry_policy": _AGAIN,
        "typed_per_filter_config": _denial(spec.forbidden, [_DENIED, *words]),
    }
    for route in routes:
        if route["name"].startswith("audit|"):
            route["typed_per_filter_config"] = _denial(spec.forbidden, words)
    if changing:
        # Under audit a header that occurs twice passes, but then no rule allows the request.
        for route in allowing:
            route["metadata"] = {"filter_metadata": {CHANGES: {"unless": once if lenient else []}}}
        filters, program = change_filters(list(_occasions(changing, tolerated)))
        host["typed_per_filter_config"] |= filters
        host["metadata"] = {"filter_metadata": {CHANGES: program}}
    return {"name": name, "virtual_hosts": [host], "request_headers_to_remove": list(SENT.values())}


def _whole(rule: HttpRule, tolerated: set[Reason]) -> list[Json]:
    """All that must hold for an allow rule to allow, ambiguities that others tolerate included."""
    clear = [
        {**_target(AMBIGUOUS[reason]), "invert_match": True}
        for reason in sorted(tolerated - set(rule.tolerate))
        if reason in AMBIGUOUS
    ]
    return _conditions(rule) + clear


def _occasions(rules: Iterable[HttpRule], tolerated: set[Reason]) -> Iterator[tuple[HttpRule, Conditions]]:
    """Each rule with what must hold for it to change a request."""
    for rule in rules:
        if names_connect(rule):
            yield rule, _whole(rule, tolerated)
            yield rule, _conditions(rule, connect=True)
        else:
            yield rule, [*_whole(rule, tolerated), {**_exact(":method", "CONNECT"), "invert_match": True}]


def verdict_of(route: str) -> tuple[str, Reason, str]:
    """(allow, audit or deny; reason; rule) of a route's name."""
    verdict, reason, rule = route.split("|", 2)
    return verdict, Reason[reason], rule


def _refuse(
    reason: Reason, spec: RulesetSpec, matchers: list[Json], *, passes: bool, connect: bool = False
) -> Json:
    """What no rule allows: denied, or passed and noted."""
    if passes:
        return _pass("audit", reason, spec.default_rule, matchers, (), connect=connect)
    return _deny(reason, spec.default_rule, matchers, connect=connect)


def _words(once: Sequence[str] | None) -> list[str]:
    """Headers that a request must not have twice, or under another spelling; None: whatever it has."""
    if once is None:
        return []
    aliases = {alias for name in (*_FRAMING, *once) for alias in _aliases(name)} - {*once}
    return [*once, *(f"!{alias}" for alias in sorted(aliases))]


def _denial(forbidden: bool, words: Sequence[str], counted: str = "") -> Json:
    """How a request is denied, what denies it, and what it counts as if it passes; see deny.c."""
    text = " ".join(["answer" if forbidden else "reset", *words])
    if counted:
        # The space is for a module from before the second line: to it these are names that no header has.
        text += f" \n{counted}"
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


def _match(matchers: list[Json], *, connect: bool) -> Json:
    """What is a CONNECT, or what is none."""
    return {**({"connect_matcher": {}} if connect else {"prefix": "/"}), "headers": matchers}


def _deny(reason: Reason, rule: str, matchers: list[Json], *, connect: bool = False) -> Json:
    return {
        "name": f"deny|{reason.name}|{rule}",
        "match": _match(matchers, connect=connect),
        "direct_response": {"status": 403, "body": {"inline_string": "Access denied\r\n"}},
    }


def _pass(
    verdict: str,
    reason: Reason,
    rule: str,
    matchers: list[Json],
    upgrades: Iterable[str],
    *,
    connect: bool = False,
) -> Json:
    action: Json = {"cluster": CLUSTER, "timeout": "0s"}
    # Without a `connect_config` Envoy passes a CONNECT on to the server, and is no end of the tunnel itself.
    configs = [
        {"upgrade_type": name, "enabled": True} for name in (*upgrades, *(["CONNECT"] if connect else []))
    ]
    if configs:
        action["upgrade_configs"] = configs
    return {
        "name": f"{verdict}|{reason.name}|{rule}",
        "match": _match(matchers, connect=connect),
        "route": action,
    }


def _conditions(rule: HttpRule, *, connect: bool = False) -> list[Json]:
    found = []
    if rule.method is not None:
        found.append(_regex(":method", rule.method))
    if rule.path is not None:
        found.append(_path(rule.path, rule.path_kind, ":authority" if connect else ":path"))
    allows = rule.action is RuleAction.ALLOW
    if rule.host is not None:
        found += _host(rule.host, allows=allows)
    for item in rule.headers:
        found += _host_header(item, allows=allows) if item.name == "host" else [_header(item)]
    return found


def is_about_host(rule: HttpRule) -> bool:
    """Whether the Host of a request matters to it."""
    return rule.host is not None or any(item.name == "host" for item in rule.headers)


def _host(pattern: str, *, allows: bool) -> list[Json]:
    """The rules see a host in lower case, Envoy as it was sent: so letters match in either case, but
    a capital that the pattern asks for is never there.
    """
    if _CAPITAL.search(pattern.replace("A-Za-z", "a-z").replace("a-zA-Z", "a-z")):
        return [{"name": ":authority", "present_match": True, "invert_match": True}]
    return _sent_host(f"(?i:{pattern})", allows=allows, is_any=regex.matches(pattern, NO_HOST.encode()))


def _sent_host(pattern: str, *, allows: bool, is_any: bool) -> list[Json]:
    """A Host that was sent, and is like `pattern`; to a rule that denies, one that was not sent is, too.

    `is_any`: whether the pattern matches what stands for none.
    """
    if not allows:
        return [_regex(":authority", f"(?:{pattern})|{quoted(NO_HOST)}")]
    none = [{**_exact(":authority", NO_HOST), "invert_match": True}] if is_any else []
    return [_regex(":authority", f"(?:{pattern})"), *none]


def _host_header(item: HeaderRule, *, allows: bool) -> list[Json]:
    """A condition on the header Host, which Envoy always has."""
    text = quoted(item.value)
    match item.op:
        case HeaderOp.ABSENT:
            return [_exact(":authority", NO_HOST)]
        case HeaderOp.REGEX:
            is_any = regex.matches(item.value, NO_HOST.encode())
            return _sent_host(item.value, allows=allows, is_any=is_any)
        case HeaderOp.PRESENT:
            text = "(?s:.*)"
        case HeaderOp.PREFIX:
            text += "(?s:.*)"
        case HeaderOp.SUFFIX:
            text = f"(?s:.*){text}"
        case HeaderOp.EXACT:
            pass
    return _sent_host(text, allows=allows, is_any=True)


def _path(path: str, kind: PathKind, name: str) -> Json:
    """`name`: where the target of the request is."""
    if kind is PathKind.REGEX:
        return _regex(name, path)
    if kind is PathKind.EXACT:
        return _regex(name, quoted(path) + r"(?:\?.*)?")
    return _regex(name, quoted(path.rstrip("/")) + r"(?:/[^?]*)?(?:\?.*)?")


def _header(item: HeaderRule) -> Json:
    item = replace(item, name=SENT.get(item.name, item.name))
    if item.op is HeaderOp.ABSENT:
        return {"name": item.name, "present_match": True, "invert_match": True}
    if item.op is HeaderOp.PRESENT or (item.op in (HeaderOp.PREFIX, HeaderOp.SUFFIX) and not item.value):
        return {"name": item.name, "present_match": True}
    if item.op is HeaderOp.REGEX:
        return _regex(item.name, item.value)
    return {"name": item.name, "string_match": {item.op.value: item.value}}


def _target(pattern: str) -> Json:
    return _regex(":path", pattern)


def _exact(name: str, value: str) -> Json:
    return {"name": name, "string_match": {"exact": value}}


def _regex(name: str, pattern: str) -> Json:
    return {"name": name, "string_match": {"safe_regex": {"regex": pattern or "(?:)"}}}
