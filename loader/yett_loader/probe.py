"""`python -m yett_loader.probe alive|ready`: for the kubelet, which asks every few seconds.

Only the standard library, so that each start costs as little as may be.  Exit code 0: yes; 1: no,
with a sentence that shows in the pod's events.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
from pathlib import Path
from typing import Any

API = Path("/run/yett/loader.sock")
SECONDS = 4.0


def problem(question: str, path: Path) -> str:
    """Why the agent is not alive, or not ready; empty if it is."""
    try:
        answer = _status(path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"the agent does not answer on {path}: {error}"
    if question == "alive":
        return ""
    if answer.get("error"):
        return str(answer["error"])
    if answer.get("snapshot") is None:
        sync = answer.get("sync") or {}
        return f"no policy document has arrived yet: {sync.get('problem') or 'the operator has sent none'}"
    return ""


def main(arguments: list[str]) -> int:
    """Exit status."""
    if len(arguments) not in {1, 2} or arguments[0] not in {"alive", "ready"}:
        print("usage: python -m yett_loader.probe alive|ready [SOCKET]", file=sys.stderr)
        return 2
    found = problem(arguments[0], Path(arguments[1]) if len(arguments) == 2 else API)
    if found:
        print(found)
    return 1 if found else 0


def _status(path: Path) -> dict[str, Any]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(SECONDS)
        connection.sock.connect(str(path))
        connection.request("GET", "/v1/status")
        response = connection.getresponse()
        value = json.loads(response.read())
        if response.status != http.client.OK or not isinstance(value, dict):
            raise ValueError(f"status {response.status}")
        return value
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
