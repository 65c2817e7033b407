"""`yettctl lab` as typed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import secrets
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from yett_lab import down

from .conftest import Run

pytestmark = pytest.mark.net

EXAMPLES = Path(__file__).parents[2] / "manifests/examples"
APP = str(EXAMPLES / "app.yaml")


@pytest.fixture(scope="module")
def up() -> Iterator[str]:
    from .conftest import run  # noqa: PLC0415 - the fixture of this name is per function

    name = f"t{secrets.token_hex(4)}"
    try:
        done = run("lab", "up", "--name", name, "-f", APP)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (
            f"pod/api-server created\nservice/api-service created\npod/client created\nlab {name} is up: 1 node\n"
        )
        yield name
    finally:
        down.down(name)


def test_exec_prints_what_the_article_prints(up: str, run: Run) -> None:
    done = run(
        *("lab", "exec", "client", "--", "curl", "-s", "-o", "/dev/null"),
        *("-w", "%{http_code}", "http://api-service/public"),
        YETT_LAB=up,
    )
    assert (done.returncode, done.stdout) == (0, "200")


def test_exec_passes_stdin_only_when_asked(up: str, run: Run) -> None:
    assert run("lab", "exec", "--lab", up, "-i", "client", "--", "cat", stdin="hello").stdout == "hello"
    assert run("lab", "exec", "--lab", up, "client", "--", "cat", stdin="hello").stdout == ""


def test_exec_gives_back_the_exit_code(up: str, run: Run) -> None:
    assert run("lab", "exec", "--lab", up, "client", "--", "sh", "-c", "exit 42").returncode == 42


def test_exec_on_a_terminal_runs_a_shell_with_job_control(up: str) -> None:
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    argv = [sys.executable, "-m", "yett_cli", "lab", "exec", "--lab", up, "-it", "client", "--", "sh"]
    with subprocess.Popen(argv, stdin=child, stdout=child, stderr=child, start_new_session=True) as shell:
        os.close(child)
        said = b""
        while b"# " not in said:
            said += os.read(parent, 4096)
        os.write(parent, b"hostname; stty size; sleep 100 & jobs; kill -9 %1; exit 5\n")
        with contextlib.suppress(OSError):  # the other side is closed
            while data := os.read(parent, 4096):
                said += data
        assert shell.wait(5) == 5
    os.close(parent)
    assert b"job control turned off" not in said
    assert b"\r\nclient\r\n33 77\r\n" in said
    assert b"Running" in said


def test_get_prints_tables_and_json(up: str, run: Run) -> None:
    table = run("lab", "get", "pods", "--lab", up).stdout.splitlines()
    assert table[0].split() == ["NAMESPACE", "NAME", "READY", "STATUS", "NODE", "IP", "IPV6", "LABELS"]
    assert table[1].split()[:5] == ["default", "api-server", "1/1", "Running", "node-1"]
    rows = json.loads(run("lab", "get", "svc", "--lab", up, "-o", "json").stdout)
    assert rows[0]["backends"] == ["api-server"]
    assert rows[0]["ports"] == ["80/TCP"]
    assert run("lab", "get", "policies", "--lab", up).stdout == "none\n"


def test_logs_follow_what_is_written(up: str, run: Run) -> None:
    argv = [sys.executable, "-m", "yett_cli", "lab", "logs", "-f", "--lab", up, "api-server"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as logs:
        assert logs.stdout is not None
        mark = secrets.token_hex(8)
        run("lab", "exec", "--lab", up, "client", "--", "curl", "-s", f"http://api-service/{mark}")
        for line in logs.stdout:
            if mark in line:
                break
        logs.terminate()
    assert re.search(rf'"GET /{mark}" 0', line)


def test_an_unknown_kind_is_left_out_with_a_warning(up: str, run: Run) -> None:
    body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
    done = run("lab", "apply", "--lab", up, "-f", "-", stdin=body)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "warning: -: configmap/c left out: a lab does not run ConfigMap\n"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("exec", "nope", "--", "true"), 2, "error: there is no pod default/nope in lab"),
        (("delete", "cnp", "nope"), 2, "error: there is no CiliumNetworkPolicy nope; there is: none"),
        (("delete", "thing", "nope"), 2, "error: unknown kind thing; kinds are Pod, "),
        (("apply", "-f", "/nonexistent.yaml"), 2, "error: cannot read /nonexistent.yaml: No such file"),
        (("logs", "client"), 0, ""),
    ],
)
def test_errors_are_one_sentence_and_a_code(
    up: str, run: Run, args: tuple[str, ...], code: int, said: str
) -> None:
    done = run("lab", args[0], "--lab", up, *args[1:])
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") <= 1


def test_a_malformed_policy_is_one_sentence_and_exit_code_2(up: str, run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    text = (EXAMPLES / "l7-policy.yaml").read_text()
    bad.write_text(text.replace("fromEndpoints", "fromEndpoint"))
    done = run("lab", "apply", "--lab", up, "-f", str(EXAMPLES / "l7policy.yaml"), "-f", str(bad))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {bad}: spec.ingress[0].fromEndpoint: unknown field; did you mean fromEndpoints?\n"
    )
    assert run("lab", "get", "policies", "--lab", up).stdout == "none\n"


def test_a_lab_that_is_not_there_is_exit_code_3(run: Run) -> None:
    done = run("lab", "get", "pods", "--lab", "nosuchlab")
    assert done.returncode == 3
    assert done.stderr == "error: there is no lab nosuchlab; run `yettctl lab up --name nosuchlab`\n"


def test_a_lab_name_is_checked(run: Run) -> None:
    done = run("lab", "up", "--name", "../x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: lab name '../x': write 1 to 31 lower-case letters and digits")


def test_down_says_what_it_removed(run: Run) -> None:
    name = f"t{secrets.token_hex(4)}"
    assert run("lab", "up", YETT_LAB=name).stdout == f"lab {name} is up: 1 node\n"
    assert run("lab", "down", "--lab", name).stdout == f"lab {name} is down\n"
    assert run("lab", "down", "--lab", name).stdout == "no lab is running\n"
