"""PURE: what rules change in requests, as configuration of Envoy's filters.

Of the routes only the first that matches decides, but every rule that allows a request changes it.
So each condition of the rules that change something is also a rule of `header_to_metadata`: it
leaves a mark that no header can hold where the condition holds.  The Lua filter (`script`) reads
the marks, and makes all changes at once.  Values of secrets come by SDS into the filter state, for
the Lua filter alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

from yett_loader.sidecar.script import SCRIPT
from yett_policy.http.change import HeaderChange
from yett_policy.http.rule import HttpRule

Json = dict[str, Any]
Conditions = list[Json]
"""Header matchers of a route, all of which must hold."""

CHANGES = "yett.changes"
"""The Lua filter, and what routes and virtual hosts tell it."""
MARKS = "envoy.filters.http.header_to_metadata"
SECRETS = "envoy.filters.http.set_filter_state"
NAMESPACE = "yett"
"""Of the marks, and of what the Lua filter says to the access log."""
MISMATCHED = "mismatched"
"""There: names of headers that are not as a rule with LOG wants them."""
_MARK = "\x01"
_TYPE = "type.googleapis.com/envoy.extensions"


def secret_name(secret: str) -> str:
    """Of an SDS resource and in the filter state: says nothing of what is in it."""
    return f"secret-{hashlib.sha256(secret.encode()).hexdigest()[:32]}"


def asking(secrets: Collection[str]) -> dict[str, Json]:
    """A listener that listens nowhere and names `secrets`, by its name; none for none.

    Envoy asks for the secrets that a listener names, but not for those that only a route table
    names.  This one can change whenever it must: it has no connection to lose.
    """
    if not secrets:
        return {}
    http = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "secrets",
        "route_config": {"name": "secrets"},
        "http_filters": [
            {
                "name": SECRETS,
                "typed_config": {
                    "@type": f"{_TYPE}.filters.http.set_filter_state.v3.Config",
                    "on_request_headers": [_state(secret_name(secret)) for secret in sorted(secrets)],
                },
            },
            {"name": "router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "secrets",
        "bind_to_port": False,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": http}]}],
    }
    return {"secrets": listener}


def filters() -> list[Json]:
    """In front of the router; each is off but where `change_filters` has something for it."""
    kinds: list[tuple[str, Json]] = [
        (SECRETS, {"@type": f"{_TYPE}.filters.http.set_filter_state.v3.Config"}),
        (MARKS, {"@type": f"{_TYPE}.filters.http.header_to_metadata.v3.Config"}),
        (
            CHANGES,
            {
                # Without the script, which comes with the rules that need it: each would have an
                # interpreter a listener and worker, a third of a mebibyte.
                "@type": f"{_TYPE}.filters.http.lua.v3.Lua",
                # The request is judged as the client sent it, never again as it was changed.
                "clear_route_cache": False,
            },
        ),
    ]
    return [{"name": name, "disabled": True, "typed_config": config} for name, config in kinds]


def change_filters(rules: Sequence[tuple[HttpRule, Conditions]]) -> tuple[Json, Json]:
    """Filter configuration and Lua metadata of a virtual host for rules that change something."""
    marks: dict[str, Json] = {}
    """By pattern: the probe; its place is its name."""
    names: dict[str, str] = {}
    program = []
    for rule, conditions in rules:
        when = []
        for matcher in conditions:
            text = repr((matcher["name"], _pattern(matcher)))
            key = names.setdefault(text, f"c{len(names)}")
            marks[text] = _probe(matcher, key)
            when.append(f"!{key}" if matcher.get("invert_match") else key)
        program.append({"when": when, "changes": [_change(item) for item in rule.changes]})
    secrets = sorted({item.secret for rule, _ in rules for item in rule.changes} - {""})
    config: Json = {
        CHANGES: {
            "@type": f"{_TYPE}.filters.http.lua.v3.LuaPerRoute",
            "source_code": {"inline_string": SCRIPT},
        }
    }
    if marks:
        config[MARKS] = {
            "@type": f"{_TYPE}.filters.http.header_to_metadata.v3.Config",
            "request_rules": list(marks.values()),
        }
    if secrets:
        config[SECRETS] = {
            "@type": f"{_TYPE}.filters.http.set_filter_state.v3.Config",
            "on_request_headers": [_state(secret_name(secret)) for secret in secrets],
        }
    return config, {"rules": program}


def _change(item: HeaderChange) -> Json:
    made = {"name": item.name, "op": item.op.value}
    if item.secret:
        made["secret"] = secret_name(item.secret)
    elif item.value is not None:
        made["value"] = item.value
    return made


def _probe(matcher: Json, key: str) -> Json:
    return {
        "header": matcher["name"],
        "on_header_present": {
            "metadata_namespace": NAMESPACE,
            "key": key,
            "regex_value_rewrite": {
                "pattern": {"regex": rf"\A(?:{_pattern(matcher)})\z"},
                "substitution": _MARK,
            },
        },
    }


def _pattern(matcher: Json) -> str:
    match matcher:
        case {"present_match": True}:
            return r"\C*"  # any bytes: a dot is no byte that is not UTF-8
        case {"string_match": {"safe_regex": {"regex": regex}}}:
            return str(regex)
        case {"string_match": {"exact": text}}:
            return quoted(text)
        case {"string_match": {"prefix": text}}:
            return rf"{quoted(text)}\C*"
        case {"string_match": {"suffix": text}}:
            return rf"\C*{quoted(text)}"
    raise ValueError(f"a condition that cannot be probed: {sorted(matcher)}")


def quoted(text: str) -> str:
    """As a pattern that matches just this text (RE2's QuoteMeta)."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def _state(name: str) -> Json:
    return {
        "object_key": name,
        "factory_key": "envoy.string",
        "skip_if_empty": True,
        "format_string": {
            "text_format_source": {"inline_string": f"%SECRET({name})%"},
            # Else what has not come yet is a hyphen.
            "omit_empty_values": True,
            "formatters": [
                {
                    "name": "envoy.formatter.generic_secret",
                    "typed_config": {
                        "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                        "type_url": f"{_TYPE}.formatter.generic_secret.v3.GenericSecret",
                        "value": {
                            "secret_configs": {
                                name: {
                                    "name": name,
                                    "sds_config": {"ads": {}, "resource_api_version": "V3"},
                                }
                            }
                        },
                    },
                }
            ],
        },
    }
