"""What the compiler hands out: shape of documents, rulesets, views of nodes, explanations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.policy_world import cluster, crowded_objects, fake_ruleset, policy_objects
from yett_policy.cluster import Cluster, NamedPort, Namespace, Node, Pod
from yett_policy.compiled import Compiled
from yett_policy.compiler import Compiler
from yett_policy.compiler import compile as compile_all
from yett_policy.conflict import certain_conflicts
from yett_policy.document import Direction, Document, Engine, Ruleset, Verdict
from yett_policy.evaluate import Flow, decide
from yett_policy.explain import explain
from yett_policy.http.errors import TooComplex
from yett_policy.http.rule import HttpRule, RuleAction, RulesetSpec
from yett_policy.identity import HOST, LABELS_MAX, REMOTE_NODE, TOO_MANY, WORLD
from yett_policy.policy import TCP, Policy
from yett_policy.reason import Reason
from yett_policy.rulesets import compile_spec
from yett_policy.selector import LabelSelector
from yett_policy.source.parse import parse_policy

PODS = (
    Pod("default", "server", {"app": "server"}, ("10.0.1.1", "2001:db8::1")),
    Pod("default", "client", {"app": "client"}, ("10.0.1.2",)),
    Pod("default", "agent", {"app": "client"}, ("10.0.0.1",), host_network=True),
)
FACTS = Cluster(PODS, nodes=(Node("n1", ("10.0.0.1",)), Node("n2", ("10.0.0.2",), api_server=True)))


def build(text: str, facts: Cluster = FACTS, rulesets: Any = fake_ruleset) -> Compiled:
    policies = [policy for obj in yaml.safe_load_all(text) if obj for policy in parse_policy(obj)]
    return compile_all(policies, facts, rulesets=rulesets)


def l7policy(name: str, rules: str, more: str = "") -> str:
    return f"""
---
apiVersion: yett.dev/v1alpha1
kind: L7Policy
metadata: {{name: {name}}}
spec:
  endpointSelector: {{matchLabels: {{app: server}}}}
  {more}
  ingress:
  - toPorts:
    - ports: [{{port: "80", protocol: TCP}}]
      rules: {{http: {rules}}}
"""


def document_of(compiled: Compiled, name: str) -> Document:
    number = next(pod[2] for pod in compiled.pods if pod[1] == name)
    return compiled.documents[number]


BLOCKS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: blocks}
spec:
  podSelector: {}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]
"""


@settings(max_examples=examples(60))
@given(st.lists(st.one_of(policy_objects, crowded_objects), max_size=5))
def test_every_document_is_complete_sorted_and_says_which_rule(objects: list[dict[str, Any]]) -> None:
    policies = [
        policy
        for i, obj in enumerate(objects)
        for policy in parse_policy({**obj, "metadata": {**obj["metadata"], "name": f"p{i}"}})
    ]
    compiled = compile_all(policies, cluster(), rulesets=fake_ruleset)
    for number, document in compiled.documents.items():
        assert document.identity == number
        keys = [(e.direction, e.peer, e.proto, e.port, e.port_bits) for e in document.entries]
        assert keys == sorted(set(keys))
        for direction in Direction:
            assert (direction, 0, 0, 0, 0) in keys
        assert list(document.rules) == sorted(set(document.rules))
        assert {entry.rule for entry in document.entries} == set(range(len(document.rules)))
        for entry in document.entries:
            assert entry.port % (1 << (16 - entry.port_bits)) == 0
            assert entry.proto or not entry.port_bits
            assert not entry.ruleset or (entry.proto == TCP and entry.verdict is Verdict.ALLOW)
            assert entry.reason is not Reason.NONE
    named = {e.ruleset for document in compiled.documents.values() for e in document.entries if e.ruleset}
    assert named == set(compiled.rulesets)
    for digest, ruleset in compiled.rulesets.items():
        assert ruleset.spec.digest == digest
        refs = [(rule.ref, rule.action) for rule in ruleset.spec.rules]
        assert refs == sorted(set(refs))


