"""Policies in force in a lab: the article's walk-through, live edits, and `explain` as the oracle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from yett_cli import judge
from yett_lab import access, control, lab, manifest, paths
from yett_lab.compile import compile_lab
from yett_lab.errors import InputError
from yett_lab.nodeapi import NodeApi
from yett_policy.document import Verdict
from yett_policy.http.rule import Request

pytestmark = [pytest.mark.net, pytest.mark.bpf]

EXAMPLES = Path(__file__).parents[2] / "manifests/examples"
OTHER = """
apiVersion: v1
kind: Pod
metadata: {name: other, labels: {app: other}}
spec: {containers: [{name: c, image: busybox}]}
"""
URL = "http://api-service"


def example(name: str) -> list[manifest.Manifest]:
    return manifest.read_files([str(EXAMPLES / f"{name}.yaml")])


def edited(name: str, old: str, new: str) -> list[manifest.Manifest]:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    assert old in text
    return list(manifest.parse(text.replace(old, new), "edited.yaml"))


def curl(name: str, *args: str, pod: str = "client") -> tuple[str, int]:
    """Status and exit code, as the article shows them."""
    options = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "3", "--path-as-is"]
    done = access.run_in_pod(name, pod, ["curl", *options, *args])
    return done.stdout, done.returncode


PASSED, RESET, DROPPED = ("200", 0), ("000", 56), ("000", 28)


@pytest.fixture(scope="module")
def app(shared_name: str) -> str:
    lab.up(shared_name, [*example("app"), *manifest.parse(OTHER, "other.yaml")], nodes=2)
    return shared_name


@pytest.fixture
def apply(app: str) -> Iterator[object]:
    """Puts policies in force for one test."""
    applied: list[manifest.Manifest] = []

    def put(*policies: manifest.Manifest) -> None:
        applied.extend(policies)
        lab.apply(app, policies)

    yield put
    lab.delete(app, applied)


@pytest.mark.parametrize("kind", ["l7-policy", "l7policy"])
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_the_articles_three_requests(app: str, apply, kind: str, family: str) -> None:
    assert curl(app, family, f"{URL}/public") == PASSED
    assert curl(app, family, f"{URL}/private") == PASSED
    apply(*example(kind))
    assert curl(app, family, f"{URL}/public") == PASSED
    assert curl(app, family, f"{URL}/private") == RESET
    assert curl(app, family, "-X", "POST", f"{URL}/public") == RESET
    assert curl(app, family, f"{URL}/public", pod="other") == DROPPED


def test_a_denied_request_never_reaches_the_server(app: str, apply) -> None:
    apply(*example("l7-policy"))
    log = paths.Paths(app).pod_directory("default/api-server") / "server.log"
    before = log.read_text()
    assert curl(app, f"{URL}/private") == RESET
    assert curl(app, f"{URL}/public") == PASSED
    assert '"GET /private"' not in log.read_text()[len(before) :]


CASES = [
    ("GET", "/public"),
    ("GET", "/public?q=1"),
    ("GET", "/publicity"),
    ("GET", "/private"),
    ("POST", "/public"),
    ("HEAD", "/api"),
    ("GET", "/api/v1?x=1"),
    ("GET", "/apix"),
    ("GET", "/api/../admin"),
    ("GET", "/api/%2e%2e/admin"),
    ("GET", "/api//x"),
    ("GET", "/api/x;y"),
    ("GET", "/admin/users"),
    ("POST", "/orders", "Content-Type: application/json"),
    ("POST", "/orders", "Content-Type: text/plain"),
    ("POST", "/orders", "Content-Type: application/json", "X-Debug: 1"),
]
POLICIES = ["l7-policy", "path-prefix", "headers", "deny-admin", "audit", "egress", "default-deny"]


@pytest.mark.parametrize("policy", POLICIES)
def test_explain_says_what_the_kernel_does(app: str, apply, policy: str) -> None:
    apply(*example(policy))
    current = access.load(paths.Paths(app))
    compiled = compile_lab(current, access.objects(current), current.manifests)
    told = {}
    done = {}
    for sender in ("client", "other"):
        for method, target, *headers in CASES:
            lines = [tuple(map(str.encode, header.split(": "))) for header in headers]
            request = Request(method.encode(), target.encode(), ((b"Host", b"api-service"), *lines))
            answer = judge.answer(compiled, f"default/{sender}", "default/api-server", 6, 80, request)
            told[sender, method, target, *headers] = answer.verdict is not Verdict.DENY
            options = [option for header in headers for option in ("-H", header)]
            verb = ["-I"] if method == "HEAD" else ["-X", method]
            if answer.verdict is Verdict.DENY and not any(side.ruleset for side in answer.sides):
                verb += ["-m", "0.2"]  # nothing comes back: one look is enough
            status, _ = curl(app, *verb, *options, f"{URL}{target}", pod=sender)
            done[sender, method, target, *headers] = status == "200"
    assert done == told


def test_a_denial_can_answer_403(app: str, apply) -> None:
    apply(*example("forbidden"))
    assert curl(app, f"{URL}/public") == PASSED
    assert curl(app, f"{URL}/private") == ("403", 0)
    done = access.run_in_pod(app, "client", ["curl", "-s", f"{URL}/private"])
    assert done.stdout == "Access denied\n"  # with CR, which reading as text removes


def test_an_audited_policy_denies_nothing_and_records_it(app: str, apply) -> None:
    apply(*example("audit"))
    assert curl(app, f"{URL}/audited") == PASSED
    assert [r["reason"] for r in records(app, "/audited")] == ["POLICY_DENIED_L7"]


def records(app: str, target: str) -> list[dict[str, object]]:
    """What the nodes recorded about requests for a target."""
    found = []
    for node in ("node-1", "node-2"):
        for line in NodeApi(paths.Paths(app).api(node)).lines("/v1/flows", last="200"):
            record = yaml.safe_load(line)
            if (record["request"] or {}).get("target") == target:
                found.append(record)
    return found


def test_a_denial_names_policy_and_rule(app: str, apply) -> None:
    apply(*example("l7-policy"))
    curl(app, f"{URL}/named")
    (record,) = records(app, "/named")
    assert record["verdict"] == "deny"
    assert record["rule"] == "CiliumNetworkPolicy/default/api-l7-policy:default-deny"
    assert (record["source"]["pod"], record["destination"]["pod"]) == ("client", "api-server")


KEEP_ALIVE = """
import http.client, sys
connection = http.client.HTTPConnection("api-service", timeout=5)
for line in sys.stdin:
    try:
        connection.request("GET", line.strip())
        response = connection.getresponse()
        response.read()
        print(response.status, flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture
def keep_alive(app: str) -> Iterator[subprocess.Popen[str]]:
    """One connection from the client, a request per line."""
    argv, env = access.exec_argv(access.load(paths.Paths(app)), "client", ["python3", "-c", KEEP_ALIVE])
    with subprocess.Popen(
        argv, env=env, cwd="/", text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


def ask(process: subprocess.Popen[str], target: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{target}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_a_policy_edited_live_judges_the_next_request_of_a_connection(
    app: str, apply, keep_alive: subprocess.Popen[str]
) -> None:
    apply(*edited("l7-policy", '"/public"', '"/(public|more)"'))
    assert ask(keep_alive, "/public") == "200"
    assert ask(keep_alive, "/more") == "200"
    apply(*example("l7-policy"))
    assert ask(keep_alive, "/public") == "200"
    assert ask(keep_alive, "/more") == "ConnectionResetError"


def test_a_connection_older_than_the_policy_does_not_escape_it(
    app: str, apply, keep_alive: subprocess.Popen[str]
) -> None:
    assert ask(keep_alive, "/private") == "200"
    apply(*example("l7-policy"))
    assert ask(keep_alive, "/private") == "ConnectionResetError"


def test_a_relabelled_pod_is_judged_as_what_it_now_is(app: str, apply) -> None:
    apply(*example("l7-policy"))
    as_client = OTHER.replace("app: other", "app: client")
    try:
        lab.apply(app, list(manifest.parse(as_client, "other.yaml")))
        assert curl(app, f"{URL}/public", pod="other") == PASSED
        assert curl(app, f"{URL}/private", pod="other") == RESET
    finally:
        lab.apply(app, list(manifest.parse(OTHER, "other.yaml")))
    assert curl(app, f"{URL}/public", pod="other") == DROPPED


def test_a_malformed_policy_changes_nothing(app: str, apply) -> None:
    apply(*example("l7-policy"))
    before = access.load(paths.Paths(app)).manifests
    with pytest.raises(InputError) as error:
        lab.apply(
            app, [*edited("l7policy", '"/public"', '"/.*"'), *edited("l7-policy", '"/public"', '"/(x"')]
        )
    assert str(error.value).startswith("edited.yaml: spec.ingress[0].toPorts[0].rules.http[0].path: ")
    assert access.load(paths.Paths(app)).manifests == before
    assert curl(app, f"{URL}/private") == RESET


def test_rules_too_complex_for_the_kernel_are_judged_by_the_sidecar(app: str, apply) -> None:
    apply(*edited("l7-policy", '"/public"', '"/(a|b)*a(a|b){20}"'))
    assert curl(app, f"{URL}/ba{'b' * 20}") == PASSED
    assert curl(app, f"{URL}/b{'b' * 20}") == ("000", 52)  # closed without a reply


def test_a_loader_that_is_killed_leaves_the_policy_in_force_and_comes_back(app: str, apply) -> None:
    apply(*example("l7-policy"))
    for loader in access.load(paths.Paths(app)).loaders.values():
        os.kill(loader.pid, signal.SIGKILL)
    assert curl(app, f"{URL}/public") == PASSED
    assert curl(app, f"{URL}/private") == RESET
    lab.apply(app, example("l7-policy"))
    assert all(loader.alive for loader in access.load(paths.Paths(app)).loaders.values())
    assert curl(app, f"{URL}/private") == RESET


LOAD = """
import http.client, sys, time
host, seconds = "api-service", float(sys.argv[1])
kept = http.client.HTTPConnection(host, timeout=5)
counts = {"kept": 0, "new": 0, "denied": 0}
wrong = []
def get(connection, target):
    connection.request("GET", target)
    response = connection.getresponse()
    response.read()
    return response.status
print("ready", flush=True)
end = time.monotonic() + seconds
while time.monotonic() < end:
    for what, connection, target in (
        ("kept", kept, "/public"),
        ("new", http.client.HTTPConnection(host, timeout=5), "/public"),
        ("denied", http.client.HTTPConnection(host, timeout=5), "/private"),
    ):
        try:
            result = get(connection, target)
        except OSError as error:
            result = type(error).__name__
        if result != ("ConnectionResetError" if what == "denied" else 200):
            wrong.append((what, result))
        counts[what] += 1
        if connection is not kept:
            connection.close()
print(min(counts.values()), wrong, flush=True)
"""


def test_loaders_killed_and_restarted_under_load_fail_and_leak_no_request(app: str, apply) -> None:
    apply(*example("l7-policy"))
    argv, env = access.exec_argv(access.load(paths.Paths(app)), "client", ["python3", "-c", LOAD, "4"])
    with subprocess.Popen(argv, env=env, cwd="/", text=True, stdout=subprocess.PIPE) as load:
        assert load.stdout is not None
        assert load.stdout.readline() == "ready\n"
        for _ in range(2):
            for loader in access.load(paths.Paths(app)).loaders.values():
                os.kill(loader.pid, signal.SIGKILL)
            time.sleep(0.3)
            lab.apply(app, example("l7-policy"))
        rounds, _, wrong = load.communicate(timeout=30)[0].strip().partition(" ")
    assert wrong == "[]"
    assert int(rounds) > 20


def test_a_new_pod_is_governed_before_its_first_process(app: str, apply) -> None:
    apply(*edited("egress", "app: client", "app: fresh"))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "fresh", "labels": {"app": "fresh"}},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "busybox",
                    "command": ["curl", "-s", "-X", "POST", "-m", "3", f"{URL}/first"],
                }
            ]
        },
    }
    apply(*manifest.parse(yaml.safe_dump(pod), "fresh.yaml"))
    file = paths.Paths(app).pod_directory("default/fresh") / "c.exit"
    deadline = time.monotonic() + 5
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert file.read_text() == "56\n"


