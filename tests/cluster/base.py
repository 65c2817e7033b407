"""The base image, debian:bookworm-slim, made from packages: nothing is pulled from a registry."""

from __future__ import annotations

import platform
import shutil
import tempfile
from pathlib import Path

from cluster.buildah import buildah
from cluster.paths import cache
from cluster.progress import step
from yett_lab.run import command

BASE = "docker.io/library/debian:bookworm-slim"
_RELEASE = "bookworm"
_INCLUDE = (
    "--include=ca-certificates"  # its installation writes where builds mount this machine's own, read-only
)
_NEEDLESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache/apt")


def ensure() -> None:
    """Make the base image in the local store, unless it is there."""
    if buildah("images", "--quiet", "--filter", f"reference={BASE}", what="list the images").strip():
        return
    with step("making the base image with debootstrap"):
        _create()


def configuration() -> list[str]:
    """Options that mount this machine's network and package clients' configuration into a build."""
    paths = ["/etc/ssl/certs", "/etc/pip.conf"]
    if platform.freedesktop_os_release().get("VERSION_CODENAME") == _RELEASE:
        paths += ["/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/apt.conf.d"]
    return [f"--volume={path}:{path}:ro" for path in paths if Path(path).exists()]


def _create() -> None:
    with tempfile.TemporaryDirectory(dir=cache(), prefix="base-") as name:
        root = Path(name) / "root"
        # A mount namespace of its own, so that no mount is left whatever happens.
        argv = [
            "unshare",
            "-m",
            "debootstrap",
            "--variant=minbase",
            _INCLUDE,
            _RELEASE,
            str(root),
            *_mirror(),
        ]
        command(argv, what="make the base image", timeout=900)
        for needless in _NEEDLESS:
            shutil.rmtree(root / needless, ignore_errors=True)
            (root / needless).mkdir(parents=True, exist_ok=True)
        sources = root / "etc/apt/sources.list"
        sources.rename(root / "etc/apt/sources.list.d/base.list")  # which this machine's directory hides
        container = buildah("from", "scratch", what="begin the base image").strip()
        try:
            buildah("add", "--quiet", container, str(root), "/", what="fill the base image")
            buildah("config", "--cmd", "bash", container, what="configure the base image")
            buildah("commit", "--quiet", container, BASE, what="keep the base image")
        finally:
            buildah("rm", container, what="end the making of the base image")


def _mirror() -> list[str]:
    """The mirror that apt uses here; none: debootstrap's own choice."""
    argv = ["apt-get", "indextargets", "--format", "$(RELEASE) $(SITE)"]
    lines = command(argv, what="ask apt for its mirror").splitlines()
    return [line.split()[1] for line in lines if line.split()[0] == _RELEASE][:1]
