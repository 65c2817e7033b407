"""`observe`, `endpoint`, `bpf`, `status` against a lab that enforces."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from yett_lab import access, down, lab, manifest, paths

from .conftest import Run

pytestmark = [pytest.mark.net, pytest.mark.bpf]

EXAMPLES = Path(__file__).parents[2] / "manifests/examples"
DENIED = "CiliumNetworkPolicy/default/api-l7-policy:default-deny"
ALLOWING = "CiliumNetworkPolicy/default/api-l7-policy:ingress[0].toPorts[0]"


@pytest.fixture(scope="module")
def up() -> Iterator[str]:
    """The article's app and policy; one allowed and one denied request were sent."""
    name = f"t{secrets.token_hex(4)}"
    files = [str(EXAMPLES / "app.yaml"), str(EXAMPLES / "l7-policy.yaml")]
    try:
        lab.up(name, manifest.read_files(files))
        request(name, "/public")
        request(name, "/private")
        yield name
    finally:
        down.down(name)


def request(name: str, target: str) -> None:
    access.run_in_pod(
        name, "client", ["curl", "-s", "-m", "3", "--path-as-is", f"http://api-service{target}"]
    )


def send(name: str, data: bytes) -> None:
    """Bytes as they are, from the client to the server."""
    script = (
        "import socket, sys; s = socket.create_connection(('api-service', 80), 3);"
        "s.sendall(bytes.fromhex(sys.argv[1])); s.settimeout(1)\n"
        "try: s.recv(1)\nexcept OSError: pass"
    )
    done = access.run_in_pod(name, "client", ["python3", "-c", script, data.hex()])
    assert done.returncode == 0, done.stderr


def lines(run: Run, up: str, *args: str) -> list[str]:
    done = run("observe", "--lab", up, *args)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_observe_prints_the_articles_lines(up: str, run: Run) -> None:
    shown = lines(
        run, up, "--from-pod", "default/client", "--to-pod", "default/api-server", "--path", "^/private$"
    )
    assert shown[0] == "TIMESTAMP           SOURCE:PORT -> DESTINATION:PORT   TYPE   VERDICT     SUMMARY"
    assert re.fullmatch(
        r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\.\d{3} default/client:\d+ -> default/api-server:80 "
        rf"http-request  DROPPED     Policy denied \(L7\): GET http://api-service/private; {re.escape(DENIED)}",
        shown[1],
    )
    assert len(shown) == 2


def test_observe_prints_tables_and_json(up: str, run: Run) -> None:
    table = lines(run, up, "--path", "^/private$", "-o", "table")
    assert table[0].split() == ["TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY", "RULE"]
    assert table[1].endswith(DENIED)
    (line,) = lines(run, up, "--path", "^/private$", "-o", "json")
    value = json.loads(line)
    assert (value["verdict"], value["reason"], value["rule"]) == ("deny", "POLICY_DENIED_L7", DENIED)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (("--verdict", "DROPPED"), 1),
        (("--verdict", "forwarded"), 0),
        (("--reason", "policy_denied_l7"), 1),
        (("--method", "POST"), 0),
        (("--pod", "api-*"), 1),
        (("--to-pod", "client"), 0),
        (("-n", "default"), 1),
        (("-l", "app=client"), 1),
        (("--last", "0"), 0),
    ],
)
def test_observe_filters(up: str, run: Run, filters: tuple[str, ...], count: int) -> None:
    assert len(lines(run, up, "--path", "^/private$", *filters)) == 1 + count


def test_observe_follows_and_shows_what_is_allowed(up: str) -> None:
    argv = [sys.executable, "-m", "yett_cli", "observe", "--lab", up, "-f", "-t", "request"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as observer:
        assert observer.stdout is not None
        watchdog = threading.Timer(20, observer.kill)
        watchdog.start()
        assert observer.stdout.readline().startswith("TIMESTAMP")
        request(up, "/public")
        request(up, "/secret")
        first, second = observer.stdout.readline(), observer.stdout.readline()
        observer.terminate()
        watchdog.cancel()
    assert first.endswith("http-request  FORWARDED   GET http://api-service/public\n")
    assert "http-request  DROPPED     Policy denied (L7): GET http://api-service/secret; " in second


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"/\x1b[31mred", "/\\x1b[31mred"),
        (b"/\x1b]0;owned\x07", "/\\x1b]0;owned\\x07"),
        (b"/\xe2\x80\xae\xe2\x81\xa6", "/\\u202e\\u2066"),
        (b"/\xff\x9b1m", "/\\xff\\x9b1m"),
        (b"/a\x00b", "/a\\x00b"),
        (b"/x\ry", "/x\\ry"),
    ],
)
def test_no_byte_of_a_client_reaches_the_terminal(up: str, run: Run, target: bytes, shown: str) -> None:
    send(up, b"GET " + target + b" HTTP/1.1\r\nHost: \x1b[32mh\r\n\r\n")
    for form in ("compact", "table", "json"):
        done = run("observe", "--lab", up, "--verdict", "DROPPED", "-t", "request", "--last", "1", "-o", form)
        assert done.stdout.replace("\n", "").isprintable()
        assert form == "json" or f"http://\\x1b[32mh{shown}" in done.stdout


def test_a_wrong_filter_is_exit_code_2(up: str, run: Run) -> None:
    done = run("observe", "--lab", up, "--path", "(")
    assert done.returncode == 2
    assert "write a regular expression" in done.stderr


