"""`yettctl lint`: codes, places, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Run

EXAMPLES = Path(__file__).parents[2] / "manifests/examples"


def policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "yett.dev/v1alpha1",
        "kind": "L7Policy",
        "metadata": {"name": "p"},
        "spec": {"endpointSelector": {}, **spec},
    }


def http(**rule: Any) -> dict[str, Any]:
    ports = [{"port": "80", "protocol": "TCP"}]
    return policy(ingress=[{"toPorts": [{"ports": ports, "rules": {"http": [rule]}}]}])


def write(path: Path, *bodies: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump_all(bodies))
    return str(path)


def test_the_examples_are_clean(run: Run) -> None:
    done = run("lint", str(EXAMPLES))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "10 policies, no findings\n"


def test_a_finding_has_code_place_and_remedy(tmp_path: Path, run: Run) -> None:
    file = write(tmp_path / "p.yaml", http(method="get"))
    done = run("lint", file)
    assert done.returncode == 1
    assert done.stdout == (
        f"warning YETT1018 {file}: spec.ingress[0].toPorts[0].rules.http[0].method: 'get' matches no usual "
        "request: methods are case-sensitive; write 'GET'\n1 policy, 1 finding\n"
    )


def test_json_names_the_object(tmp_path: Path, run: Run) -> None:
    file = write(tmp_path / "p.yaml", http(path="/a"), {**http(method="get"), "metadata": {"name": "q"}})
    (found,) = json.loads(run("lint", file, "-o", "json").stdout)
    assert found["code"] == "YETT1018"
    assert (found["file"], found["document"], found["name"]) == (file, 2, "q")
    assert found["field"] == "spec.ingress[0].toPorts[0].rules.http[0].method"


def test_a_policy_that_would_be_refused_is_exit_code_2(tmp_path: Path, run: Run) -> None:
    done = run("lint", write(tmp_path / "p.yaml", policy(ingress=[{"fromEndpoint": []}])))
    assert done.returncode == 2
    assert "error YETT0001" in done.stdout
    assert "spec.ingress[0].fromEndpoint: unknown field; did you mean fromEndpoints?" in done.stdout


@pytest.mark.parametrize(
    ("options", "code"), [((), 1), (("--threshold", "error"), 0), (("--ignore", "YETT1018"), 0)]
)
def test_threshold_and_ignored_codes_decide_the_exit_code(
    tmp_path: Path, run: Run, options: tuple[str, ...], code: int
) -> None:
    assert run("lint", write(tmp_path / "p.yaml", http(method="get")), *options).returncode == code


def test_rules_that_do_not_fit_the_kernel_are_found_offline(tmp_path: Path, run: Run) -> None:
    done = run("lint", write(tmp_path / "p.yaml", http(path="/(a|b)*a(a|b){20}")))
    assert done.returncode == 1
    assert "error YETT2001" in done.stdout
    assert "spec.ingress[0].toPorts[0].rules.http: too complex for the kernel" in done.stdout


def test_a_policy_that_asks_for_the_kernel_hears_what_admission_would_say(tmp_path: Path, run: Run) -> None:
    match = [{"name": f"x-{i}", "value": "a"} for i in range(29)]
    body = http(headerMatches=match)
    body["spec"]["engine"] = "Kernel"
    done = run("lint", write(tmp_path / "p.yaml", body))
    assert done.returncode == 1
    assert "which the policy asks for: rules name 29 headers, over the budget of 28" in done.stdout


def test_one_policy_twice_is_found(tmp_path: Path, run: Run) -> None:
    one = write(tmp_path / "1.yaml", http(path="/a"))
    done = run("lint", one, write(tmp_path / "2.yaml", http(path="/b")))
    assert done.returncode == 1
    assert f"metadata.name: l7policy/p is in {one} too, and only the last counts" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "no policy in these files"),
        ("kind: L7Policy\nkind: L7Policy\n", "the key 'kind' occurs twice; remove one"),
    ],
)
def test_files_without_readable_policies_are_exit_code_2(
    tmp_path: Path, run: Run, text: str, said: str
) -> None:
    (tmp_path / "p.yaml").write_text(text)
    done = run("lint", str(tmp_path / "p.yaml"))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_hostile_names_are_escaped(tmp_path: Path, run: Run) -> None:
    done = run("lint", write(tmp_path / "p.yaml", policy(**{"\x1b[31mred": 1})))
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mred" in done.stdout
