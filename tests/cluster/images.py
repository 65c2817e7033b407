"""The images of a cluster, built when their inputs changed and pushed to its registry.

A tag `inputs-HASH` in the registry says what an image was made from.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster import base, registry, wheel
from cluster.buildah import buildah
from cluster.paths import REPOSITORY, SOURCES, cache
from cluster.progress import say, step
from yett_lab.run import command

_DIRECTORY = SOURCES / "containerfiles"
_LAYERS_MAX = 250
"""A change of yett's sources makes ten, of about 10 MB each."""
_VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]


@dataclass(frozen=True, slots=True)
class Image:
    """How to make one."""

    repository: str
    """Without the registry, which is docker.io's."""
    tag: str
    containerfile: Path
    inputs: Callable[[], Iterable[Path]]
    """Files that decide its contents, beside the Containerfile."""
    stage: Callable[[Path], None]
    """Fills the directory that the Containerfile copies from."""
    based: bool = True
    """On the base image."""

    @property
    def reference(self) -> str:
        return f"docker.io/{self.repository}:{self.tag}"

    def digest(self) -> str:
        """Of all inputs."""
        digest = hashlib.sha256()
        for path in (self.containerfile, *self.inputs()):
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\n".encode() + content)
        return digest.hexdigest()[:16]


def all_images(binaries: Path) -> list[Image]:
    """The cluster's own, the walk-through's, and yett's."""
    coredns = binaries / "coredns"
    echo = REPOSITORY / "lab/yett_lab/echo.py"
    pause = _DIRECTORY / "pause.c"
    return [
        _small("library/pause", "1", "pause", pause, lambda out: _compile(pause, out / "pause"), based=False),
        _small("coredns/coredns", "1", "coredns", coredns, lambda out: _copy(coredns, out), based=False),
        _small("mendhak/http-https-echo", "latest", "echo", echo, lambda out: _copy(echo, out)),
        _small("appropriate/curl", "latest", "curl", None, lambda _: None),
        *yett_images(),
    ]


def yett_images() -> list[Image]:
    """The operator's and the loader's, from the working tree."""
    return [
        Image(f"yett/{part}", _VERSION, REPOSITORY / part / "Containerfile", wheel.inputs, wheel.stage)
        for part in ("operator", "loader")
    ]


def provide(images: list[Image], address: str) -> list[Image]:
    """Build and push those that the registry does not have as they should be; those that changed."""
    _tidy()
    changed = []
    for image in images:
        made_from = f"inputs-{image.digest()}"
        present = registry.manifest(address, image.repository, made_from)
        if present is None:
            _provide(image, address, made_from)
        elif present != registry.manifest(address, image.repository, image.tag):
            registry.tag(address, image.repository, image.tag, present)
        else:
            continue
        changed.append(image)
    return changed


def _tidy() -> None:
    """Drop the layers of old builds once there are many; the next build makes those that it needs again."""
    layers = buildah("images", "--all", "--quiet", what="list the images").split()
    if len(layers) > _LAYERS_MAX:
        with step("removing the layers of old images"):
            # A build that was killed left its container, and an image that one is made of cannot be removed.
            buildah("rm", "--all", what="remove what killed builds left")
            buildah("rmi", "--prune", what="remove the layers of old images")


def _provide(image: Image, address: str, made_from: str) -> None:
    if image.based:
        base.ensure()
    with step(f"building the image {image.repository}:{image.tag}"):
        with tempfile.TemporaryDirectory(dir=cache(), prefix="image-") as name:
            image.stage(Path(name))
            arguments = [
                "--quiet",
                "--isolation",
                "chroot",
                "--network",
                "host",
                "--layers",
                *base.configuration(),
            ]
            arguments += ["--tag", image.reference, "--file", str(image.containerfile), name]
            buildah("bud", *arguments, what=f"build {image.reference}")
        target = f"docker://{address}/{image.repository}"
        for tag in (image.tag, made_from):
            argv = ["push", "--quiet", "--tls-verify=false", image.reference, f"{target}:{tag}"]
            buildah(*argv, what=f"push {image.reference}")
    say(f"pushed {image.reference}")


def _small(
    repository: str,
    tag: str,
    name: str,
    source: Path | None,
    stage: Callable[[Path], None],
    *,
    based: bool = True,
) -> Image:
    sources = [] if source is None else [source]
    return Image(repository, tag, _DIRECTORY / f"{name}.Containerfile", lambda: sources, stage, based)


def _copy(source: Path, directory: Path) -> None:
    shutil.copy(source, directory)


def _compile(source: Path, program: Path) -> None:
    argv = ["gcc", "-static", "-Os", "-s", "-Wall", "-Werror", "-o", str(program), str(source)]
    command(argv, what=f"compile {source.name}")
