"""PURE: since when what is in the maps has been retired."""

from __future__ import annotations

from yett_loader.plan import Grace, Retired, retired
from yett_loader.state import MapState


class Retirement:
    """What nothing points at any more, by when that was noticed; a clock that only goes forward tells."""

    def __init__(self) -> None:
        self._rulesets: dict[int, float] = {}
        self._policies: dict[int, float] = {}

    def note(self, have: MapState, want: MapState, now: float) -> None:
        """After an application."""
        rest = retired(have, want)
        self._rulesets = {number: self._rulesets.get(number, now) for number in rest.rulesets}
        self._policies = {slot: self._policies.get(slot, now) for slot in rest.policies}

    def due(self, now: float, grace: Grace) -> Retired:
        """What has been retired for so long."""
        return Retired(
            frozenset(number for number, since in self._rulesets.items() if now - since >= grace.rulesets),
            frozenset(slot for slot, since in self._policies.items() if now - since >= grace.policies),
        )

    def rest(self, now: float, grace: Grace) -> float | None:
        """Seconds until some of it is due; None if there is none."""
        ends = [since + grace.rulesets for since in self._rulesets.values()]
        ends += [since + grace.policies for since in self._policies.values()]
        return max(0.0, min(ends) - now) if ends else None

    def forget(self, have: MapState) -> None:
        """What was dropped."""
        self._rulesets = {number: at for number, at in self._rulesets.items() if number in have.rulesets}
        self._policies = {slot: at for slot, at in self._policies.items() if slot in have.policies}
