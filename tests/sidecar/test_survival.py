"""The sidecar under changes and deaths: what is judged stays judged, what cannot be is refused."""

from __future__ import annotations

import os
import signal
import time

import pytest

from support.sidecarlab import Lab, eventually, policy

pytestmark = [pytest.mark.net, pytest.mark.bpf]

URL = "http://api-service"
FORBIDDEN = "denyResponse: Forbidden"
"""So that a denial is told from a connection that was lost."""


def test_rules_change_in_place_and_no_connection_notices(sidecar: Lab) -> None:
    sidecar.apply(policy(extra=FORBIDDEN))
    load = sidecar.load(3)
    for number in range(5):
        time.sleep(0.3)
        sidecar.apply(policy(extra=FORBIDDEN, http=f'[{{path: "/(public|x{number})"}}]'))
    assert sidecar.curl(f"{URL}/x4") == "200"
    assert sidecar.curl(f"{URL}/x3") == "403"
    result = load.join()
    assert result["connections"] == 1
    assert set(result["seen"]) == {"200"}


def test_an_open_connection_is_judged_by_the_new_rules(sidecar: Lab) -> None:
    sidecar.apply(policy(extra=FORBIDDEN))
    load = sidecar.load(3)
    sidecar.apply(policy(extra=FORBIDDEN, http='[{path: "/other"}]'))
    result = load.join()
    assert result["connections"] == 1
    assert set(result["seen"]) == {"200", "403"}


def test_a_sidecar_that_dies_comes_back_and_lets_nothing_pass_meanwhile(sidecar: Lab) -> None:
    sidecar.apply(policy(extra=FORBIDDEN))
    load = sidecar.load(4)
    before = sidecar.envoy()
    os.kill(before, signal.SIGKILL)
    assert sidecar.curl(f"{URL}/private") in {"000", "403"}
    assert eventually(lambda: sidecar.curl(f"{URL}/public") == "200")
    assert sidecar.envoy() != before
    assert sidecar.curl(f"{URL}/private") == "403"
    assert load.join()["connections"] <= 6


def test_a_loader_that_dies_costs_no_connection_and_its_successor_keeps_the_sidecar(sidecar: Lab) -> None:
    sidecar.apply(policy(extra=FORBIDDEN))
    before = sidecar.envoy()
    load = sidecar.load(5)
    sidecar.kill_loaders()
    assert sidecar.curl(f"{URL}/public") == "200"
    assert sidecar.curl(f"{URL}/private") == "403"
    sidecar.apply(policy(extra=FORBIDDEN, http='[{path: "/(public|new)"}]'))
    assert eventually(lambda: sidecar.curl(f"{URL}/new") == "200")
    assert sidecar.envoy() == before
    assert set(load.join()["seen"]) == {"200"}


def test_a_loader_that_is_restarted_ends_no_stream(sidecar: Lab) -> None:
    streams = (
        policy('[{method: POST, path: "/test.Echo/Chat"}]', 50051, extra=FORBIDDEN),
        policy('[{path: "/ws", upgrades: [websocket]}]', 8765, extra=FORBIDDEN),
    )
    sidecar.apply(policy(extra=FORBIDDEN), *streams)
    held = sidecar.held(8)
    sidecar.kill_loaders()
    sidecar.apply(policy(extra=FORBIDDEN, http='[{path: "/(public|again)"}]'), *streams)
    assert eventually(lambda: sidecar.curl(f"{URL}/again") == "200", 20)
    result = held.join()
    assert "ended" not in result
    assert min(result["websocket"], result["grpc"]) > 10


def test_with_both_dead_the_supervisor_brings_envoy_back_with_what_it_accepted_last(sidecar: Lab) -> None:
    sidecar.apply(policy(extra=FORBIDDEN))
    assert eventually(sidecar.accepted)
    pid = sidecar.envoy()
    sidecar.kill_loaders()
    os.kill(pid, signal.SIGKILL)
    assert sidecar.curl(f"{URL}/private") in {"000", "403"}
    assert eventually(lambda: sidecar.curl(f"{URL}/public") == "200", 20)
    assert sidecar.curl(f"{URL}/private") == "403"
    # A loader that comes back changes nothing: not one connection ends.
    load = sidecar.load(6)
    sidecar.apply(policy(extra=FORBIDDEN))
    assert sidecar.curl(f"{URL}/private") == "403"
    result = load.join()
    assert set(result["seen"]) == {"200"}
    assert result["connections"] == 1
    sidecar.apply(policy(extra=FORBIDDEN, http='[{path: "/(public|later)"}]'))
    assert eventually(lambda: sidecar.curl(f"{URL}/later") == "200")


def test_without_anything_accepted_an_envoy_alone_refuses_everything(sidecar: Lab) -> None:
    sidecar.apply(policy(extra=FORBIDDEN))
    assert eventually(sidecar.accepted)
    pid = sidecar.envoy()
    sidecar.forget_accepted()  # before: the supervisor reads it as soon as the loaders are gone
    sidecar.kill_loaders()
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: sidecar.envoys() not in ((), (pid,)))
    assert sidecar.curl(f"{URL}/public") == "000"
    sidecar.apply(policy(extra=FORBIDDEN))
    assert eventually(lambda: sidecar.curl(f"{URL}/public") == "200")
    assert any(record["reason"] == "SIDECAR_DOWN" for record in sidecar.records())


def test_a_supervisor_that_dies_costs_no_connection(sidecar: Lab) -> None:
    sidecar.apply(policy(extra=FORBIDDEN))
    before = sidecar.envoy()
    load = sidecar.load(3)
    for pid in sidecar.supervisors():
        os.kill(pid, signal.SIGKILL)
    assert eventually(sidecar.supervisors)
    assert set(load.join()["seen"]) == {"200"}
    assert sidecar.envoy() == before
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: sidecar.curl(f"{URL}/public") == "200", 20)
