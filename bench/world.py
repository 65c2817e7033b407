"""Where a system is measured: client, node and server as namespaces, and the origin in the last one.

Each system has a world of its own, so that all are there at once and a round can visit each in turn.
"""

from __future__ import annotations

import contextlib
import csv
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.netns import Namespace, Topology, sysctl, topology

PORT = 8080
"""Answers at once, 200 and three bytes: HAProxy, the quickest origin that Debian has."""
UPLOAD_PORT = 8081
"""The same, but with buffers that hold the longest body: answers when all of it has come."""

_HAPROXY = """\
global
    nbthread 1
    maxconn 4096
    stats socket {dir}/origin.sock mode 600
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
    timeout http-request 60s
    timeout http-keep-alive 60s
frontend origin
    bind :8080 backlog 4096
    http-request return status 200 content-type text/plain string "ok\\n"
"""

_UPLOAD = """\
global
    nbthread 1
    maxconn 512
    tune.bufsize 1200000
    tune.maxrewrite 1024
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
    timeout http-request 60s
    timeout http-keep-alive 60s
frontend uploads
    bind :8081 backlog 4096
    http-request wait-for-body time 60s
    http-request return status 200 content-type text/plain string "ok\\n"
"""


@dataclass(frozen=True, slots=True)
class World:
    """One topology with a running origin."""

    topology: Topology
    directory: Path
    """For configuration files and sockets; gone at the end."""
    origin: tuple[subprocess.Popen[bytes], ...]

    @property
    def address(self) -> str:
        """Of the server, for the client."""
        return self.topology.server.v4

    @property
    def pids(self) -> list[int]:
        """The processes of the origin that answer."""
        found = []
        for process in self.origin:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            found += [process.pid, *map(int, children)]
        return found

    def served(self) -> int:
        """Requests that the quick origin has answered so far; connections without one do not count."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.directory / "origin.sock"))
            admin.sendall(b"show stat origin 1 -1\n")  # the frontend
            text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return sum(int(row["hrsp_2xx"] or 0) for row in rows)


def spawn(namespace: Namespace, argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a server; what it says goes to `log`."""
    with log.open("ab") as file:
        return namespace.popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, hard if it does not listen."""
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def await_port(
    namespace: Namespace, address: tuple[str, int], process: subprocess.Popen[bytes], log: Path
) -> None:
    """Return when somebody listens."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), namespace:
            socket.create_connection(address, 1).close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"cannot start {process.args!r}: {log.read_text(errors='replace')[-800:]}")


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Make one; nothing is left behind."""
    with contextlib.ExitStack() as cleanup:
        directory = Path(tempfile.mkdtemp(prefix="yett-bench-"))
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        made = cleanup.enter_context(topology())
        for side in made.sides:
            with side.namespace:
                _tune()
        with made.node:
            _tune()
        origin = []
        for name, text, argv in (
            ("origin.cfg", _HAPROXY, ["haproxy", "-db", "-q", "-f"]),
            ("uploads.cfg", _UPLOAD, ["haproxy", "-db", "-q", "-f"]),
        ):
            (directory / name).write_text(text.format(dir=directory))
            log = directory / "origin.log"
            process = spawn(made.server.namespace, [*argv, str(directory / name)], log)
            cleanup.callback(stop, process)
            port = PORT if name == "origin.cfg" else UPLOAD_PORT
            await_port(made.server.namespace, ("127.0.0.1", port), process, log)
            origin.append(process)
        yield World(made, directory, tuple(origin))


def _tune() -> None:
    """The same in every namespace of every system: room for connections that live one request."""
    sysctl("net/ipv4/ip_local_port_range", "1024 65535")
    sysctl("net/ipv4/tcp_tw_reuse", 1)
    sysctl("net/core/somaxconn", 4096)
    sysctl("net/ipv4/tcp_max_syn_backlog", 8192)
