"""PURE: how Envoy listens for one ruleset, and the configuration that it starts with."""

from __future__ import annotations

from typing import Any

from yett_loader.sidecar import changes
from yett_loader.sidecar.routes import ALLOW, CLUSTER, DENY, MODULE, NO_HOST, SENT
from yett_policy.document import Direction

Json = dict[str, Any]

INGRESS, EGRESS, ANSWER, REPLY = 0x79650001, 0x79650002, 0x79650003, 0x79650004
"""enum sidecar_mark"""
CONTROL = "loader"
"""Cluster of the loader: configuration, and where access records go."""
RUNTIME = "loader"
"""Layer of settings that change while Envoy runs."""
RECORD_ALL = "yett.record_all"
"""Setting: records of what is allowed, too; 0 or 100 (percent)."""
HEAP_MAX = 768 << 20
"""Bytes; below the limit of the container (manifests/base/sidecar)."""
KEEPALIVE = (300, 60, 5)
"""Seconds without a word, and between probes; probes without an answer: whose node is gone is given up after ten
minutes.
"""
JUDGE = "yett.judge"
"""State of a connection: the name of its listener."""
REGEX_MAX = 100_000
"""Instructions of one regex in RE2; Envoy's own limit is 100.  More take its main thread for too long."""
_TYPE = "type.googleapis.com/envoy.extensions"
_SOL_SOCKET, _SO_KEEPALIVE, _SO_MARK = 1, 9, 36
_IPPROTO_TCP, _TCP_LINGER2, _TCP_DEFER_ACCEPT = 6, 8, 9
_TCP_KEEPIDLE, _TCP_KEEPINTVL, _TCP_KEEPCNT = 4, 5, 6
_ORIGINAL_DESTINATION = "envoy.network.transport_socket.original_dst_address"


def listener_name(port: int) -> str:
    """Of a listener and of its route table."""
    return f"ruleset-{port}"


def listener(port: int, direction: Direction, spread: bool = True) -> Json:
    """Listener for the ruleset at `port`; nothing in it depends on the rules.

    `spread`: each worker has a socket of its own, for which bpf_sk_assign needs Linux 6.6.
    """
    ingress = direction is Direction.INGRESS
    name = listener_name(port)
    return {
        "name": name,
        "address": _address("0.0.0.0", port),  # noqa: S104 - what does not come by the gate is closed
        "additional_addresses": [{"address": _address("::", port)}],
        "transparent": True,
        "enable_reuse_port": spread,
        **({} if spread else {"connection_balance_config": {"exact_balance": {}}}),
        "per_connection_buffer_limit_bytes": 65536,
        "traffic_direction": "INBOUND" if ingress else "OUTBOUND",
        "socket_options": [
            _socket_option(_SOL_SOCKET, _SO_MARK, REPLY if ingress else ANSWER),
            # A connection that Envoy ends first is over once the client has all of it.  A SYN of a client
            # that uses the port again would find its TIME-WAIT, which knows no listener of ours: a second
            # lost, each time.
            _socket_option(_IPPROTO_TCP, _TCP_LINGER2, -1),
            # Envoy hears of a connection with its first bytes: one turn of its loop, not two.  Every client
            # of HTTP speaks first; one that does not is handed over after a second, as it is.
            _socket_option(_IPPROTO_TCP, _TCP_DEFER_ACCEPT, 1),
            # Keep-alive probes of either side get no further than Envoy, so it has its own.
            _socket_option(_SOL_SOCKET, _SO_KEEPALIVE, 1),
            *(
                _socket_option(_IPPROTO_TCP, option, value)
                for option, value in zip(
                    (_TCP_KEEPIDLE, _TCP_KEEPINTVL, _TCP_KEEPCNT), KEEPALIVE, strict=True
                )
            ),
        ],
        "listener_filters": [
            _filter(
                "envoy.filters.listener.original_src",
                "filters.listener.original_src.v3.OriginalSrc",
                mark=INGRESS if ingress else EGRESS,
            )
        ],
        "filter_chains": [{"filters": [_not_direct(port), _connection(name), _http(name)]}],
    }


