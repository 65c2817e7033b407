"""Address prefixes as small, fast, ordered values."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple


class Prefix(NamedTuple):
    """A CIDR block; host bits are zero."""

    version: int
    first: int
    bits: int

    @property
    def last(self) -> int:
        """Highest address, as a number."""
        return self.first | ((1 << (_WIDTH[self.version] - self.bits)) - 1)

    def covers(self, other: Prefix) -> bool:
        """Whether another prefix lies inside, or is equal."""
        return (
            other.version == self.version
            and other.bits >= self.bits
            and self.first <= other.first <= self.last
        )

    def __str__(self) -> str:
        return f"{_ADDRESS[self.version](self.first)}/{self.bits}"


_WIDTH = {4: 32, 6: 128}
_ADDRESS = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}


def read_prefix(text: str) -> Prefix:
    """Of `10.0.0.0/8`, `2001:db8::/32`, or an address alone; host bits are cleared.

    Raises ValueError if it is none of these.
    """
    network = ipaddress.ip_network(text, strict=False)
    return Prefix(network.version, int(network.network_address), network.prefixlen)


parse_prefix = lru_cache(maxsize=4096)(read_prefix)
"""`read_prefix` for prefixes of policies, which come again and again; for those of pods it would only take room."""
