"""Who may talk to whom, and why: both sides' decisions from a compiled state."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from yett_policy.compiled import Compiled
from yett_policy.document import Direction, Verdict
from yett_policy.evaluate import Decision, Flow, decide, decide_service
from yett_policy.http.rule import Request
from yett_policy.identity import WORLD, Labels
from yett_policy.service import Backends, frontend_of


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a conversation."""

    name: str
    """`namespace/pod`, or the address."""
    address: str
    """Empty: a pod that has none yet."""
    identity: int
    """As the other end sees it."""
    subject: int | None
    """Whose document governs it; None: not a pod, nothing governs it."""
    labels: Labels


@dataclass(frozen=True, slots=True)
class Explanation:
    """Both sides must let it pass; a side without a document has no say (None)."""

    source: Party
    destination: Party
    egress: Decision | None
    """Of the source."""
    ingress: Decision | None
    """Of the destination."""

    @property
    def verdict(self) -> Verdict:
        """DENY if either side denies, else AUDIT if either would, else ALLOW."""
        verdicts = {side.verdict for side in (self.egress, self.ingress) if side is not None}
        for verdict in (Verdict.DENY, Verdict.AUDIT):
            if verdict in verdicts:
                return verdict
        return Verdict.ALLOW


def explain(
    compiled: Compiled,
    source: str,
    destination: str,
    proto: int,
    port: int,
    request: Request | None = None,
    *,
    node: str | None = None,
) -> Explanation:
    """The decisions on a new connection, or on a request in it.

    `source` and `destination` are `namespace/pod` (or a pod of namespace `default`) or an
    address; `port` is the pod's port, not the Service's (unless the address is the Service's), for
    ICMP the type; `node` is whose view of addresses counts.  Of a Service only the source has a
    say: who gets the connection is not known yet.  ValueError, with one sentence, for a party that
    does not exist.
    """
    version = _version_of(source) or _version_of(destination)
    sender = _party(compiled, source, node, version)
    backends = _behind(compiled, destination, proto, port)
    if backends is not None:
        front = Party(destination, destination, WORLD, None, compiled.identities[WORLD])
        if sender.subject is None:
            return Explanation(sender, front, None, None)
        document = compiled.documents[sender.subject]
        decision = decide_service(document, compiled.rulesets, backends, proto, request)
        return Explanation(sender, front, decision, None)
    receiver = _party(compiled, destination, node, version)
    return Explanation(
        sender,
        receiver,
        _side(compiled, sender, Flow(Direction.EGRESS, receiver.identity, proto, port), request),
        _side(compiled, receiver, Flow(Direction.INGRESS, sender.identity, proto, port), request),
    )


def _side(compiled: Compiled, party: Party, flow: Flow, request: Request | None) -> Decision | None:
    if party.subject is None:
        return None
    return decide(compiled.documents[party.subject], compiled.rulesets, flow, request)


def _behind(compiled: Compiled, destination: str, proto: int, port: int) -> Backends | None:
    """None: it is no Service's address."""
    if _version_of(destination) is None:
        return None
    return compiled.services.get(frontend_of(destination, proto, port))


def _version_of(text: str) -> int | None:
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return None


def _party(compiled: Compiled, text: str, node: str | None, version: int | None) -> Party:
    if _version_of(text) is not None:
        seen = compiled.identity_of(text, node)
        pod = next((pod for pod in compiled.pods if text in pod[3]), None)
        name = text if pod is None else f"{pod[0]}/{pod[1]}"
        return Party(name, text, seen, None if pod is None else pod[2], compiled.identities[seen])
    namespace, slash, name = text.partition("/")
    if not slash:
        namespace, name = "default", text
    for pod in compiled.pods:
        if pod[:2] == (namespace, name):
            fitting = [a for a in pod[3] if version in {None, ipaddress.ip_address(a).version}]
            if pod[3] and not fitting:
                raise ValueError(f"pod {namespace}/{name} has no IPv{version} address")
            address = fitting[0] if fitting else ""
            seen = compiled.identity_of(address, node) if address else pod[2]
            return Party(f"{namespace}/{name}", address, seen, pod[2], compiled.identities[seen])
    raise ValueError(f"no pod {namespace}/{name} is known; give namespace/name or an address")
