"""Writes statuses: on the leader, when they differ, at most once a second for each policy."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from yett_operator.compilation.batch import KEPT_MAX
from yett_operator.events import Events
from yett_operator.kube.client import ApiError, Json, Kube
from yett_operator.kube.slim import SlimPolicy, SlimStatus
from yett_operator.metrics import PROGRAMMING_SECONDS, STATUS_WRITES
from yett_operator.status import objects
from yett_operator.status.delay import DELAYS, delay
from yett_operator.status.rollup import RollUp, roll_up
from yett_operator.status.tracker import Tracker
from yett_policy.document import canonical

log = logging.getLogger(__name__)

SETTLE = 0.15
"""Seconds from a change to its write: mostly nodes have it in force by then."""
INTERVAL = 1.0
"""Seconds between two writes for one policy."""
PATIENCE = 3.5
"""Seconds since nodes could have connected in which one that has not come yet is no news."""
FIRST_COMPILE = 30.0
"""Seconds after taking the lead in which it is no news that nothing is compiled yet: at a start of the operator all
pods and policies of a big cluster take a while.
"""
_TICK = 0.05
_PARALLEL = 4
"""Writes at a time: what makes a policy be in force asks the same API server."""
_RETRY = 2.0


@dataclass(slots=True)
class Written:
    """What was written for a policy, and when."""

    uid: str
    announced: int = -1
    """The version of the policy that the spec of its PolicyStatus names."""
    generation: int = 0
    """Of the PolicyStatus itself, since then."""
    details: bytes = b"{}"
    """Status of the PolicyStatus, canonical JSON; see `SlimStatus.status`."""
    told: int = 0
    """Hash of the status of the policy, canonical JSON; see `SlimPolicy.told`."""
    at: float = -1e9
    waiting: Mapping[float, float] = field(default_factory=dict)
    """Delay -> since when something differs that may wait so long, or not even that."""
    ready: bool | None = None
    ready_generation: int = 0

    def share(self, seen: SlimStatus | None) -> None:
        """Keep what the reflector saw, if that is what was written: one object, of a kilobyte or two."""
        if seen is not None and seen.status == self.details:
            self.details = seen.status


class StatusWriter:
    """Knows which statuses may differ and when each may be written next."""

    def __init__(
        self,
        kube: Kube,
        tracker: Tracker,
        policies: dict[str, SlimPolicy],
        events: Events,
        namespace: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`namespace`: where the PolicyStatus of a policy without namespace lives."""
        self.statuses: dict[tuple[str, str], SlimStatus] = {}
        """As the reflector sees them."""
        self._kube = kube
        self._tracker = tracker
        self._policies = policies
        self._events = events
        self._namespace = namespace
        self._clock = clock
        self._due: dict[str, float] = {}
        self._written: dict[str, Written] = {}
        self._seen_at: dict[str, tuple[int, float]] = {}
        """Source -> generation, and when it was first seen."""
        self._news = asyncio.Event()
        """A version that is to be announced at once."""

    # -- what may differ

    def changed(self, sources: Iterable[str]) -> None:
        """The statuses of these policies may be different."""
        now = self._clock()
        for source in sources:
            policy = self._policies.get(source)
            if policy is None:
                self._due.pop(source, None)
                self._written.pop(source, None)
                self._seen_at.pop(source, None)
                continue
            if self._seen_at.get(source, (-1, 0))[0] != policy.generation:
                self._seen_at[source] = (policy.generation, now)
                self._due[source] = now
                self._news.set()
            due = self._due.get(source)
            # Not later than an interval from now, whatever it waits for: a node may have failed.
            self._due[source] = now + SETTLE if due is None else min(due, now + INTERVAL)

    def status_changed(self, key: tuple[str, str], status: SlimStatus | None) -> None:
        """What the reflector saw: we follow it to repair what others change."""
        about = status or self.statuses.get(key)
        if status is None:
            self.statuses.pop(key, None)
        else:
            self.statuses[key] = status
        written = None if about is None else self._written.get(about.source)
        if about is None or written is None:
            return
        written.share(status)
        if status is None or (self._differs(status, written) and self._clock() - written.at > 2 * INTERVAL):
            written.details, written.announced = b"{}", -1
            self.changed([about.source])

    def _differs(self, status: SlimStatus, written: Written) -> bool:
        named = (status.generation, status.policy_generation)
        return status.status != written.details or named != (written.generation, written.announced)

    def fallback(self, policy: SlimPolicy) -> bytes:
        """The version of a policy that was last accepted."""
        status = self.statuses.get(self._key(policy))
        if status is None or status.policy_uid != policy.uid:
            return b""
        kept = json.loads(status.status).get("lastAccepted") or {}
        return str(kept.get("object", "")).encode()

    def _key(self, policy: SlimPolicy) -> tuple[str, str]:
        return policy.namespace or self._namespace, objects.status_name(policy)

    # -- writing

    async def run(self) -> None:
        """For ever, on the leader; may be cancelled at any await, a write is idempotent."""
        self._written.clear()  # another leader may have written since
        self.changed(list(self._policies))
        while True:
            self._news.clear()
            await self._write_due()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._news.wait()

    async def _write_due(self) -> None:
        now = self._clock()
        due = sorted((at, source) for source, at in self._due.items() if at <= now)
        room = asyncio.Semaphore(_PARALLEL)
        async with asyncio.TaskGroup() as writes:
            for _, source in due:
                await room.acquire()
                self._due.pop(source, None)
                writes.create_task(self._attempt(source, room))
                # To work a status out takes a millisecond or two; updates to nodes go in between.
                await asyncio.sleep(0)

    async def _attempt(self, source: str, room: asyncio.Semaphore) -> None:
        try:
            policy = self._policies.get(source)
            if policy is not None:
                await self._write(policy)
        except ApiError as error:
            STATUS_WRITES.labels("failed").inc()
            if error.status != 404:  # deleted meanwhile: the reflector will say so
                log.warning("%s", error)
            self._due[source] = self._clock() + _RETRY
        finally:
            room.release()

    async def _write(self, policy: SlimPolicy) -> None:
        now = self._clock()
        tracker = self._tracker
        written = self._written.get(policy.source)
        if written is None or written.uid != policy.uid:
            written = self._written[policy.source] = self._as_found(policy)
        if written.announced != policy.generation:
            await self._announce(policy, written)
        _, seen_at = self._seen_at.get(policy.source, (0, -1e9))
        if now < seen_at + SETTLE:
            self._due[policy.source] = seen_at + SETTLE
            return
        view = tracker.view(policy)
        roll = roll_up(view, tracker.node_views(view.nodes), now)
        if roll.again_at is not None:
            self._due[policy.source] = min(
                self._due.get(policy.source, float("inf")), max(roll.again_at, now + _TICK)
            )
        before = json.loads(written.details)
        if self._too_early(policy, roll, before, now):
            self._due[policy.source] = self._patient_until()  # news of it comes before
            return
        details = self._details(policy, roll, written.generation, before)
        summary = objects.summary(details)
        differs = objects.without_times(details) != objects.without_times(before)
        told = policy.kind not in objects.OWN_KINDS or _hash(summary) == written.told
        if told and not differs:
            written.waiting = {}
            return
        if now - written.at < INTERVAL:
            self._due[policy.source] = written.at + INTERVAL
            return
        wait = delay(details, before)
        if wait and (told or _hash(objects.summary(before)) == written.told):
            written.waiting = {each: written.waiting.get(each, now) for each in DELAYS if each >= wait}
            due = min(each + since for each, since in written.waiting.items())
            if now < due:
                self._due[policy.source] = due
                return
        written.at, written.waiting = now, {}
        if differs:
            await self._write_details(policy, details)
            written.details = canonical(details)
            written.share(self.statuses.get(self._key(policy)))
        if not told:
            body = {
                "apiVersion": objects.API_VERSION,
                "kind": policy.kind,
                "metadata": {"name": policy.name},
                "status": summary,
            }
            await self._kube.apply(f"{objects.policy_path(policy)}/status", body)
            written.told = _hash(summary)
        STATUS_WRITES.labels("written").inc()
        self._note(policy, roll, written, now)

    def _as_found(self, policy: SlimPolicy) -> Written:
        """What an earlier leader wrote."""
        status = self.statuses.get(self._key(policy))
        mine = status is not None and status.policy_uid == policy.uid
        kept = status.status if status is not None and mine else b"{}"
        details = json.loads(kept)
        was_ready = any(
            each.get("type") == "Ready" and each.get("status") == "True"
            for each in details.get("conditions") or ()
        )
        return Written(
            policy.uid,
            announced=status.policy_generation if status is not None and mine else -1,
            generation=status.generation if status is not None and mine else 0,
            details=kept,
            told=policy.told,
            ready=was_ready,
            ready_generation=details.get("policyGeneration", 0) if was_ready else 0,
        )

    def _too_early(self, policy: SlimPolicy, roll: RollUp, before: Json, now: float) -> bool:
        """A new leader has not heard of the nodes yet, and what the old one wrote still stands."""
        if now >= self._patient_until() or before.get("policyGeneration") != policy.generation:
            return False
        return any(each.reason == "NoLoader" for each in roll.failed) or (
            not roll.ready and not roll.failed and roll.conditions[0].status != "False"
        )

    def _patient_until(self) -> float:
        tracker = self._tracker
        return tracker.waiting_since + (PATIENCE if tracker.compiled_once else FIRST_COMPILE)

    def _details(self, policy: SlimPolicy, roll: RollUp, generation: int, before: Json) -> Json:
        tracker = self._tracker
        judged = tracker.judged.get(policy.source)
        total = tracker.nodes.hits.of(policy.source)
        audit = judged is not None and judged.judgement.audit
        return objects.details(
            roll,
            generation=generation,
            digest=tracker.digest_of(policy.source),
            engine=tracker.engine_of(policy.source),
            pods=tracker.pods_of(policy.source),
            requests={
                "allowed": total.allowed,
                "denied": 0 if audit else total.denied,
                "audited": total.denied if audit else 0,
            },
            last_accepted=self._last_accepted(policy, before),
            before=before,
            now=datetime.now(UTC),
        )

    def _last_accepted(self, policy: SlimPolicy, written: Json) -> Json | None:
        judged = self._tracker.judged.get(policy.source)
        before: Json | None = written.get("lastAccepted")
        if judged is None or judged.policy.uid != policy.uid:
            return before
        if not judged.judgement.accepted:
            return before
        if len(judged.policy.body) > KEPT_MAX:
            return None
        return {"generation": judged.policy.generation, "object": judged.policy.body.decode()}

    async def _announce(self, policy: SlimPolicy, written: Written) -> None:
        """Make the PolicyStatus, or say in it that what its status says is of an older version."""
        namespace, name = self._key(policy)
        path = objects.status_path(namespace, name)
        there = self.statuses.get((namespace, name))
        if there is not None and there.policy_uid != policy.uid:
            await self._kube.delete(path)  # of a policy of the same name that is gone
        stored = await self._kube.apply(path, objects.status_object(policy, namespace))
        written.announced, written.generation = policy.generation, stored["metadata"]["generation"]

    async def _write_details(self, policy: SlimPolicy, details: Json) -> None:
        namespace, name = self._key(policy)
        body = {
            "apiVersion": objects.API_VERSION,
            "kind": "PolicyStatus",
            "metadata": {"name": name, "namespace": namespace},
            "status": details,
        }
        await self._kube.apply(f"{objects.status_path(namespace, name)}/status", body)

    def _note(self, policy: SlimPolicy, roll: RollUp, written: Written, now: float) -> None:
        """Events and the time that it took."""
        generation, since = self._seen_at.get(policy.source, (policy.generation, now))
        accepted = roll.conditions[0]
        ready = next(each for each in roll.conditions if each.type == "Ready")
        if roll.ready and written.ready_generation != policy.generation:
            if generation == policy.generation:
                PROGRAMMING_SECONDS.labels("all_nodes").observe(now - since)
            self._events.post(policy, "Normal", "PolicyProgrammed", ready.message)
            written.ready_generation = policy.generation
        elif accepted.status == "False":
            self._events.post(policy, "Warning", "PolicyRejected", accepted.message)
        elif written.ready and not roll.ready and roll.failed:
            self._events.post(policy, "Warning", "PolicyDegraded", ready.message)
        written.ready = roll.ready


def _hash(summary: Json) -> int:
    return hash(canonical(summary))
