"""A port of a Service as policy sees it: its address, and who is behind it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

BACKENDS_MAX = 16
"""That are judged; behind an address with more of them (they differ in identity or port, so it is a
strange one) nothing is allowed.  YETT_SERVICE_BACKENDS."""


class Frontend(NamedTuple):
    """What a client connects to."""

    address: str
    proto: int
    port: int


def frontend_of(address: str, proto: int, port: int) -> Frontend:
    """With the address in its one spelling; ValueError if it is none."""
    return Frontend(str(ip_address(address)), proto, port)


Backends = tuple[tuple[int, int], ...]
"""(identity, port) of whoever may get the connection, sorted, each once; at most one more than
BACKENDS_MAX, which says that there are too many."""
