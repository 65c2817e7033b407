"""What the kubelet asks."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from yett_loader import probe


@contextmanager
def agent(path: Path, body: str, status: str = "200 OK") -> Iterator[None]:
    """Answers one request."""
    answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(65536).startswith(b"GET /v1/status ")
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)
        assert not thread.is_alive()


def status(**changes: object) -> str:
    return json.dumps({"error": "", "snapshot": {"digest": "d"}, "sync": {"problem": ""}} | changes)


@pytest.mark.parametrize("question", ["alive", "ready"])
def test_an_agent_that_enforces_is_alive_and_ready(tmp_path: Path, question: str):
    path = tmp_path / "s"
    with agent(path, status()):
        assert probe.main([question, str(path)]) == 0


def test_an_agent_without_documents_is_alive_but_not_ready(tmp_path: Path):
    path = tmp_path / "s"
    body = status(snapshot=None, sync={"problem": "it refuses this node's token"})
    with agent(path, body):
        assert probe.problem("alive", path) == ""
    path.unlink()
    with agent(path, body):
        assert "it refuses this node's token" in probe.problem("ready", path)


def test_what_is_not_in_force_is_said(tmp_path: Path):
    path = tmp_path / "s"
    with agent(path, status(error="the map policies is full")):
        assert probe.problem("ready", path) == "the map policies is full"


def test_no_agent_and_one_that_fails_are_not_alive(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "s"
    assert probe.main(["alive", str(path)]) == 1
    assert "does not answer" in capsys.readouterr().out
    with agent(path, '{"error": "x"}', "500 Internal Server Error"):
        assert "status 500" in probe.problem("alive", path)
    path.unlink()
    with agent(path, "[]"):
        assert probe.main(["alive", str(path)]) == 1


def test_a_wrong_question_is_bad_input(capsys: pytest.CaptureFixture[str]):
    assert probe.main(["well"]) == 2
    assert "usage:" in capsys.readouterr().err
