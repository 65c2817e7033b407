"""Client of a loader's API: HTTP over a Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from yett_lab.errors import LabError

TIMEOUT_SECONDS = 30.0


class NodeError(LabError):
    """The node answered with an error, or not at all."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """Of the HTTP response; 0: there was none."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("yett", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class NodeApi:
    """One node's loader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, resource: str, **query: str) -> Any:
        """A JSON document."""
        return self._json("GET", resource, query=query)

    def put(self, resource: str, body: bytes) -> Any:
        """Send a document; the answer."""
        return self._json("PUT", resource, body)

    def post(self, resource: str) -> Any:
        """Ask for something to be done."""
        return self._json("POST", resource)

    def lines(
        self, resource: str, *, timeout: float | None = TIMEOUT_SECONDS, **query: str
    ) -> Iterator[bytes]:
        """Lines as they come, until the node ends the answer; `timeout` None waits for ever."""
        connection, response = self._open("GET", resource, b"", query, timeout)
        try:
            while line := response.readline():
                yield line
        except (OSError, http.client.HTTPException) as error:
            raise NodeError(f"lost the connection to the node at {self.path}: {error}") from None
        finally:
            connection.close()

    def _json(
        self, method: str, resource: str, body: bytes = b"", query: dict[str, str] | None = None
    ) -> Any:
        connection, response = self._open(method, resource, body, query or {}, TIMEOUT_SECONDS)
        try:
            data = response.read()
            return json.loads(data) if data else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NodeError(f"cannot understand the node at {self.path}: {error}") from None
        finally:
            connection.close()

    def _open(
        self, method: str, resource: str, body: bytes, query: dict[str, str], timeout: float | None
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        connection = _Connection(self.path, timeout)
        target = f"{resource}?{urlencode(query)}" if query else resource
        try:
            connection.request(method, target, body or None)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            reason = getattr(error, "strerror", None) or error
            raise NodeError(
                f"cannot reach the node at {self.path}: {reason}; is its loader running?"
            ) from None
        if response.status >= http.client.BAD_REQUEST:
            said = response.read().decode("utf-8", "replace").strip()
            connection.close()
            raise NodeError(_message(said) or f"the node answered {response.status}", response.status)
        return connection, response


def _message(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return str(value.get("error", text)) if isinstance(value, dict) else text
