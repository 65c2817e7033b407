"""The lab's control plane: one loader per node, and what each must enforce.

The loaders are those of production, started in the node's network namespace with pins in the
lab's own bpffs; the lab stands where the operator stands in a cluster.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from yett_lab.errors import LabError
from yett_lab.nodeapi import NodeApi, NodeError
from yett_lab.paths import MARK, NETNS, Paths
from yett_lab.run import command, start
from yett_lab.state import State
from yett_loader.endpoint import LocalEndpoint
from yett_loader.snapshot import Wanted, to_bytes
from yett_policy.compiled import Compiled

START_SECONDS = 30.0
"""A loader verifies its programs at the start, on a busy machine in several seconds."""
ATTACH_SECONDS = 10.0


def mount_bpffs(paths: Paths) -> None:
    """A bpffs of the lab's own: it goes away as a whole."""
    paths.bpffs.mkdir(mode=0o700, exist_ok=True)
    command(["mount", "-t", "bpf", "bpf", str(paths.bpffs)], what=f"mount a bpffs at {paths.bpffs}")


def start_loaders(paths: Paths, current: State) -> None:
    """Start the loaders that do not run; they take over what is pinned."""
    for node in current.nodes:
        loader = current.loaders.get(node)
        if loader is not None and loader.alive:
            continue
        directory = paths.node_directory(node)
        directory.mkdir(parents=True, exist_ok=True)
        paths.api(node).unlink(missing_ok=True)
        current.loaders[node] = start(
            [
                *(
                    "nsenter",
                    f"--net={NETNS / paths.node_netns(node)}",
                    sys.executable,
                    "-m",
                    "yett_loader",
                    "run",
                ),
                *("--allow-push", "--api", str(paths.api(node))),
                *("--pin-dir", str(paths.bpffs / node), "--state-dir", str(directory)),
            ],
            log=loader_log(paths, node),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", MARK: paths.name},
        )


def loader_log(paths: Paths, node: str) -> Path:
    return paths.node_directory(node) / "loader.log"


def push(paths: Paths, current: State, compiled: Compiled) -> None:
    """Put the policies in force on every node; returns when they are."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        for _ in pool.map(lambda node: _push(paths, current, compiled, node), current.nodes):
            pass


def snapshot(current: State, compiled: Compiled, node: str) -> Wanted:
    """What one node must enforce: documents of its own pods, addresses of all."""
    local = [
        LocalEndpoint(namespace, name, identity, addresses)
        for namespace, name, identity, addresses in compiled.pods
        if current.pods[f"{namespace}/{name}"].node == node
    ]
    return Wanted(compiled.snapshot(node, {endpoint.identity for endpoint in local}), tuple(local))


def _push(paths: Paths, current: State, compiled: Compiled, node: str) -> None:
    body = to_bytes(snapshot(current, compiled, node))
    api = NodeApi(paths.api(node))
    _await_start(paths, current, node)
    answer = api.put("/v1/snapshot", body)
    deadline = time.monotonic() + ATTACH_SECONDS
    while waiting := _waiting(answer):
        if time.monotonic() > deadline:
            name, reason = next(iter(waiting.items()))
            raise LabError(f"{node} does not govern pod {name}: {reason}; see {loader_log(paths, node)}")
        time.sleep(0.02)
        answer = api.put("/v1/snapshot", body)


def _waiting(answer: Any) -> dict[str, str]:
    return dict(answer.get("waiting") or {}) if isinstance(answer, dict) else {}


def _await_start(paths: Paths, current: State, node: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            NodeApi(paths.api(node)).get("/v1/status")
        except NodeError as error:
            if error.status:
                raise
        else:
            return
        if not current.loaders[node].alive:
            raise LabError(f"the loader of {node} has ended: {_last_words(paths, node)}")
        if time.monotonic() > deadline:
            raise LabError(f"the loader of {node} does not answer; see {loader_log(paths, node)}")
        time.sleep(0.01)


def _last_words(paths: Paths, node: str) -> str:
    """The last line of its log."""
    try:
        lines = loader_log(paths, node).read_text(errors="replace").split("\n")
    except OSError:
        return "it wrote nothing"
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