def test_a_pod_may_send_only_from_its_own_addresses(app: str) -> None:
    script = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        "s.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1); s.bind(('10.244.9.9', 0));"
        "s.sendto(b'x', ('172.18.0.1', 9999))"
    )
    before = counter(app, "SPOOFED_SOURCE")
    done = access.run_in_pod(app, "client", ["python3", "-c", script])
    assert done.returncode == 0, done.stderr
    assert counter(app, "SPOOFED_SOURCE") == before + 1


def counter(app: str, reason: str) -> int:
    total = 0
    for node in ("node-1", "node-2"):
        for item in NodeApi(paths.Paths(app).api(node)).get("/v1/metrics-json")["counters"]:
            if item["reason"] == reason:
                total += item["flows"]
    return total


def test_the_pods_own_node_may_always_talk_to_it_and_another_node_not(app: str, apply) -> None:
    apply(*example("l7-policy"))
    placed = access.load(paths.Paths(app)).pods["default/api-server"]
    other = next(node for node in ("node-1", "node-2") if node != placed.node)
    ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "1", f"http://{placed.ipv4}/healthz"]
    for node, status in ((placed.node, "200"), (other, "000")):
        enter = ["nsenter", f"--net={paths.NETNS / paths.Paths(app).node_netns(node)}"]
        done = subprocess.run([*enter, *ask], capture_output=True, text=True, check=False)
        assert (node, done.stdout) == (node, status)


