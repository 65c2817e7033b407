"""Which interface of the node is whose: found, governed, waited for, given up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from yett_loader import discovery
from yett_loader.aside import aside
from yett_loader.datapath import Datapath
from yett_loader.discovery import Found, NotFound
from yett_loader.endpoint import LocalEndpoint
from yett_loader.errors import KernelError
from yett_loader.lost import Lost
from yett_loader.newcomers import Newcomers
from yett_loader.snapshot import Wanted
from yett_policy.document import Document, Snapshot
from yett_policy.reason import Reason

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Interfaces:
    """Of one node."""

    datapath: Datapath
    waiting: dict[str, str] = field(default_factory=dict)
    """Endpoint name -> why its interface is not known yet, or not governed."""
    lost: Lost = field(default_factory=Lost)
    newcomers: Newcomers = field(default_factory=Newcomers)

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be found out, as long as neither endpoints nor interfaces change."""
        return not self.waiting and not self.newcomers.waiting

    async def locate(
        self,
        wanted: Wanted,
        before: Iterable[LocalEndpoint],
        governed: frozenset[int],
        there: frozenset[int],
    ) -> tuple[LocalEndpoint, ...]:
        """Each endpoint with its interface: as told, as found `before`, or found now.

        `governed` are the interfaces that are, `there` those that may be pods'.  Whoever is behind the
        addresses of an endpoint that was lost is governed too, and denied everything.
        """
        existing = discovery.interfaces()
        old_by_name = {item.name: item for item in before}
        known = []
        for item in wanted.endpoints:
            old = old_by_name.get(item.name)
            if old and old.ifindex is not None and old.ifindex not in existing:
                self.lost.add(old)
            if item.ifindex is not None and item.ifindex not in existing:
                known.append(replace(item, ifindex=None))
            elif item.ifindex is None and old and old.addresses == item.addresses and old.ifindex in governed:
                known.append(replace(item, ifindex=old.ifindex))
            else:
                known.append(item)
        self.lost.keep(known)
        results = {}
        if any(item.ifindex is None for item in known):
            results = await asyncio.to_thread(discovery.find_all, known)
        taken = {item.ifindex for item in known if item.ifindex is not None}
        self.waiting = {}
        held = {item.name for item in known if item.ifindex is None and self.lost.holds(item)}
        # Those last: what is behind their addresses may be another endpoint's.
        for index, item in sorted(enumerate(known), key=lambda pair: pair[1].name in held):
            match results.get(item.name):
                case Found(ifindex, ifname) if ifindex in taken:
                    self.waiting[item.name] = f"interface {ifname} belongs to another endpoint"
                case Found(ifindex, ifname) if item.name in held:
                    await self.govern([replace(item, ifindex=ifindex)])
                    self.waiting.setdefault(
                        item.name,
                        f"its interface is gone, and {ifname} with its address is denied everything until "
                        "the operator has had time to say whose it is",
                    )
                case Found(ifindex):
                    known[index] = replace(item, ifindex=ifindex)
                    taken.add(ifindex)
                case NotFound(reason):
                    self.waiting[item.name] = reason
        if self.lost.told is not None:
            await self._hold_newcomers(wanted.snapshot, known, there, told=self.lost.told())
        return tuple(known)

    async def govern(self, endpoints: Iterable[LocalEndpoint]) -> tuple[LocalEndpoint, ...]:
        """The endpoints, governed; those of which that is not to be had without their interfaces."""
        known = tuple(endpoints)
        failed = await self._attach(item.ifindex for item in known if item.ifindex is not None)
        # One odd interface must not keep the others from their policies.
        for item in known:
            if item.ifindex in failed:
                self.waiting[item.name] = str(failed[item.ifindex])
                log.error("%s is not governed: %s", item.name, failed[item.ifindex])
        return tuple(replace(item, ifindex=None) if item.ifindex in failed else item for item in known)

    async def mend(self, endpoints: Iterable[LocalEndpoint]) -> None:
        """Govern them again, where a program is missing: whoever may do what we may can take it off."""
        existing = discovery.interfaces()
        await self.govern(item for item in endpoints if item.ifindex in existing)

    async def _attach(self, ifindexes: Iterable[int]) -> dict[int, KernelError]:
        """Why not, of those to which that was impossible.  The kernel takes some 10 ms for each that is new."""
        numbers = tuple(ifindexes)
        failed = {}

        def attach() -> None:
            for number in numbers:
                try:
                    self.datapath.attach(number)
                except KernelError as error:
                    failed[number] = error

        if numbers:
            await aside(attach)
        return failed

    async def _hold_newcomers(
        self, snapshot: Snapshot, known: Collection[LocalEndpoint], there: frozenset[int], *, told: bool
    ) -> None:
        """Govern interfaces that may be those of pods on their way, and let go of those that are not."""
        coming = {item.identity for item in known if item.ifindex is None}
        taken = {item.ifindex for item in known} | (set(self.datapath.attached()) - self.newcomers.held)
        expecting = any(item.identity in coming and is_selected(item) for item in snapshot.documents)
        new, old = self.newcomers.look(there - taken, expecting=expecting, told=told)
        for ifindex, error in (await self._attach(new)).items():  # gone again, perhaps
            log.warning("interface %d is not governed: %s", ifindex, error)
        for ifindex in old:
            self.datapath.detach(ifindex)


def present_of(wanted: Wanted, governed: frozenset[int]) -> Wanted:
    """Without interfaces that are not governed: their number may have a new owner by now."""
    return replace(
        wanted,
        endpoints=tuple(
            item if item.ifindex in governed else replace(item, ifindex=None) for item in wanted.endpoints
        ),
    )


def is_selected(document: Document) -> bool:
    """Whether some policy has a word on it."""
    return any(entry.reason is not Reason.NOT_ENFORCED for entry in document.entries)
