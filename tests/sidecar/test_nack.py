"""Rules that a real Envoy refuses: they hold back no others, and the node says so."""

from __future__ import annotations

import pytest

from support.sidecarlab import Lab, policy

pytestmark = [pytest.mark.net, pytest.mark.bpf]

URL = "http://api-service"
FORBIDDEN = "denyResponse: Forbidden"
TOO_BIG = '[{path: "/(public|' + "[^x]{1000}" * 60 + ')"}]'
"""Well-formed and within the bounds of admission, but more than REGEX_MAX."""


def refused(sidecar: Lab) -> list[str]:
    return [said for item in sidecar.sidecars().values() for said in item["refused"].values()]


def test_new_rules_that_envoy_refuses_are_denied_and_hold_back_no_others(sidecar: Lab) -> None:
    sidecar.apply(policy(extra=FORBIDDEN, http=TOO_BIG), policy(port=8082, extra=FORBIDDEN))
    assert sidecar.curl(f"{URL}/public") == "403"
    host = sidecar.address()
    assert sidecar.curl("--http2-prior-knowledge", f"http://{host}:8082/public") == "200"
    assert sidecar.curl("--http2-prior-knowledge", f"http://{host}:8082/private") == "403"
    (said,) = refused(sidecar)
    assert "max program size of 100000" in said


def test_a_change_that_envoy_refuses_leaves_the_old_rules_in_force(sidecar: Lab) -> None:
    sidecar.apply(policy(extra=FORBIDDEN), policy(port=8082, extra=FORBIDDEN))
    assert not refused(sidecar)
    load = sidecar.load(4)
    sidecar.apply(
        policy(extra=FORBIDDEN, http=TOO_BIG), policy('[{path: "/(public|new)"}]', 8082, extra=FORBIDDEN)
    )
    assert refused(sidecar)
    assert sidecar.curl(f"{URL}/private") == "403"
    assert sidecar.curl("--http2-prior-knowledge", f"http://{sidecar.address()}:8082/new") == "200"
    result = load.join()
    assert set(result["seen"]) == {"200"}
    assert result["connections"] == 1


def test_rules_that_are_mended_are_in_force_at_once(sidecar: Lab) -> None:
    sidecar.apply(policy(extra=FORBIDDEN, http=TOO_BIG))
    assert refused(sidecar)
    sidecar.apply(policy('[{path: "/(public|mended)"}]', extra=FORBIDDEN))
    assert not refused(sidecar)
    assert sidecar.curl(f"{URL}/public") == "200"
    assert sidecar.curl(f"{URL}/private") == "403"


def test_a_regex_of_ordinary_length_is_taken(sidecar: Lab) -> None:
    sidecar.apply(policy('[{path: "/(public|[a-z0-9-]{36}/[a-z0-9._-]{1,253})"}]', extra=FORBIDDEN))
    assert not refused(sidecar)  # Envoy's own limit is 100 instructions
    assert sidecar.curl(f"{URL}/public") == "200"
