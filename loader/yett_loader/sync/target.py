"""What the stream works on: a port, and the agent behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from yett_loader.agent import Agent
from yett_loader.assign import MapFull
from yett_loader.errors import KernelError, LoaderError
from yett_loader.sidecar.xds import SidecarNack
from yett_loader.snapshot import Wanted
from yett_policy.document import Engine
from yett_policy.sync.message import FAILURES_MAX, Failing

MESSAGE_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class InForce:
    """The truth about the node."""

    applied: Mapping[int, str] = field(default_factory=dict)
    """Identity -> digest of the document that is in the maps."""
    failures: tuple[Failing, ...] = ()


class Target(Protocol):
    """Puts snapshots in force."""

    @property
    def wanted(self) -> Wanted | None:
        """What it has now, from before if it must be."""

    @property
    def failed(self) -> bool:
        """Whether the newest snapshot is not in force."""

    async def apply(self, wanted: Wanted) -> None:
        """LoaderError or OSError if that fails; what was in force before then still is."""

    def in_force(self) -> InForce:
        """As of now."""

    def hits(self) -> Mapping[str, int]:
        """Rule reference -> verdicts."""

    def listen(self, listener: Callable[[], None]) -> None:
        """Have it called whenever `in_force` may say something else."""


class AgentTarget:
    """The node's agent as a target."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._reason = ""
        """Of the last failure, CamelCase."""

    @property
    def wanted(self) -> Wanted | None:
        """See `Target`."""
        return self._agent.wanted

    @property
    def failed(self) -> bool:
        """See `Target`."""
        return bool(self._agent.error)

    async def apply(self, wanted: Wanted) -> None:
        """See `Target`."""
        try:
            await self._agent.apply(wanted)
        except (LoaderError, OSError) as error:
            self._reason = _reason(error)
            raise

    def in_force(self) -> InForce:
        """See `Target`."""
        agent = self._agent
        wanted = agent.wanted
        if wanted is None:
            return InForce(failures=tuple(self._error()))
        failures = [*self._error(), *self._unattached(wanted), *self._unjudged(wanted)]
        return InForce(
            {item.identity: item.digest for item in wanted.snapshot.documents},
            tuple(failures[:FAILURES_MAX]),
        )

    def hits(self) -> Mapping[str, int]:
        """See `Target`."""
        return self._agent.hits()

    def listen(self, listener: Callable[[], None]) -> None:
        """See `Target`."""
        self._agent.listeners.append(listener)

    def _error(self) -> list[Failing]:
        if not self._agent.error:
            return []
        return [Failing(0, self._reason or "KernelError", self._agent.error[:MESSAGE_LIMIT])]

    def _unattached(self, wanted: Wanted) -> list[Failing]:
        identities = {item.name: item.identity for item in wanted.endpoints}
        return [
            Failing(identities[name], "NotAttached", f"{name}: {reason}"[:MESSAGE_LIMIT])
            for name, reason in sorted(self._agent.waiting.items())
            if name in identities
        ]

    def _unjudged(self, wanted: Wanted) -> list[Failing]:
        """What the sidecar does not judge as it should, and why."""
        agent = self._agent
        placed = set(agent.names.listeners.values())
        problems: dict[str, str] = {}
        for item in wanted.snapshot.rulesets:
            if item.engine is not Engine.SIDECAR:
                continue
            said = agent.sidecar.problem_of(item.digest) if agent.sidecar else "this node has no sidecar"
            if item.digest not in placed:
                said = f"{said or 'the sidecar has no free port'}: requests that need it are denied"
            if said:
                problems[item.digest] = said[:MESSAGE_LIMIT]
        return [
            Failing(document.identity, "SidecarNACK", problems[digest])
            for document in wanted.snapshot.documents
            for digest in sorted({digest for digest, _ in document.rulesets} & problems.keys())[:1]
        ]


def _reason(error: Exception) -> str:
    match error:
        case MapFull():
            return "MapFull"
        case SidecarNack():
            return "SidecarNACK"
        case KernelError() | OSError():
            return "KernelError"
        case _:
            return "LoaderError"
