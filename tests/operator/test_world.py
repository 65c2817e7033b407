"""What is collected for the compiler."""

from __future__ import annotations

import pytest

from yett_operator.compilation.world import World
from yett_operator.kube.slim import SlimPod
from yett_policy.cluster import Node, Service, Slice, Workload
from yett_policy.prefix import packed_prefix


def world() -> World:
    return World(fallback=lambda _: b"")


def pod(uid_mark: int, address: str = "10.0.0.1", app: str = "a") -> SlimPod:
    workload = Workload("default", (("app", app),))
    return SlimPod(KEY, packed_prefix(address), "n1", uid_mark, workload=workload)


KEY = "default/p"


def test_many_changes_of_one_pod_are_one() -> None:
    it = world()
    for i in range(5):
        it.pod(KEY, pod(1, f"10.0.0.{i}"))
    assert it.take().batch.pods == {KEY: pod(1, "10.0.0.4")}
    assert not it.take().batch


def test_another_pod_of_the_same_name_never_inherits_anything() -> None:
    it = world()
    it.pod(KEY, pod(1))
    it.take()
    it.pod(KEY, pod(2, "10.0.0.2", "b"))
    first = it.take()
    assert first.batch.pods == {KEY: None}, "the old one goes first"
    assert it.changed.is_set()
    second = it.take()
    assert second.batch.pods == {KEY: pod(2, "10.0.0.2", "b")}
    assert second.pods == {KEY: pod(2, "10.0.0.2", "b")}


def test_one_whose_end_was_seen_is_another_whatever_the_mark_says() -> None:
    it = world()
    it.pod(KEY, pod(1))
    it.take()
    it.pod(KEY, None)
    it.pod(KEY, pod(1, "10.0.0.2", "b"))
    assert it.take().batch.pods == {KEY: None}
    assert it.take().batch.pods == {KEY: pod(1, "10.0.0.2", "b")}
    it.pod(KEY, pod(1, "10.0.0.2", "c"))
    assert it.take().batch.pods == {KEY: pod(1, "10.0.0.2", "c")}, "the same one, with other labels"


@pytest.mark.parametrize("node_first", [True, False])
def test_a_node_is_told_to_be_an_api_servers_whichever_is_seen_first(node_first: bool) -> None:
    it = world()
    if node_first:
        it.node("n1", Node("n1", ("192.0.2.1",)))
    servers = Slice("default", "kubernetes-1", "kubernetes", (), ("192.0.2.1", "192.0.2.9"))
    it.slice(servers.key, servers)
    other = Slice("default", "web-1", "web", (), ("192.0.2.2",))
    it.slice(other.key, other)
    if not node_first:
        it.node("n1", Node("n1", ("192.0.2.1",)))
    batch = it.take().batch
    whole = it.take_all().batch
    assert batch.nodes == whole.nodes == {"n1": Node("n1", ("192.0.2.1",), api_server=True)}
    assert batch.api_servers == whole.api_servers == ("192.0.2.9",)


def test_services_are_told_as_they_are_and_as_a_whole() -> None:
    it = world()
    first, other = Service("default", "a"), Service("default", "b")
    it.service(first.key, first)
    it.service(other.key, other)
    assert it.take().batch.services == {first.key: first, other.key: other}
    it.service(other.key, None)
    assert it.take().batch.services == {other.key: None}
    assert it.take_all().batch.services == {first.key: first}


def test_a_number_that_comes_back_is_not_forgotten() -> None:
    it = world()
    it.number(("k8s:app=a",), 300)
    it.take()
    it.forget_number(("k8s:app=a",))
    del it.numbers["k8s:app=a",]
    it.number(("k8s:app=a",), 301)
    batch = it.take().batch
    assert batch.numbers == {("k8s:app=a",): 301}
    assert batch.forgotten == set()
