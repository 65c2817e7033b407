"""The walk-through ends well, and leaves nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from yett_lab import paths

pytestmark = [pytest.mark.net, pytest.mark.bpf]

ROOT = Path(__file__).parents[2]


def test_the_demo_shows_the_articles_codes_and_cleans_up(tmp_path: Path) -> None:
    program = tmp_path / "yettctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m yett_cli "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / "scripts/demo")],
        env={**os.environ, "YETTCTL": str(program)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    codes = re.findall(r"^(200|000)\b", done.stdout, re.MULTILINE)
    assert codes == ["200", "200", "200", "000", "000", "200", "200", "000", "000"]
    name = re.search(r"lab (demo\d+) is up", done.stdout)
    assert name is not None
    assert not (paths.ROOT / name[1]).exists()
    assert not list(paths.NETNS.glob(f"yett-{name[1]}-*"))


def test_the_examples_are_those_of_the_article() -> None:
    """Both files as they stand there; the other kind differs in two lines only."""
    cilium = (ROOT / "manifests/examples/l7-policy.yaml").read_text().splitlines()
    own = (ROOT / "manifests/examples/l7policy.yaml").read_text().splitlines()
    assert [(a, b) for a, b in zip(cilium, own, strict=True) if a != b] == [
        ('apiVersion: "cilium.io/v2"', "apiVersion: yett.dev/v1alpha1"),
        ("kind: CiliumNetworkPolicy", "kind: L7Policy"),
    ]
