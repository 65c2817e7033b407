"""Kubernetes, etcd and CoreDNS, built from their Go modules into the cache, once for each state of the sources."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError
from cluster.paths import REPOSITORY, SOURCES, cache
from cluster.progress import say
from yett_lab.run import command

MODULE = SOURCES / "kubernetes"
COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
)
_INPUTS = ("go.mod", "go.sum", "main.go", "coredns/main.go")
_PROGRAMS = (".", "./coredns")
_EVERY = 20
"""Seconds between two lines of progress."""


def directory() -> Path:
    """Where the binaries of this state of the sources are or will be."""
    digest = hashlib.sha256()
    for name in _INPUTS:
        content = (MODULE / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return cache() / "kubernetes" / digest.hexdigest()[:16]


def cached() -> bool:
    """Whether nothing needs to be built."""
    return directory().exists()


def version() -> str:
    """Kubernetes' version, such as v1.37.2."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found
    return found[1]


def ensure() -> Path:
    """The directory with a program for each component and coredns; builds them if necessary."""
    target = directory()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as name:
                _build(Path(name))
                for component in COMPONENTS:
                    (Path(name) / component).symlink_to("kubernetes")
                Path(name).chmod(0o755)
                shutil.copytree(name, target.with_suffix(".new"), symlinks=True)
            target.with_suffix(".new").rename(target)
    return target


def _build(out: Path) -> None:
    search = f"{os.environ.get('PATH', os.defpath)}:{REPOSITORY / '.venv/bin'}"
    found = shutil.which("go", path=search)
    if found is None:
        raise ClusterError("cannot build Kubernetes: there is no go; run `scripts/setup cluster`")
    go = (found, "-C", str(MODULE))
    major, minor, *_ = version().removeprefix("v").split(".")
    variables = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in variables.items())
    say(f"building Kubernetes {version()}, etcd and CoreDNS: about ten minutes on two cores, once")
    # The listing also downloads the modules.
    argv = [*go, "list", "-deps", *_PROGRAMS]
    total = len(command(argv, what="download the Go modules of Kubernetes", timeout=900).splitlines())
    argv = ["nice", "-n", "19", *go, "build", "-v", "-trimpath", "-ldflags", f"-s -w {flags}"]
    argv += ["-o", f"{out}/", *_PROGRAMS]
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(
            argv, env=environment, stdout=log, stderr=log, start_new_session=True
        ) as process:
            try:
                _watch(process, log.fileno(), total)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)  # go leaves its compilers running
        log.seek(0)
        if process.returncode != 0:
            raise ClusterError(f"cannot build Kubernetes: {''.join(log.readlines()[-5:]).strip()}")


def _watch(process: subprocess.Popen[bytes], log: int, total: int) -> None:
    """A line every now and then until the build ends; it writes a line for each package."""
    said = time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        if time.monotonic() - said >= _EVERY:
            said = time.monotonic()
            built = os.pread(log, os.fstat(log).st_size, 0).count(b"\n")
            say(f"building Kubernetes: {built:,} of at most {total:,} packages compiled")
