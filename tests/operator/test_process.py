"""The operator as it runs: a process with a ServiceAccount, its roles and its webhook."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.apiserver import ApiServer, api_server, free_ports
from yett_operator.crd.__main__ import files

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFESTS = REPOSITORY / "manifests/base/operator"


@dataclass
class Process:
    """A replica."""

    api: ApiServer
    process: subprocess.Popen[bytes]
    http_port: int
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""


def until(check: Any, within: float = 30) -> Any:
    deadline = time.monotonic() + within
    while not (found := check()):
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    directory = tmp_path_factory.mktemp("process")
    with api_server(directory) as server:
        server.kubectl("apply", "--server-side", "-f", "-", stdin="\n---\n".join(files().values()))
        server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        server.kubectl("create", "namespace", "yett-system")
        server.kubectl("apply", "-f", str(MANIFESTS / "rbac.yaml"))
        http_port, webhook_port = free_ports(2)
        webhook = yaml.safe_load((MANIFESTS / "webhook.yaml").read_text())
        for each in webhook["webhooks"]:  # nobody routes Services here
            each["clientConfig"] = {"url": f"https://localhost:{webhook_port}/validate"}
        server.apply(webhook)
        environment = {
            **os.environ,
            "YETT_KUBECONFIG": str(server.kubeconfig_of("yett-operator")),
            "YETT_HOST": "127.0.0.1",
            "YETT_HTTP_PORT": str(http_port),
            "YETT_WEBHOOK_PORT": str(webhook_port),
            "YETT_SYNC_PORT": "0",
            "YETT_POD": "op-0",
            "YETT_SERVICE": "localhost",
        }
        log = directory / "operator.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "yett_operator"], env=environment, stderr=output
            )
        it = Process(server, process, http_port, log)
        try:
            until(lambda: it.get("/readyz")[0] == 200 or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            until(
                lambda: (
                    "caBundle"
                    in server.get("validatingwebhookconfiguration", "yett-operator")["webhooks"][0][
                        "clientConfig"
                    ]
                )
            )
            yield it
        finally:
            process.kill()
            process.wait()


def policy(http: dict[str, Any], kind: str = "L7Policy", version: str = "yett.dev/v1alpha1") -> str:
    port = {"port": "80", "protocol": "TCP"}
    return json.dumps(
        {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": "p"},
            "spec": {
                "endpointSelector": {},
                "ingress": [{"toPorts": [{"ports": [port], "rules": {"http": [http]}}]}],
            },
        }
    )


def apply(api: ApiServer, text: str, *more: str) -> str:
    return api.kubectl("apply", *more, "-f", "-", stdin=text, check=False)


@pytest.mark.parametrize(
    ("http", "sentence"),
    [
        ({"path": "/(a"}, "spec.ingress[0].toPorts[0].rules.http[0].path: "),
        ({"path": "/a", "methods": "GET"}, "http[0].methods: unknown field; did you mean method?"),
        ({"headerMatches": [{"name": "X", "operator": "Exact"}]}, "operator Exact needs a value"),
    ],
)
def test_what_the_schema_cannot_see_is_refused_with_one_sentence(
    running: Process, http: dict[str, Any], sentence: str
) -> None:
    for more in ((), ("--dry-run=server",)):
        said = apply(running.api, policy(http), *more)
        assert sentence in said, running.log.read_text()
        assert 'admission webhook "policies.yett.dev" denied the request' in said
        assert "p created" not in said


def test_the_kinds_of_cilium_are_refused_as_well(running: Process) -> None:
    said = apply(running.api, policy({"path": "/(a"}, "CiliumNetworkPolicy", "cilium.io/v2"))
    assert 'admission webhook "others.yett.dev" denied the request' in said


def test_what_is_legal_and_surprising_is_warned_of_and_stored(running: Process) -> None:
    said = apply(running.api, policy({"method": "get"}))
    assert "Warning: spec.ingress[0].toPorts[0].rules.http[0].method: " in said
    assert "l7policy.yett.dev/p created" in said
    running.api.kubectl("wait", "--for=condition=Ready", "l7p/p", "--timeout=10s")
    running.api.kubectl("delete", "l7p", "p")


KINDS = [
    ("L7Policy", "yett.dev/v1alpha1", "default"),
    ("ClusterL7Policy", "yett.dev/v1alpha1", "yett-system"),
    ("CiliumNetworkPolicy", "cilium.io/v2", "default"),
    ("CiliumClusterwideNetworkPolicy", "cilium.io/v2", "yett-system"),
    ("NetworkPolicy", "networking.k8s.io/v1", "default"),
]


@pytest.mark.parametrize(("kind", "version", "namespace"), KINDS)
def test_nothing_but_the_status_of_our_own_kinds_is_written_into_users_objects(
    running: Process, kind: str, version: str, namespace: str
) -> None:
    api, detail = running.api, f"{kind.lower()}-p"

    def version_of_status() -> int:
        found = api.kubectl("get", "polst", detail, "-n", namespace, "-o", "json", check=False)
        return int(json.loads(found)["status"]["policyGeneration"]) if '"status"' in found else 0

    for generation, path in ((1, "/a"), (2, "/b")):
        text = policy({"path": path}, kind, version)
        if kind == "NetworkPolicy":
            spec = {"podSelector": {"matchLabels": {"v": path[1:]}}}
            text = json.dumps({**json.loads(text), "spec": spec})
        said = apply(api, text)
        assert "created" in said or "configured" in said, said
        until(lambda g=generation: version_of_status() == g)
        stored = api.get(kind, "p", "--show-managed-fields")
        metadata = stored["metadata"]
        assert set(metadata["annotations"]) == {"kubectl.kubernetes.io/last-applied-configuration"}
        assert not metadata.keys() & {"finalizers", "labels", "ownerReferences"}
        writers = {(each["manager"], each.get("subresource", "")) for each in metadata["managedFields"]}
        ours = {("yett-operator", "status")} if version.startswith("yett.dev") else set()
        assert writers == {("kubectl-client-side-apply", ""), *ours}
        assert ("status" in stored) is bool(ours)
    api.kubectl("delete", kind, "p", "--timeout=5s")


def test_what_contradicts_an_older_policy_is_refused_in_the_words_of_its_condition(running: Process) -> None:
    def named(name: str, engine: str) -> str:
        obj = json.loads(policy({"path": "/a"}))
        obj["metadata"]["name"], obj["spec"]["engine"] = name, engine
        return json.dumps(obj)

    api = running.api
    apply(api, named("p", "Kernel"))
    api.kubectl("wait", "--for=condition=Ready", "l7p/p", "--timeout=10s")
    sentence = "spec.engine: Sidecar contradicts engine: Kernel of L7Policy/default/p, which is older"
    said = apply(api, named("q", "Sidecar"))
    assert sentence in said
    assert "denied the request" in said
    api.kubectl("delete", "l7p", "p")


@contextmanager
def without_admission(api: ApiServer) -> Iterator[None]:
    """As while no operator can be reached, and whoever installed yett chose failurePolicy: Ignore."""
    path = "/webhooks/0/rules/0/operations"
    for operations in (["DELETE"], ["CREATE", "UPDATE"]):
        change = [{"op": "replace", "path": path, "value": operations}]
        patch = ["patch", "validatingwebhookconfiguration", "yett-operator", "--type=json"]
        api.kubectl(*patch, "-p", json.dumps(change))
        if operations == ["DELETE"]:
            yield


BAD = [
    ({"spec": {"engine": "Kernel"}, "http": {"headerMatches": 29}}, "RegexTooComplex"),
    ({"spec": {}, "http": {"path": "/(a"}}, "Invalid"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_what_was_stored_while_admission_was_away_is_refused_in_the_same_words(
    running: Process, bad: dict[str, Any], reason: str
) -> None:
    api, http = running.api, dict(bad["http"])
    if count := http.get("headerMatches"):
        http["headerMatches"] = [{"name": f"x-{i}", "value": "a"} for i in range(count)]
    obj = json.loads(policy(http))
    obj["spec"] |= bad["spec"]
    text = json.dumps(obj)

    def denied() -> str:
        """What admission says; the API server takes a moment to see its changed configuration."""
        said = apply(api, text, "--dry-run=server")
        return said.partition("denied the request: ")[2].strip()

    sentence = until(denied)
    apply(api, policy({"path": "/good"}))
    api.kubectl("wait", "--for=condition=Ready", "l7p/p", "--timeout=10s")
    with without_admission(api):
        until(lambda: "configured" in apply(api, text))

        def refused() -> Any:
            found = api.get("l7p", "p")
            conditions = {each["type"]: each for each in found["status"]["conditions"]}
            accepted = conditions["Accepted"]
            current = accepted["observedGeneration"] == found["metadata"]["generation"]
            return conditions if current and accepted["status"] == "False" else None

        conditions = until(refused)
    assert (conditions["Accepted"]["reason"], conditions["Accepted"]["message"]) == (reason, sentence)
    assert "an older version stays in force" in conditions["Programmed"]["message"]
    kept = api.get("polst", "l7policy-p")["status"]["lastAccepted"]
    assert "/good" in kept["object"]
    events = until(
        lambda: [each for each in api.get("events")["items"] if each["reason"] == "PolicyRejected"]
    )
    assert sentence in {event["message"] for event in events}
    api.kubectl("delete", "l7p", "p")


BIG = {
    "10,000 rules in one list": (
        {"http": [{"path": f"/{i}"} for i in range(10_000)]},
        "must have at most 256 items",
    ),
    "more than the API server takes": (
        {"description": "x" * (4 << 20)},
        "Request entity too large",
    ),
}


@pytest.mark.parametrize(("what", "sentence"), BIG.values(), ids=BIG)
def test_what_is_too_big_is_refused_with_one_sentence(
    running: Process, what: dict[str, Any], sentence: str
) -> None:
    obj = json.loads(policy({"path": "/a"}))
    if "http" in what:
        obj["spec"]["ingress"][0]["toPorts"][0]["rules"]["http"] = what["http"]
    else:
        obj["spec"] |= what
    said = apply(running.api, json.dumps(obj), "--server-side")
    assert sentence in said
    assert len(said) < 500, "and not with the object"


def test_ten_thousand_rules_are_judged_and_in_force(running: Process) -> None:
    """As many as the schema lets pass: 40 items of 256 rules."""
    obj = json.loads(policy({"path": "/a"}))
    item = obj["spec"]["ingress"][0]["toPorts"][0]
    rules = [[{"pathExact": f"/{i}/{j}"} for j in range(256)] for i in range(40)]
    obj["spec"]["ingress"] = [{"toPorts": [{**item, "rules": {"http": each}}]} for each in rules]
    said = apply(running.api, json.dumps(obj), "--server-side")
    assert "serverside-applied" in said, said[:500]
    running.api.kubectl("wait", "--for=condition=Ready", "l7p/p", "--timeout=50s")
    running.api.kubectl("delete", "l7p", "p")


def test_the_roles_are_enough(running: Process) -> None:
    apply(running.api, policy({"path": "/a"}))
    running.api.kubectl("wait", "--for=condition=Ready", "l7p/p", "--timeout=10s")
    until(lambda: running.api.get("events")["items"])
    running.api.kubectl("delete", "l7p", "p")
    assert "forbidden" not in running.log.read_text()


def test_the_roles_are_not_more_than_that(running: Process) -> None:
    account = "system:serviceaccount:yett-system:yett-operator"
    for verb, what in (
        ("update", "pods"),
        ("get", "secrets"),
        ("patch", "l7policies.yett.dev"),
        ("patch", "validatingwebhookconfigurations"),
        ("delete", "l7policies.yett.dev"),
    ):
        said = running.api.kubectl("auth", "can-i", verb, what, "--as", account, "-A", check=False)
        assert said.splitlines()[-1] == "no", (verb, what)


def test_metrics_are_named_as_the_field_expects(running: Process) -> None:
    status, text = running.get("/metrics")
    assert status == 200
    for line in (
        "yett_leader 1.0",
        "yett_documents 0.0",
        'yett_reflector_synced{resource="pods"} 1.0',
        "# TYPE yett_reconcile_duration_seconds histogram",
        "# TYPE yett_sync_streams gauge",
    ):
        assert line in text, line
    assert running.get("/healthz")[0] == 200


def test_every_line_of_the_log_is_json(running: Process) -> None:
    lines = running.log.read_text().splitlines()
    assert lines
    for line in lines:
        assert {"time", "level", "logger", "message"} <= json.loads(line).keys()


def test_a_restarted_api_server_is_followed_again(running: Process) -> None:
    running.api.kill_server()
    time.sleep(1)
    running.api.start()
    apply(running.api, policy({"path": "/after"}))
    running.api.kubectl("wait", "--for=condition=Ready", "l7p/p", "--timeout=30s")
    running.api.kubectl("delete", "l7p", "p")


def test_sigterm_ends_it_quickly_and_gives_the_lease_back(running: Process) -> None:
    begin = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 0, running.log.read_text()
    assert time.monotonic() - begin < 4
    assert running.api.get("lease", "yett-operator", "-n", "yett-system")["spec"]["holderIdentity"] == ""
    children = subprocess.run(
        ["pgrep", "-P", str(running.process.pid)], capture_output=True, text=True, check=False
    )
    assert children.stdout == ""


def test_a_wrong_setting_is_one_sentence(tmp_path: Path) -> None:
    for environment, sentence, code in (
        ({"YETT_HTTP_PORT": "http"}, "yett-operator: YETT_HTTP_PORT=http is not a port", 2),
        (
            {"YETT_KUBECONFIG": str(tmp_path / "none")},
            f"yett-operator: YETT_KUBECONFIG={tmp_path}/none is no file",
            2,
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "yett_operator"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == code
        assert done.stderr.startswith(sentence)
        assert len(done.stderr.splitlines()) == 1
