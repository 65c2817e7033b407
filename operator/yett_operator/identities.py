"""Identity numbers that outlive the operator: one SecurityIdentity object for each.

A number counts only once its object exists.  The object's name is the number, so the API
server itself keeps two leaders from giving one number twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from yett_operator.compilation.world import World
from yett_operator.kube.client import ApiError, Json, Kube
from yett_operator.kube.slim import SlimIdentity
from yett_operator.metrics import IDENTITIES_WAITING
from yett_policy.identity import FIRST_ADDRESS, FIRST_POD, Labels, stands_for_address

log = logging.getLogger(__name__)

PATH = "/apis/yett.dev/v1alpha1/securityidentities"
API_VERSION = "yett.dev/v1alpha1"

UNUSED = 3600.0
"""Seconds after which a number that nothing uses may be given up."""
_PARALLEL = 16
_RETRY = 1.0
_REFUSED = {400, 413, 422}
"""Status of answers that would be the same a second time: of labels that an object cannot have, for they are too many."""
REFUSED_FOR = 60.0
"""Seconds for which it is not tried again then."""


class Identities:
    """Follows the objects; on the leader also makes and deletes them."""

    def __init__(
        self,
        kube: Kube,
        world: World,
        contradiction: Callable[[], None],
        *,
        unused: float = UNUSED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`contradiction` is called when labels got another number than they had."""
        self.leading = False
        self._kube = kube
        self._world = world
        self._contradiction = contradiction
        self._unused = unused
        self._clock = clock
        self._objects: dict[int, Labels] = {}
        self._numbers_of: defaultdict[Labels, set[int]] = defaultdict(set)
        self._missing: frozenset[Labels] = frozenset()
        self._wanted = asyncio.Event()
        self._idle_since: dict[Labels, float] = {}
        self._top = [FIRST_POD - 1, FIRST_ADDRESS - 1]
        """Highest number seen, of pods and of addresses."""
        self._sweeping: set[Labels] = set()
        """Label sets that the compiler was asked to give up."""
        self._lost: dict[int, Labels] = {}
        """In use, and without an object."""
        self._refused: dict[Labels, float] = {}
        """Label sets that cannot have an object -> when to try again."""
        self._given_up: set[Labels] = set()
        """Those that it has given up; their objects go."""

    # -- what the reflector says

    def changed(self, number: int, identity: SlimIdentity | None) -> None:
        """An object is there, or is gone."""
        if identity is not None and self._objects.get(number) == identity.labels:
            return
        old = self._objects.pop(number, None)
        if old is not None:
            self._numbers_of[old].discard(number)
            self._tell(old)
        if identity is not None:
            self._objects[number] = identity.labels
            self._numbers_of[identity.labels].add(number)
            kind = number >= FIRST_ADDRESS
            self._top[kind] = max(self._top[kind], number)
            self._tell(identity.labels)

    def _tell(self, labels: Labels) -> None:
        """The lowest number counts, should two leaders have given two."""
        numbers = self._numbers_of[labels]
        if not numbers:
            del self._numbers_of[labels]
            self._world.forget_number(labels)
            return
        known = self._world.numbers.get(labels)
        self._world.number(labels, min(numbers))
        if known is not None and known != min(numbers):
            log.warning("an identity has number %d now, not %d: compiling anew", min(numbers), known)
            self._contradiction()

    # -- what the compiler says

    def want(self, missing: frozenset[Labels]) -> None:
        """Label sets that need a number."""
        self._missing = missing
        IDENTITIES_WAITING.set(len(missing))
        if missing:
            self._wanted.set()

    def forgotten(self, labels: frozenset[Labels]) -> None:
        """Numbers that the compiler will not use again: their objects may go."""
        for each in labels:
            self._world.numbers.pop(each, None)
        if self.leading and labels & self._sweeping:
            self._given_up |= labels & self._sweeping
            self._wanted.set()
        self._sweeping -= labels

    # -- the leader's work

    async def run(self) -> None:
        """For ever, on the leader; may be cancelled at any await."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._allocate([each for each in sorted(self._missing) if not self._is_known(each)])
                await self._delete()
                await self._restore()
            except ApiError as error:
                log.warning("%s", error)
                await asyncio.sleep(_RETRY)
                self._wanted.set()

    def sweep(self, in_use: Mapping[int, Labels]) -> None:
        """Begin to give up numbers that nothing has used for long, and to write down again those
        whose objects somebody deleted; call it every now and then.
        """
        now = self._clock()
        used = set(in_use.values())
        idle = self._numbers_of.keys() - used
        self._idle_since = {labels: self._idle_since.get(labels, now) for labels in idle}
        for labels, since in self._idle_since.items():
            if now - since >= self._unused:
                self._sweeping.add(labels)
                self._world.forget_number(labels)
        self._lost = {
            number: labels
            for number, labels in in_use.items()
            if number >= FIRST_POD and not self._is_known(labels)
        }
        if self._lost:
            self._wanted.set()

    def _is_known(self, labels: Labels) -> bool:
        return bool(self._numbers_of.get(labels))

    async def _allocate(self, wanted: list[Labels]) -> None:
        """One that fails keeps no other from its number."""
        now = self._clock()
        self._refused = {labels: again for labels, again in self._refused.items() if now < again}
        wanted = [labels for labels in wanted if labels not in self._refused]
        errors: list[BaseException] = []
        for begin in range(0, len(wanted), _PARALLEL):
            group = wanted[begin : begin + _PARALLEL]
            results = await asyncio.gather(*map(self._create, group), return_exceptions=True)
            errors += [result for result in results if isinstance(result, BaseException)]
        if errors:
            raise errors[0]

    async def _create(self, labels: Labels) -> None:
        while True:
            kind = stands_for_address(labels)
            self._top[kind] += 1
            number = self._top[kind]
            try:
                await self._kube.post(PATH, identity_object(number, labels))
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    continue
                if error.status not in _REFUSED:
                    raise
                self._refused[labels] = self._clock() + REFUSED_FOR
                log.error(  # noqa: TRY400 - nothing of interest in the trace
                    "there is no identity for these %d labels: %s ...: %s",
                    len(labels),
                    ", ".join(labels)[:200],
                    str(error)[:500],
                )
                return
            if number not in self._objects:  # the reflector may have been quicker
                self.changed(number, SlimIdentity(number, labels))
            return

    async def _restore(self) -> None:
        while self._lost:
            number, labels = self._lost.popitem()
            log.warning("identity %d is in use and its object was deleted; making it again", number)
            try:
                await self._kube.post(PATH, identity_object(number, labels))
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise

    async def _delete(self) -> None:
        while self._given_up:
            labels = self._given_up.pop()
            for number in sorted(self._numbers_of.get(labels, ())):
                try:
                    await self._kube.delete(f"{PATH}/{number}")
                except ApiError as error:
                    if error.status != 404:
                        self._given_up.add(labels)
                        raise


def identity_object(number: int, labels: Labels) -> Json:
    """As it is created."""
    return {
        "apiVersion": API_VERSION,
        "kind": "SecurityIdentity",
        "metadata": {"name": str(number)},
        "spec": {"number": number, "labels": list(labels)},
    }
