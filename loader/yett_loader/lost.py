"""PURE: pods whose interface went away, which are not looked for by address again at once.

A pod's interface goes when the pod ends, and the node may give its addresses to another pod long before
the operator says so, or for as long as there is no operator.  Whoever appears behind them is not that pod:
only once the operator has had the time to hear of an end and has not spoken of one is it the same pod
with a new interface.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from yett_loader.endpoint import LocalEndpoint

HOLD = 5.0
"""Seconds from the loss, or from when an operator tells of changes again, to looking by address."""


class Lost:
    """By name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.told: Callable[[], bool] | None = None
        """Whether an operator tells of changes now; None: there is no operator to wait for."""
        self._clock = clock
        self._known: dict[str, tuple[tuple[str, ...], float]] = {}
        """Name -> its addresses, and since when it waits."""

    def add(self, endpoint: LocalEndpoint) -> None:
        """Its interface is gone."""
        if self.told is not None:
            self._known.setdefault(endpoint.name, (endpoint.addresses, self._clock()))

    def keep(self, endpoints: Iterable[LocalEndpoint]) -> None:
        """Forget all but these, and of these the ones that have other addresses now."""
        addresses = {endpoint.name: endpoint.addresses for endpoint in endpoints}
        self._known = {name: item for name, item in self._known.items() if addresses.get(name) == item[0]}

    def holds(self, endpoint: LocalEndpoint) -> bool:
        """Whether it still has to wait."""
        known = self._known.get(endpoint.name)
        if known is None:
            return False
        now = self._clock()
        if self.told is not None and not self.told():
            self._known[endpoint.name] = (known[0], now)
            return True
        if now - known[1] < HOLD:
            return True
        del self._known[endpoint.name]
        return False
