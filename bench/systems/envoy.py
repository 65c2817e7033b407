"""Envoy behind TPROXY: an RBAC filter with the rules, then the original destination.

It connects upstream from its own address: to keep the client's would cost it its shared
connections (one pool per client), so this is the kinder comparison.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.rules import Rule
from bench.systems.proxy import Proxy
from bench.systems.tproxy import PROXY_PORT
from yett_policy.http.rule import PathKind

_TYPES = "type.googleapis.com/envoy.extensions.filters"
_CONNECTIONS = 4096


class Envoy(Proxy):
    """What meshes and Cilium use for HTTP rules."""

    name = "envoy"
    label = "Envoy 1.40, TPROXY"
    replies = False

    def argv(self, rules: tuple[Rule, ...], directory: Path) -> Sequence[str]:
        """As many workers as the machine has processors, as Envoy itself would choose."""
        path = directory / "envoy.json"
        path.write_text(json.dumps(_bootstrap(rules)))
        binary = Path(sys.prefix, "bin", "envoy")
        os.environ.setdefault("ENVOY_UID", "0")
        return [
            str(binary),
            "--concurrency", "2",
            "--use-dynamic-base-id",
            "--disable-hot-restart",
            "--log-level", "error",
            "-c", str(path),
        ]  # fmt: skip


def _bootstrap(rules: tuple[Rule, ...]) -> dict[str, Any]:
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "gate",
                    "address": {"socket_address": {"address": "0.0.0.0", "port_value": PROXY_PORT}},  # noqa: S104
                    "transparent": True,
                    "tcp_backlog_size": 4096,
                    "listener_filters": [
                        {
                            "name": "original_dst",
                            "typed_config": {"@type": f"{_TYPES}.listener.original_dst.v3.OriginalDst"},
                        }
                    ],
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": _manager(rules)}]}],
                }
            ],
            "clusters": [
                {
                    "name": "server",
                    "type": "ORIGINAL_DST",
                    "lb_policy": "CLUSTER_PROVIDED",
                    "connect_timeout": "5s",
                    "circuit_breakers": {
                        "thresholds": [
                            {
                                "max_connections": _CONNECTIONS,
                                "max_pending_requests": _CONNECTIONS,
                                "max_requests": _CONNECTIONS,
                            }
                        ]
                    },
                }
            ],
        }
    }


def _manager(rules: tuple[Rule, ...]) -> dict[str, Any]:
    rbac = {
        "@type": f"{_TYPES}.http.rbac.v3.RBAC",
        "rules": {
            "action": "ALLOW",
            "policies": {
                "gate": {
                    "permissions": [_permission(rule) for rule in rules],
                    "principals": [{"any": True}],
                }
            },
        },
    }
    return {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gate",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "any",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "rbac", "typed_config": rbac},
            {"name": "router", "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"}},
        ],
    }


def _permission(rule: Rule) -> dict[str, Any]:
    path: dict[str, Any]
    match rule.kind:
        case PathKind.EXACT:
            path = {"exact": rule.path}
        case PathKind.PREFIX:
            path = {"prefix": f"{rule.path}/"}
        case PathKind.REGEX:
            path = {"safe_regex": {"regex": rule.path}}
    method = {"name": ":method", "string_match": {"exact": rule.method}}
    return {"and_rules": {"rules": [{"header": method}, {"url_path": {"path": path}}]}}
