"""From Services and their EndpointSlices to who is behind which address.

Pods of one identity are one backend, so rows change when a roll-out brings new labels, not with
every pod.  Who is ready does not matter beyond that: kube-proxy picks, policy only has to know
of everyone whom it may pick.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

from yett_policy.cluster import Service, Slice
from yett_policy.policy import PROTOCOLS
from yett_policy.prefix import Packed, parse_prefix, unpacked
from yett_policy.service import BACKENDS_MAX, Backends, Frontend, frontend_of

_Key = tuple[str, str]
Resolve = Callable[[Packed], Collection[int]]
"""Prefix of one address -> identities that it has for one node or another."""


class BackendTable:
    """Holds what is known; `update` works out what changed."""

    def __init__(self) -> None:
        self.rows: dict[Frontend, Backends] = {}
        self._services: dict[_Key, Service] = {}
        self._slices: dict[_Key, Slice] = {}
        self._slices_of: defaultdict[_Key, set[_Key]] = defaultdict(set)
        self._of_prefix: defaultdict[Packed, set[_Key]] = defaultdict(set)
        """Prefix of an endpoint's address -> slices."""
        self._shares: dict[_Key, dict[Frontend, frozenset[tuple[int, int]]]] = {}
        """Service -> what it says; two may name one external address."""
        self._saying: defaultdict[Frontend, set[_Key]] = defaultdict(set)
        self._stale: set[_Key] = set()

    def put_service(self, service: Service) -> None:
        """A Service that is new or has changed."""
        self._services[service.key] = service
        self._stale.add(service.key)

    def drop_service(self, key: _Key) -> None:
        """A Service is gone; one that was never known is no error."""
        self._services.pop(key, None)
        self._stale.add(key)

    def put_slice(self, item: Slice) -> None:
        """An EndpointSlice that is new or has changed."""
        self.drop_slice(item.key)
        self._slices[item.key] = item
        self._slices_of[item.namespace, item.service].add(item.key)
        for address in item.addresses:
            self._of_prefix[_prefix(address)].add(item.key)
        self._stale.add((item.namespace, item.service))

    def drop_slice(self, key: _Key) -> None:
        """An EndpointSlice is gone; as `drop_service`."""
        item = self._slices.pop(key, None)
        if item is None:
            return
        owner = (item.namespace, item.service)
        self._slices_of[owner].discard(key)
        if not self._slices_of[owner]:
            del self._slices_of[owner]
        for address in item.addresses:
            prefix = _prefix(address)
            self._of_prefix[prefix].discard(key)
            if not self._of_prefix[prefix]:
                del self._of_prefix[prefix]
        self._stale.add(owner)

    def update(self, moved: Iterable[Packed], resolve: Resolve) -> dict[Frontend, Backends | None]:
        """What is behind which address now, where that changed (None: no Service has it any more);
        `moved` are prefixes whose identity is another one.
        """
        for prefix in moved:
            for key in self._touched(prefix):
                self._stale.add((key[0], self._slices[key].service))
        touched: set[Frontend] = set()
        for owner in self._stale:
            touched |= self._share(owner, resolve)
        self._stale = set()
        changed: dict[Frontend, Backends | None] = {}
        for frontend in sorted(touched):
            owners = self._saying.get(frontend)
            if not owners:
                if self.rows.pop(frontend, None) is not None:
                    changed[frontend] = None
                continue
            merged = frozenset().union(*(self._shares[owner][frontend] for owner in owners))
            backends = tuple(sorted(merged)[: BACKENDS_MAX + 1])
            if self.rows.get(frontend) != backends:
                self.rows[frontend] = changed[frontend] = backends
        return changed

    def _touched(self, prefix: Packed) -> Collection[_Key]:
        """Slices with an address inside."""
        block = unpacked(prefix)
        if block.first == block.last:
            return self._of_prefix.get(prefix, ())
        return {key for each, keys in self._of_prefix.items() if block.covers(unpacked(each)) for key in keys}

    def _share(self, owner: _Key, resolve: Resolve) -> set[Frontend]:
        """Work out what one Service says; the frontends that it spoke or speaks of."""
        service = self._services.get(owner)
        old = self._shares.pop(owner, {})
        new = {} if service is None else self._frontends(service, resolve)
        if new:
            self._shares[owner] = new
        for frontend in old.keys() - new.keys():
            self._saying[frontend].discard(owner)
            if not self._saying[frontend]:
                del self._saying[frontend]
        for frontend in new:
            self._saying[frontend].add(owner)
        return {*old, *new}

    def _frontends(self, service: Service, resolve: Resolve) -> dict[Frontend, frozenset[tuple[int, int]]]:
        if not service.addresses:
            return {}
        slices = [self._slices[key] for key in self._slices_of.get(service.key, ())]
        behind: defaultdict[tuple[int, str, str], set[tuple[int, int]]] = defaultdict(set)
        for item in slices:
            for version, identities in _identities(item, resolve).items():
                for name, protocol, number in item.ports:
                    behind[version, name, protocol] |= {(identity, number) for identity in identities}
        return {
            frontend_of(address, PROTOCOLS[port.protocol], port.port): frozenset(
                behind.get((parse_prefix(address).version, port.name, port.protocol), ())
            )
            for address in service.addresses
            for port in service.ports
        }


def _identities(item: Slice, resolve: Resolve) -> dict[int, set[int]]:
    """By IP version."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    for address in item.addresses:
        found[parse_prefix(address).version].update(resolve(_prefix(address)))
    return found


def _prefix(address: str) -> Packed:
    return parse_prefix(address).packed
