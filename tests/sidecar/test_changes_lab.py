"""Headers on their way through the redirect: from a client's pod to a server's, on another node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.sidecarlab import Lab, eventually, policy

pytestmark = [pytest.mark.net, pytest.mark.bpf]

URL = "http://api-service"
IN = """[
  {path: "/.*", headerMatches: [{name: X-In, value: server, mismatch: ADD}, {name: X-Role, value: user, mismatch: DELETE}]},
  {path: "/logged", headerMatches: [{name: X-Trace, mismatch: LOG}]},
  {path: "/token", headerMatches: [{name: Authorization, value: fallback, mismatch: REPLACE, secret: {name: none}}]},
  {method: PUT, headerMatches: [{name: Authorization, mismatch: REPLACE, secret: {name: none}}]}]"""
OUT = "[{headerMatches: [{name: X-Out, value: client, mismatch: REPLACE}]}]"


def seen(sidecar: Lab, path: str, *headers: str) -> dict[str, str]:
    options = [word for header in headers for word in ("-H", header)]
    answer: dict[str, Any] = json.loads(sidecar.run("curl", "-gs", "-m", "5", *options, f"{URL}{path}"))
    return answer["headers"]


def test_a_header_that_is_only_logged_is_in_the_record(sidecar: Lab) -> None:
    sidecar.apply(policy(IN))
    assert "x-trace" not in seen(sidecar, "/logged")
    assert seen(sidecar, "/logged", "X-Trace: 1")["x-trace"] == "1"

    def logged() -> list[Any]:
        records = [each for each in sidecar.records(50) if (each["request"] or {}).get("target") == "/logged"]
        return [each["mismatched"] for each in records]

    assert eventually(logged) == [["x-trace"]]


def test_requests_of_http_2_and_grpc_pass_with_changed_headers(sidecar: Lab) -> None:
    rule = '[{headerMatches: [{name: X-Added, value: "1", mismatch: REPLACE}]}]'
    sidecar.apply(policy(rule, port=50051), policy(rule, port=8082))
    assert sidecar.curl("--http2-prior-knowledge", f"http://{sidecar.address()}:8082/public") == "200"
    assert sidecar.client("say", sidecar.address(), "Say").endswith(" hello")


def test_the_rules_of_both_sides_change_what_the_server_sees(sidecar: Lab) -> None:
    sidecar.apply(policy(IN), policy(OUT, direction="egress"))  # the last test: this closes other ports
    got = seen(sidecar, "/public", "X-Role: admin", "X-Out: forged", "X-In: mine")
    assert got["x-out"] == "client"
    assert got["x-in"] == "mine, server"
    assert "x-role" not in got
    assert "authorization" not in got
    assert seen(sidecar, "/public", "X-Role: user")["x-role"] == "user"
    assert seen(sidecar, "/token", "Authorization: mine")["authorization"] == "fallback"