def bootstrap(socket: str, node: str, admin: str) -> Json:
    """Envoy's own file: everything else comes over `socket`.  `admin` is a Unix socket for root only."""
    http2: Json = {"explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "node": {"id": node, "cluster": "yett"},
        "admin": {"address": {"pipe": {"path": admin, "mode": 0o600}}},
        "static_resources": {
            "clusters": [
                {
                    "name": CONTROL,
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": CONTROL,
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": socket}}}}]}
                        ],
                    },
                    "typed_extension_protocol_options": _upstream(http2),
                },
                {
                    "name": CLUSTER,
                    "type": "ORIGINAL_DST",
                    "lb_policy": "CLUSTER_PROVIDED",
                    "connect_timeout": "5s",
                    "per_connection_buffer_limit_bytes": 65536,
                    "circuit_breakers": {
                        "thresholds": [
                            {
                                "max_connections": 65536,
                                "max_pending_requests": 65536,
                                "max_requests": 65536,
                                "max_retries": 65536,
                            }
                        ]
                    },
                    "typed_extension_protocol_options": _upstream(
                        {
                            "use_downstream_protocol_config": {
                                "http_protocol_options": {**_HTTP1, "allow_custom_methods": True},
                                # More than a server takes would go out before it has said how many: nginx
                                # takes 128.
                                "http2_protocol_options": {**_HTTP2, "max_concurrent_streams": 100},
                            },
                            # What a server answers is not judged, and clients take more than Envoy would.
                            "common_http_protocol_options": {
                                # Less than after what servers end idle connections, 5 s and more; and a
                                # server that serves one at a time waits no longer for the next.
                                "idle_timeout": "4s",
                                "max_headers_count": 1000,
                                "max_response_headers_kb": 1024,
                            },
                        }
                    ),
                    "upstream_connection_options": {
                        "tcp_keepalive": {
                            "keepalive_time": KEEPALIVE[0],
                            "keepalive_interval": KEEPALIVE[1],
                            "keepalive_probes": KEEPALIVE[2],
                        }
                    },
                },
            ]
        },
        "overload_manager": _OVERLOAD,
        # Each listener would keep some fifty counters a worker, which nobody reads.
        "stats_config": {"stats_matcher": {"reject_all": True}},
        "layered_runtime": {
            "layers": [
                {"name": "static", "static_layer": _STATIC},
                {
                    "name": RUNTIME,
                    "rtds_layer": {"name": RUNTIME, "rtds_config": {**_ADS, "initial_fetch_timeout": "0.5s"}},
                },
            ]
        },
        "dynamic_resources": {
            "lds_config": _ADS,
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": CONTROL}}],
            },
        },
    }


_STATIC: Json = {
    "re2.max_program_size.error_level": REGEX_MAX,
    # Streams that are opened only to be reset (CVE-2023-44487): a connection of those is closed, and
    # none has a worker for itself.
    "overload.premature_reset_total_stream_count": 200,
    "http.max_requests_per_io_cycle": 20,
}
_OVERLOAD: Json = {
    "refresh_interval": "0.25s",
    "resource_monitors": [
        {
            "name": "envoy.resource_monitors.fixed_heap",
            "typed_config": {
                "@type": f"{_TYPE}.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                "max_heap_size_bytes": HEAP_MAX,
            },
        }
    ],
    "actions": [
        {
            "name": f"envoy.overload_actions.{name}",
            "triggers": [{"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": value}}],
        }
        for name, value in (("shrink_heap", 0.9), ("stop_accepting_requests", 0.95))
    ],
}
"""Before the kernel ends it for its memory, it answers 503."""
_ADS: Json = {"ads": {}, "resource_api_version": "V3"}
_HTTP1: Json = {
    "header_key_format": {
        "stateful_formatter": {
            "name": "preserve_case",
            "typed_config": {
                "@type": f"{_TYPE}.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
            },
        }
    }
}
_HTTP2: Json = {
    "max_concurrent_streams": 1024,
    "max_consecutive_inbound_frames_with_empty_payload": 1,
    "initial_stream_window_size": 65536,
    "initial_connection_window_size": 1048576,
}
_RECORDED: Json = {
    "or_filter": {
        "filters": [
            {
                "runtime_filter": {
                    "runtime_key": RECORD_ALL,
                    "percent_sampled": {"numerator": 0},
                    "use_independent_randomness": True,
                }
            },
            {
                "extension_filter": {
                    "name": "judgement",
                    "typed_config": {
                        "@type": f"{_TYPE}.access_loggers.filters.cel.v3.ExpressionFilter",
                        "expression": f"!xds.route_name.startsWith('{ALLOW}')"
                        " || response.code_details != 'via_upstream'",
                    },
                }
            },
            {
                "metadata_filter": {
                    "matcher": {
                        "filter": changes.NAMESPACE,
                        "path": [{"key": changes.MISMATCHED}],
                        "value": {"present_match": True},
                    },
                    "match_if_key_not_found": False,
                }
            },
        ]
    }
}
"""A record costs the loader ten times what its request costs Envoy, so only those are sent that are asked for,
or that are not of the ordinary kind: let through by a rule as the rule wants it, and answered by the server.
"""


