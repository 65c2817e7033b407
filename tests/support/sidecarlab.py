"""A lab with real servers behind the sidecar."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from yett_lab import access, down, lab, manifest, paths
from yett_lab.nodeapi import NodeApi, NodeError
from yett_lab.run import wait_gone
from yett_loader.sidecar import process

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/sidecar"
EXAMPLES = ROOT / "manifests/examples"
SERVER = "api-server"


def policy(http: str = "", port: int = 80, extra: str = "", direction: str = "ingress") -> str:
    """An L7Policy for the sidecar: what clients may ask the server on one port."""
    ingress = direction == "ingress"
    return f"""
apiVersion: yett.dev/v1alpha1
kind: L7Policy
metadata: {{name: "{direction}-{port}"}}
spec:
  engine: Sidecar
  endpointSelector: {{matchLabels: {{app: {SERVER if ingress else "client"}}}}}
  {extra}
  {direction}:
  - {"fromEndpoints" if ingress else "toEndpoints"}: [{{matchLabels: {{app: {"client" if ingress else SERVER}}}}}]
    toPorts:
    - ports: [{{port: "{port}", protocol: TCP}}]
      rules: {{http: {http or '[{method: GET, path: "/public"}]'}}}
"""


class Lab:
    """One lab of two nodes: the server on one, the client on the other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paths = paths.Paths(name)
        self._running: list[subprocess.Popen[str]] = []

    def up(self) -> None:
        lab.up(self.name, manifest.read_files([str(EXAMPLES / "app.yaml")]), nodes=2)
        server = self.popen([sys.executable, str(HERE / "servers.py")], SERVER)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def apply(self, *policies: str) -> None:
        lab.apply(self.name, list(manifest.parse("---".join(policies), "policies.yaml")))

    def delete(self, *objects: str) -> None:
        lab.delete(self.name, list(manifest.parse("---".join(objects), "policies.yaml")))

    def address(self, pod: str = SERVER, family: int = 4) -> str:
        state = access.load(self.paths).pods[f"default/{pod}"]
        return state.ipv4 if family == 4 else state.ipv6

    def popen(self, argv: list[str], pod: str) -> subprocess.Popen[str]:
        command, environment = access.exec_argv(access.load(self.paths), pod, argv)
        child = subprocess.Popen(command, env=environment, cwd="/", stdout=subprocess.PIPE, text=True)
        self._running.append(child)
        return child

    def run(self, *argv: str, pod: str = "client") -> str:
        return access.run_in_pod(self.name, pod, list(argv)).stdout

    def curl(self, *arguments: str) -> str:
        """The status code."""
        return self.run(
            *("curl", "-gs", "-o", "/dev/null", "-w", "%{http_code}", "-m", "3", "--path-as-is"), *arguments
        )

    def client(self, *arguments: str) -> Any:
        """What a program of clients.py saw."""
        return json.loads(self.run(sys.executable, str(HERE / "clients.py"), *arguments))

    def load(self, seconds: float, path: str = "/public") -> Load:
        return Load(self, "load", "api-service", path, str(seconds))

    def held(self, seconds: float) -> Load:
        """Long streams; needs policies for them."""
        return Load(self, "held", self.address(), str(seconds))

    # -- nodes

    def apis(self) -> dict[str, NodeApi]:
        return {node: NodeApi(self.paths.api(node)) for node in access.load(self.paths).nodes}

    def sidecars(self) -> dict[str, Any]:
        return {node: api.get("/v1/status")["sidecar"] for node, api in self.apis().items()}

    def envoy(self) -> int:
        """Process of the sidecar that judges for the server."""
        (pid,) = [item["running"] for item in self.sidecars().values() if item["rulesets"]]
        return int(pid)

    def _directories(self) -> list[Path]:
        """What loader and supervisor of each node share."""
        apis = [self.paths.api(node) for node in access.load(self.paths).nodes]
        return [api.with_name(f"{api.stem}-sidecar") for api in apis]

    def envoys(self) -> tuple[int, ...]:
        return tuple(pid for item in self._directories() if (pid := process.envoy(item).pid))

    def supervisors(self) -> tuple[int, ...]:
        return tuple(pid for item in self._directories() if (pid := process.supervisor(item).pid))

    def files(self, name: str) -> list[Path]:
        return [item / name for item in self._directories()]

    def accepted(self) -> list[Path]:
        return [path for item in self._directories() if (path := item / "accepted.json").exists()]

    def forget_accepted(self) -> None:
        for path in self.accepted():
            path.unlink()

    def kill_loaders(self) -> None:
        pids = [loader.pid for loader in access.load(self.paths).loaders.values()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert not wait_gone(pids)

    def records(self, count: int = 200) -> list[dict[str, Any]]:
        time.sleep(0.3)  # Envoy sends its records in batches
        return [
            json.loads(line)
            for api in self.apis().values()
            for line in api.lines("/v1/flows", last=str(count))
        ]

    def close(self) -> None:
        for child in self._running:
            child.kill()
        down.down(self.name)
        for child in self._running:
            child.wait()
            if child.stdout:
                child.stdout.close()


class Load:
    """Requests in the background, from the client's pod; made once the first was answered."""

    def __init__(self, where: Lab, *arguments: str) -> None:
        argv = [sys.executable, str(HERE / "clients.py"), *arguments]
        self._client = where.popen(argv, "client")
        assert self._client.stdout is not None
        assert self._client.stdout.readline() == "begun\n"

    def join(self) -> Any:
        return json.loads(self._client.communicate()[0])


def eventually(check: Any, seconds: float = 10) -> Any:
    """What `check` gives once it is true."""
    end = time.monotonic() + seconds
    while True:
        try:
            result = check()
        except (NodeError, ValueError):
            result = None
        if result or time.monotonic() > end:
            return result
        time.sleep(0.05)
