"""Envoy's access records as flow records: the same fields as those of the kernel, and the answer.

response      null, or {status, grpc_status}; grpc_status is empty where there is none
mismatched    headers that were not as a rule with mismatch LOG wants them
"""

from __future__ import annotations

import time
from datetime import UTC
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from yett_loader.lookup import identity_of
from yett_loader.recorder import Recorder
from yett_loader.sidecar.changes import MISMATCHED, NAMESPACE
from yett_loader.sidecar.counts import Counts
from yett_loader.sidecar.routes import NO_HOST, verdict_of
from yett_loader.state import Prefix, mapped
from yett_policy.document import Direction
from yett_policy.reason import Reason

if TYPE_CHECKING:
    from yett_loader.agent import Agent

_VERSIONS = {1: "HTTP/1.0", 2: "HTTP/1.1", 3: "HTTP/2", 4: "HTTP/3"}
_LUA = "lua_response"
"""Of the filter that changes headers: it could not."""
_TWICE, _ALIAS, _NO_HOST = "twice", "alias", "no_host"
"""As deny.c says it."""


RECORDS_PER_SECOND = 1000
"""More are only counted, as in the kernel: what a client is denied must not keep the loader busy."""

_MALFORMED = {
    "too_large": Reason.HTTP_HEAD_TOO_LONG,
    "too_many_headers": Reason.HTTP_HEAD_TOO_LONG,
    "timeout": Reason.HTTP_HEAD_TIMEOUT,
    "missing_host": Reason.HTTP_NO_HOST,
    "invalid_authority": Reason.HTTP_HOST,
    "invalid_characters": Reason.HTTP_CONTROL_BYTE,
    "content_length_and_chunked": Reason.HTTP_LENGTH_AND_ENCODING,
    "transfer_encoding": Reason.HTTP_TRANSFER_ENCODING,
    "content_length": Reason.HTTP_CONTENT_LENGTH,
    "low_version": Reason.HTTP_VERSION,
    "codec_error": Reason.HTTP_HEADER_NAME,
}
"""What Envoy says of a request that got no route, in part -> our word for it; the first that fits."""


class Access:
    """Takes Envoy's records: counts what is denied, and records as far as that is wanted."""

    def __init__(self, agent: Agent, recorder: Recorder, counts: Counts) -> None:
        self._agent = agent
        self._recorder = recorder
        self._counts = counts
        self._second = 0
        self._left = 0
        self._suppressed = 0

    def take(self, name: str, entry: Any) -> None:
        """A request that the listener `name` has judged."""
        verdict, reason, rule = judgement(entry)
        digest, direction = self._place(name)
        rule = rule or self._default_rule(digest)
        if verdict != "allow":
            self._counts.add(direction, reason, rule)
        elif not self._agent.records_allowed and not mismatched(entry):
            return
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._left = second, RECORDS_PER_SECOND
        if not self._left:
            self._suppressed += 1
            self._recorder.suppressed += 1
            return
        self._left -= 1
        record = _record(self._agent, direction, entry, verdict, reason)
        self._recorder.add({**record, "rule": rule, "ruleset": digest, "suppressed": self._suppressed})
        self._suppressed = 0

    def _place(self, name: str) -> tuple[str, Direction]:
        sidecar, port = self._agent.sidecar, int(name.rpartition("-")[2])
        places = sidecar.places.ports if sidecar else {}
        return next((place for place, number in places.items() if number == port), ("", Direction.INGRESS))

    def _default_rule(self, digest: str) -> str:
        """What no rule of the ruleset has decided is put down to."""
        wanted = self._agent.wanted
        rulesets = wanted.snapshot.rulesets if wanted else ()
        return next((item.spec.default_rule for item in rulesets if item.digest == digest), "")


def judgement(entry: Any) -> tuple[str, Reason, str]:
    """Verdict, reason and rule of an access record."""
    common, details = entry.common_properties, entry.response.response_code_details
    verdict, reason, rule = "deny", Reason.HTTP_TARGET_FORM, ""
    if common.route_name:
        verdict, reason, rule = verdict_of(common.route_name)
    if details == _LUA:
        return "deny", Reason.SIDECAR_DOWN, rule
    if details == _TWICE:
        return "deny", Reason.HTTP_AMBIGUOUS_HEADER, rule
    if details == _ALIAS:
        return "deny", Reason.HTTP_HEADER_UNDERSCORE, rule
    if details == _NO_HOST:
        return "deny", Reason.HTTP_NO_HOST, rule
    if details == "upgrade_failed" and verdict != "deny":  # else the rules had denied it before
        return "deny", Reason.UPGRADE_DENIED, rule
    if not common.route_name:
        reason = next((each for part, each in _MALFORMED.items() if part in details), Reason.HTTP_TARGET_FORM)
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
    agent: Agent, direction: Direction, entry: Any, verdict: str, reason: Reason
) -> dict[str, object]:
    common, request, response = entry.common_properties, entry.request, entry.response
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
        "request": {
            "method": _method(request),
            "target": request.original_path or request.path,
            "version": _VERSIONS.get(entry.protocol_version, ""),
            "host": "" if request.authority == NO_HOST else request.authority,
            "truncated": False,
        },
        "mismatched": list(mismatched(entry)),
        "response": {"status": response.response_code.value, "grpc_status": grpc_status},
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
