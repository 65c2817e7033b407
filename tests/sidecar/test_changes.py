"""What the server sees is what the reference says, over generated rules and requests."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from copy import deepcopy
from http.client import HTTPConnection, RemoteDisconnected
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support import echo_headers
from support.http_oracle import parse
from support.netns import Namespace
from yett_loader.sidecar.changes import SECRETS, secret_name
from yett_loader.sidecar.listeners import listener
from yett_loader.sidecar.process import environment, find_envoy
from yett_loader.sidecar.routes import CLUSTER, route_table
from yett_policy.document import Direction
from yett_policy.evaluate import forward
from yett_policy.http.change import ChangeOp, HeaderChange
from yett_policy.http.parse import Head
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, PathKind, Request, RuleAction, RulesetSpec
from yett_policy.reason import Reason

pytestmark = pytest.mark.net

SPECS = 100
"""Each has a listener."""
FIRST_PORT = 20_000
VALUES = {"n/one": "secret-1", "n/two": "ab", "n/three": 'q"\\%SECRET(x)% %REQ(:path)%'}
"""Those that are there; n/gone is not."""
NAMES = ["x-a", "x-b", "x-c", "authorization"]

_changes = st.builds(
    HeaderChange,
    st.sampled_from(NAMES),
    st.sampled_from([ChangeOp.ADD, ChangeOp.DELETE, ChangeOp.REPLACE]),
    st.sampled_from(["a", "b", "ab", "a b", 'x"%y\\1']),
    st.sampled_from(["", "", "", "n/one", "n/two", "n/three", "n/gone"]),
) | st.builds(
    HeaderChange,
    st.sampled_from(NAMES),
    st.just(ChangeOp.REPLACE),
    st.none(),
    st.sampled_from(["n/one", "n/gone"]),
)
_headers = st.builds(
    HeaderRule,
    st.sampled_from(["x-a", "x-b"]),
    st.sampled_from([HeaderOp.EXACT, HeaderOp.PREFIX, HeaderOp.SUFFIX, HeaderOp.PRESENT, HeaderOp.ABSENT]),
    st.sampled_from(["a", "b"]),
) | st.builds(
    HeaderRule,
    st.sampled_from(["x-a", "x-b"]),
    st.just(HeaderOp.REGEX),
    st.sampled_from(["a|b", "(?i)A.*", "^b?$", "[^a]*"]),
)


@st.composite
def _rules(draw: st.DrawFn, ref: str) -> HttpRule:
    action = draw(st.sampled_from([*[RuleAction.ALLOW] * 6, RuleAction.DENY, RuleAction.AUDIT_DENY]))
    kind = draw(st.sampled_from(PathKind))
    paths = ["/a", "/a/b", "/.*", "/a.*|/b", "(?i)/A"] if kind is PathKind.REGEX else ["/a", "/a/b", "/"]
    allow = action is RuleAction.ALLOW
    return HttpRule(
        ref,
        action,
        draw(st.sampled_from([None, None, "GET", "GET|POST", ".*"])),
        draw(st.sampled_from([None, *paths])),
        kind,
        draw(st.sampled_from([None, None, None, "a", "[a-z.]+", "A"])),
        tuple(sorted(set(draw(st.lists(_headers, max_size=1))))),
        tolerate=(Reason.AMBIGUOUS_SEMICOLON,) if allow and draw(st.booleans()) else (),
        changes=tuple(draw(st.lists(_changes, max_size=3))) if allow else (),
    )


@st.composite
def _specs(draw: st.DrawFn) -> RulesetSpec:
    rules = tuple(draw(_rules(f"r{number}")) for number in range(draw(st.integers(1, 5))))
    return RulesetSpec(rules, "default", audit=draw(st.sampled_from([False, False, True])))


_requests = st.builds(
    lambda method, target, host, fields: b"".join(
        [method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n", *fields, b"\r\n"]
    ),
    st.sampled_from([b"GET", b"GET", b"POST", b"PUT"]),
    st.sampled_from([b"/a", b"/a", b"/a/b", b"/b", b"/a?q", b"/a;x", b"/A", b"/c", b"/a//b"]),
    st.sampled_from([b"a", b"b.c", b"A"]),
    st.lists(
        st.builds(
            lambda name, value: name + b": " + value + b"\r\n",
            st.sampled_from([b"X-A", b"x-b", b"X-C", b"x-z"]),
            st.sampled_from([b"a", b"b", b"ab", b"a b", b"", b"secret-1", b"\\1", b"c0"]),
        ),
        max_size=4,
    ),
)


def standalone(spec: RulesetSpec, port: int) -> dict[str, Any]:
    """The listener of production without the redirect around it, with its secrets from the file."""
    made = listener(port, Direction.INGRESS)
    http = deepcopy(made["filter_chains"][0]["filters"][-1])
    config = http["typed_config"]
    del config["rds"], config["access_log"]
    table = route_table("rules", spec, VALUES)
    for state in (
        table["virtual_hosts"][0]
        .get("typed_per_filter_config", {})
        .get(SECRETS, {})
        .get("on_request_headers", ())
    ):
        for source in state["format_string"]["formatters"][0]["typed_config"]["value"][
            "secret_configs"
        ].values():
            del source["sds_config"]
    config["route_config"] = table
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": f"l{port}", "address": address, "filter_chains": [{"filters": [http]}]}


def _odd() -> tuple[RulesetSpec, list[Head]]:
    """Bytes that are no UTF-8 in values on which rules depend: Envoy's regular expressions are of bytes, too."""
    strip = HeaderChange("x-role", ChangeOp.DELETE, "none")
    conditions = [
        HeaderRule("x-a", HeaderOp.PRESENT),
        HeaderRule("x-b", HeaderOp.PREFIX, "a"),
        HeaderRule("x-c", HeaderOp.SUFFIX, "a"),
    ]
    spec = RulesetSpec(
        (
            *(HttpRule(item.name, headers=(item,), changes=(strip,)) for item in conditions),
            HttpRule("n", RuleAction.DENY, headers=(HeaderRule("x-d", HeaderOp.REGEX, ".*admin.*"),)),
            HttpRule("z", path="/z.*"),
        ),
        "default",
    )
    sent = [
        b"GET /%b HTTP/1.1\r\nHost: a\r\nX-Role: admin\r\n%b\r\n" % (path, header)
        for path in (b"", b"z", b"z\xff", b"\x80")
        for header in (
            b"",
            b"X-A: \xff\r\n",
            b"X-A: \xc3\xa9\r\n",
            b"X-B: a\xff\r\n",
            b"X-C: \xffa\r\n",
            b"X-C: \xff\r\n",
            b"X-D: admin\xff\r\n",
        )
    ]
    return spec, [head for head in (parse(spec, data) for data in sent) if isinstance(head, Head)]


