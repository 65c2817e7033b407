from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
Object = dict[str, Any]


def build(directory: str) -> list[Object]:
    """What `kubectl apply -k DIRECTORY` would send."""
    kubectl = REPOSITORY / ".venv/bin/kubectl"
    program = str(kubectl) if kubectl.exists() else shutil.which("kubectl")
    assert program, "kubectl is missing; run `scripts/setup cluster`"
    done = subprocess.run(
        [program, "kustomize", str(REPOSITORY / directory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="session")
def manifests() -> list[Object]:
    return build("manifests")
