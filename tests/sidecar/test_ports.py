"""A client that uses its port again meets nothing of the connection before."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.sidecarlab import Lab, eventually, policy

pytestmark = [pytest.mark.net, pytest.mark.bpf]

_PORT, _TIME_WAIT = 40_001, "06"


def _waiting(sidecar: Lab) -> int:
    """Connections from that port that are over and still wait, on the node of the server."""
    rows = Path(f"/proc/{sidecar.envoy()}/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[2].endswith(f":{_PORT:04X}") and row.split()[3] == _TIME_WAIT for row in rows)


def test_a_port_can_be_used_again_at_once(sidecar: Lab) -> None:
    sidecar.apply(policy(extra="denyResponse: Forbidden"))
    host = sidecar.address()
    assert sidecar.client("same_port", host, "/public", str(_PORT), "12") == ["200"] * 12
    assert _waiting(sidecar) == 0
    assert sidecar.client("same_port", host, "/private", str(_PORT), "3") == ["403"] * 3


def test_what_is_redirected_is_no_denial(sidecar: Lab) -> None:
    """Each new connection once took one from the budget of what denials may be written down."""
    sidecar.apply(policy(extra="denyResponse: Forbidden"))
    assert sidecar.curl("http://api-service/public") == "200"
    assert sidecar.curl("http://api-service/private") == "403"
    # In order: the connection of the denial is behind the other's.
    assert eventually(lambda: [r for r in sidecar.records() if r["request"]])
    assert [record for record in sidecar.records() if record["verdict"] == "redirect"] == []
