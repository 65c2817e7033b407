"""The compiling process, and what is published of its outcomes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.policy_world import policy_objects
from yett_operator.compilation.batch import KEPT_MAX, Batch, Facts, Outcome, PolicyText
from yett_operator.compilation.desk import PIECE
from yett_operator.compilation.process import CompilerDied, CompilerProcess
from yett_operator.compilation.publish import Publisher
from yett_operator.compilation.worker import Worker
from yett_operator.kube.slim import SlimPod
from yett_operator.ports import Change
from yett_operator.webhook.review import review
from yett_policy.cluster import Cluster, Pod, PodFacts, PodKey, Service, ServicePort, Slice
from yett_policy.compiler import compile as compile_all
from yett_policy.identity import Labels, Table
from yett_policy.prefix import packed_prefix, packed_text
from yett_policy.service import Frontend
from yett_policy.source.parse import parse_policy
from yett_policy.sync import encode


def l7policy(spec: dict[str, Any], name: str = "p") -> bytes:
    return json.dumps(
        {
            "apiVersion": "yett.dev/v1alpha1",
            "kind": "L7Policy",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"endpointSelector": {"matchLabels": {"app": "server"}}, **spec},
        }
    ).encode()


def http(path: str) -> dict[str, Any]:
    return http_rules([{"path": path}])


def http_rules(rules: list[dict[str, Any]]) -> dict[str, Any]:
    port = {"port": "80", "protocol": "TCP"}
    return {"ingress": [{"toPorts": [{"ports": [port], "rules": {"http": rules}}]}]}


def pod(name: str, app: str, address: str, **labels: str) -> Pod:
    return Pod("default", name, {"app": app, **labels}, (address,))


class Numbers:
    """Gives what is missing, as the leader would."""

    def __init__(self) -> None:
        self.table = Table()

    def give(self, missing: frozenset[Labels]) -> dict[Labels, int]:
        self.table = self.table.allocate(missing)
        return {labels: self.table.number(labels) for labels in missing}


def settle(worker: Worker, batch: Batch, numbers: Numbers) -> Outcome:
    """The outcome of a batch once every number is there, as one."""
    outcomes = [worker.step(batch)]
    while outcomes[-1].missing:
        outcomes.append(worker.step(Batch(numbers=numbers.give(outcomes[-1].missing))))
    merged: dict[str, Any] = {}
    for name in Outcome.__dataclass_fields__:
        values = [getattr(outcome, name) for outcome in outcomes]
        if isinstance(values[0], Mapping):
            merged[name] = {key: value for each in values for key, value in each.items()}
        elif isinstance(values[0], frozenset):
            merged[name] = frozenset().union(*values)
    return Outcome(**{**merged, "missing": frozenset()})


def facts_of(*pods: Pod) -> dict[PodKey, Facts | None]:
    return {each.key: each.facts for each in pods}


SERVER = pod("server", "server", "10.0.0.1")
CLIENT = pod("client", "client", "10.0.0.2")


def started(policy: bytes = l7policy(http("/a"))) -> tuple[Worker, Numbers, Outcome]:
    worker, numbers = Worker(), Numbers()
    batch = Batch(policies={"L7Policy/default/p": PolicyText(policy)}, pods=facts_of(SERVER, CLIENT))
    return worker, numbers, settle(worker, batch, numbers)


def test_documents_come_as_the_bytes_that_the_core_makes() -> None:
    _, numbers, outcome = started()
    expected = compile_all(
        parse_policy(json.loads(l7policy(http("/a")))), Cluster((SERVER, CLIENT)), numbers.table
    )
    assert {n: d.frame for n, d in outcome.documents.items()} == {
        n: encode.document(d.digest, d.to_bytes()) for n, d in expected.documents.items()
    }
    assert {n: d.digest for n, d in outcome.documents.items()} == {
        n: d.digest for n, d in expected.documents.items()
    }
    assert set(outcome.rulesets) == set(expected.rulesets)
    server = outcome.pods[SERVER.key]
    assert server is not None
    assert outcome.subjects[server] == {"L7Policy/default/p"}


def test_a_service_that_says_what_is_spoken_moves_the_rules_to_the_sidecar_and_back() -> None:
    worker, numbers, before = started()
    said = Service("default", "api", {"app": "server"}, (ServicePort(80, 80, app_protocol="grpc"),))
    outcome = settle(worker, Batch(services={said.key: said}), numbers)
    (facts,) = outcome.ruleset_facts.values()
    assert (facts.engine, facts.reason) == ("sidecar", "appProtocol grpc of Service default/api")
    assert facts.sources == ("L7Policy/default/p",)
    assert outcome.rulesets_gone == set(before.rulesets)
    outcome = settle(worker, Batch(services={said.key: None}), numbers)
    assert set(outcome.rulesets) == set(before.rulesets)


def test_a_service_that_tells_single_pods_apart_is_heard() -> None:
    worker, numbers, _ = started()
    label = "statefulset.kubernetes.io/pod-name"
    pods = {
        each.key: each
        for i in (1, 2)
        for each in [pod(f"server-{i}", "server", f"10.0.1.{i}", **{label: f"server-{i}"})]
    }
    quiet = settle(worker, Batch(pods=facts_of(*pods.values())), numbers)
    assert len(set(quiet.pods.values())) == 1
    said = Service("default", "one", {label: "server-1"}, (ServicePort(80, 80, app_protocol="grpc"),))
    told = settle(worker, Batch(services={said.key: said}), numbers)
    engines = {
        key: {
            told.ruleset_facts[digest].engine if digest in told.ruleset_facts else "kernel"
            for digest in told.documents[number].rulesets
        }
        for key, number in told.pods.items()
        if number is not None and number in told.documents
    }
    assert engines == {"default/server-1": {"sidecar"}, "default/server-2": {"kernel"}}
    again = settle(worker, Batch(services={said.key: None}), numbers)
    assert {again.pods[key] for key in pods} == {quiet.pods["default/server-1"]}


def test_a_policy_that_turns_bad_leaves_the_last_good_version_in_force() -> None:
    worker, numbers, _ = started()
    bad = l7policy(http("/(a"))
    outcome = settle(worker, Batch(policies={"L7Policy/default/p": PolicyText(bad)}), numbers)
    judgement = outcome.judgements["L7Policy/default/p"]
    assert judgement.reason == "Invalid"
    assert judgement.message.startswith("spec.ingress[0].toPorts[0].rules.http[0].path: ")
    assert judgement.kept
    assert outcome.documents == {}
    assert outcome.gone == frozenset()


def test_after_a_restart_the_last_good_version_comes_from_the_status_of_the_policy() -> None:
    bad, good = l7policy(http("/(a")), l7policy(http("/a"))
    worker, numbers = Worker(), Numbers()
    batch = Batch(
        policies={"L7Policy/default/p": PolicyText(bad, fallback=good)},
        pods=facts_of(SERVER, CLIENT),
    )
    outcome = settle(worker, batch, numbers)
    assert outcome.judgements["L7Policy/default/p"].kept
    assert outcome.documents == started(good)[2].documents


@pytest.mark.parametrize("name", ["kind", "namespace", "name"])
def test_a_version_in_the_status_of_a_policy_that_is_of_another_one_is_none(name: str) -> None:
    """Not even if somebody could write there."""
    bad, other = l7policy(http("/(a")), json.loads(l7policy(http("/a")))
    if name == "kind":
        other |= {"kind": "ClusterL7Policy", "metadata": {"name": "p"}}
    else:
        other["metadata"] |= {name: "other"}
    worker, numbers = Worker(), Numbers()
    text = PolicyText(bad, fallback=json.dumps(other).encode())
    batch = Batch(policies={"L7Policy/default/p": text}, pods=facts_of(SERVER, CLIENT))
    outcome = settle(worker, batch, numbers)
    assert not outcome.judgements["L7Policy/default/p"].kept
    assert not any(outcome.subjects.values())


def test_a_field_that_is_not_supported_has_a_reason_of_its_own() -> None:
    worker, _, _ = started()
    text = l7policy({"egress": [{"toFQDNs": [{"matchName": "example.com"}]}]})
    outcome = worker.step(Batch(policies={"L7Policy/default/q": PolicyText(text)}))
    judgement = outcome.judgements["L7Policy/default/q"]
    assert judgement.reason == "UnsupportedField"
    assert "toFQDNs" in judgement.message
    assert not judgement.kept


def crowded(engine: str, headers: int = 29) -> bytes:
    """More headers than the kernel tracks, from 29 on."""
    match = [{"name": f"x-{i}", "value": "a"} for i in range(headers)]
    return l7policy({**http_rules([{"headerMatches": match}]), "engine": engine})


EXCESS = (
    "spec.ingress[0].toPorts[0].rules.http: too complex for the kernel, which the policy asks for: "
    "rules name 29 headers, over the budget of 28; "
    "write simpler patterns, or leave the choice with engine: Auto"
)


def test_a_policy_that_asks_for_the_kernel_and_is_too_complex_is_refused_as_at_admission() -> None:
    worker, numbers, first = started()
    batch = Batch(policies={"L7Policy/default/p": PolicyText(crowded("Kernel"))})
    outcome = settle(worker, batch, numbers)
    judgement = outcome.judgements["L7Policy/default/p"]
    assert (judgement.reason, judgement.message) == ("RegexTooComplex", EXCESS)
    assert judgement.kept, "the version before stays in force"
    assert outcome.documents == {}
    assert review(json.loads(crowded("Kernel"))).error == EXCESS
    assert set(first.rulesets) == {digest for each in first.documents.values() for digest in each.rulesets}


@pytest.mark.parametrize(
    ("policy", "engine"), [(crowded("Auto"), "sidecar"), (crowded("Kernel", 28), "kernel")]
)
def test_what_asks_for_no_engine_or_fits_is_accepted(policy: bytes, engine: str) -> None:
    _, _, outcome = started(policy)
    assert outcome.judgements["L7Policy/default/p"].accepted
    assert {facts.engine for facts in outcome.ruleset_facts.values()} == {engine}
    assert review(json.loads(policy)).error == ""


def test_a_review_does_not_work_for_long_and_says_so() -> None:
    heavy = l7policy({**http("/(a|b)*a(a|b){20}"), "engine": "Kernel"})
    answer = review(json.loads(heavy))
    assert answer.error == ""
    assert answer.warnings[0].startswith("spec.ingress[0].toPorts[0].rules.http: takes long to compile")


def aged(engine: str, created: str, name: str) -> bytes:
    obj = json.loads(l7policy({**http("/a"), "engine": engine}, name))
    obj["metadata"]["creationTimestamp"] = created
    return json.dumps(obj, separators=(",", ":")).encode()


def test_a_contradiction_is_the_newer_policys_and_is_refused_at_admission_in_the_same_words() -> None:
    old, new = aged("Kernel", "2026-01-01T00:00:00Z", "p"), aged("Sidecar", "2026-01-02T00:00:00Z", "q")
    worker, numbers, _ = started(old)
    outcome = settle(worker, Batch(policies={"L7Policy/default/q": PolicyText(new)}), numbers)
    assert list(outcome.conflicts) == ["L7Policy/default/q"]
    sentence = outcome.conflicts["L7Policy/default/q"]
    assert sentence.startswith("spec.engine: Sidecar contradicts engine: Kernel of L7Policy/default/p, which")
    assert review(json.loads(new), [old]).error == sentence
    assert review(json.loads(new), [new]).error == "", "not with itself"
    answer = review(json.loads(old), [new])
    assert answer.error == ""
    assert answer.warnings == (
        "spec.engine: contradicts that of L7Policy/default/q, which is newer and gives way",
    )
    later = settle(worker, Batch(policies={"L7Policy/default/p": None}), numbers)
    assert later.conflicts == {}


def test_specs_of_one_object_that_contradict_each_other_are_refused() -> None:
    obj = json.loads(aged("Kernel", "2026-01-01T00:00:00Z", "p"))
    obj["specs"] = [{**obj["spec"], "engine": "Sidecar"}]
    assert "contradicts engine: Kernel of another of its own specs" in review(obj).error


def test_a_policy_too_big_to_be_kept_says_so() -> None:
    big = json.loads(l7policy(http("/a")))
    big["spec"]["description"] = "x" * 800_000
    text = json.dumps(big).encode()
    assert len(text) > KEPT_MAX
    outcome = Worker().step(Batch(policies={"L7Policy/default/p": PolicyText(text)}))
    judgement = outcome.judgements["L7Policy/default/p"]
    assert judgement.accepted
    assert "too big to be kept in its PolicyStatus (at most 700,000)" in judgement.message


def test_a_policy_waits_for_the_numbers_of_addresses_that_it_names() -> None:
    worker, numbers, _ = started()
    spec = {"egress": [{"toCIDRSet": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.7/32"]}]}]}
    batch = Batch(policies={"L7Policy/default/p": PolicyText(l7policy(spec))})
    first = worker.step(batch)
    assert first.stalled
    assert first.documents == {}
    assert len(first.missing) == 2
    half = dict([next(iter(numbers.give(first.missing).items()))])
    assert worker.step(Batch(numbers=half)).stalled
    done = worker.step(Batch(numbers=numbers.give(first.missing)))
    assert not done.stalled
    assert set(map(packed_text, done.ipcache)) == {"192.0.2.0/24", "192.0.2.7/32"}
    assert done.documents


def test_labels_of_roll_outs_make_no_identities_until_a_policy_selects_by_them() -> None:
    worker, numbers = Worker(), Numbers()
    pods = [
        pod(f"s-{i}", "server", f"10.0.0.{i + 1}", **{"pod-template-hash": f"h{i % 2}"}) for i in range(4)
    ]
    first = settle(worker, Batch(pods=facts_of(*pods)), numbers)
    assert len(set(first.pods.values())) == 1
    spec = {
        "endpointSelector": {"matchLabels": {"pod-template-hash": "h1"}},
        "ingress": [{"fromEndpoints": [{}]}],
    }
    batch = Batch(policies={"L7Policy/default/p": PolicyText(l7policy(spec))})
    by_hash = settle(worker, batch, numbers)
    assert len(set(by_hash.pods.values())) == 2
    selected = [number for number, sources in by_hash.subjects.items() if sources]
    assert selected == [by_hash.pods["default/s-1"]]
    again = settle(worker, Batch(policies={"L7Policy/default/p": None}), numbers)
    assert len(set(again.pods.values())) == 1


@pytest.mark.parametrize("kept", [16, 1])
def test_rulesets_that_no_document_names_any_more_are_reported_and_come_back(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yett_operator.compilation.worker._SPARE", kept)
    worker, numbers, first = started()
    (old,) = first.rulesets
    name = "L7Policy/default/p"
    second = settle(worker, Batch(policies={name: PolicyText(l7policy(http("/b")))}), numbers)
    assert second.rulesets_gone == {old}
    third = settle(worker, Batch(policies={name: PolicyText(l7policy(http("/a")))}), numbers)
    assert set(third.rulesets) == {old}
    assert third.rulesets[old] == first.rulesets[old]


# -- what is published


def slim(value: Pod, node: str, uid_mark: int = 1) -> SlimPod:
    return SlimPod(value.key, value.facts.prefixes, node, uid_mark, workload=value.workload)


def test_a_node_gets_the_documents_of_its_own_pods() -> None:
    _, _, outcome = started()
    publisher = Publisher()
    with pytest.raises(RuntimeError, match="nothing is published"):
        publisher.snapshot("n1")
    publisher.publish_whole(outcome, {SERVER.key: slim(SERVER, "n1"), CLIENT.key: slim(CLIENT, "n2")})
    snapshot = publisher.snapshot("n1")
    assert [pod.key for pod in snapshot.endpoints] == [SERVER.key]
    assert list(snapshot.documents) == [outcome.pods[SERVER.key]]
    assert set(snapshot.rulesets) == set(outcome.rulesets)
    assert set(snapshot.pods) == {SERVER.key, CLIENT.key}
    assert publisher.snapshot("n2").rulesets == {}
    assert publisher.snapshot("unknown").endpoints == ()


def test_a_pod_that_leaves_a_node_is_named_with_the_node() -> None:
    worker, numbers, outcome = started()
    publisher = Publisher()
    publisher.publish_whole(outcome, {SERVER.key: slim(SERVER, "n1")})
    gone = settle(worker, Batch(pods={SERVER.key: None}), numbers)
    change = publisher.publish(gone, {SERVER.key: None})
    assert change is not None
    assert change.pods == {SERVER.key: None}
    assert change.moved == {SERVER.key: "n1"}
    assert change.ipcache == {packed_prefix("10.0.0.1"): None}
    assert publisher.by_node == {}


def test_nothing_new_is_no_revision() -> None:
    worker, numbers, outcome = started()
    publisher = Publisher()
    publisher.publish_whole(outcome, {SERVER.key: slim(SERVER, "n1")})
    before = publisher.revision
    again = settle(worker, Batch(pods=facts_of(SERVER)), numbers)
    assert publisher.publish(again, {SERVER.key: slim(SERVER, "n1")}) is None
    assert publisher.revision == before


def test_who_is_behind_a_service_is_published_with_each_change_and_after_a_new_start() -> None:
    worker, numbers, outcome = started()
    publisher = Publisher()
    pods = {SERVER.key: slim(SERVER, "n1"), CLIENT.key: slim(CLIENT, "n2")}
    publisher.publish_whole(outcome, pods)
    api = Service("default", "api", {}, (ServicePort(80, 8080),), ("10.96.0.1",))
    piece = Slice("default", "api-1", "api", (("", "TCP", 8080),), SERVER.addresses)
    front, server = Frontend("10.96.0.1", 6, 80), outcome.pods[SERVER.key]
    told = publisher.publish(settle(worker, Batch(services={api.key: api}), numbers), {})
    assert told is not None
    assert told.services == {front: ()}
    told = publisher.publish(settle(worker, Batch(slices={piece.key: piece}), numbers), {})
    assert told is not None
    assert told.services == {front: ((server, 8080),)}
    assert publisher.snapshot("n1").services == {front: ((server, 8080),)}
    again = Worker()
    batch = Batch(pods=facts_of(SERVER, CLIENT), numbers=dict(numbers.table.numbers))
    told = publisher.publish_whole(settle(again, batch, numbers), pods)
    assert told is not None
    assert told.services == {front: None}
    assert publisher.snapshot("n1").services == {}


def test_a_compiler_that_starts_anew_changes_only_what_differs() -> None:
    _, numbers, outcome = started()
    publisher = Publisher()
    pods = {SERVER.key: slim(SERVER, "n1"), CLIENT.key: slim(CLIENT, "n2")}
    publisher.publish_whole(outcome, pods)
    worker = Worker()
    batch = Batch(
        policies={"L7Policy/default/p": PolicyText(l7policy(http("/a")))},
        pods=facts_of(SERVER),
        numbers=dict(numbers.table.numbers),
    )
    change = publisher.publish_whole(settle(worker, batch, numbers), {SERVER.key: pods[SERVER.key]})
    assert change is not None
    assert change.documents == {}
    assert change.gone == {outcome.pods[CLIENT.key]}
    assert change.pods == {CLIENT.key: None}
    assert change.moved == {CLIENT.key: "n2"}
    assert change.ipcache == {packed_prefix("10.0.0.2"): None}
    assert change.rulesets == {}


APPS = st.sampled_from(["a", "b", "api-server"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("policy"), st.sampled_from("xy"), policy_objects),
        st.tuples(st.just("no policy"), st.sampled_from("xy"), st.none()),
        st.tuples(st.just("pod"), st.sampled_from("kl"), APPS),
        st.tuples(st.just("no pod"), st.sampled_from("kl"), st.none()),
        st.tuples(st.just("anew"), st.none(), st.none()),
    ),
    max_size=7,
)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_who_follows_the_changes_knows_what_a_snapshot_says(history: list[tuple[Any, Any, Any]]) -> None:
    worker, numbers, publisher = Worker(), Numbers(), Publisher()
    policies: dict[str, PolicyText] = {}
    pods: dict[tuple[str, str], SlimPod] = {}
    held: dict[str, dict[Any, Any]] = {"documents": {}, "ipcache": {}, "identities": {}, "pods": {}}
    rulesets: set[str] = set()

    def follow(change: Change) -> None:
        for name, mapping in held.items():
            for key, value in getattr(change, name).items():
                if value is None:
                    mapping.pop(key, None)
                else:
                    mapping[key] = value
        for number in change.gone:
            held["documents"].pop(number, None)
        rulesets.update(change.rulesets)

    publisher.listen(follow)
    publisher.publish_whole(settle(worker, Batch(), numbers), {})
    for kind, name, value in history:
        batch, touched = Batch(), {}
        match kind:
            case "policy":
                named = {**value, "metadata": {**value["metadata"], "name": name}}
                policies[name] = batch.policies[name] = PolicyText(json.dumps(named).encode())
            case "no policy":
                policies.pop(name, None)
                batch.policies[name] = None
            case "pod":
                made = slim(pod(name, value, f"10.0.0.{ord(name)}"), "n1" if value == "a" else "n2")
                pods[made.key] = touched[made.key] = made
                batch.pods[made.key] = made
            case "no pod":
                pods.pop(f"default/{name}", None)
                touched[f"default/{name}"] = None
                batch.pods[f"default/{name}"] = None
            case "anew":
                worker = Worker()
                whole = Batch(
                    policies=dict(policies),
                    pods={**pods},
                    numbers=dict(numbers.table.numbers),
                )
                publisher.publish_whole(settle(worker, whole, numbers), pods)
                continue
        publisher.publish(settle(worker, batch, numbers), touched)
    assert held["documents"] == publisher.documents
    assert held["ipcache"] == publisher.ipcache
    assert held["identities"] == publisher.identities
    assert held["pods"] == publisher.pods
    assert {key: (each.node, each.addresses) for key, each in publisher.pods.items()} == {
        key: (each.node, each.addresses) for key, each in pods.items()
    }
    assert publisher._places.waiting == {}
    assert set(publisher.rulesets) <= rulesets
    used = {digest for document in publisher.documents.values() for digest in document.rulesets}
    assert set(publisher.rulesets) == used
    for node in ("n1", "n2"):
        here = [pod.key for pod in publisher.snapshot(node).endpoints]
        assert here == sorted(key for key, pod in pods.items() if pod.node == node)


def test_what_comes_to_a_node_and_leaves_it_are_identities_not_pods() -> None:
    worker, numbers, outcome = started()
    publisher = Publisher()
    first = publisher.publish_whole(outcome, {SERVER.key: slim(SERVER, "n1")})
    assert first is not None
    assert first.came == frozenset(), "everything came then"
    number = outcome.pods[SERVER.key]
    other = pod("server-2", "server", "10.0.0.3")

    def see(value: Pod, node: str | None) -> Change:
        batch = Batch(pods=facts_of(value) if node else {value.key: None})
        seen = {value.key: slim(value, node) if node else None}
        change = publisher.publish(settle(worker, batch, numbers), seen)
        assert change is not None
        return change

    for node, came, left in (
        ("n1", set(), set()),
        ("n2", {("n2", number)}, set()),
        (None, set(), {("n2", number)}),
    ):
        change = see(other, node)
        assert (change.came, change.left) == (came, left), node
    assert see(SERVER, "n2").came == {("n2", number)}


def test_a_label_that_makes_no_other_identity_is_told_nobody() -> None:
    worker, numbers, outcome = started()
    publisher = Publisher()
    publisher.publish_whole(outcome, {SERVER.key: slim(SERVER, "n1")})
    noisy = pod("server", "server", "10.0.0.1", **{"pod-template-hash": "x"})
    seen = {noisy.key: slim(noisy, "n1")}
    assert publisher.publish(settle(worker, Batch(pods=facts_of(noisy)), numbers), seen) is None
    assert publisher.pods[noisy.key] is seen[noisy.key], "and is kept all the same"


@settings(max_examples=examples(25))
@given(st.lists(st.tuples(st.sampled_from("abcdef"), APPS | st.none()), max_size=8), st.integers(1, 3))
def test_a_batch_in_pieces_leads_to_what_it_leads_to_as_one(changes: list[Any], size: int) -> None:
    policies = {"L7Policy/default/p": PolicyText(l7policy(http("/a")))}
    pods: dict[PodKey, Facts | None] = {}
    for name, app in changes:
        made = pod(name, app or "", f"10.0.0.{ord(name)}")
        pods |= facts_of(made) if app else {made.key: None}
    batch = Batch(policies=policies, pods=pods, forgotten={("k8s:app=gone",)})
    outcomes = []
    for pieces in ([batch], list(batch.pieces(size))):
        assert all(len(each.pods) <= max(size, len(pods)) for each in pieces)
        worker, numbers = Worker(), Numbers()
        for piece in pieces[:-1]:
            worker.take(piece)
        outcomes.append(replace(settle(worker, pieces[-1], numbers), seconds=0))
    assert outcomes[0] == outcomes[1]


async def test_many_pods_go_to_the_process_in_pieces_and_come_back_as_the_objects_that_went() -> None:
    made = [pod(f"p{i}", f"app-{i % 3}", f"10.1.{i >> 8}.{i & 255}") for i in range(2 * PIECE + 1)]
    prefixes = {each.key: each.facts.prefixes for each in made}
    batch = Batch(pods={each.key: PodFacts(each.workload, prefixes[each.key]) for each in made})
    numbers, alone, process = Numbers(), Worker(), CompilerProcess()
    try:
        missing = (await process.step(batch)).missing
        assert missing == alone.step(batch).missing
        batch.numbers = numbers.give(missing)
        outcome = await process.step(batch)
        assert replace(outcome, seconds=0) == replace(alone.step(batch), seconds=0)
    finally:
        process.close()
    assert len(outcome.pods) == len(outcome.ipcache) == len(made)
    assert {id(key) for key in outcome.pods} == {id(key) for key in batch.pods}
    assert {id(each) for each in outcome.ipcache} == {id(each) for (each,) in prefixes.values()}
    assert len({id(number) for number in outcome.pods.values()}) == 3


async def test_the_process_works_and_its_death_is_noticed() -> None:
    process = CompilerProcess()
    try:
        outcome = await process.step(Batch(pods=facts_of(SERVER)))
        assert len(outcome.missing) == 1
        assert process._child is not None
        process._child.process.kill()
        with pytest.raises(CompilerDied):
            await process.step(Batch())
        again = await process.step(Batch())
        assert again.missing == frozenset(), "a new process knows nothing of the pod"
    finally:
        process.close()


async def test_what_the_process_raises_is_raised_here_and_it_goes_on() -> None:
    process = CompilerProcess()
    try:
        broken = Batch(namespaces={"default": 7})  # type: ignore[dict-item]
        with pytest.raises(AttributeError) as raised:
            await process.step(broken)
        assert "in the compiling process" in raised.value.__notes__[0]
        assert (await process.step(Batch(pods=facts_of(SERVER)))).missing
    finally:
        process.close()


async def test_an_answer_that_nobody_waits_for_any_more_is_not_taken_for_the_next() -> None:
    process = CompilerProcess()
    try:
        await process.step(Batch())
        step = asyncio.create_task(process.step(Batch(pods=facts_of(SERVER))))
        await asyncio.sleep(0)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert (await process.step(Batch())).missing == frozenset()
    finally:
        process.close()


def test_the_process_goes_when_its_parent_is_killed() -> None:
    script = """
import asyncio, os, signal
from yett_operator.compilation.batch import Batch
from yett_operator.compilation.process import CompilerProcess

async def main():
    process = CompilerProcess()
    await process.step(Batch())
    print(process._child.process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        done = subprocess.run([sys.executable, file.name], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    child = Path(f"/proc/{int(done.stdout)}/stat")
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.01)
