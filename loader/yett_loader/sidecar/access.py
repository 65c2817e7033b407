"""Envoy's access records as flow records: the same fields as those of the kernel, and the answer.

response      null, or {status, grpc_status}; grpc_status is empty where there is none
mismatched    headers that were not as a rule with mismatch LOG wants them
"""

from __future__ import annotations

from datetime import UTC
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from yett_loader.lookup import identity_of
from yett_loader.recorder import Recorder
from yett_loader.sidecar.changes import MISMATCHED, NAMESPACE
from yett_loader.sidecar.routes import verdict_of
from yett_loader.state import Prefix, mapped
from yett_policy.document import Direction
from yett_policy.reason import Reason

if TYPE_CHECKING:
    from yett_loader.agent import Agent

_VERSIONS = {1: "HTTP/1.0", 2: "HTTP/1.1", 3: "HTTP/2", 4: "HTTP/3"}
_LUA = "lua_response"
"""Of the filter that changes headers: it could not."""
_TWICE = "twice"
"""As deny.c says it."""


def take_access(agent: Agent, recorder: Recorder, name: str, entry: Any) -> None:
    """Record a request that the listener `name` has judged, as far as records are wanted."""
    verdict, reason, rule = judgement(entry)
    if verdict == "allow" and not agent.records_allowed and not mismatched(entry):
        return
    recorder.add(_record(agent, name, entry, verdict, reason, rule))


def judgement(entry: Any) -> tuple[str, Reason, str]:
    """Verdict, reason and rule of an access record."""
    common, details = entry.common_properties, entry.response.response_code_details
    verdict, reason, rule = "deny", Reason.HTTP_TARGET, ""
    if common.route_name:
        verdict, reason, rule = verdict_of(common.route_name)
    if details == _LUA:
        return "deny", Reason.SIDECAR_DOWN, rule
    if details == _TWICE:
        return "deny", Reason.HTTP_AMBIGUOUS_HEADER, rule
    if details == "upgrade_failed":
        return "deny", Reason.UPGRADE_DENIED, rule
    if "underscore" in details:
        return "deny", Reason.HTTP_HEADER_UNDERSCORE, ""
    return verdict, reason, rule


def mismatched(entry: Any) -> tuple[str, ...]:
    """Headers that were not as a rule with mismatch LOG wants them."""
    return tuple(name for name in _said(entry).get(MISMATCHED, "").split(",") if name)


def _said(entry: Any) -> dict[str, str]:
    """What the filter that changes headers has left."""
    fields = entry.common_properties.metadata.filter_metadata
    found = fields[NAMESPACE].fields if NAMESPACE in fields else {}
    return {key: value.string_value for key, value in found.items() if value.string_value}


def _record(
    agent: Agent, name: str, entry: Any, verdict: str, reason: Reason, rule: str
) -> dict[str, object]:
    common, request, response = entry.common_properties, entry.request, entry.response
    port = int(name.rpartition("-")[2])
    places = agent.sidecar.places.ports if agent.sidecar else {}
    digest, direction = next(
        (place for place, number in places.items() if number == port), ("", Direction.INGRESS)
    )
    source = common.downstream_remote_address.socket_address
    destination = common.downstream_local_address.socket_address
    own = destination if direction is Direction.INGRESS else source
    endpoint = next(
        (item for item in (agent.wanted.endpoints if agent.wanted else ()) if own.address in item.addresses),
        None,
    )
    grpc_status = response.response_trailers.get("grpc-status") or response.response_headers.get(
        "grpc-status", ""
    )
    start = common.start_time.ToDatetime(tzinfo=UTC)
    return {
        "time": f"{start:%Y-%m-%dT%H:%M:%S.%f}Z",
        "type": "request",
        "verdict": verdict,
        "reason": reason.name,
        "direction": direction.name.lower(),
        "endpoint": endpoint.name if endpoint else "",
        "ifindex": (endpoint.ifindex or 0) if endpoint else 0,
        "source": _party(agent, source),
        "destination": _party(agent, destination),
        "protocol": "TCP",
        "tcp_flags": "",
        "reply": False,
        "flow": 0,
        "rule": rule,
        "ruleset": digest,
        "request": {
            "method": _method(request),
            "target": request.original_path or request.path,
            "version": _VERSIONS.get(entry.protocol_version, ""),
            "host": request.authority,
            "truncated": False,
        },
        "mismatched": list(mismatched(entry)),
        "response": {"status": response.response_code.value, "grpc_status": grpc_status},
        "suppressed": 0,
    }


def _method(request: Any) -> str:
    number = request.request_method
    return (
        ""
        if not number
        else type(request).DESCRIPTOR.fields_by_name["request_method"].enum_type.values_by_number[number].name
    )


def _party(agent: Agent, address: Any) -> dict[str, object]:
    packed = mapped(ip_address(address.address).packed)
    ipcache = agent.have().ipcache
    identity = ipcache.get(Prefix(packed, 128))
    if identity is None:
        identity = identity_of(ipcache, packed)
    return agent.names.party(address.address, address.port_value, identity)
