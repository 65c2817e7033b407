"""PURE: interfaces that nobody has named yet, while a pod that a policy selects is on its way to this node.

The operator knows of a pod before it has an address, the node has its interface before the operator knows the
address.  Between the two an interface that is new may be that pod's, so it is governed, and denied everything,
until it is known whose it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

NEW = 5.0
"""Seconds for which an interface counts as new: it may come before the word that a pod does."""
HOLD = 30.0
"""Seconds after which an interface that no pod of this node has is none of our business; its kubelet tells sooner."""


class Newcomers:
    """By interface number."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[int, float] | None = None
        """When each unknown interface was seen first; None: nobody has looked yet."""
        self.held: set[int] = set()

    def look(
        self, unknown: Collection[int], *, expecting: bool, told: bool
    ) -> tuple[frozenset[int], frozenset[int]]:
        """(to be governed from now on, to be let go) of the interfaces to other network namespaces that no
        endpoint has, and that are not governed for another reason.

        `expecting`: a pod that a policy selects has no interface yet.  `told`: an operator tells of changes now,
        else nothing is let go.
        """
        now = self._clock()
        if self._since is None:  # what was here before us is not new
            self._since = dict.fromkeys(unknown, now - NEW)
        self._since = {number: self._since.get(number, now) for number in unknown}
        self.held &= self._since.keys()
        old = frozenset(number for number in self.held if told and now - self._since[number] >= HOLD)
        new = frozenset(
            number
            for number, since in self._since.items()
            if expecting and number not in self.held and now - since < NEW
        )
        self.held = (self.held | new) - old
        return new, old

    @property
    def waiting(self) -> bool:
        """Whether to look again soon."""
        return bool(self.held)
