"""Real HTTP servers as oracles: each writes every request it executes into a log file.

`python -m support.origins KIND PORT LOG` runs one; `Origin` starts it in a namespace.
"""

from __future__ import annotations

import asyncio
import http.server
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from support.netns import Namespace

TESTS = Path(__file__).resolve().parent.parent

KINDS = ("stdlib", "nginx", "aiohttp", "tornado", "gunicorn", "waitress", "uvicorn")
"""Seven parsers written by seven groups; the lenient ones are the interesting ones."""

NGINX = """
daemon off; master_process off; pid {directory}/pid; error_log {directory}/error;
events {{ worker_connections 512; }}
http {{
  map $status $executed {{ 200 1; default 0; }}
  log_format line escape=json '$request_method $request_uri'; access_log {log} line if=$executed;
  client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  keepalive_requests 100000;
  server {{ listen [::]:{port} ipv6only=off; location / {{ return 200 "ok"; }} }}
}}
"""


class Origin:
    """One server in its namespace; a context manager."""

    def __init__(self, kind: str, namespace: Namespace, port: int) -> None:
        self.kind = kind
        self.port = port
        self._namespace = namespace
        self._directory = tempfile.TemporaryDirectory(prefix="yett-origin-")
        self._log = Path(self._directory.name, "log")
        self._log.touch()
        if kind == "nginx":
            config = Path(self._directory.name, "nginx.conf")
            config.write_text(NGINX.format(directory=self._directory.name, log=self._log, port=port))
            argv = ["nginx", "-c", str(config), "-e", f"{self._directory.name}/error", "-g", ""]
        else:
            argv = [sys.executable, "-m", "support.origins", kind, str(port), str(self._log)]
        self._errors = Path(self._directory.name, "stderr").open("wb")  # noqa: SIM115 - closed by close()
        self._process = namespace.popen(
            ["setpriv", "--pdeathsig", "TERM", *argv],  # never outlive the tests
            cwd=TESTS,
            stdout=self._errors,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONWARNINGS": "ignore"},
        )

    def ready(self, timeout: float = 20.0) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                with self._namespace, socket.create_connection(("::1", self.port), 1):
                    return
            except OSError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    said = Path(self._directory.name, "stderr").read_text(errors="replace")
                    raise RuntimeError(
                        f"origin {self.kind} does not listen: {error}; it said: {said}"
                    ) from error
                time.sleep(0.05)

    def executed(self) -> list[str]:
        """`METHOD target` of every request that reached the application."""
        return self._log.read_text(errors="replace").splitlines()

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._errors.close()
        self._directory.cleanup()


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
    listener.setblocking(False)
    return listener


def _writer(path: str) -> Callable[[str, str], None]:
    log = os.open(path, os.O_WRONLY | os.O_APPEND)

    def write(method: str, target: str) -> None:
        os.write(log, f"{method} {target!r}\n".encode())

    return write


def _stdlib(port: int, log: str) -> None:
    write = _writer(log)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            write(self.command, self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            """The log is ours."""

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6
        daemon_threads = True
        request_queue_size = 512

    Server(("::", port), Handler).serve_forever()


def _wsgi(log: str) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    write = _writer(log)

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"]
        write(environ["REQUEST_METHOD"], target)
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    return application


def _gunicorn(port: int, log: str) -> None:
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # noqa: PLC0415 - only here

    listener = _listen(port)

    class Application(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            self.cfg.set("bind", f"fd://{listener.fileno()}")
            self.cfg.set("worker_class", "gthread")
            self.cfg.set("threads", 8)
            self.cfg.set("loglevel", "critical")

        def load(self) -> Any:
            return _wsgi(log)

    Application().run()


def _waitress(port: int, log: str) -> None:
    import waitress  # type: ignore[import-untyped]  # noqa: PLC0415

    waitress.serve(_wsgi(log), sockets=[_listen(port)], threads=8, _quiet=True)


def _tornado(port: int, log: str) -> None:
    import tornado.httpserver  # noqa: PLC0415
    import tornado.web  # noqa: PLC0415

    write = _writer(log)

    class Handler(tornado.web.RequestHandler):
        SUPPORTED_METHODS = ("GET", "HEAD", "POST", "DELETE", "PATCH", "PUT", "OPTIONS", "BREW")

        def get(self) -> None:
            write(str(self.request.method), self.request.uri)
            self.write("ok")

        post = brew = get

    async def main() -> None:
        tornado.httpserver.HTTPServer(tornado.web.Application([(".*", Handler)])).add_socket(_listen(port))
        await asyncio.Event().wait()

    asyncio.run(main())


def _aiohttp(port: int, log: str) -> None:
    from aiohttp import web  # noqa: PLC0415

    write = _writer(log)

    async def handle(request: web.Request) -> web.Response:
        write(request.method, request.raw_path)
        await request.read()
        return web.Response(text="ok")

    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", handle)
    web.run_app(application, sock=_listen(port), print=None)


def _uvicorn(port: int, log: str) -> None:
    import uvicorn  # noqa: PLC0415

    write = _writer(log)

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        write(scope["method"], scope["raw_path"].decode("latin-1"))
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(application, http="httptools", log_level="critical", lifespan="off")
    uvicorn.Server(config).run(sockets=[_listen(port)])


if __name__ == "__main__":
    kind, port_text, log_path = sys.argv[1:]
    globals()[f"_{kind}"](int(port_text), log_path)
