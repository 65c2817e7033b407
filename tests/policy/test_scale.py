"""Work grows with what changed: counted, not timed, so that a busy machine does not matter."""

from __future__ import annotations

from yett_policy.body import build_body
from yett_policy.cluster import Pod
from yett_policy.compiler import Compiler
from yett_policy.document import Ruleset
from yett_policy.http.rule import RulesetSpec
from yett_policy.parts import Part, Row, Side
from yett_policy.policy import Policy
from yett_policy.source.parse import parse_policy

from support.policy_world import fake_ruleset  # isort: skip
import pytest


def policies(app: int, ingress: list[object]) -> list[Policy]:
    return parse_policy(
        {
            "apiVersion": "yett.dev/v1alpha1",
            "kind": "ClusterL7Policy",
            "metadata": {"name": f"p{app}"},
            "spec": {"endpointSelector": {"matchLabels": {"app": f"a{app}"}}, "ingress": ingress},
        }
    )


def world(apps: int, per_app: int, peers: str) -> Compiler:
    compiler = Compiler(rulesets=fake_ruleset)
    for app in range(apps):
        for i in range(per_app):
            address = f"10.{app >> 8}.{app & 255}.{i}"
            compiler.put_pod(Pod("default", f"p{app}-{i}", {"app": f"a{app}", "v": str(i)}, (address,)))
        next_app = {"fromEndpoints": [{"matchLabels": {"app": f"a{(app + 1) % apps}"}}]}
        ingress = next_app if peers == "one app" else {"fromEntities": ["cluster"]}
        compiler.put_policies(f"p{app}", policies(app, [ingress]))
    compiler.flush()
    return compiler


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts = [0]

    def counting(*args: object) -> object:
        counts[0] += 1
        return build_body(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("yett_policy.compiler.build_body", counting)
    return counts


def test_identities_that_the_same_policies_select_share_one_body(built: list[int]) -> None:
    compiler = world(20, 10, "one app")
    assert built == [20]
    documents = compiler.compiled().documents
    assert len(documents) == 200
    assert len({id(document.groups) for document in documents.values()}) == 20


def test_a_new_identity_builds_only_the_bodies_that_it_concerns(built: list[int]) -> None:
    compiler = world(20, 10, "one app")
    built[0] = 0
    compiler.put_pod(Pod("default", "new", {"app": "a5", "v": "new"}, ("10.9.9.9",)))
    compiler.flush()
    assert built == [1]  # of a4, which lets a5 in; its own body exists
    built[0] = 0
    compiler.put_pod(Pod("default", "other", {"app": "a5", "v": "new"}, ("10.9.9.8",)))
    compiler.flush()
    assert built == [0]


def test_what_is_said_is_not_worked_out_again_for_one_more_of_whom_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler = world(20, 10, "one app")
    worked_out: list[Part] = []
    rows = Side.rows

    def counting(side: Side, part: Part) -> list[Row]:
        worked_out.append(part)
        return rows(side, part)

    monkeypatch.setattr(Side, "rows", counting)
    compiler.put_pod(Pod("default", "new", {"app": "a5", "v": "new"}, ("10.9.9.9",)))
    assert len(compiler.flush().documents) == 1 + 10  # its own, and those of a4, which lets a5 in
    compiler.drop_pod("default", "new")
    compiler.flush()
    assert not worked_out
    compiler.put_policies("p4", policies(4, [{"fromEntities": ["cluster"]}]))
    compiler.flush()
    assert worked_out


def test_what_is_said_of_a_whole_cluster_is_said_once() -> None:
    documents = world(20, 5, "cluster").compiled().documents
    assert sum(len(document.entries) for document in documents.values()) > 100 * 100
    assert sum(len(document.groups) for document in documents.values()) < 500


def test_a_changed_policy_compiles_no_ruleset_again() -> None:
    seen: list[str] = []

    def counting(spec: RulesetSpec) -> Ruleset:
        seen.append(spec.digest)
        return fake_ruleset(spec)

    def policy(path: str) -> dict[str, object]:
        port = {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"path": path}]}}
        return {
            "apiVersion": "yett.dev/v1alpha1",
            "kind": "L7Policy",
            "metadata": {"name": path.strip("/")},
            "spec": {
                "endpointSelector": {"matchLabels": {"app": path.strip("/")}},
                "ingress": [{"toPorts": [port]}],
            },
        }

    compiler = Compiler(rulesets=counting)
    for name in ("a", "b"):
        compiler.put_pod(Pod("default", name, {"app": name}, (f"10.0.0.{ord(name)}",)))
        compiler.put_policies(name, parse_policy(policy(f"/{name}")))
    compiler.flush()
    assert len(seen) == 2
    changed = policy("/a")
    changed["spec"]["ingress"][0]["toPorts"][0]["rules"]["http"][0]["path"] = "/c"  # type: ignore[index]
    compiler.put_policies("a", parse_policy(changed))
    compiler.flush()
    assert len(seen) == 3