def _http(name: str) -> Json:
    return _filter(
        "http",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="sidecar",
        codec_type="AUTO",
        rds={"config_source": _ADS, "route_config_name": name},
        http_protocol_options={
            **_HTTP1,
            "accept_http_10": True,
            "default_host_for_http_10": NO_HOST,
            "allow_custom_methods": True,
        },
        http2_protocol_options=_HTTP2,
        common_http_protocol_options={
            "headers_with_underscores_action": "ALLOW",  # aliases of headers that matter: see deny.c
            "max_headers_count": 1000,
        },
        max_request_headers_kb=60,
        request_headers_timeout="10s",
        stream_idle_timeout="0s",
        # None: a connection ends when all is written.  Envoy would end one whose client, or whose own turn
        # of the loop, takes longer than this, with what is not yet written of the answer.
        delayed_close_timeout="0s",
        # The rules see what the server will see; what is ambiguous is denied before them.
        normalize_path=False,
        merge_slashes=False,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        early_header_mutation_extensions=[
            _filter(
                "untrusted",
                "http.early_header_mutation.header_mutation.v3.HeaderMutation",
                # With an X-Forwarded-For of its own a pod could give Envoy orders.  Rules are about what was sent.
                mutations=[
                    {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}},
                    *(
                        {"append": {"header": {"key": copy, "value": f"%REQ({name})%"}}}
                        for name, copy in SENT.items()
                    ),
                ],
            )
        ],
        forward_client_cert_details="ALWAYS_FORWARD_ONLY",
        proxy_100_continue=True,
        generate_request_id=False,
        preserve_external_request_id=True,
        skip_xff_append=True,
        use_remote_address=False,
        server_header_transformation="PASS_THROUGH",
        add_user_agent=False,
        access_log=[
            {
                "filter": _RECORDED,
                **_filter(
                    "records",
                    "access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
                    common_config={
                        # The same for all: each other one would be a stream and a clock a worker.
                        "log_name": "sidecar",
                        "filter_state_objects_to_log": [JUDGE],
                        "transport_api_version": "V3",
                        "buffer_flush_interval": "0.05s",
                        "grpc_service": {"envoy_grpc": {"cluster_name": CONTROL}},
                    },
                    additional_response_trailers_to_log=["grpc-status"],
                    additional_response_headers_to_log=["grpc-status"],
                ),
            }
        ],
        http_filters=[
            _filter(
                DENY,
                "filters.http.dynamic_modules.v3.DynamicModuleFilter",
                dynamic_module_config=MODULE,
                filter_name=DENY,
            ),
            *changes.filters(),
            _filter(
                "envoy.filters.http.router", "filters.http.router.v3.Router", suppress_envoy_headers=True
            ),
        ],
    )


def _not_direct(port: int) -> Json:
    """Whoever connects to the listener itself is not sent by the gate."""
    return _filter(
        "direct",
        "filters.network.rbac.v3.RBAC",
        stat_prefix="direct",
        rules={
            "action": "DENY",
            "policies": {
                "direct": {"permissions": [{"destination_port": port}], "principals": [{"any": True}]}
            },
        },
    )


def _connection(name: str) -> Json:
    """What a connection carries.

    Where the client wanted to go: the socket's own address.  Envoy's original_dst filter would ask
    connection tracking, which knows a service's address, not the server that was judged for.
    And which listener judges, for its access records.
    """
    return _filter(
        "connection",
        "filters.network.set_filter_state.v3.Config",
        on_new_connection=[
            {
                "object_key": _ORIGINAL_DESTINATION,
                "format_string": {"text_format_source": {"inline_string": "%DOWNSTREAM_LOCAL_ADDRESS%"}},
            },
            {
                "object_key": JUDGE,
                "factory_key": "envoy.string",
                "format_string": {"text_format_source": {"inline_string": name}},
            },
        ],
    )


def _filter(name: str, kind: str, **config: Any) -> Json:
    return {"name": name, "typed_config": {"@type": f"{_TYPE}.{kind}", **config}}


def _socket_option(level: int, name: int, value: int) -> Json:
    """Of the listening socket; what it accepts inherits it."""
    return {"level": level, "name": name, "int_value": value, "state": "STATE_PREBIND"}


def _address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def _upstream(config: Json) -> Json:
    key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {key: {"@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions", **config}}