NAMESPACES = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Pod
metadata: {name: buyer, namespace: shop, labels: {app: buyer}}
spec: {containers: [{name: c, image: busybox}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: team-a}
spec:
  podSelector: {matchLabels: {app: api-server}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {team: a}}}]
    ports: [{port: 80}]
"""


def test_a_network_policy_selects_by_the_labels_of_namespaces(app: str, apply) -> None:
    apply(*manifest.parse(NAMESPACES, "namespaces.yaml"))
    ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "1", "http://api-service.default/"]
    assert access.run_in_pod(app, "shop/buyer", ask).stdout == "200"
    assert curl(app, f"{URL}/") == DROPPED
    apply(
        *manifest.parse(NAMESPACES.replace("labels: {team: a}}\n---", "labels: {team: b}}\n---", 1), "b.yaml")
    )
    assert access.run_in_pod(app, "shop/buyer", ask).stdout == "000"


NAMED = """
apiVersion: v1
kind: Pod
metadata: {name: named, labels: {app: named}}
spec: {containers: [{name: c, image: mendhak/http-https-echo, ports: [{containerPort: 8081, name: web}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: named}
spec: {selector: {app: named}, ports: [{port: 80, targetPort: web}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: named}
spec:
  podSelector: {matchLabels: {app: named}}
  ingress: [{ports: [{port: web}]}]
"""


def test_policies_and_services_may_name_ports(app: str, apply) -> None:
    apply(*manifest.parse(NAMED, "named.yaml"))
    assert curl(app, "http://named/") == PASSED
    apply(*manifest.parse(NAMED.replace("[{port: web}]}]\n", "[{port: other}]}]\n"), "other.yaml"))
    assert curl(app, "http://named/") == DROPPED


def test_each_node_gets_the_documents_of_its_own_pods_only(app: str) -> None:
    current = access.load(paths.Paths(app))
    compiled = compile_lab(current, access.objects(current), current.manifests)
    for node in current.nodes:
        wanted = control.snapshot(current, compiled, node)
        own = {key for key, placed in current.pods.items() if placed.node == node}
        assert {endpoint.name for endpoint in wanted.endpoints} == own
        assert {d.identity for d in wanted.snapshot.documents} == {e.identity for e in wanted.endpoints}
        assert len(wanted.snapshot.pods) == len(current.pods)


def test_a_policy_change_is_in_force_when_apply_returns(app: str, apply) -> None:
    apply(*example("l7-policy"))
    for allowed in ("/one", "/two", "/three"):
        apply(*edited("l7-policy", "/public", allowed))
        for target in ("/one", "/two", "/three"):
            assert curl(app, f"{URL}{target}") == (PASSED if target == allowed else RESET)


def test_the_sockets_of_the_loaders_are_for_root_only(app: str) -> None:
    for node in ("node-1", "node-2"):
        assert paths.Paths(app).api(node).stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(paths.Paths(app).api("node-1")))
