"""Numbers for label sets; prefixes; ports as aligned blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yett_policy.cluster import NamedPort, Pod
from yett_policy.identity import (
    FIRST_ADDRESS,
    FIRST_POD,
    HOST,
    RESERVED,
    WORLD,
    Table,
    cidr_labels,
    inside_block,
    named_ports,
    parse_labels,
    pod_labels,
)
from yett_policy.ports import blocks
from yett_policy.prefix import parse_prefix

label_sets = st.lists(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True).map(
        lambda names: tuple(sorted(f"k8s:{name}=1" for name in names))
    ),
    max_size=8,
)


def test_reserved_numbers_never_change() -> None:
    assert Table().number(("reserved:host",)) == HOST == 1
    assert Table().number(("reserved:world",)) == WORLD == 2
    assert {name[0]: number for name, number in RESERVED.items() if len(name) == 1} == {
        "reserved:host": 1,
        "reserved:world": 2,
        "reserved:unmanaged": 3,
        "reserved:health": 4,
        "reserved:init": 5,
        "reserved:remote-node": 6,
        "reserved:ingress": 8,
    }
    assert Table().number(("reserved:kube-apiserver", "reserved:remote-node")) == 7
    assert max(RESERVED.values()) < FIRST_POD


def test_pods_and_addresses_are_numbered_apart() -> None:
    pod, block = ("k8s:app=a",), cidr_labels(parse_prefix("10.0.0.0/8"))
    inside = inside_block(pod, parse_prefix("10.0.0.0/8"))
    table = Table().allocate([inside, pod, block])
    assert table.number(pod) == FIRST_POD
    assert {table.number(block), table.number(inside)} == {FIRST_ADDRESS, FIRST_ADDRESS + 1}


@given(label_sets, label_sets)
def test_allocation_keeps_old_numbers_and_does_not_depend_on_order(
    first: list[tuple[str, ...]], second: list[tuple[str, ...]]
) -> None:
    table = Table().allocate(first)
    grown = table.allocate(second)
    assert grown == table.allocate(reversed(second)) == Table(table.numbers).allocate(second)
    assert grown.numbers.items() >= table.numbers.items()
    assert len(set(grown.numbers.values())) == len(set(first) | set(second))


def test_what_is_forgotten_has_no_number() -> None:
    table = Table().allocate([("k8s:a=1",), ("k8s:b=1",)]).forget([("k8s:a=1",)])
    with pytest.raises(KeyError):
        table.number(("k8s:a=1",))
    assert table.number(("k8s:b=1",)) == FIRST_POD + 1


def test_a_pods_labels_say_namespace_account_and_its_own_ports() -> None:
    pod = Pod("prod", "p", {"app": "x", "empty": ""}, (), (NamedPort("http", 80), NamedPort("http", 81)))
    labels = pod_labels(pod.workload, {"team": "red"})
    assert labels == (
        "k8s:app=x",
        "k8s:empty",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=prod",
        "k8s:io.cilium.k8s.namespace.labels.team=red",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.cilium.k8s.policy.serviceaccount=default",
        "k8s:io.kubernetes.pod.namespace=prod",
        "port:http/TCP=80,81",
    )
    assert parse_labels(labels)["k8s:empty"] == ""
    assert named_ports(labels) == (NamedPort("http", 80), NamedPort("http", 81))


def test_a_pod_cannot_give_itself_another_namespace_by_a_label() -> None:
    pod = Pod(
        "dev", "p", {"io.kubernetes.pod.namespace": "prod", "io.cilium.k8s.policy.serviceaccount": "root"}
    )
    labels = parse_labels(pod_labels(pod.workload, {"kubernetes.io/metadata.name": "prod"}))
    assert labels["k8s:io.kubernetes.pod.namespace"] == "dev"
    assert labels["k8s:io.cilium.k8s.policy.serviceaccount"] == "default"
    assert labels["k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name"] == "dev"


def test_a_pod_cannot_give_itself_the_labels_of_another_namespace() -> None:
    pod = Pod("dev", "p", {"io.cilium.k8s.namespace.labels.team": "red"})
    assert "k8s:io.cilium.k8s.namespace.labels.team=red" not in pod_labels(pod.workload, {})


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_blocks_of_ports_cover_exactly_their_range(one: int, other: int) -> None:
    first, last = sorted((one, other))
    at = first
    for port, bits in blocks(first, last):
        size = 1 << (16 - bits)
        assert port == at
        assert port % size == 0
        at += size
    assert at == last + 1


def test_every_port_is_one_block_and_a_wrong_range_is_an_error() -> None:
    assert list(blocks(0, 65535)) == [(0, 0)]
    assert list(blocks(80, 80)) == [(80, 16)]
    with pytest.raises(ValueError, match="90-80 is not a range of ports"):
        list(blocks(90, 80))


def test_prefixes_cover_their_own_family_only() -> None:
    block = parse_prefix("10.1.2.3/8")
    assert str(block) == "10.0.0.0/8"
    assert block.covers(parse_prefix("10.255.0.0/16"))
    assert block.covers(block)
    assert not block.covers(parse_prefix("0.0.0.0/0"))
    assert not block.covers(parse_prefix("11.0.0.0/16"))
    assert not parse_prefix("::/0").covers(block)
    assert str(parse_prefix("2001:db8::1")) == "2001:db8::1/128"
