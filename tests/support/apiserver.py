"""A real kube-apiserver and etcd on loopback, for tests that need no nodes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import binaries
from cluster.certificates import Authority

CHARITY = 60
"""Seconds that a start may take."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class ApiServer:
    """One API server with its etcd; `restart` keeps what is stored."""

    directory: Path
    etcd_port: int
    peer_port: int
    port: int
    authority: Authority
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside that of this process."""
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    def start(self) -> None:
        programs = binaries.ensure()
        pki = self.authority.directory
        self._spawn(
            "etcd",
            str(programs / "etcd"),
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{self.etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{self.etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{self.peer_port}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self.peer_port}",
            f"--initial-cluster=default=http://127.0.0.1:{self.peer_port}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        self._spawn(
            "kube-apiserver",
            str(programs / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",  # no controller makes accounts here
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki}/accounts.pub",
            f"--service-account-signing-key-file={pki}/accounts.key",
            "--endpoint-reconciler-type=none",
            *self.arguments,
        )
        self._wait()

    def stop(self, *names: str) -> None:
        """End some of the processes, or all."""
        for name in names or tuple(reversed(self._processes)):
            process = self._processes.pop(name, None)
            if process is not None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def kill_server(self) -> None:
        self.stop("kube-apiserver")

    def kubectl(self, *argv: str, stdin: str | None = None, check: bool = True) -> str:
        """Its output, both streams."""
        done = subprocess.run(  # noqa: PLW1510 - `check` is below
            ["kubectl", "--kubeconfig", str(self.kubeconfig), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "HOME": str(self.directory)},
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(argv)}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def apply(self, *objects: Any) -> str:
        """kubectl apply of objects or texts."""
        texts = [each if isinstance(each, str) else json.dumps(each) for each in objects]
        return self.kubectl("apply", "-f", "-", stdin="\n---\n".join(texts))

    def get(self, *argv: str) -> Any:
        return json.loads(self.kubectl("get", "-o", "json", *argv))

    def kubeconfig_of(self, account: str, namespace: str = "yett-system") -> Path:
        """With a token of a ServiceAccount."""
        token = self.kubectl("create", "token", account, "-n", namespace, "--duration=3h").strip()
        config = json.loads(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        path = self.directory / f"{account}.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def _spawn(self, name: str, *argv: str) -> None:
        if name in self._processes:
            return
        log = (self.directory / f"{name}.log").open("ab")
        with log:
            self._processes[name] = subprocess.Popen(
                argv,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **self.environment},
            )

    def _wait(self) -> None:
        context = ssl.create_default_context(cafile=str(self.authority.certificate()))
        context.load_cert_chain(self.authority.certificate("admin"), self.authority.key("admin"))
        deadline = time.monotonic() + CHARITY
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2, context=context):
                    return
            except OSError as error:
                dead = [name for name, process in self._processes.items() if process.poll() is not None]
                if dead or time.monotonic() > deadline:
                    logs = [(self.directory / f"{name}.log").read_text()[-2000:] for name in self._processes]
                    raise AssertionError(f"the API server does not start ({dead}, {error}): {logs}") from None
            time.sleep(0.1)


@contextmanager
def api_server(
    directory: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[ApiServer]:
    """Running, with an administrator's kubeconfig."""
    authority = Authority(directory / "pki")
    authority.create()
    authority.issue(
        "apiserver",
        "kube-apiserver",
        addresses=["IP:127.0.0.1", "DNS:kubernetes.default.svc", "IP:10.96.0.1"],
    )
    authority.issue("admin", "yett-admin", "system:masters")
    server = ApiServer(
        directory,
        *free_ports(3),
        authority=authority,
        arguments=arguments,
        environment=environment or {},
    )
    authority.kubeconfig(server.kubeconfig, "admin", server.url)
    try:
        server.start()
        yield server
    finally:
        server.stop()


async def eventually(check: Any, *, within: float = 20, every: float = 0.05) -> Any:
    """The first true answer of `check` (a function, perhaps async); AssertionError if none comes."""
    deadline = time.monotonic() + within
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = check()
            if asyncio.iscoroutine(last):
                last = await last
            if last:
                return last
        except AssertionError as error:
            last = error
        await asyncio.sleep(every)
    raise AssertionError(f"did not come true within {within} s; last: {last!r}")
