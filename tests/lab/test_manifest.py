"""Reading manifests: places in errors, lists, directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from yett_lab import manifest
from yett_lab.errors import InputError

POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n"


def parse(text: str) -> list[manifest.Manifest]:
    return list(manifest.parse(text, "f.yaml"))


def test_documents_are_numbered_and_empty_ones_skipped() -> None:
    found = parse(f"{POD}---\n---\n{POD.replace('name: a', 'name: b')}")
    assert [(m.document, m.name) for m in found] == [(1, "a"), (3, "b")]
    assert found[1].place("spec") == "f.yaml: document 3: spec"


def test_a_list_is_opened() -> None:
    items = "".join(f"- {{apiVersion: v1, kind: Pod, metadata: {{name: {n}}}}}\n" for n in "ab")
    assert [m.name for m in parse(f"apiVersion: v1\nkind: List\nitems:\n{items}")] == ["a", "b"]


def test_a_directory_is_read_in_order_of_names(tmp_path: Path) -> None:
    for name in ("2.yml", "1.yaml", "notes.txt"):
        (tmp_path / name).write_text(POD.replace("name: a", f"name: n{name[0]}"))
    assert [m.name for m in manifest.read_files([str(tmp_path)])] == ["n1", "n2"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "f.yaml:2:1: not YAML: "),
        (f"{POD}  name: b\n", "f.yaml:5:3: not YAML: the key 'name' occurs twice; remove one"),
        ("- 1", "f.yaml: expected an object with apiVersion, kind and metadata, got a list"),
        ("kind: Pod", "f.yaml: apiVersion: expected a string, got nothing"),
        ("apiVersion: v1\nkind: 3", "f.yaml: kind: expected a string, got 3"),
        ("apiVersion: v1\nkind: Pod", "f.yaml: metadata: expected a mapping with `name`, got nothing"),
        (POD.replace("name: a", "name: 1"), "f.yaml: metadata.name: expected a string, got 1"),
        (f"{POD}  namespace: 7", "f.yaml: metadata.namespace: expected a string, got 7"),
        ("apiVersion: v1\nkind: List\nitems: 3", "f.yaml: items: expected a list of objects"),
        ("a: " + "[" * 5000, "f.yaml"),
    ],
)
def test_bad_yaml_is_one_sentence_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    assert str(error.value).startswith(complaint)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*/no.yaml: No such file"):
        manifest.read_files([str(tmp_path / "no.yaml")])


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"kind: \xff")
    with pytest.raises(InputError, match="not UTF-8"):
        manifest.read_files([str(tmp_path / "x.yaml")])


def test_a_policy_with_a_mistyped_version_is_still_a_policy() -> None:
    found = parse("apiVersion: yett.io/v1\nkind: L7Policy\nmetadata:\n  name: p\n")
    assert found[0].is_policy


def test_what_looks_like_a_date_is_text() -> None:
    (found,) = parse(f"{POD}  annotations: {{since: 2026-01-01}}\n")
    assert found.body["metadata"]["annotations"] == {"since": "2026-01-01"}


def test_merge_keys_and_anchors_work() -> None:
    (found,) = parse(f"{POD}  labels: &l {{a: b}}\n  annotations: {{<<: *l, c: d}}\n")
    assert found.body["metadata"]["annotations"] == {"a": "b", "c": "d"}
