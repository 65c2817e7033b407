"""kubectl as the cluster's administrator."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.paths import REPOSITORY
from yett_lab.run import command


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The real one, with a cluster's kubeconfig."""

    kubeconfig: Path

    def argv(self, arguments: Sequence[str]) -> list[str]:
        """The whole command line."""
        program = REPOSITORY / ".venv/bin/kubectl"
        if not program.exists() and (found := shutil.which("kubectl")) is None:
            raise ClusterError("cannot find kubectl; run `scripts/setup cluster`")
        return [str(program if program.exists() else found), "--kubeconfig", str(self.kubeconfig), *arguments]

    def __call__(self, *arguments: str, stdin: str = "", timeout: float = 60) -> str:
        """Run it to the end, return stdout."""
        what = f"run kubectl {' '.join(arguments)}"
        return command(self.argv(arguments), what=what, stdin=stdin, timeout=timeout)
