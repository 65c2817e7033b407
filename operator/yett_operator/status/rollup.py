"""From a policy, what nodes must have and what they have, to its status.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from yett_operator.compilation.batch import Judgement
from yett_operator.ports import Failure

LAG = 3.0
"""Seconds that a node may take to put something in force before it counts as failed."""
AWAY = 0.8
"""Seconds that a loader may take to connect again."""
MESSAGE_MAX = 1024
SHOWN = 10
"""Failed nodes that are listed."""
IN_FORCE = "Programmed"
"""Reason of the conditions Programmed and Ready of a policy that is in force wherever it applies."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a node must have in force for one identity."""

    digest: str
    since: float


@dataclass(frozen=True, slots=True)
class NodeView:
    """What is known of a node."""

    connected: bool
    changed_at: float
    """When it connected or disconnected, or when we began to wait for it."""
    heard: bool = True
    """It has said something since this operator leads."""
    applied: Mapping[int, str] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyView:
    """Everything about a policy that its status depends on."""

    generation: int
    judgement: Judgement | None
    """None: this generation is not judged yet."""
    nodes: Mapping[str, Mapping[int, Wanted]]
    """Node -> identity of pods there that the policy selects."""
    conflict: str = ""
    """Why it gives way to an older policy somewhere; empty if it does not."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A node that does not have the policy in force as it is."""

    node: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Condition:
    """Without the time of its last change."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RollUp:
    """The state of a policy."""

    generation: int
    desired: int
    enforced: int
    failed: tuple[Failed, ...]
    """By name."""
    conditions: tuple[Condition, ...]
    again_at: float | None = None
    """When it may be different although nothing happens; None: never."""

    @property
    def ready(self) -> bool:
        """Whether it is in force wherever it applies."""
        return any(each.type == "Ready" and each.status == "True" for each in self.conditions)


def roll_up(policy: PolicyView, nodes: Mapping[str, NodeView], now: float) -> RollUp:
    """A node of `policy.nodes` that is not in `nodes` was never heard of."""
    enforced = 0
    failed: list[Failed] = []
    again: list[float] = []
    for name in sorted(policy.nodes):
        answer = _node(name, policy.nodes[name], nodes.get(name), now)
        if answer is True:
            enforced += 1
        elif isinstance(answer, Failed):
            failed.append(answer)
        else:
            again.append(answer)
    desired = len(policy.nodes)
    return RollUp(
        policy.generation,
        desired,
        enforced,
        tuple(failed),
        _conditions(policy, desired, enforced, failed),
        min(again, default=None),
    )


def _node(
    name: str, wanted: Mapping[int, Wanted], view: NodeView | None, now: float
) -> bool | float | Failed:
    """True: in force; a time: not yet, and late from then on; else what is wrong."""
    if view is None:
        return Failed(name, "NoLoader", "no loader of the node has connected")
    if not view.connected:
        late = view.changed_at + AWAY
        if now < late:
            return late
        if not view.heard:
            return Failed(name, "NoLoader", "no loader of the node has connected")
        return Failed(
            name, "Disconnected", "its loader has no connection; what it had before stays in force there"
        )
    for failure in view.failures:
        if failure.identity == 0 or failure.identity in wanted:
            return Failed(name, _reason(failure.reason), shown(failure.message))
    behind = [each for identity, each in wanted.items() if view.applied.get(identity) != each.digest]
    if not behind:
        return True
    late = max([view.changed_at, *(each.since for each in behind)]) + LAG
    if now < late:
        return late
    return Failed(
        name, "Lagging", f"its loader has not put {len(behind)} of {len(wanted)} documents in force yet"
    )


def _conditions(
    policy: PolicyView, desired: int, enforced: int, failed: list[Failed]
) -> tuple[Condition, ...]:
    judgement = policy.judgement
    if judgement is None:
        waiting = "the operator has not looked at this version yet"
        return tuple(
            Condition(type_, "Unknown", "Pending", waiting) for type_ in ("Accepted", "Programmed", "Ready")
        )
    count = f"{enforced}/{desired} nodes"
    if not judgement.accepted:
        stays = (
            f"an older version stays in force on {count}" if judgement.kept else "nothing of it is in force"
        )
        return _refused(judgement.reason, judgement.message, f"the policy is refused; {stays}")
    if policy.conflict:
        elsewhere = f"where no older policy contradicts it, it is in force on {count}"
        return _refused("Conflicted", policy.conflict, elsewhere)
    programmed = _programmed(desired, enforced, failed, count)
    in_force = programmed.reason == IN_FORCE
    return (
        Condition("Accepted", "True", "Accepted", judgement.message),
        programmed,
        Condition("Ready", "True" if in_force else "False", programmed.reason, programmed.message),
    )


def _refused(reason: str, message: str, programmed: str) -> tuple[Condition, ...]:
    message = shown(message)
    return (
        Condition("Accepted", "False", reason, message),
        Condition("Programmed", "False", reason, programmed),
        Condition("Ready", "False", reason, message),
        Condition("Stalled", "True", reason, message),
    )


def _programmed(desired: int, enforced: int, failed: list[Failed], count: str) -> Condition:
    if not desired:
        return Condition("Programmed", "True", IN_FORCE, "no pod is selected at the moment")
    if enforced == desired:
        return Condition("Programmed", "True", IN_FORCE, f"in force on {count}")
    if not failed:
        return Condition("Programmed", "False", "Reconciling", f"in force on {count}, the others are at it")
    first = f"{failed[0].node}: {failed[0].message}" + (
        f" (and {len(failed) - 1} more)" if failed[1:] else ""
    )
    if enforced:
        return Condition("Programmed", "True", "PartiallyProgrammed", f"in force on {count}; {first}")
    return Condition("Programmed", "False", failed[0].reason, f"in force on {count}; {first}")


def _reason(text: str) -> str:
    """One word, whatever the node sent."""
    return (
        text if text.isascii() and text.isalnum() and text[0].isalpha() and len(text) <= 64 else "NodeFailed"
    )


def shown(text: str) -> str:
    """What others wrote, fit for a terminal: no control characters, not too long."""
    clean = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return clean if len(clean) <= MESSAGE_MAX else clean[: MESSAGE_MAX - 3] + "..."