def test_without_policies_everything_passes_and_no_rule_is_the_cause() -> None:
    document = document_of(build(""), "server")
    assert document.rules == ("none",)
    assert {(e.direction, e.verdict, e.reason) for e in document.entries} == {
        (Direction.INGRESS, Verdict.ALLOW, Reason.NOT_ENFORCED),
        (Direction.EGRESS, Verdict.ALLOW, Reason.NOT_ENFORCED),
    }


def test_pods_of_the_host_network_are_the_node() -> None:
    compiled = build(l7policy("p", "[{}]"))
    assert [pod[1] for pod in compiled.pods] == ["client", "server"]
    assert compiled.ipcache["10.0.0.1/32"] == REMOTE_NODE
    assert compiled.ipcache_on("n1")["10.0.0.1/32"] == HOST
    assert compiled.ipcache_on("n1")["10.0.0.2/32"] != REMOTE_NODE  # it runs the API server
    assert compiled.ipcache_on("n2")["10.0.0.1/32"] == REMOTE_NODE


def test_a_node_that_runs_the_api_server_is_still_the_host_to_its_own_pods() -> None:
    compiled = build(l7policy("p", "[{}]"))
    server = document_of(compiled, "server")
    assert explain(compiled, "10.0.0.2", "server", TCP, 80, node="n2").ingress.reason is Reason.HOST  # type: ignore[union-attr]
    assert explain(compiled, "10.0.0.2", "server", TCP, 81, node="n1").verdict is Verdict.DENY
    assert {entry.peer for entry in server.entries if entry.reason is Reason.HOST} == {1, 16}


def test_a_snapshot_holds_what_one_node_needs() -> None:
    compiled = build(l7policy("p", "[{}]"))
    server = document_of(compiled, "server")
    client = document_of(compiled, "client")
    only_client = compiled.snapshot("n1", [client.identity])
    assert only_client.documents == (client,)
    assert only_client.rulesets == ()
    whole = compiled.snapshot("n1")
    assert whole.documents == tuple(sorted((server, client), key=lambda document: document.identity))
    assert [ruleset.digest for ruleset in whole.rulesets] == list(compiled.rulesets)
    assert ("10.0.0.1/32", HOST) in whole.ipcache
    assert list(whole.ipcache) == sorted(whole.ipcache)


def test_what_no_prefix_covers_is_world() -> None:
    compiled = build("")
    assert compiled.identity_of("8.8.8.8") == WORLD
    assert compiled.identity_of("2001:db8::1") == document_of(compiled, "server").identity
    with pytest.raises(ValueError, match="does not appear to be"):
        compiled.identity_of("server")


def one_spec(compiled: Compiled) -> RulesetSpec:
    (ruleset,) = compiled.rulesets.values()
    return ruleset.spec


def test_a_ruleset_takes_its_options_from_the_policies_whose_rules_it_holds() -> None:
    spec = one_spec(build(l7policy("p", "[{}]")))
    assert (spec.forbidden, spec.chunk_extensions, spec.trailers, spec.engine) == (
        False,
        False,
        False,
        "Auto",
    )
    more = "denyResponse: Forbidden\n  engine: Kernel\n  http: {trailers: true}"
    spec = one_spec(build(l7policy("p", "[{}]", more) + l7policy("q", "[{path: /q}]", "engine: Auto")))
    assert (spec.forbidden, spec.chunk_extensions, spec.trailers, spec.engine) == (
        True,
        False,
        True,
        "Kernel",
    )
    assert [rule.ref.partition(":")[0] for rule in spec.rules] == ["L7Policy/default/p", "L7Policy/default/q"]
    assert spec.default_rule == "L7Policy/default/p:default-deny, L7Policy/default/q:default-deny"


def test_options_of_an_audit_policy_do_not_change_an_enforced_ruleset() -> None:
    enforced = l7policy("p", "[{path: /p}]")
    before = one_spec(build(enforced))
    audit = "audit: true\n  denyResponse: Forbidden\n  engine: Sidecar\n  http: {trailers: true, chunkExtensions: true}"
    assert one_spec(build(enforced + l7policy("q", "[{}]", audit))) == before


