"""Records of the ring buffer, as flow records with names.

A flow record is JSON:

    time          RFC 3339, UTC, microseconds
    type          `flow` (a new or re-judged flow, or a lone packet) or `request`
    verdict       deny, allow, audit, redirect
    reason        a name of yett_policy.reason.Reason
    direction     ingress or egress, of the policy that judged
    endpoint      namespace/pod of the node's pod that was judged for; empty if unknown
    ifindex       its interface
    source        {address, port, identity, namespace, pod, labels} of the client
    destination   likewise, of the server
    protocol      TCP, UDP, SCTP, ICMP, ICMPv6, ARP or a number
    tcp_flags     such as `SYN`, `PSH,ACK`; empty if not TCP
    reply         whether the packet came from the server's side
    flow          number of the flow on this node until reboot, 0 for a lone packet
    rule          reference of the rule that decided; empty if none did
    ruleset       digest, for requests
    request       null, or {method, target, version, host, truncated}: as sent, byte = character
                  (Latin-1), not escaped: whoever prints must escape
    suppressed    records left out before this one on the same CPU
"""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime

from yett_loader.kernel import abi
from yett_loader.names import Names, address_text
from yett_policy.document import Direction, Verdict
from yett_policy.reason import Reason

PROTOCOLS = {0: "ARP", 1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
_REQUEST = abi.number("EVENT_REQUEST")

Record = dict[str, object]


def clock_offset() -> int:
    """Nanoseconds from the kernel's monotonic clock to UTC, now."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def decode(raw: bytes, names: Names, offset: int) -> Record:
    """One record; `offset` is `clock_offset()`."""
    event = abi.unpack("event", raw)
    number = {key: value for key, value in event.items() if isinstance(value, int)}
    ingress = number["direction"] == Direction.INGRESS
    local = names.party(
        address_text(_raw(event["local"])), socket.ntohs(number["local_port"]), number["identity"]
    )
    remote = names.party(
        address_text(_raw(event["remote"])), socket.ntohs(number["remote_port"]), number["peer"]
    )
    is_request = number["type"] == _REQUEST
    head = _raw(event["head"])[: number["head_len"]]
    return {
        "time": _time(number["time"] + offset),
        "type": "request" if is_request else "flow",
        "verdict": Verdict(number["verdict"]).name.lower() if number["verdict"] <= max(Verdict) else "",
        "reason": reason_name(number["reason"]),
        "direction": "ingress" if ingress else "egress",
        "endpoint": names.endpoints.get(number["ifindex"], ""),
        "ifindex": number["ifindex"],
        "source": remote if ingress else local,
        "destination": local if ingress else remote,
        "protocol": PROTOCOLS.get(number["proto"], str(number["proto"])),
        "tcp_flags": ",".join(name for bit, name in enumerate(_FLAGS) if number["tcp_flags"] >> bit & 1),
        "reply": bool(number["reply"]),
        "flow": number["flow"],
        "rule": names.rule(number["rule"]),
        "ruleset": names.rulesets.get(number["ruleset_id"], ""),
        "request": parse_head(head) if is_request and head else None,
        "suppressed": number["suppressed"],
    }


def parse_head(head: bytes) -> dict[str, object]:
    """What a person wants to see of a request; `head` may be cut, malformed, or an attack."""
    line, end, rest = head.partition(b"\n")
    parts = line.rstrip(b"\r").split(b" ")
    version = parts[-1] if len(parts) > 2 and end else b""
    target = b" ".join(parts[1:-1]) if version else b" ".join(parts[1:])
    host = b""
    for header in rest.split(b"\n"):
        name, colon, value = header.partition(b":")
        if colon and name.strip().lower() == b"host":
            host = value.strip(b" \t\r")
            break
    return {
        "method": parts[0].decode("latin-1"),
        "target": target.decode("latin-1"),
        "version": version.decode("latin-1"),
        "host": host.decode("latin-1"),
        "truncated": b"\r\n\r\n" not in head,
    }


def suppressed(raw: bytes) -> int:
    """Records left out before this one."""
    value = abi.unpack("event", raw)["suppressed"]
    return value if isinstance(value, int) else 0


def reason_name(number: int) -> str:
    """Of a reason; the number itself if this loader does not know it."""
    try:
        return Reason(number).name
    except ValueError:
        return str(number)


def _time(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds // 1000 % 1_000_000:06d}Z"


def _raw(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
