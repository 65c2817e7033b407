"""Labels of pods without those that only make noise.

A Deployment's pods get a new `pod-template-hash` with each roll-out, a StatefulSet's pods each
their own name as a label: as part of an identity they would make a new number for every
roll-out, or for every pod.  So they count only while some policy selects by them, or a Service that
says what is spoken on a port.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from yett_policy.app_protocol import selector_of
from yett_policy.cluster import Service
from yett_policy.policy import Policy
from yett_policy.selector import LabelSelector

NOISE = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "batch.kubernetes.io/job-name",
        "controller-revision-hash",
        "controller-uid",
        "job-name",
        "pod-template-generation",
        "pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
    }
)
"""Labels that controllers put on pods to tell one roll-out, job or pod from another."""

_SOURCES = ("k8s:", "any:")


def quiet(labels: Mapping[str, str], wanted: frozenset[str]) -> dict[str, str]:
    """Without noise, but for the keys `wanted`."""
    return {key: value for key, value in labels.items() if key not in NOISE or key in wanted}


def noise_in(policies: Iterable[Policy]) -> Counter[str]:
    """Noisy keys that policies select by, counted."""
    found: Counter[str] = Counter()
    for policy in policies:
        peers = (peer for rule in policy.rules for peer in rule.peers or ())
        for selector in (policy.subject, *peers):
            if isinstance(selector, LabelSelector):
                found += noise_of(selector)
    return found


def noise_of(selector: LabelSelector | None) -> Counter[str]:
    """Noisy keys of one selector, counted; None: it selects nobody."""
    return Counter(
        key
        for requirement in (selector.requirements if selector else ())
        for source in _SOURCES
        if (key := requirement.key.removeprefix(source)) in NOISE and requirement.key.startswith(source)
    )


def noise_in_service(service: Service | None) -> Counter[str]:
    """Noisy keys that a Service selects by whose word counts, counted; None: there is none."""
    return noise_of(None if service is None else selector_of(service))