def test_endpoint_list(up: str, run: Run) -> None:
    table = run("endpoint", "list", "--lab", up).stdout.splitlines()
    head = ["ENDPOINT", "NODE", "NAMESPACE", "POD", "IDENTITY", "STATE", "IPV4", "IPV6", "LABELS"]
    assert table[0].split() == head
    assert table[1].split()[1:] == [
        *("node-1", "default", "api-server", "256", "ready", "10.244.1.2", "fd00:10:244:1::2"),
        "app=api-server,policy-group=backend",
    ]
    rows = json.loads(run("endpoint", "list", "--lab", up, "-o", "json").stdout)
    assert [row["name"] for row in rows] == ["api-server", "client"]


@pytest.mark.parametrize("reference", ["api-server", "default/api-server"])
def test_bpf_policy_get(up: str, run: Run, reference: str) -> None:
    text = run("bpf", "policy", "get", reference, "--lab", up).stdout
    table = [re.split(r"\s{3,}", line) for line in text.splitlines()]
    assert table[0] == [
        "POLICY",
        "DIRECTION",
        "PEER (LABELS)",
        "PORT/PROTO",
        "ENGINE",
        "HITS",
        "REASON",
        "RULE",
    ]
    allow = table[1]
    assert allow[:5] == ["Allow", "Ingress", "257 (app=client,policy-group=frontend)", "80/TCP", "kernel"]
    assert int(allow[5]) >= 2
    assert allow[6:] == ["ALLOWED", ALLOWING]
    assert any(row[:4] == ["Deny", "Ingress", "any", "any"] for row in table)
    assert f"  {DENIED} (what no rule allows)" in text
    answer = json.loads(run("bpf", "policy", "get", reference, "--lab", up, "-o", "json").stdout)
    assert answer["endpoint"]["pod"] == "api-server"


def test_bpf_policy_get_takes_the_number_of_endpoint_list(up: str, run: Run) -> None:
    rows = json.loads(run("endpoint", "list", "--lab", up, "-o", "json").stdout)
    number = next(row["id"] for row in rows if row["name"] == "client")
    answer = json.loads(run("bpf", "policy", "get", number, "--lab", up, "-o", "json").stdout)
    assert answer["endpoint"]["pod"] == "client"


def test_bpf_ct_list(up: str, run: Run) -> None:
    request(up, "/ct")
    rows = run("bpf", "ct", "list", "api-server", "--lab", up).stdout.splitlines()
    assert rows[0].split()[:5] == ["PROTO", "DIRECTION", "SOURCE", "DESTINATION", "VERDICT"]
    newest = rows[1].split()
    assert newest[:2] == ["TCP", "Ingress"]
    assert newest[3:6] == ["default/api-server:80", "DROPPED", "POISONED"]
    both = json.loads(run("bpf", "ct", "list", "global", "--lab", up, "-o", "json").stdout)
    assert {flow["direction"] for flow in both} == {"ingress", "egress"}


def test_status_is_ok_and_says_what_is_in_force(up: str, run: Run) -> None:
    done = run("status", "--lab", up, "--wait", "--timeout", "5")
    assert done.returncode == 0
    assert done.stdout.startswith("node-1: OK\n")
    assert "  endpoints  2/2 ready, 2 interfaces\n" in done.stdout
    assert "  rulesets   1/1 enforced\n" in done.stdout
    (node,) = json.loads(run("status", "--lab", up, "-o", "json").stdout)
    assert (node["name"], node["problems"]) == ("node-1", [])


def test_a_node_is_reached_by_its_socket(up: str, run: Run) -> None:
    socket = str(paths.Paths(up).api("node-1"))
    assert run("status", "--api", socket).stdout.startswith("node: OK\n")
    assert run("status", YETT_API=socket).returncode == 0
    assert run("status", "--api", socket, "--lab", up).returncode == 2


def test_a_node_that_does_not_answer_is_exit_code_3(run: Run) -> None:
    for command in (["endpoint", "list"], ["observe"], ["bpf", "ct", "list", "x"], ["status"]):
        done = run(*command, "--api", "/nonexistent.sock")
        assert done.returncode == 3
        said = done.stdout + done.stderr
        assert "cannot reach the node at /nonexistent.sock: No such file or directory" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("command", [["bpf", "policy", "get", "nope"], ["bpf", "ct", "list", "nope"]])
def test_an_unknown_endpoint_is_exit_code_2(up: str, run: Run, command: list[str]) -> None:
    done = run(*command, "--lab", up)
    assert done.returncode == 2
    known = "default/api-server, default/client"
    assert done.stderr == f"error: endpoint nope is not there; endpoints: {known}\n"


def test_a_reader_that_stops_reading_is_no_error(up: str) -> None:
    script = f"{sys.executable} -m yett_cli observe --lab {up} -o json | head -n 1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_explain_asks_the_running_lab(up: str, run: Run) -> None:
    ask = ("explain", "--lab", up, "--from", "client", "--to", "svc/api-service", "GET", "/private")
    assert run(*ask).returncode == 1
    deny_less = str(EXAMPLES / "deny-admin.yaml")
    would_be = run(*ask, "-f", deny_less)
    assert would_be.returncode == 0
    assert run(*ask).returncode == 1


def test_following_ends_with_a_sentence_when_the_lab_goes_down(run: Run) -> None:
    name = f"t{secrets.token_hex(4)}"
    try:
        lab.up(name)
        argv = [sys.executable, "-m", "yett_cli", "observe", "--lab", name, "-f"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as observer:
            assert observer.stdout is not None
            observer.stdout.readline()
            time.sleep(0.1)
            down.down(name)
            _, said = observer.communicate(timeout=20)
        assert observer.returncode == 3
        assert said.startswith("error: ")
        assert said.count("\n") == 1
    finally:
        down.down(name)
