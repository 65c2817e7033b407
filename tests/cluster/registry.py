"""The registry that nodes take for every registry there is; its storage is in the cache, common to clusters."""

from __future__ import annotations

import fcntl
import json
import urllib.error
import urllib.request
from pathlib import Path

from cluster import network
from cluster.paths import CACHE_INSIDE, cache
from yett_lab.run import command

REGISTRY_PORT = 5000
INSIDE = CACHE_INSIDE / "registry"
ADDRESS = f"{network.CONTROL_IP}:{REGISTRY_PORT}"
_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def configuration(storage: Path, port: int) -> dict[str, object]:
    """What docker-registry reads."""
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": f":{port}"},
    }


def configure(path: Path, port: int) -> None:
    """Write the configuration for inside a box."""
    path.write_text(json.dumps(configuration(INSIDE, port)))


def collect(scratch: Path) -> None:
    """Delete what no tag names any more, unless a registry is using the storage."""
    storage = cache() / "registry"
    if not (storage / "docker").exists():
        storage.mkdir(parents=True, exist_ok=True)
        return
    with (cache() / "registry.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        scratch.write_text(json.dumps(configuration(storage, REGISTRY_PORT)))
        argv = ["docker-registry", "garbage-collect", "--delete-untagged", str(scratch)]
        command(argv, what="collect the registry's garbage", timeout=120)


def trust(directory: Path) -> None:
    """Tell a containerd (its config_path) to ask this registry for the images of all."""
    host = f"http://{ADDRESS}"
    (directory / "_default").mkdir(parents=True)
    (directory / "_default" / "hosts.toml").write_text(
        f'server = "{host}"\n[host."{host}"]\ncapabilities = ["pull", "resolve"]\n'
    )


def manifest(address: str, repository: str, reference: str) -> bytes | None:
    """The manifest of a tag; None: there is none."""
    request = urllib.request.Request(
        f"http://{address}/v2/{repository}/manifests/{reference}", headers={"Accept": _TYPES}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def tag(address: str, repository: str, reference: str, content: bytes) -> None:
    """Give a manifest that the registry has another tag."""
    request = urllib.request.Request(
        f"http://{address}/v2/{repository}/manifests/{reference}",
        data=content,
        method="PUT",
        headers={"Content-Type": json.loads(content)["mediaType"]},
    )
    with urllib.request.urlopen(request, timeout=10):
        pass