ODD = _odd()


@pytest.fixture(scope="module")
def generated() -> list[tuple[RulesetSpec, list[Head]]]:
    found: list[Any] = []

    @settings(
        max_examples=SPECS,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(_specs(), st.lists(_requests, min_size=8, max_size=15))
    def collect(spec: RulesetSpec, sent: list[bytes]) -> None:
        heads = [parse(spec, data) for data in sent]
        found.append((spec, [head for head in heads if isinstance(head, Head)]))

    collect()
    return [*found, ODD]


@pytest.fixture(scope="module")
def envoy(generated: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """One Envoy with a listener for each of the rules and one server, in a namespace of their own."""
    directory = tmp_path_factory.mktemp("envoy")
    resources = {
        "listeners": [standalone(spec, FIRST_PORT + index) for index, (spec, _) in enumerate(generated)],
        "clusters": [echo_headers.cluster(CLUSTER)],
        "secrets": [
            {"name": secret_name(name), "generic_secret": {"secret": {"inline_string": value}}}
            for name, value in VALUES.items()
        ],
    }
    config = directory / "envoy.json"
    config.write_text(json.dumps({"static_resources": resources}))
    inside = Namespace("envoy")
    command = [find_envoy(), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
    with echo_headers.echoing(inside), (directory / "log").open("wb") as log:
        process = inside.popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment(directory))
        try:
            with inside:
                end = time.monotonic() + 30
                while process.poll() is None and time.monotonic() < end:
                    try:
                        ask(FIRST_PORT, Request(b"GET", b"/", ((b"Host", b"a"),)))
                        break
                    except OSError:
                        time.sleep(0.05)
            assert process.poll() is None, (directory / "log").read_text()
            yield inside
            assert (directory / "log").read_text() == ""
        finally:
            process.kill()
            process.wait()
    inside.close()


def ask(port: int, request: Request) -> tuple[int, list[tuple[bytes, bytes]]]:
    """The status (0: reset), and the headers that the server got."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.putrequest(
            request.method.decode(), request.target.decode(), skip_host=True, skip_accept_encoding=True
        )
        for name, value in request.headers:
            connection.putheader(name.decode(), value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
    except RemoteDisconnected:
        return 0, []
    finally:
        connection.close()
    if answer.status != 200:
        return answer.status, []
    return 200, [(name.encode(), value.encode("latin-1")) for name, value in json.loads(body)]


def by_name(headers: Any) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)
    # Envoy joins repeated lines of headers that it knows (RFC 9110, 5.3).
    return {
        name: [b",".join(values)] if name == b"authorization" else values for name, values in found.items()
    }


def passes_http_2(port: int, path: bytes, *headers: tuple[bytes, bytes]) -> bool:
    """Whether a request whose bytes no client library would send is answered with 200."""

    def literal(name: bytes, value: bytes) -> bytes:
        return b"\0%c%b%c%b" % (len(name), name, len(value), value)

    # :method GET and :scheme http are in the static table.
    block = b"\x82\x86" + literal(b":authority", b"a") + literal(b":path", path)
    block += b"".join(literal(*header) for header in headers)
    settings, ended = b"\0\0\0\x04\0\0\0\0\0", b"\x01\x05\0\0\0\x01"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        connection.sendall(len(block).to_bytes(3, "big") + ended + block)
        with connection.makefile("rb") as frames:
            while len(head := frames.read(9)) == 9:
                payload = frames.read(int.from_bytes(head[:3], "big"))
                if head[3] in {3, 7}:  # RST_STREAM, GOAWAY
                    return False
                if head[3] == 1:
                    return payload[:1] == b"\x88"  # :status 200
    return False


@pytest.mark.parametrize("path", [b"/\xff", b"/z\x80", b"/z?\xc3", b"/\xed\xa0\x80", b"/\xff//"])
def test_bytes_that_are_no_utf_8_hide_nothing_in_http_2(
    envoy: Namespace, generated: list[Any], path: bytes
) -> None:
    port = FIRST_PORT + len(generated) - 1
    with envoy:
        assert passes_http_2(port, b"/z", (b"x-a", b"1"))
        assert passes_http_2(port, b"/", (b"x-a", b"\xff"))
        assert not passes_http_2(port, path, (b"x-a", b"1"))
        assert not passes_http_2(port, b"/z", (b"x-d", b"admin\xff"))


def test_the_server_sees_what_the_reference_says(generated: list[Any], envoy: Namespace) -> None:
    compared = altered = 0
    with envoy:
        for index, (spec, heads) in enumerate(generated):
            for head in heads:
                passed = forward(spec, head.request, VALUES)
                status, got = ask(FIRST_PORT + index, head.request)
                assert (status == 200) == (passed is not None), (spec, head.request, status)
                if passed is None:
                    continue
                compared += 1
                altered += passed.request.headers != head.request.headers
                added = {b"x-forwarded-proto", b"content-length", b"transfer-encoding"}
                seen = {name: values for name, values in by_name(got).items() if name not in added}
                assert seen == by_name(passed.request.headers), (spec, head.request)
    assert compared > 250
    assert altered > 50
