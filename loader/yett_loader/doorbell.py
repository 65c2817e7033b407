"""Something about interfaces (their settings, too), addresses, routes or neighbours changed: look again.

The messages are not read for their content; whoever listens looks at the state itself.  So an
overflow, which loses messages, is a ring like any other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Self

_LINK, _NEIGHBOUR = 0x1, 0x4  # RTMGRP_*
_ADDRESS4, _ROUTE4, _ADDRESS6, _ROUTE6 = 0x10, 0x40, 0x100, 0x400
PLACES = _LINK | _NEIGHBOUR | _ADDRESS4 | _ROUTE4 | _ADDRESS6 | _ROUTE6
SETTINGS = 1 << 23
"""RTNLGRP_IPV4_NETCONF: sysctls of interfaces."""


class Doorbell:
    """Calls `ring` from the event loop, soon after changes of `what`, at most once per `quiet` seconds."""

    def __init__(self, ring: Callable[[], None], quiet: float = 0.02, what: int = PLACES) -> None:
        self._ring = ring
        self._quiet = quiet
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.setblocking(False)
        self._socket.bind((0, what))
        self._loop.add_reader(self._socket, self._heard)

    def _heard(self) -> None:
        while True:
            try:
                self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: messages were lost
                continue
        if self._timer is None:
            self._timer = self._loop.call_later(self._quiet, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._ring()

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove_reader(self._socket)
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