def aged(engine: str, created: str, name: str, path: str = "/a", more: str = "") -> Policy:
    text = l7policy(name, f"[{{path: {path}}}]", f"engine: {engine}\n  {more}").replace("---", "")
    obj = yaml.safe_load(text)
    obj["metadata"]["creationTimestamp"] = created
    return parse_policy(obj)[0]


OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
PAIRS = [
    # (engine, created, name) twice, the engine that judges, the name that gives way
    (("Kernel", OLD, "p"), ("Sidecar", NEW, "q"), "Kernel", "q"),
    (("Kernel", NEW, "p"), ("Sidecar", OLD, "q"), "Sidecar", "p"),
    (("Sidecar", OLD, "q"), ("Kernel", OLD, "p"), "Kernel", "q"),  # of one age: by name
    (("Kernel", OLD, "p"), ("Auto", NEW, "q"), "Kernel", None),
    (("Sidecar", NEW, "p"), ("Auto", OLD, "q"), "Sidecar", None),
    (("Sidecar", NEW, "p"), ("Sidecar", OLD, "q"), "Sidecar", None),
]


@pytest.mark.parametrize(("one", "other", "engine", "gives_way"), PAIRS)
def test_of_two_policies_that_name_different_engines_the_newer_gives_way(
    one: tuple[str, str, str], other: tuple[str, str, str], engine: str, gives_way: str | None
) -> None:
    policies = [aged(*one, path="/one"), aged(*other, path="/other")]
    for order in (policies, policies[::-1]):
        compiler = Compiler(rulesets=fake_ruleset)
        for policy in order:
            compiler.put_policies(policy.source, [policy])
        for pod in PODS:
            compiler.put_pod(pod)
        conflicts = compiler.flush().conflicts
        assert {each.policy for each in conflicts} == (
            {f"L7Policy/default/{gives_way}"} if gives_way else set()
        )
        assert {each.policy for each in certain_conflicts(order)} == {each.policy for each in conflicts}
        (spec,) = [ruleset.spec for ruleset in compiler.compiled().rulesets.values()]
        assert spec.engine == engine
        judging = {rule.ref.split("/")[2].partition(":")[0] for rule in spec.rules}
        assert judging == {"p", "q"} - {gives_way}


def test_a_policy_gives_way_only_where_the_other_one_is_too_and_closed() -> None:
    """Who can label one pod of a namespace must not open all the others."""
    wide = aged("Sidecar", NEW, "wide")
    wide = replace(wide, subject=LabelSelector.of())
    compiled = compile_all([aged("Kernel", OLD, "narrow", "/narrow"), wide], FACTS, rulesets=fake_ruleset)
    both, alone = document_of(compiled, "server"), document_of(compiled, "client")
    engines = {
        name: {compiled.rulesets[entry.ruleset].spec.engine for entry in document.entries if entry.ruleset}
        for name, document in (("both", both), ("alone", alone))
    }
    assert engines == {"both": {"Kernel"}, "alone": {"Sidecar"}}
    outside = next(e for e in both.entries if e.direction is Direction.INGRESS and not e.peer and not e.proto)
    assert outside.verdict is Verdict.DENY
    assert "wide:default-deny" in both.rules[outside.rule], "its default deny stays"


def test_denials_of_a_policy_that_gives_way_stay() -> None:
    newer = aged("Sidecar", NEW, "deny", "/secret")
    newer = replace(newer, rules=tuple(replace(rule, deny=True) for rule in newer.rules))
    denies = tuple(replace(http, action=RuleAction.DENY) for http in newer.rules[0].ports[0].http)  # type: ignore[index]
    ports = tuple(replace(port, http=denies) for port in newer.rules[0].ports or ())
    newer = replace(newer, rules=(replace(newer.rules[0], ports=ports),))
    compiled = compile_all([aged("Kernel", OLD, "allow", "/.*"), newer], FACTS, rulesets=fake_ruleset)
    specs = [ruleset.spec for ruleset in compiled.rulesets.values() if ruleset.spec.engine == "Kernel"]
    assert [sorted(rule.action for rule in spec.rules) for spec in specs] == [
        [RuleAction.ALLOW, RuleAction.DENY]
    ]


