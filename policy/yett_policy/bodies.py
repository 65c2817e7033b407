"""Which identities share a body, and the documents that follow."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from yett_policy.body import Body
from yett_policy.document import Document
from yett_policy.merge import Conflict
from yett_policy.multimap import Multimap
from yett_policy.parts import ServerPorts

PolicyId = tuple[str, int]
"""(source, index)."""
BodyKey = tuple[tuple[PolicyId, ...], ServerPorts, bool]
"""(policies, ports of the subject, whether denials that no policy gives a response are answered)."""


class Bodies:
    """`join` and `drop` say what identities need, `update` builds what is not there yet or stale."""

    def __init__(self, build: Callable[[BodyKey, Body | None], Body]) -> None:
        """`build` is given the body as it was if only its peers may be others."""
        self.documents: dict[int, Document] = {}
        """By identity."""
        self._build = build
        self._key_of: dict[int, BodyKey] = {}
        self._members: Multimap[BodyKey, int] = Multimap()
        self._bodies: dict[BodyKey, Body] = {}
        self._of_policy: Multimap[PolicyId, BodyKey] = Multimap()
        self._conflicting: set[BodyKey] = set()
        self._left: set[BodyKey] = set()
        """That an identity has left: perhaps the last one."""
        self._moved: set[int] = set()
        """Identities whose document may be another one."""

    def join(self, number: int, key: BodyKey) -> None:
        """An identity needs the body of a key, in place of the one that it had."""
        self._leave(number)
        self._key_of[number] = key
        self._members.add(key, number)
        self._moved.add(number)

    def drop(self, number: int) -> bool:
        """An identity needs none any more; whether it had one."""
        if not self._leave(number):
            return False
        del self.documents[number]
        return True

    def update(
        self, changed_policies: Iterable[PolicyId], stale_policies: Iterable[PolicyId], *, everything: bool
    ) -> set[int]:
        """Build, also again what depends on policies that are other ones (`changed`) or whose peers are
        (`stale`); identities that have another document.
        """
        anew: set[BodyKey] = set().union(*map(self._of_policy.of, changed_policies))
        stale = set(self._bodies) if everything else anew.copy()
        stale.update(*map(self._of_policy.of, stale_policies))
        for key in stale:
            if not self._members.of(key):
                continue
            body = self._build(key, None if key in anew else self._bodies[key])
            if not body.says_as(self._bodies[key]):
                self._moved.update(self._members.of(key))
            self._hold(key, body)
        changed = set()
        one: dict[Hashable, Any] = {}
        for number in self._moved:
            key = self._key_of[number]
            if key not in self._bodies:
                self._hold(key, self._build(key, None).sharing(one))
                for pid in key[0]:
                    self._of_policy.add(pid, key)
            body, old = self._bodies[key], self.documents.get(number)
            if old is None or not body.says_as(old):
                self.documents[number] = Document(number, body.groups, body.rules)
                changed.add(number)
        self._moved = set()
        self._drop_empty()
        return changed

    def conflicts(self) -> frozenset[Conflict]:
        """Of all bodies."""
        return frozenset().union(*(self._bodies[key].conflicts for key in self._conflicting))

    def rulesets(self) -> Iterator[str]:
        """Digests of those that bodies name; some more than once."""
        return (ruleset.digest for body in self._bodies.values() for ruleset in body.rulesets)

    def _leave(self, number: int) -> bool:
        old = self._key_of.pop(number, None)
        if old is None:
            return False
        self._members.discard(old, number)
        self._left.add(old)
        return True

    def _hold(self, key: BodyKey, body: Body) -> None:
        self._bodies[key] = body
        (self._conflicting.add if body.conflicts else self._conflicting.discard)(key)

    def _drop_empty(self) -> None:
        left, self._left = self._left, set()
        for key in left:
            if self._members.of(key):
                continue
            self._conflicting.discard(key)
            if self._bodies.pop(key, None) is not None:
                for pid in key[0]:
                    self._of_policy.discard(pid, key)
