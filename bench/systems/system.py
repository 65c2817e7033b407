"""A thing between client and server that may allow or deny requests."""

from __future__ import annotations

import contextlib

from bench.rules import Rule
from bench.world import World, world
from yett_policy.http.rule import PathKind


class System:
    """The base: nothing between them but the wire, and so the peer `bare`."""

    name = "bare"
    label = "bare veth"
    enforces = False
    """Whether denied requests are kept from the server."""
    kinds = frozenset(PathKind)
    """What it can tell from its near misses."""
    most_rules = 10_000

    def __init__(self) -> None:
        self.cleanup = contextlib.ExitStack()
        self.world: World = self.cleanup.enter_context(world())

    @property
    def pids(self) -> list[int]:
        """Processes on the way of a request, the origin's included."""
        return self.world.pids

    def configure(self, rules: tuple[Rule, ...]) -> None:
        """Enforce these rules; in force on return."""

    def close(self) -> None:
        """Leave nothing behind."""
        self.cleanup.close()