def test_a_policy_that_only_watches_gives_way_to_one_that_enforces_however_old_it_is() -> None:
    watching = aged("Sidecar", OLD, "watching", more="audit: true")
    compiled = compile_all([watching, aged("Kernel", NEW, "enforced")], FACTS, rulesets=fake_ruleset)
    assert {ruleset.spec.engine for ruleset in compiled.rulesets.values()} == {"Kernel"}


PROBED = (replace(PODS[0], probes=(80,)), *PODS[1:])
DENY_ALL = "ingressDeny: [{fromEntities: [all]}]"
DENY_HTTP = "ingressDeny: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: /x}]}}]}]"


@pytest.mark.parametrize("denies", [DENY_ALL, DENY_HTTP])
def test_the_kubelets_probes_pass_whatever_is_denied_and_nothing_else_does(denies: str) -> None:
    text = l7policy("p", "[{path: /p}]", denies)
    compiled = build(text, replace(FACTS, pods=PROBED))

    def side(source: str, port: int, node: str = "n1") -> Any:
        return explain(compiled, source, "server", TCP, port, node=node).ingress

    assert (side("10.0.0.1", 80).verdict, side("10.0.0.1", 80).reason) == (Verdict.ALLOW, Reason.HOST)
    assert side("10.0.0.1", 80).ruleset == "", "no request of a probe is judged"
    for source, port in (("10.0.0.1", 81), ("client", 80), ("10.0.0.2", 80)):
        judged = side(source, port)
        closed = judged.verdict is Verdict.DENY or judged.ruleset
        assert closed or (denies == DENY_HTTP and port == 81), "the node may reach what no rule denies"


def test_ports_of_probes_are_in_identities_only_while_a_policy_denies_the_node() -> None:
    def probed(compiled: Compiled) -> bool:
        return any(label.startswith("probe:") for labels in compiled.identities.values() for label in labels)

    facts = replace(FACTS, pods=PROBED)
    assert not probed(build(l7policy("p", "[{path: /p}]"), facts))
    assert probed(build(l7policy("p", "[{path: /p}]", DENY_ALL), facts))
    compiler = Compiler(rulesets=fake_ruleset)
    for pod in PROBED:
        compiler.put_pod(pod)
    for more, expected in (("", False), (DENY_ALL, True), ("", False)):
        (policy,) = parse_policy(yaml.safe_load(l7policy("p", "[{path: /p}]", more).replace("---", "")))
        compiler.put_policies(policy.source, [policy])
        compiler.flush()
        assert probed(compiler.compiled()) is expected


RESPONSES = [
    # cluster, namespace, policy, and whether the client is answered
    (False, None, None, False),
    (True, None, None, True),
    (False, "Forbidden", None, True),
    (True, "Reset", None, False),
    (True, "forbidden", None, False),  # no response: Reset, whatever the cluster says
    (True, "Forbidden", "Reset", False),
    (False, "Reset", "Forbidden", True),
    (False, None, "Forbidden", True),
]


@pytest.mark.parametrize(("everywhere", "namespace", "policy", "answered"), RESPONSES)
def test_who_says_how_denials_are_answered(
    everywhere: bool, namespace: str | None, policy: str | None, answered: bool
) -> None:
    facts = replace(FACTS, namespaces=(Namespace("default", {}, namespace),), forbidden=everywhere)
    wish = f"denyResponse: {policy}" if policy else ""
    allow = l7policy("p", "[{path: /a}]", wish)
    deny = l7policy("q", "[{path: /b}]", wish).replace("ingress:", "ingressDeny:")
    specs = [ruleset.spec for ruleset in build(allow + deny, facts).rulesets.values()]
    assert {spec.forbidden for spec in specs} == {answered}
    denies = [rule for spec in specs for rule in spec.rules if rule.action is RuleAction.DENY]
    assert {rule.forbidden for rule in denies} == {answered}


