"""Placing pods and giving out addresses."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from yett_lab import plan
from yett_lab.errors import InputError
from yett_lab.objects import Container, Objects, Pod, Service
from yett_lab.run import identify
from yett_lab.state import State


def pod(name: str, node: str = "", image: str = "busybox") -> Pod:
    return Pod("default", name, (("app", name),), (Container("c", image),), node)


def running(*pods: Pod, nodes: int = 2) -> State:
    state = plan.make(State("t", [f"node-{i}" for i in range(1, nodes + 1)]), Objects(pods)).state
    for placed in state.pods.values():
        placed.pause = identify(os.getpid())
    return state


def test_pods_spread_over_the_nodes() -> None:
    state = running(*(pod(n) for n in "abcd"))
    assert sorted(p.node for p in state.pods.values()) == ["node-1", "node-1", "node-2", "node-2"]
    assert state.addresses("default/a") == ("10.244.1.2", "fd00:10:244:1::2")


def test_what_runs_as_wanted_stays() -> None:
    state = running(pod("a"))
    assert plan.make(state, Objects((pod("a"),))).create == ()
    relabelled = replace(pod("a"), labels=(("app", "b"),))
    assert plan.make(state, Objects((relabelled,))).create == ()


def test_another_image_replaces_the_pod_at_another_address() -> None:
    state = running(pod("a"))
    made = plan.make(state, Objects((pod("a", image="nginx"),)))
    assert made.delete == (("node-1", "default/a"),)
    assert [p.key for p in made.create] == ["default/a"]
    assert made.state.addresses("default/a") != state.addresses("default/a")


def test_a_pod_that_died_is_made_again() -> None:
    state = running(pod("a"))
    state.pods["default/a"].pause = None
    assert [p.key for p in plan.make(state, Objects((pod("a"),))).create] == ["default/a"]


def test_planning_changes_nothing() -> None:
    state = running(pod("a"))
    plan.make(state, Objects((pod("b"),)))
    assert list(state.pods) == ["default/a"]


def test_a_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"there is no node-9; nodes are node-1, node-2"):
        running(pod("a", "node-9"))


def test_a_service_keeps_its_address_and_gets_the_one_it_asks_for() -> None:
    first = Service("default", "one", (), ())
    asked = Service("default", "two", (), (), address="10.96.0.10")
    state = plan.make(State("t", ["node-1"]), Objects(services=(first,))).state
    assert state.cluster_ips("default/one") == ("10.96.0.10", "fd00:10:96::a")
    with pytest.raises(InputError, match=r"10\.96\.0\.10 belongs to service default/one"):
        plan.make(state, Objects(services=(first, asked)))
    fresh = plan.make(State("t", ["node-1"]), Objects(services=(first, asked))).state
    assert fresh.cluster_ips("default/two")[0] == "10.96.0.10"
    assert fresh.cluster_ips("default/one")[0] == "10.96.0.11"
