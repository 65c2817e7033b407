"""`yettctl explain` from files: verdict, rule, reasons of both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run

EXAMPLES = Path(__file__).parents[2] / "manifests/examples"
APP = str(EXAMPLES / "app.yaml")
POLICY = str(EXAMPLES / "l7-policy.yaml")
RULE = "CiliumNetworkPolicy/default/api-l7-policy"


def ask(run: Run, *args: str, policy: str = POLICY) -> dict[str, Any]:
    done = run("explain", "-o", "json", "-f", APP, "-f", policy, *args, YETT_LAB="")
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if answer["verdict"] == "DENIED" else 0)
    return answer


def test_the_text_names_both_sides_rule_and_engine(run: Run) -> None:
    done = run(
        "explain", "--from", "client", "--to", "api-server", "GET", "/private", "-f", APP, "-f", POLICY
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "default/client -> default/api-server:80/TCP, GET /private"
    assert lines[2] == "egress   default/client: ALLOWED, No policy"
    assert lines[3] == "ingress  default/api-server: DENIED, Policy denied (L7)"
    assert lines[4] == f"           rule    {RULE}:default-deny"
    assert lines[5].startswith("           engine  kernel: fits the kernel budget: ")
    assert lines[6] == "           allow   method GET, path /public"
    assert lines[-1] == "DENIED"


@pytest.mark.parametrize(
    ("method", "target", "verdict", "reason"),
    [
        ("GET", "/public", "ALLOWED", "ALLOWED"),
        ("GET", "/private", "DENIED", "POLICY_DENIED_L7"),
        ("POST", "/public", "DENIED", "POLICY_DENIED_L7"),
        ("GET", "/public?x=1", "DENIED", "POLICY_DENIED_L7"),
        ("GET", "/a/../public", "DENIED", "POLICY_DENIED_L7"),
        ("get", "/public", "DENIED", "POLICY_DENIED_L7"),
        ("GET", "http://api-service/public", "ALLOWED", "ALLOWED"),
        ("GET", "/pub lic", "DENIED", "POLICY_DENIED_L7"),
    ],
)
def test_requests_are_judged_by_the_compiled_tables(
    run: Run, method: str, target: str, verdict: str, reason: str
) -> None:
    answer = ask(run, "--from", "client", "--to", "api-server:80", method, target)
    assert (answer["verdict"], answer["ingress"]["reason"]) == (verdict, reason)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/api/../private", "AMBIGUOUS_DOT_SEGMENT"),
        ("/api/%2e%2e/private", "AMBIGUOUS_ENCODED_DOT"),
        ("/api/x;y", "AMBIGUOUS_SEMICOLON"),
    ],
)
def test_targets_that_servers_read_in_different_ways_are_denied(run: Run, target: str, reason: str) -> None:
    policy = str(EXAMPLES / "path-prefix.yaml")
    answer = ask(run, "--from", "client", "--to", "api-server", "GET", target, policy=policy)
    assert (answer["verdict"], answer["ingress"]["reason"]) == ("DENIED", reason)


def test_an_allowed_request_names_the_rule_that_allows_it(run: Run) -> None:
    answer = ask(run, "--from", "client", "--to", "api-server", "GET", "/public")
    assert answer["ingress"]["rule"] == f"{RULE}:ingress[0].toPorts[0].rules.http[0]"
    assert answer["egress"]["reason"] == "NOT_ENFORCED"


def test_a_service_leads_to_its_pod(run: Run) -> None:
    answer = ask(run, "--from", "client", "--to", "svc/api-service", "GET", "/public")
    assert (answer["destination"], answer["through"]) == ("default/api-server", "service/api-service")


def test_other_ports_and_strangers_are_denied_before_http(run: Run) -> None:
    assert ask(run, "--from", "client", "--to", "api-server:81")["ingress"]["reason"] == "POLICY_DENIED"
    stranger = ask(run, "--from", "192.0.2.7", "--to", "api-server:80", "GET", "/public")
    assert stranger["ingress"]["reason"] == "POLICY_DENIED"
    assert stranger["egress"] is None


def test_the_way_back_is_open(run: Run) -> None:
    assert ask(run, "--from", "api-server", "--to", "client:9000")["verdict"] == "ALLOWED"


def test_headers_count(run: Run) -> None:
    args = ("--from", "client", "--to", "api-server", "POST", "/orders")
    policy = str(EXAMPLES / "headers.yaml")
    assert ask(run, *args, policy=policy)["verdict"] == "DENIED"
    json_body = ("-H", "Content-Type: application/json; charset=utf-8")
    assert ask(run, *args, *json_body, policy=policy)["verdict"] == "ALLOWED"
    assert ask(run, *args, *json_body, "-H", "X-Debug: 1", policy=policy)["verdict"] == "DENIED"
    twice = ask(run, *args, *json_body, *json_body, policy=policy)
    assert twice["ingress"]["reason"] == "HTTP_AMBIGUOUS_HEADER"


def test_audit_lets_pass_and_says_so(run: Run) -> None:
    answer = ask(
        run, "--from", "client", "--to", "api-server", "GET", "/x", policy=str(EXAMPLES / "audit.yaml")
    )
    assert (answer["verdict"], answer["ingress"]["reason"]) == ("AUDIT", "POLICY_DENIED_L7")


def test_egress_is_judged_on_the_senders_side(run: Run) -> None:
    answer = ask(
        run, "--from", "client", "--to", "api-server", "POST", "/x", policy=str(EXAMPLES / "egress.yaml")
    )
    assert answer["verdict"] == "DENIED"
    assert answer["egress"]["reason"] == "POLICY_DENIED_L7"
    assert answer["ingress"]["reason"] == "NOT_ENFORCED"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ("--from", "nope", "--to", "client:1"),
            "there is no pod default/nope; known pods: default/api-server",
        ),
        (("--from", "client", "--to", "client"), "write the port, such as client:80 (it names none)"),
        (("--from", "client", "--to", "client:x"), "'x' is no port; write a number from 1 to 65535"),
        (
            ("--from", "client", "--to", "svc/x"),
            "there is no service default/x; known services: default/api-service",
        ),
        (("--from", "client", "--to", "svc/api-service:8"), "has no TCP port 8; its ports: 80"),
        (("--from", "client", "--to", "10.0.0.1"), "write the port too, such as 10.0.0.1:80"),
        (("--from", "client", "--to", "api-server", "GET"), "write a request as METHOD TARGET"),
        (("--from", "client", "--to", "api-server", "GET", "/", "-H", "x"), "write 'NAME: VALUE'"),
    ],
)
def test_bad_questions_are_one_sentence_and_exit_code_2(run: Run, args: tuple[str, ...], said: str) -> None:
    done = run("explain", "-f", APP, "-f", POLICY, *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_malformed_policy_is_one_sentence_with_its_place(tmp_path: Path, run: Run) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(Path(POLICY).read_text().replace('"/public"', '"/(public"'))
    done = run("explain", "--from", "client", "--to", "api-server", "-f", APP, "-f", str(bad))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {bad}: spec.ingress[0].toPorts[0].rules.http[0].path: ")
    assert done.stderr.count("\n") == 1


def test_what_a_rule_changes_is_shown_and_not_the_value_of_a_secret(run: Run, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    text = Path(EXAMPLES / "header-changes.yaml").read_text()
    policy.write_text(text)
    args = ("--from", "client", "--to", "api-server", "-f", APP, "-f", str(policy))
    done = run("explain", *args, "GET", "/public")
    assert done.returncode == 0
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "engine  sidecar: a rule changes header authorization" in lines
    assert "change  replace header authorization by secret default/api-token" in lines
    assert "change  delete header x-internal but no" in lines
    assert lines[-1] == "ALLOWED"
    done = run("explain", *args)
    assert "then replace header authorization by secret default/api-token" in done.stdout
    answer = ask(run, "--from", "client", "--to", "api-server", "GET", "/public", policy=str(policy))
    assert answer["ingress"]["changes"] == [
        {"header": "authorization", "mismatch": "REPLACE", "value": None, "secret": "default/api-token"},
        {"header": "x-internal", "mismatch": "DELETE", "value": "no", "secret": ""},
    ]
    assert answer["egress"]["changes"] == []
