"""Real clients, run inside a pod; each prints what it saw as JSON."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import Counter
from http.client import HTTPConnection
from queue import Queue

import grpc
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


def say(host: str, method: str) -> object:
    with grpc.insecure_channel(f"{host}:50051") as channel:
        call = channel.unary_unary(f"/test.Echo/{method}")
        try:
            return call(b"hello", timeout=5).decode()
        except grpc.RpcError as error:
            return error.code().name


def chat(host: str, method: str) -> object:
    """Each answer is awaited before the next question: both directions at once."""
    with grpc.insecure_channel(f"{host}:50051") as channel:
        said: list[str] = []

        def questions():
            for number in range(5):
                while len(said) < number:
                    time.sleep(0.005)
                yield f"q{number}".encode()

        try:
            for answer in channel.stream_stream(f"/test.Echo/{method}")(questions(), timeout=5):
                said.append(answer.decode())  # noqa: PERF401 - the questions wait for each
        except grpc.RpcError as error:
            return error.code().name
        return said


def many(host: str, count: str) -> object:
    """How many streams of one connection were answered while all were open."""
    with grpc.insecure_channel(f"{host}:50051") as channel:
        questions = [Queue[bytes | None]() for _ in range(int(count))]
        chat = channel.stream_stream("/test.Echo/Chat")
        calls = [chat(iter(each.get, None), timeout=30) for each in questions]
        for each in questions:
            each.put(b"q")
        try:
            answers = [next(call) for call in calls]
        except grpc.RpcError as error:
            return error.code().name
        for each in questions:
            each.put(None)
        return answers.count(b"Q")


def websocket(host: str, path: str) -> object:
    try:
        with connect(f"ws://{host}:8765{path}", open_timeout=5) as connection:
            answers = []
            for number in range(3):
                connection.send(f"m{number}")
                answers.append(connection.recv(timeout=5))
            return answers
    except InvalidStatus as error:
        return error.response.status_code


def held(host: str, seconds: str) -> object:
    """One WebSocket and one gRPC stream, used all the time; how often each was answered, or what ended it."""
    end = time.monotonic() + float(seconds)
    seen = {"websocket": 0, "grpc": 0}
    questions: Queue[bytes | None] = Queue()
    with grpc.insecure_channel(f"{host}:50051") as channel, connect(f"ws://{host}:8765/ws") as connection:
        answers = channel.stream_stream("/test.Echo/Chat")(iter(questions.get, None), timeout=60)
        try:
            while time.monotonic() < end:
                questions.put(b"q")
                if next(answers) == b"Q":
                    seen["grpc"] += 1
                connection.send("m")
                if connection.recv(timeout=5):
                    seen["websocket"] += 1
                if seen["websocket"] == 1:
                    print("begun", flush=True)
                time.sleep(0.05)
        except (grpc.RpcError, OSError, ConnectionClosed) as error:
            return {**seen, "ended": type(error).__name__}
        finally:
            questions.put(None)
    return seen


def streams(host: str, *paths: str) -> object:
    """What becomes of each stream of one HTTP/2 connection, all opened at once."""
    with socket.create_connection((host, 8082), timeout=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        for number, path in enumerate(paths):
            # HPACK (RFC 7541): :method GET, :scheme http, then :path and :authority as literals
            fields = b"\x82\x86\x04" + bytes([len(path)]) + path.encode() + b"\x01\x01a"
            connection.sendall(frame(1, 5, 2 * number + 1, fields))
        seen: dict[int, str] = {}
        with connection.makefile("rb") as answers:
            while len(seen) < len(paths):
                head = answers.read(9)
                kind, stream = head[3], int.from_bytes(head[5:9], "big")
                body = answers.read(int.from_bytes(head[:3], "big"))
                if kind == 3:
                    seen.setdefault(stream, "reset")
                elif kind == 1:
                    seen.setdefault(stream, "200" if body[0] == 0x88 else "other")
        return [seen[2 * number + 1] for number in range(len(paths))]


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """Of HTTP/2 (RFC 9113, 4.1)."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def same_port(host: str, path: str, port: str, count: str) -> object:
    """Connections one after the other from one port, each ended by the server's side."""
    answers = []
    for _ in range(int(count)):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.settimeout(10)
            connection.bind(("", int(port)))
            connection.connect((host, 80))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
            answers.append(answer[9:12].decode())
    return answers


def load(host: str, path: str, seconds: str) -> object:
    """Requests one after the other on one connection while it lasts."""
    seen: Counter[str] = Counter()
    connections, connection = 0, None
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        try:
            if connection is None:
                connection = HTTPConnection(host, timeout=2)
                connections += 1
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            if not seen:
                print("begun", flush=True)
            seen[str(response.status)] += 1
        except OSError as error:
            seen[type(error).__name__] += 1
            connection = None
            time.sleep(0.02)
    return {"seen": seen, "connections": connections}


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    commands = {
        "say": say,
        "chat": chat,
        "many": many,
        "websocket": websocket,
        "streams": streams,
        "held": held,
        "same_port": same_port,
        "load": load,
    }
    print(json.dumps(commands[kind](*arguments)))