def test_a_policy_for_every_namespace_is_answered_as_each_of_them_says() -> None:
    pods = (*PODS, Pod("other", "server", {"app": "server"}, ("10.0.1.9",)))
    facts = replace(FACTS, pods=pods, namespaces=(Namespace("other", {}, "Forbidden"),))
    text = l7policy("p", "[{path: /a}]").replace("kind: L7Policy", "kind: ClusterL7Policy")
    compiled = build(text, facts)
    answered = {
        pod[0]: {e.forbidden for e in compiled.documents[pod[2]].entries if e.ruleset}
        for pod in compiled.pods
        if pod[1] == "server"
    }
    assert answered == {"default": {False}, "other": {True}}


def test_forbidden_is_told_by_the_entry_too() -> None:
    document = document_of(build(l7policy("p", "[{}]", "denyResponse: Forbidden")), "server")
    assert [entry.forbidden for entry in document.entries if entry.ruleset] == [True]
    assert {entry.forbidden for entry in document.entries if not entry.ruleset} == {False}


def test_a_ruleset_of_the_sidecar_is_a_redirect() -> None:
    def sidecar(spec: RulesetSpec) -> Ruleset:
        return Ruleset(spec.digest, spec, Engine.SIDECAR, "asked for")

    document = document_of(build(l7policy("p", "[{}]"), rulesets=sidecar), "server")
    assert [entry.verdict for entry in document.entries if entry.ruleset] == [Verdict.REDIRECT]


def test_rulesets_are_compiled_once_each() -> None:
    seen: list[str] = []

    def counting(spec: RulesetSpec) -> Ruleset:
        seen.append(spec.digest)
        return fake_ruleset(spec)

    build(l7policy("p", "[{}]").replace("{app: server}", "{}"), rulesets=counting)
    assert len(seen) == len(set(seen)) == 1


def test_the_real_compiler_of_rulesets_is_the_default() -> None:
    (policy,) = parse_policy(yaml.safe_load(l7policy("p", "[{path: /p}]").replace("---", "")))
    (ruleset,) = compile_all([policy], FACTS).rulesets.values()
    assert ruleset.engine is Engine.KERNEL
    assert ruleset.tables


