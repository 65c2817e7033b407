"""Access records of the sidecar: every denial, and what is allowed only while somebody asks for it."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from support.sidecarlab import Lab, eventually, policy

pytestmark = [pytest.mark.net, pytest.mark.bpf]

URL = "http://api-service"


def _sent(sidecar: Lab) -> int:
    """Records that the Envoys have sent so far."""
    return sum(item["records"] for item in sidecar.sidecars().values())


def _about(sidecar: Lab, target: str) -> list[tuple[str, str]]:
    return [
        (record["verdict"], record["reason"])
        for record in sidecar.records()
        if record["request"] and record["request"]["target"] == target
    ]


def test_what_is_allowed_costs_no_record_and_a_denial_always_has_one(sidecar: Lab) -> None:
    sidecar.apply(policy(extra="denyResponse: Forbidden"))
    before = _sent(sidecar)
    assert [sidecar.curl(f"{URL}/public") for _ in range(5)] == ["200"] * 5
    assert sidecar.curl(f"{URL}/private") == "403"
    # Envoy sends its records in order: the denial's is there, so the others would be.
    assert eventually(lambda: ("deny", "POLICY_DENIED_L7") in _about(sidecar, "/private"))
    assert _sent(sidecar) == before + 1


def test_what_is_allowed_is_recorded_while_somebody_observes(sidecar: Lab) -> None:
    sidecar.apply(policy('[{path: "/seen"}]'))
    for api in sidecar.apis().values():
        api.post("/v1/observe")

    def recorded() -> bool:
        sidecar.curl(f"{URL}/seen")
        return ("allow", "ALLOWED") in _about(sidecar, "/seen")

    assert eventually(recorded)


def test_an_audited_request_passes_and_is_recorded(sidecar: Lab) -> None:
    sidecar.apply(policy(extra="audit: true"))
    assert sidecar.curl(f"{URL}/watched") == "200"
    assert eventually(lambda: ("audit", "POLICY_DENIED_L7") in _about(sidecar, "/watched"))


def test_what_is_denied_is_counted_by_reason_and_rule_and_the_counts_outlive_the_loader(sidecar: Lab) -> None:
    sidecar.apply(policy())
    before, rules_before = counted(sidecar)
    for _ in range(3):
        assert sidecar.curl(f"{URL}/private") == "000"
    assert sidecar.curl("--path-as-is", f"{URL}/public/../x") == "000"
    assert sidecar.curl("-X", "OPTIONS", "--request-target", "*", URL) == "000"
    rule = "L7Policy/default/ingress-80:default-deny"

    def grown() -> tuple[int, int, int, int]:
        now, rules = counted(sidecar)
        reasons = ("POLICY_DENIED_L7", "AMBIGUOUS_DOT_SEGMENT", "HTTP_TARGET_FORM")
        first, second, third = (now[each] - before[each] for each in reasons)
        return first, second, third, rules[rule] - rules_before[rule]

    assert eventually(lambda: grown() == (3, 1, 1, 5))
    kept = counted(sidecar)
    assert eventually(
        lambda: any(saved(path).get(rule) == kept[1][rule] for path in sidecar.files("counts.json"))
    )
    sidecar.kill_loaders()
    sidecar.apply(policy())
    assert counted(sidecar) == kept


UPGRADE = ("-H", "Connection: Upgrade", "-H", "Upgrade: websocket")


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        ("CONNECT_DENIED", ("-X", "CONNECT", "--request-target", "a.test:443", URL)),
        ("HTTP_TARGET_FORM", ("-X", "CONNECT", "--request-target", "a.test", URL)),
        ("UPGRADE_DENIED", (*UPGRADE, f"{URL}/public")),
        ("POLICY_DENIED_L7", (*UPGRADE, f"{URL}/private")),
        ("POLICY_DENIED_L7", ("-0", "-H", "Host:", f"{URL}/private")),
        ("HTTP_NO_HOST", ("-H", "Host:", f"{URL}/public")),
        ("HTTP_HOST", ("-H", "Host: a b", f"{URL}/public")),
        ("HTTP_CONTROL_BYTE", ("-H", "X-A: a\x01b", f"{URL}/public")),
    ],
)
def test_each_denial_is_counted_under_its_own_reason_and_no_other(
    sidecar: Lab, reason: str, arguments: tuple[str, ...]
) -> None:
    sidecar.apply(policy())
    before, _ = counted(sidecar)
    assert sidecar.curl(*arguments) == "000"
    assert eventually(lambda: counted(sidecar)[0] - before == {reason: 1}), counted(sidecar)[0] - before


def test_what_is_let_through_is_counted_without_a_record_and_the_counts_outlive_envoy_and_the_loader(
    sidecar: Lab,
) -> None:
    sidecar.apply(policy())
    assert eventually(lambda: sidecar.curl(f"{URL}/public") == "200")
    before, rules_before, sent = *counted(sidecar), _sent(sidecar)
    rule = "L7Policy/default/ingress-80:ingress[0].toPorts[0].rules.http[0]"
    assert [sidecar.curl(f"{URL}/public") for _ in range(3)] == ["200"] * 3
    # Without a Host: it goes to the server, under the address that the client asked.
    assert sidecar.curl("-0", "-H", "Host:", f"{URL}/public") == "200"

    def grown() -> tuple[int, int]:
        now, rules = counted(sidecar)
        return now["ALLOWED"] - before["ALLOWED"], rules[rule] - rules_before[rule]

    assert grown() == (4, 4)
    assert _sent(sidecar) == sent
    os.kill(sidecar.envoy(), signal.SIGKILL)
    assert eventually(lambda: sidecar.curl(f"{URL}/public") == "200")
    assert grown() == (5, 5)
    sidecar.kill_loaders()
    sidecar.apply(policy())
    # What was denied under the rule in the last five seconds may be lost, so the rule tells nothing here.
    assert grown()[0] == 5


def saved(path: Path) -> dict[str, int]:
    """Verdicts by rule, as they are on disk."""
    return dict(json.loads(path.read_text())[1]) if path.exists() else {}


def counted(sidecar: Lab) -> tuple[Counter[str], Counter[str]]:
    """Requests by reason and verdicts by rule, over the nodes."""
    reasons: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for api in sidecar.apis().values():
        metrics = api.get("/v1/metrics-json")
        reasons.update({each["reason"]: each["requests"] for each in metrics["counters"]})
        rules.update(metrics["rules"])
    return reasons, rules
