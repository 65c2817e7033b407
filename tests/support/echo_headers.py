"""A real server that answers with the headers that it got, as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.netns import Namespace

PORT = 19_999


@contextmanager
def echoing(inside: Namespace) -> Iterator[None]:
    """It runs in a namespace, on loopback."""
    process = inside.popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def cluster(name: str) -> dict[str, Any]:
    """The server as a cluster of Envoy's."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": PORT}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(self.headers.items()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_P = do_GET  # noqa: N815 - names of http.server

    def log_message(self, *_: object) -> None:
        """Nothing of it."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128


if __name__ == "__main__":
    with Server(("127.0.0.1", PORT), Echo) as server:
        print("ready", flush=True)
        server.serve_forever()