def test_rules_too_complex_for_the_kernel_go_to_the_sidecar_even_against_the_wish(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strict(spec: RulesetSpec, *, engine_wish: str) -> Ruleset:
        if engine_wish == "Kernel":
            raise TooComplex("needs 70,000 states of 32,768")
        return Ruleset(spec.digest, spec, Engine.SIDECAR, "the policy asks for the sidecar")

    monkeypatch.setattr("yett_policy.rulesets.compile_ruleset", strict)
    ruleset = compile_spec(RulesetSpec((HttpRule("r"),), "default", engine="Kernel"))
    assert ruleset.engine is Engine.SIDECAR
    assert "asks for the kernel, but the rules are too complex for it: needs 70,000" in ruleset.engine_reason


def test_an_audit_rule_that_denies_is_marked_as_such() -> None:
    text = l7policy("p", "[{}]", "audit: true").replace("ingress:", "ingressDeny:")
    text += l7policy("q", "[{path: /q}]")
    actions = [
        {rule.ref.partition(":")[0]: rule.action for rule in ruleset.spec.rules}
        for ruleset in build(text).rulesets.values()
    ]
    watched = {"L7Policy/default/p": RuleAction.AUDIT_DENY}
    assert {**watched, "L7Policy/default/q": RuleAction.ALLOW} in actions
    assert {**watched, "none": RuleAction.ALLOW} in actions  # for the node itself
    assert len(actions) == 2


def test_explain_tells_both_sides_and_who_they_are() -> None:
    compiled = build(l7policy("p", "[{path: /p}]"))
    found = explain(compiled, "client", "default/server", TCP, 80, node="n1")
    assert found.source.name == "default/client"
    assert found.source.address == "10.0.1.2"
    assert found.destination.address == "10.0.1.1"
    assert "k8s:app=client" in found.source.labels
    assert found.egress is not None
    assert found.egress.reason is Reason.NOT_ENFORCED
    assert found.ingress is not None
    assert found.ingress.ruleset in compiled.rulesets
    outside = explain(compiled, "8.8.8.8", "server", TCP, 80)
    assert outside.egress is None
    assert outside.source.labels == ("reserved:world",)


def test_explain_picks_the_address_of_the_family_asked_for() -> None:
    compiled = build("")
    assert explain(compiled, "2001:db9::1", "server", TCP, 80).destination.address == "2001:db8::1"
    with pytest.raises(ValueError, match="pod default/client has no IPv6 address"):
        explain(compiled, "2001:db9::1", "client", TCP, 80)
    with pytest.raises(ValueError, match="no pod default/nobody is known; give namespace/name or an address"):
        explain(compiled, "nobody", "server", TCP, 80)


def test_a_pod_without_an_address_is_explained_by_its_labels() -> None:
    facts = Cluster((*PODS, Pod("default", "new", {"app": "client"})))
    compiled = build(l7policy("p", "[{}]"), facts)
    found = explain(compiled, "new", "server", TCP, 81)
    assert found.source.address == ""
    assert found.source.identity == document_of(compiled, "client").identity
    assert found.verdict is Verdict.DENY


ALLOW_ALL = """
apiVersion: yett.dev/v1alpha1
kind: ClusterL7Policy
metadata: {name: all}
spec:
  endpointSelector: {}
  ingress: [{fromEntities: [all]}]
  egress: [{toEntities: [all]}]
---
apiVersion: yett.dev/v1alpha1
kind: ClusterL7Policy
metadata: {name: others}
spec:
  endpointSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}
  ingress: [{fromEntities: [all]}]
  egress: [{toEntities: [all]}]
"""


@pytest.mark.parametrize(
    "many",
    [
        Pod("default", "server", {f"label-{number}": "x" for number in range(300)}, ("10.0.1.1",)),
        Pod(
            "default",
            "server",
            {"app": "server"},
            ("10.0.1.1",),
            tuple(NamedPort("http", number) for number in range(10000, 10300)),
        ),
        Pod("default", "server", {"app": "server"}, ("10.0.1.1",), probes=tuple(range(10000, 10300))),
    ],
    ids=["labels", "ports", "probes"],
)
@pytest.mark.parametrize("text", ["", ALLOW_ALL, BLOCKS], ids=["no policy", "all allowed", "in an ipBlock"])
def test_a_pod_with_more_labels_than_an_identity_holds_is_denied_everything(text: str, many: Pod) -> None:
    """Which policies select it cannot be said, and none is escaped by it."""
    compiled = build(text, Cluster((many, PODS[1])))
    document = document_of(compiled, "server")
    own = compiled.identities[document.identity]
    if many.probes and TOO_MANY not in own:
        return  # they are no labels while no policy denies what comes from nodes
    assert own in {(TOO_MANY,), ("block:10.0.0.0/8", TOO_MANY)}
    assert all(len(labels) <= LABELS_MAX for labels in compiled.identities.values())
    client = compiled.identity_of("10.0.1.2")
    for direction in Direction:
        for peer in (client, REMOTE_NODE, WORLD):
            decision = decide(document, compiled.rulesets, Flow(direction, peer, TCP, 80))
            assert decision.verdict is Verdict.DENY, text
            assert decision.rule == "Built-in/too-many-labels:default-deny"


def test_as_many_labels_as_an_identity_holds_are_no_problem() -> None:
    """Two hundred and fifty, for the namespace has some too."""
    pod = Pod("default", "server", {"app": "server"} | {f"label-{n}": "x" for n in range(249)}, ("10.0.1.1",))
    compiled = build(l7policy("p", "[{method: GET}]"), Cluster((pod, PODS[1])))
    assert document_of(compiled, "server").rulesets
    assert len(compiled.identities[document_of(compiled, "server").identity]) > 250
