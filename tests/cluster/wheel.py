"""This repository's wheel for the images, built beside the working tree: nothing in it is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.errors import ClusterError
from cluster.paths import REPOSITORY
from yett_lab.run import command

_PACKAGES = ("policy", "operator", "loader", "cli", "lab", "bpf_src/include")
_FILES = ("pyproject.toml", "setup.py", "constraints.txt", "README.md", "LICENSE", "LICENSES")
_COMPILED = ("loader/yett_loader/data/yett.bpf.o", "loader/yett_loader/data/libyett_deny.so")


def inputs() -> list[Path]:
    """What decides the wheel: sources as they are in the tree, and the compiled programs."""
    argv = [
        "git",
        "-C",
        str(REPOSITORY),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
    ]
    names = command([*argv, *_PACKAGES, *_FILES], what="list the sources").split("\0")
    compiled = [REPOSITORY / name for name in _COMPILED]
    if not all(path.exists() for path in compiled):
        raise ClusterError("cannot build the wheel: its programs are not compiled; run `make bpf bindings`")
    sources = sorted({REPOSITORY / name for name in names if name and not name.endswith("Containerfile")})
    return [path for path in (*sources, *compiled) if path.is_file()]


def stage(directory: Path) -> None:
    """Build the wheel into DIRECTORY/build, with the files beside it that the Containerfiles name."""
    tree = directory / "tree"
    for path in inputs():
        target = tree / path.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    argv = [str(REPOSITORY / ".venv/bin/python"), "-m", "pip", "wheel", "--quiet", "--no-deps"]
    argv += ["--no-build-isolation", "--wheel-dir", str(directory / "build"), str(tree)]
    command(argv, what="build the wheel", timeout=300)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, directory)
    shutil.rmtree(tree)
