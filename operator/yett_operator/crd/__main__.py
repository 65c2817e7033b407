"""Writes the definitions: `python -m yett_operator.crd crds manifests/optional`."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from yett_operator.crd.kinds import cilium_kinds, own_kinds
from yett_operator.crd.schema import Schema

HEADER = "# Generated from the models by `make crds`; change those.\n"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        """Anchors are legal and nobody wants to read them."""
        return True


def to_yaml(definition: Schema) -> str:
    """The text of one file."""
    return HEADER + yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def files() -> dict[tuple[str, str], str]:
    """(`own` or `cilium`, file name) -> text."""
    found = {("own", name): to_yaml(definition) for name, definition in own_kinds().items()}
    return found | {("cilium", name): to_yaml(definition) for name, definition in cilium_kinds().items()}


def main() -> int:
    """Write both groups of files into their directories."""
    if len(sys.argv) != 3:
        print("usage: python -m yett_operator.crd OWN_DIR CILIUM_DIR", file=sys.stderr)
        return 2
    places = {"own": Path(sys.argv[1]), "cilium": Path(sys.argv[2])}
    for (group, name), text in files().items():
        places[group].mkdir(parents=True, exist_ok=True)
        (places[group] / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
