"""Access records of the sidecar: every denial, and what is allowed only while somebody asks for it."""

from __future__ import annotations

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
