"""Flow records: numbers with names, and the attacker's bytes as data."""

from __future__ import annotations

import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import wanted as build
from yett_loader.events import decode, parse_head, reason_name
from yett_loader.kernel import abi
from yett_loader.metrics import Counter, prometheus
from yett_loader.names import address_text, names_of
from yett_loader.state import Prefix

NAMES = names_of(
    build.snapshot(),
    (build.web(5),),
    {7: "L7Policy/default/web:ingress[0]"},
    {0xABCD: "f" * 64},
)


def raw(**fields: object) -> bytes:
    values: dict[str, object] = {
        "time": 1_000_000_500,
        "flow": 3,
        "ifindex": 5,
        "identity": build.WEB,
        "peer": build.CLIENT,
        "rule": 7,
        "type": abi.number("EVENT_REQUEST"),
        "direction": 0,
        "verdict": 0,
        "reason": abi.number("REASON_POLICY_DENIED_L7"),
        "proto": 6,
        "tcp_flags": 0x18,
        "ruleset_id": 0xABCD,
        "local_port": socket.htons(80),
        "remote_port": socket.htons(40000),
        "local": Prefix.parse("10.9.2.2/32").address,
        "remote": Prefix.parse("10.9.1.2/32").address,
    }
    head = fields.pop("head", b"GET /secret HTTP/1.1\r\nHost: web\r\n\r\n")
    assert isinstance(head, bytes)
    return abi.pack("event", **(values | fields), head=head, head_len=len(head))


def test_a_denied_request_is_told_with_names() -> None:
    record = decode(raw(), NAMES, 1_700_000_000_000_000_000)
    assert record == {
        "time": "2023-11-14T22:13:21.000000Z",
        "type": "request",
        "verdict": "deny",
        "reason": "POLICY_DENIED_L7",
        "direction": "ingress",
        "endpoint": "default/web",
        "ifindex": 5,
        "source": {
            "address": "10.9.1.2",
            "port": 40000,
            "identity": build.CLIENT,
            "namespace": "default",
            "pod": "client",
            "labels": ["k8s:app=client"],
        },
        "destination": {
            "address": "10.9.2.2",
            "port": 80,
            "identity": build.WEB,
            "namespace": "default",
            "pod": "web",
            "labels": ["k8s:app=web"],
        },
        "protocol": "TCP",
        "tcp_flags": "PSH,ACK",
        "reply": False,
        "flow": 3,
        "rule": "L7Policy/default/web:ingress[0]",
        "ruleset": "f" * 64,
        "request": {
            "method": "GET",
            "target": "/secret",
            "version": "HTTP/1.1",
            "host": "web",
            "truncated": False,
        },
        "suppressed": 0,
    }


def test_on_egress_the_endpoint_is_the_source() -> None:
    record = decode(raw(direction=1, type=1), NAMES, 0)
    assert record["source"]["pod"] == "web"  # type: ignore[index]
    assert record["destination"]["pod"] == "client"  # type: ignore[index]
    assert record["request"] is None


def test_what_has_no_name_is_shown_by_its_number() -> None:
    record = decode(raw(rule=9, peer=2, remote=Prefix.parse("2001:db8::7/128").address), NAMES, 0)
    assert record["rule"] == "unknown (9)"
    assert record["source"] == {
        "address": "2001:db8::7",
        "port": 40000,
        "identity": 2,
        "namespace": "",
        "pod": "",
        "labels": ["reserved:world"],
    }
    assert reason_name(127) == "127"


@pytest.mark.parametrize(
    ("head", "method", "target", "version", "host", "truncated"),
    [
        (b"GET /a?b HTTP/1.1\r\nHOST:  h:80 \r\n\r\n", "GET", "/a?b", "HTTP/1.1", "h:80", False),
        (b"GET /a", "GET", "/a", "", "", True),
        (b"GET", "GET", "", "", "", True),
        (b"GET /a b HTTP/1.1\r\n", "GET", "/a b", "HTTP/1.1", "", True),
        (b"\x16\x03\x01\x00", "\x16\x03\x01\x00", "", "", "", True),
        (b"GET /\xff\x1b[31m HTTP/1.1\r\n\r\n", "GET", "/\xff\x1b[31m", "HTTP/1.1", "", False),
    ],
)
def test_a_head_is_shown_as_it_came(
    head: bytes, method: str, target: str, version: str, host: str, truncated: bool
) -> None:
    assert parse_head(head) == {
        "method": method,
        "target": target,
        "version": version,
        "host": host,
        "truncated": truncated,
    }


@given(st.binary(max_size=512), st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_any_record_becomes_one_line_of_ascii_json(
    head: bytes, verdict: int, reason: int, proto: int
) -> None:
    record = decode(raw(head=head, verdict=verdict, reason=reason, proto=proto), NAMES, 0)
    line = json.dumps(record, ensure_ascii=True)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == record


@given(st.binary(min_size=abi.size("event"), max_size=abi.size("event")))
def test_no_bytes_of_a_record_break_the_reader(data: bytes) -> None:
    # The clock is the kernel's own: keep it within what a date can be.
    data = abi.patched("event", data, time=1)
    assert json.dumps(decode(data, NAMES, 0))


def test_mapped_addresses_are_written_as_ipv4() -> None:
    assert address_text(Prefix.parse("192.0.2.7/32").address) == "192.0.2.7"
    assert address_text(Prefix.parse("2001:db8::1/128").address) == "2001:db8::1"


def test_label_values_are_escaped_for_prometheus() -> None:
    text = prometheus([Counter("ingress", "ALLOWED", 5, 2)], {'a"b\\c\nd': 1}, {"yett_epoch": ("Epoch.", 3)})
    assert 'yett_flows_total{direction="ingress",reason="ALLOWED"} 5\n' in text
    assert 'yett_requests_total{direction="ingress",reason="ALLOWED"} 2\n' in text
    assert 'yett_rule_hits_total{rule="a\\"b\\\\c\\nd"} 1\n' in text
    assert "# HELP yett_epoch Epoch.\n# TYPE yett_epoch gauge\nyett_epoch 3\n" in text
