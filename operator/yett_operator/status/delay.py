"""PURE: how long a difference may wait to be written, so that others come with it."""

from __future__ import annotations

from yett_operator.kube.client import Json
from yett_operator.status.objects import without_times
from yett_operator.status.rollup import IN_FORCE

COUNTERS = 10.0
"""Seconds, if only counters differ."""
PLACES = 3.0
"""Seconds, if the policy is in force wherever it applies, as it was, but that is on other nodes: who follows a
deployment that comes and goes need not be told of each of its pods."""
DELAYS = (PLACES, COUNTERS)
_COUNTERS = dict.fromkeys(("requests", "pods", "documentDigest"))
"""They say nothing of whether the policy is in force.  The digest is another one whenever some peer of the policy
comes or goes.
"""
_PLACES = dict.fromkeys(("enforced", "nodes"))


def delay(new: Json, old: Json) -> float:
    """Of two statuses of a PolicyStatus that differ; 0: what is new must be seen at once."""
    new, old = ({**without_times(each), **_COUNTERS} for each in (new, old))
    if new == old:
        return COUNTERS
    return PLACES if _without_places(new) == _without_places(old) else 0


def _without_places(status: Json) -> Json:
    conditions = [
        {**each, "message": ""} if each["reason"] == IN_FORCE else each for each in status["conditions"]
    ]
    return {**status, **_PLACES, "conditions": conditions}
