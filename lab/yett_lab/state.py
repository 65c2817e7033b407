"""What a lab knows of itself, on disk, so that every command finds it as the last one left it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from yett_lab import address
from yett_lab.errors import LabError
from yett_lab.manifest import Manifest
from yett_lab.paths import Paths
from yett_lab.run import Process

VERSION = 1


@dataclass(slots=True)
class PodState:
    """A pod that runs."""

    node: str
    host: int
    """Number of its addresses in the node's networks."""
    digest: str
    """Of what cannot change while it runs: containers and node."""
    ipv4: str
    ipv6: str
    pause: Process | None = None
    """Holds the pod's mount, UTS and PID namespaces."""
    containers: dict[str, Process] = field(default_factory=dict)


@dataclass(slots=True)
class State:
    """Of one lab."""

    name: str
    nodes: list[str]
    """The first has index 1."""
    images: dict[str, str] = field(default_factory=dict)
    manifests: list[Manifest] = field(default_factory=list)
    pods: dict[str, PodState] = field(default_factory=dict)
    services: dict[str, int] = field(default_factory=dict)
    """Number of the cluster IP by namespace/name."""
    last_pod: dict[str, int] = field(default_factory=dict)
    last_service: int = 0
    identities: dict[str, Any] = field(default_factory=dict)
    """The identity table, as the policy core writes it."""
    loaders: dict[str, Process] = field(default_factory=dict)

    def node_index(self, node: str) -> int:
        return self.nodes.index(node) + 1

    def addresses(self, pod: str) -> tuple[str, str]:
        """IPv4 and IPv6 of a pod."""
        return self.pods[pod].ipv4, self.pods[pod].ipv6

    def cluster_ips(self, service: str) -> tuple[str, str]:
        number = self.services[service]
        return address.service4(number), address.service6(number)


def load(paths: Paths) -> State:
    """Read the state of a lab that is up."""
    try:
        value = json.loads(paths.state.read_text())
        if value.pop("version") != VERSION:
            raise LabError(
                f"lab {paths.name} was made by another version of yett; run `yettctl lab down --name {paths.name}`"
            )
        value["manifests"] = [Manifest(**item) for item in value["manifests"]]
        value["pods"] = {key: _pod(item) for key, item in value["pods"].items()}
        value["loaders"] = {key: Process(**item) for key, item in value["loaders"].items()}
        return State(**value)
    except FileNotFoundError:
        raise LabError(f"there is no lab {paths.name}; run `yettctl lab up --name {paths.name}`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"cannot read {paths.state}: {error}; run `yettctl lab down --name {paths.name}` and start again"
        ) from None


def save(paths: Paths, state: State) -> None:
    """Write it whole or not at all."""
    value = {"version": VERSION, **asdict(state)}
    temporary = paths.state.with_suffix(".new")
    temporary.write_text(json.dumps(value, indent=1, default=str))
    temporary.rename(paths.state)


def _pod(value: dict[str, Any]) -> PodState:
    pause = value.pop("pause")
    containers = value.pop("containers")
    return PodState(
        **value,
        pause=None if pause is None else Process(**pause),
        containers={key: Process(**item) for key, item in containers.items()},
    )


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """One command at a time changes a lab; the others wait."""
    paths.lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # `down` unlinks the file; whoever waited for it then holds a lock on nothing.
        try:
            if os.fstat(descriptor).st_ino == os.stat(paths.lock).st_ino:  # noqa: PTH116
                break
        except FileNotFoundError:
            pass
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)
