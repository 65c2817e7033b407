"""A short turn of `make soak`: few ports, many connections, none fails."""

from __future__ import annotations

import pytest
from bench.sidecar.soak import soak

pytestmark = [pytest.mark.net, pytest.mark.bpf]


def test_connections_from_few_ports_are_all_served() -> None:
    seen = soak(0, 1, connections=256, turn=5)
    assert seen.requests > 256
    assert seen.waiting.get("TIME-WAIT", 0) < seen.requests / 4
