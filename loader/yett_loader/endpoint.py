"""PURE: a pod on this node, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A pod of this node, with a network namespace of its own."""

    namespace: str
    pod: str
    identity: int
    addresses: tuple[str, ...]
    ifindex: int | None = None
    """Of the host side of its veth; None: to be found by its addresses."""

    @property
    def name(self) -> str:
        """namespace/pod."""
        return f"{self.namespace}/{self.pod}"
