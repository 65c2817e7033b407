"""Stand-ins: what runs in place of an image, since a lab pulls none."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from yett_lab.errors import InputError
from yett_lab.objects import Container

_SHELLS = {
    "busybox",
    "alpine",
    "debian",
    "ubuntu",
    "nicolaka/netshoot",
}
_CURLS = {
    "appropriate/curl",
    "curlimages/curl",
    "alpine/curl",
    "curl/curl",
}
_ECHOES = {"mendhak/http-https-echo"}
_IDLE = ("sleep", "infinity")


def normalise(image: str) -> str:
    """`docker.io/library/nginx:1.27@sha256:...` is `nginx`."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = f"{head}{slash}{last.partition(':')[0]}"
    first, _, rest = name.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        name = rest
    return name.removeprefix("library/")


def parse_option(text: str) -> tuple[str, str]:
    """`NAME=COMMAND` of `--image`."""
    name, equals, command = text.partition("=")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--image {text}: {error}; close the quotes") from None
    if not equals or not name or not words:
        raise InputError(
            f"--image {text}: write NAME=COMMAND, such as --image shop/api='python3 -m http.server 80'"
        )
    return name, command


def argv(container: Container, images: Mapping[str, str], directory: Path) -> tuple[str, ...]:
    """The command that the container runs; `directory` is for files of the stand-in."""
    entrypoint, arguments = _stand_in(container, images, directory)
    if container.command:
        return container.command + container.args
    return entrypoint + (container.args or arguments)


def is_known(container: Container, images: Mapping[str, str]) -> bool:
    """Whether the container can run."""
    name = normalise(container.image)
    return bool(
        container.command
        or container.image in images
        or name in images
        or name in _SHELLS | _CURLS | _ECHOES | {"nginx"}
    )


def _stand_in(
    container: Container, images: Mapping[str, str], directory: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Entry point and default arguments."""
    name = normalise(container.image)
    given = images.get(container.image) or images.get(name)
    if given is not None:
        return tuple(shlex.split(given)), ()
    if name in _ECHOES or (name == "nginx" and shutil.which("nginx") is None):
        return _echo(container, (80, 8080) if name in _ECHOES else (80,)), ()
    if name == "nginx":
        return _nginx(container, directory), ()
    if name in _CURLS and container.args:
        return ("curl",), ()
    return (), _IDLE


def _tcp_ports(container: Container, default: tuple[int, ...]) -> tuple[int, ...]:
    named = dict(container.env).get("HTTP_PORT", "")
    if named.isdecimal():
        return (int(named),)
    return tuple(port.port for port in container.ports if port.protocol == "TCP") or default


def _echo(container: Container, default: tuple[int, ...]) -> tuple[str, ...]:
    ports = [str(port) for port in _tcp_ports(container, default)]
    # By path and without site-packages: it starts in half the time.
    return (sys.executable, "-S", "-E", str(Path(__file__).with_name("echo.py")), *ports)


def _nginx(container: Container, directory: Path) -> tuple[str, ...]:
    """The real nginx with a configuration, and a place to write, of its own."""
    home = directory / f"nginx-{container.name}"
    home.mkdir(parents=True, exist_ok=True)
    listen = "".join(f"listen {port}; listen [::]:{port};" for port in _tcp_ports(container, (80,)))
    temporary = "".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "nginx.conf").write_text(
        f"daemon off; user root; worker_processes 1; pid {home}/pid; error_log stderr;\n"
        f"events {{ worker_connections 1024; }}\n"
        f"http {{ access_log /dev/stdout; {temporary} keepalive_requests 1000000;\n"
        f"  server {{ {listen} default_type text/plain; location / {{ return 200 'nginx $request_uri\\n'; }} }}\n"
        f"}}\n"
    )
    return ("nginx", "-e", "stderr", "-p", str(home), "-c", str(home / "nginx.conf"))
