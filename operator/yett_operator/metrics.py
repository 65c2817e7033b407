"""What Prometheus reads of the operator.  No label has values that users choose but namespace,
policy and node names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

REGISTRY = CollectorRegistry()

_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)

BUILD_INFO = Gauge("yett_build_info", "Version of the operator.", ["version"], registry=REGISTRY)
LEADER = Gauge("yett_leader", "1 on the replica that writes identities and status.", registry=REGISTRY)
SYNCED = Gauge(
    "yett_reflector_synced",
    "1 if the copy of a kind's objects is up to date.",
    ["resource"],
    registry=REGISTRY,
)
OBJECTS = Gauge("yett_reflector_objects", "Objects known of a kind.", ["resource"], registry=REGISTRY)
LISTS = Counter("yett_reflector_lists", "How often all objects were listed.", ["resource"], registry=REGISTRY)
COMPILE_SECONDS = Histogram(
    "yett_reconcile_duration_seconds",
    "Time from a batch of changes to documents, in the compiling process.",
    buckets=_BUCKETS,
    registry=REGISTRY,
)
COMPILE_FAILURES = Counter(
    "yett_reconcile_errors",
    "Batches that could not be compiled; what was published stays.",
    registry=REGISTRY,
)
PROGRAMMING_SECONDS = Histogram(
    "yett_policy_programming_duration_seconds",
    "From the moment the operator saw a version of a policy until the last node had it in force.",
    ["stage"],
    buckets=(*_BUCKETS, 100),
    registry=REGISTRY,
)
REVISION = Gauge("yett_policy_revision", "Revision of what is published to nodes.", registry=REGISTRY)
DOCUMENTS = Gauge("yett_documents", "Documents published.", registry=REGISTRY)
IDENTITIES = Gauge("yett_identities", "Identities in use.", registry=REGISTRY)
IDENTITIES_WAITING = Gauge(
    "yett_identities_waiting",
    "Label sets that have no number yet; pods that need one wait.",
    registry=REGISTRY,
)
POLICIES = Gauge("yett_policies", "Policies, by whether they are accepted.", ["accepted"], registry=REGISTRY)
NODES = Gauge("yett_nodes", "Nodes with a loader, by connection.", ["state"], registry=REGISTRY)
STATUS_WRITES = Counter("yett_status_writes", "Status writes, by result.", ["result"], registry=REGISTRY)
ADMISSIONS = Counter("yett_admission_reviews", "Admission reviews, by answer.", ["answer"], registry=REGISTRY)
CERTIFICATE_EXPIRY = Gauge(
    "yett_certificate_expiry_timestamp_seconds", "When the serving certificate expires.", registry=REGISTRY
)

Sample = tuple[str, str, dict[str, str], float]
"""(name, counter or gauge, labels, value)."""


class Samples:
    """A collector of numbers that somebody else counts."""

    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        found: dict[str, Metric] = {}
        for name, kind, labels, value in self._read():
            family = name.removesuffix("_total") if kind == "counter" else name
            found.setdefault(family, Metric(family, "Of the sync stream.", kind)).add_sample(
                name, labels, value
            )
        yield from found.values()
