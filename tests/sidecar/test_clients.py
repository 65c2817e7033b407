"""Real clients and servers through the sidecar: across nodes, through a service, both directions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.sidecarlab import Lab, policy

pytestmark = [pytest.mark.net, pytest.mark.bpf]

URL = "http://api-service"
FORBIDDEN = "denyResponse: Forbidden"
GRPC = '[{method: POST, path: "/test.Echo/(Say|Chat)"}]'
WEBSOCKET = '[{method: GET, path: "/ws", upgrades: [websocket]}, {method: GET, path: "/plain"}]'


@pytest.fixture(scope="module", autouse=True)
def policies(sidecar: Lab) -> None:
    apply(sidecar, FORBIDDEN)


def apply(sidecar: Lab, extra: str) -> None:
    sidecar.apply(
        policy(extra=extra),
        policy(GRPC, 50051, extra=extra),
        policy(WEBSOCKET, 8765, extra=extra),
        policy(port=8082, extra=extra),
    )


@pytest.fixture
def resets(sidecar: Lab) -> Iterator[None]:
    """The same policies, but denied without a reply, as by default."""
    apply(sidecar, "")
    yield
    apply(sidecar, FORBIDDEN)


def test_http_1_is_allowed_and_denied_by_the_rules(sidecar: Lab) -> None:
    assert sidecar.curl(f"{URL}/public") == "200"
    assert sidecar.curl(f"{URL}/private") == "403"
    assert sidecar.curl("-X", "POST", f"{URL}/public") == "403"
    assert sidecar.curl(f"{URL}/public?x") == "403"  # a regex is for the whole target
    assert sidecar.run("curl", "-s", f"{URL}/private") == "Access denied\n"  # as text: CRLF


@pytest.mark.usefixtures("resets")
@pytest.mark.parametrize(
    "arguments",
    [
        ("/private",),
        ("/public", "-X", "POST"),
        ("/public", "-d", "x=" + 5000 * "y"),
        ("/public//",),
        ("/", "-X", "OPTIONS", "--request-target", "*"),
        ("/", "-X", "CONNECT", "--request-target", "a:80"),
        ("/public", "-H", "Transfer_Encoding: chunked"),
        ("/public", "-H", "Connection: upgrade", "-H", "Upgrade: websocket"),
    ],
)
def test_a_reset_is_a_closed_connection_without_a_byte(sidecar: Lab, arguments: tuple[str, ...]) -> None:
    path, *options = arguments
    said = sidecar.run(
        "curl", "-sg", "--path-as-is", "-m", "3", "-D-", "-w", "%{exitcode}", *options, URL + path
    )
    assert said in {"52", "56"}  # nothing received; receive error (a reset)


@pytest.mark.usefixtures("resets")
def test_a_reset_ends_a_stream_of_http_2_and_the_others_live(sidecar: Lab) -> None:
    assert sidecar.client("streams", sidecar.address(), "/private", "/public", "/private", "/public") == [
        "reset",
        "200",
        "reset",
        "200",
    ]


@pytest.mark.usefixtures("resets")
def test_a_reset_ends_a_call_without_an_answer(sidecar: Lab) -> None:
    host = sidecar.address()
    assert sidecar.client("say", host, "Say").endswith(" hello")
    assert sidecar.client("say", host, "Secret") == "INTERNAL"  # what grpcio says of RST_STREAM
    assert sidecar.client("chat", host, "Other") == "INTERNAL"


def test_a_deny_rule_is_answered_as_its_own_policy_says(sidecar: Lab) -> None:
    denied = policy('[{path: "/public/secret"}]', extra="denyResponse: Forbidden").replace(
        "ingress:", "ingressDeny:"
    )
    sidecar.apply(policy('[{path: "/public.*"}]'), denied.replace("ingress-80", "denied"))
    assert sidecar.curl(f"{URL}/public/open") in {"200", "404"}
    assert sidecar.curl(f"{URL}/public/secret") == "403"
    assert sidecar.curl(f"{URL}/private") == "000"
    apply(sidecar, FORBIDDEN)


def test_a_header_that_a_rule_names_must_not_come_twice(sidecar: Lab) -> None:
    rule = '[{path: "/public", headerMatches: [{name: X-Team, value: a}]}]'
    sidecar.apply(policy(rule))
    assert sidecar.curl("-H", "X-Team: a", f"{URL}/public") == "200"
    assert sidecar.curl("-H", "X-Team: a", "-H", "x-team: b", f"{URL}/public") == "000"
    (record,) = [r for r in sidecar.records(50) if r["reason"] == "HTTP_AMBIGUOUS_HEADER"]
    assert record["verdict"] == "deny"
    apply(sidecar, FORBIDDEN)


@pytest.mark.parametrize("family", [4, 6])
def test_http_2_with_prior_knowledge_is_allowed_and_denied_by_the_rules(sidecar: Lab, family: int) -> None:
    address = sidecar.address(family=family)
    host = f"[{address}]" if family == 6 else address
    assert sidecar.curl("--http2-prior-knowledge", f"http://{host}:8082/public") == "200"
    assert sidecar.curl("--http2-prior-knowledge", f"http://{host}:8082/private") == "403"


@pytest.mark.parametrize("family", [4, 6])
def test_the_server_sees_the_address_of_the_client(sidecar: Lab, family: int) -> None:
    host = sidecar.address(family=family)
    url = f"http://[{host}]:8082/public" if family == 6 else f"http://{host}:8082/public"
    seen = sidecar.run("curl", "-gs", "--http2-prior-knowledge", url)
    assert seen == sidecar.address("client", family) + "\n"


@pytest.mark.parametrize(
    "target", ["/public/../private", "/%2e%2e/public", "/a//public", "/public;x", "/public%00"]
)
def test_ambiguous_targets_are_denied_before_the_rules(sidecar: Lab, target: str) -> None:
    assert sidecar.curl(f"{URL}{target}") == "403"


def test_grpc_unary_calls_follow_the_rules(sidecar: Lab) -> None:
    host = sidecar.address()
    answer = sidecar.client("say", host, "Say")
    assert answer.startswith(f"ipv4:{sidecar.address('client')}:")
    assert answer.endswith(" hello")
    assert sidecar.client("say", host, "Secret") == "PERMISSION_DENIED"


def test_hundreds_of_grpc_streams_are_open_on_one_connection(sidecar: Lab) -> None:
    assert sidecar.client("many", sidecar.address(), "250") == 250


def test_grpc_streams_run_in_both_directions_at_once(sidecar: Lab) -> None:
    host = sidecar.address()
    assert sidecar.client("chat", host, "Chat") == ["Q0", "Q1", "Q2", "Q3", "Q4"]
    assert sidecar.client("chat", host, "Other") == "PERMISSION_DENIED"


def test_a_websocket_opens_only_where_a_rule_allows_the_upgrade(sidecar: Lab) -> None:
    host, client = sidecar.address(), sidecar.address("client")
    assert [text.rpartition(":")[2] for text in sidecar.client("websocket", host, "/ws")] == [
        f"{client} m0",
        f"{client} m1",
        f"{client} m2",
    ]
    assert sidecar.client("websocket", host, "/plain") == 403
    assert sidecar.client("websocket", host, "/other") == 403


def test_h2load_finds_no_failed_request_at_512_connections(sidecar: Lab) -> None:
    done = sidecar.run(
        "h2load", "-n", "20000", "-c", "512", "-m", "4", f"http://{sidecar.address()}:8082/public"
    )
    assert "20000 succeeded, 0 failed, 0 errored, 0 timeout" in done
    assert "20000 2xx, 0 3xx, 0 4xx, 0 5xx" in done


def test_records_name_policy_rule_and_grpc_status(sidecar: Lab) -> None:
    assert sidecar.client("say", sidecar.address(), "Secret") == "PERMISSION_DENIED"
    (record,) = [
        r for r in sidecar.records(50) if r["request"] and r["request"]["target"] == "/test.Echo/Secret"
    ][-1:]
    assert record["verdict"] == "deny"
    assert record["reason"] == "POLICY_DENIED_L7"
    assert record["rule"] == "L7Policy/default/ingress-50051:default-deny"
    assert record["endpoint"] == "default/api-server"
    assert record["source"]["pod"] == "client"
    assert record["destination"]["pod"] == "api-server"
    assert record["response"] == {"status": 200, "grpc_status": "7"}


def test_a_connect_goes_to_the_server_whatever_place_it_names(sidecar: Lab) -> None:
    sidecar.apply(policy("[{method: CONNECT}]", extra=FORBIDDEN))
    place = sidecar.address("client")  # nobody listens there: a tunnel to it would end in 503
    arguments = ("-X", "CONNECT", "--request-target", f"{place}:9999", URL)
    assert sidecar.curl(*arguments) == "200"
    apply(sidecar, FORBIDDEN)
    assert sidecar.curl(*arguments) == "403"


def test_egress_rules_and_ingress_rules_both_judge(sidecar: Lab) -> None:
    sidecar.apply(
        policy('[{path: "/(public|in)"}]', extra=FORBIDDEN),
        policy('[{path: "/(public|out)"}]', direction="egress", extra=FORBIDDEN),
    )
    for family in (4, 6):
        host = sidecar.address(family=family)
        url = f"http://[{host}]" if family == 6 else f"http://{host}"
        assert sidecar.curl(f"{url}/public") == "200"
        assert sidecar.curl(f"{url}/in") == "403"
        assert sidecar.curl(f"{url}/out") == "403"
    assert sidecar.curl(f"{URL}/public") == "200"
