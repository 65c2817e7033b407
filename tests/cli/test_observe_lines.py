"""Flow records as lines: the article's columns, and no byte of an attacker on the terminal."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yett_cli import flowline, record
from yett_cli.wanted import Wanted

POLICY = "CiliumNetworkPolicy/default/api-l7-policy:default-deny"


def end(pod: str, port: int, **more: Any) -> dict[str, Any]:
    return {
        "address": "10.0.0.1",
        "port": port,
        "identity": 256,
        "namespace": "default" if pod else "",
        "pod": pod,
        "labels": ["k8s:app=client"],
        **more,
    }


def made(**fields: Any) -> record.Record:
    request = {"method": "GET", "target": "/public", "version": "HTTP/1.1", "host": "api-service"}
    raw = {
        "time": "2026-05-20T15:30:01.123456Z",
        "type": "request",
        "verdict": "allow",
        "reason": "ALLOWED",
        "direction": "ingress",
        "endpoint": "default/api-server",
        "ifindex": 4,
        "source": end("client", 34567),
        "destination": end("api-server", 80),
        "protocol": "TCP",
        "tcp_flags": "PSH,ACK",
        "reply": False,
        "flow": 1,
        "rule": "",
        "ruleset": "",
        "request": request,
        "suppressed": 0,
        **fields,
    }
    return record.parse(json.dumps(raw))


def request(method: str, target: str, host: str = "api-service", version: str = "HTTP/1.1") -> dict[str, Any]:
    return {"request": {"method": method, "target": target, "version": version, "host": host}}


DENIED = {"verdict": "deny", "reason": "POLICY_DENIED_L7", "rule": POLICY}


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flowline, "timestamp", lambda _: "May 20 15:30:01.123")


def test_the_columns_are_those_of_the_article() -> None:
    assert flowline.HEADER == (
        "TIMESTAMP           SOURCE:PORT -> DESTINATION:PORT   TYPE   VERDICT     SUMMARY"
    )
    assert flowline.compact(made()) == (
        "May 20 15:30:01.123 default/client:34567 -> default/api-server:80 "
        "http-request  FORWARDED   GET http://api-service/public"
    )
    assert flowline.compact(made(**DENIED, **request("GET", "/private"))) == (
        "May 20 15:30:01.123 default/client:34567 -> default/api-server:80 "
        f"http-request  DROPPED     Policy denied (L7): GET http://api-service/private; {POLICY}"
    )


def test_a_denied_connection_shows_its_flags() -> None:
    shown = flowline.compact(
        made(type="flow", request=None, verdict="deny", reason="POLICY_DENIED", tcp_flags="SYN")
    )
    assert shown.endswith("tcp-flow      DROPPED     Policy denied (TCP SYN)")


def test_addresses_say_what_they_stand_for() -> None:
    world = {"address": "2001:db8::1", "labels": ["reserved:world"]}
    shown = flowline.compact(made(source=end("", 1234, **world)))
    assert " [2001:db8::1]:1234 (world) -> default/api-server:80 " in shown


def test_records_left_out_are_said() -> None:
    assert flowline.compact(made(suppressed=3)).startswith(
        "... 3 more records left out by the rate limit\nMay"
    )


def test_an_unfinished_request_line_is_marked() -> None:
    shown = flowline.compact(made(**DENIED, **request("GET", "/priv", host="", version="")))
    assert "GET http://default/api-server/priv...;" in shown


HOSTILE = [
    "\x1b[2J\x1b[31mhacked",
    "\x1b]0;title\x07",
    "/a\r\nMay 20 15:30:02.000 default/admin:1 -> default/api-server:80 http-request  FORWARDED",
    "/\x9b31m",
    "/\xff\xfe",
    "/\u202e\u2066gnp.exe",
    "\x00\x08\x7f",
]


@pytest.mark.parametrize("field", ["method", "target", "host"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_bytes_stay_visible_text_on_one_line(field: str, text: str) -> None:
    parts = request("GET", "/x")
    parts["request"][field] = text
    shown = flowline.compact(made(**DENIED, **parts))
    assert shown.isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_and_rules_are_escaped_too(text: str) -> None:
    shown = flowline.compact(made(source=end(text, 1), **{**DENIED, "rule": text, "reason": text}))
    assert shown.isprintable()


@given(st.binary(max_size=60))
def test_any_bytes_in_a_target_print_as_text(target: bytes) -> None:
    shown = flowline.compact(made(**DENIED, **request("GET", target.decode("latin-1"))))
    assert shown.isprintable()


def test_utf8_in_a_target_reads_as_utf8() -> None:
    assert "/caf\u00e9" in flowline.compact(made(**request("GET", "/caf\u00e9".encode().decode("latin-1"))))


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (Wanted(), True),
        (Wanted(from_pod=["client"]), True),
        (Wanted(from_pod=["default/client"], to_pod=["default/api-server"]), True),
        (Wanted(from_pod=["default/cl*"]), True),
        (Wanted(from_pod=["default/"]), True),
        (Wanted(from_pod=["shop/client"]), False),
        (Wanted(from_pod=["api-server"]), False),
        (Wanted(pod=["api-server"]), True),
        (Wanted(pod=["x", "client"]), True),
        (Wanted(namespace=["default"]), True),
        (Wanted(namespace=["shop"]), False),
        (Wanted(verdict=["DROPPED"]), False),
        (Wanted(verdict=["DROPPED", "FORWARDED"]), True),
        (Wanted(reason=["allowed"]), True),
        (Wanted(kind=["request"]), True),
        (Wanted(kind=["flow"]), False),
        (Wanted(method=["POST"]), False),
        (Wanted(path=[re.compile("^/pub")]), True),
        (Wanted(path=[re.compile("private")]), False),
        (Wanted(label=["app=client"]), True),
        (Wanted(label=["app"]), True),
        (Wanted(label=["app=other"]), False),
    ],
)
def test_filters(wanted: Wanted, passes: bool) -> None:
    assert wanted(made()) is passes


def test_http_filters_do_not_match_plain_flows() -> None:
    flow = made(type="flow", request=None)
    assert not Wanted(method=["GET"])(flow)
    assert not Wanted(path=[re.compile("")])(flow)


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"time": 1}', "nonsense"])
def test_what_is_no_record_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        record.parse(line)


def test_the_time_is_utc() -> None:
    assert made().time == datetime(2026, 5, 20, 15, 30, 1, 123456, tzinfo=UTC)
