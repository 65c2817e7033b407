"""What both sides would say, from the compiled artefact: the same tables that the kernel runs."""

from __future__ import annotations

from dataclasses import dataclass

from yett_cli.errors import CommandError
from yett_policy.compiled import Compiled
from yett_policy.document import Ruleset, Verdict
from yett_policy.evaluate import Decision, allowing, judge_request
from yett_policy.explain import Party, explain
from yett_policy.http.change import HeaderChange
from yett_policy.http.machine import Machine
from yett_policy.http.rule import HttpRule, Request


@dataclass(frozen=True, slots=True)
class Side:
    """One end's say."""

    direction: str
    """`egress` of the source or `ingress` of the destination."""
    party: Party
    decision: Decision | None
    """None: it is no pod, nothing governs it."""
    ruleset: Ruleset | None
    """Whose HTTP rules judge, or would judge, the request."""

    request: Request | None = None

    @property
    def changes(self) -> tuple[HeaderChange, ...]:
        """What becomes of headers of the request if it passes, Secrets taken to be there."""
        if self.ruleset is None or self.request is None:
            return ()
        spec = self.ruleset.spec
        return tuple(
            sorted({item for rule in allowing(spec, self.request) for item in rule.changes}, key=str)
        )

    @property
    def rules(self) -> tuple[HttpRule, ...]:
        """The HTTP rules in question."""
        return self.ruleset.spec.rules if self.ruleset else ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Both sides must let it pass."""

    egress: Side
    ingress: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return (self.egress, self.ingress)

    @property
    def verdict(self) -> Verdict:
        """DENY if either denies, else AUDIT if either would."""
        verdicts = {side.decision.verdict for side in self.sides if side.decision is not None}
        return next((v for v in (Verdict.DENY, Verdict.AUDIT) if v in verdicts), Verdict.ALLOW)


def answer(
    compiled: Compiled, source: str, destination: str, proto: int, port: int, request: Request | None
) -> Answer:
    """Judge a connection, and a request in it."""
    try:
        found = explain(compiled, source, destination, proto, port)
    except ValueError as error:
        raise CommandError(str(error)) from None
    return Answer(
        _side(compiled, "egress", found.source, found.egress, request),
        _side(compiled, "ingress", found.destination, found.ingress, request),
    )


def _side(
    compiled: Compiled, direction: str, party: Party, decision: Decision | None, request: Request | None
) -> Side:
    if decision is None or not decision.ruleset:
        return Side(direction, party, decision, None)
    ruleset = compiled.rulesets[decision.ruleset]
    if request is not None:
        decision = _request(ruleset, request)
    return Side(direction, party, decision, ruleset, request)


def _request(ruleset: Ruleset, request: Request) -> Decision:
    if not ruleset.tables:  # the sidecar's: the reference semantics speak for it
        return judge_request(ruleset.spec, request, ruleset.digest)
    judgements = Machine(ruleset.tables).feed(to_bytes(request))
    if not judgements:
        raise CommandError("the request is not complete; see whether a header holds a line break")
    first = judgements[0]
    references = [*(rule.ref for rule in ruleset.spec.rules), ruleset.spec.default_rule]
    return Decision(first.verdict, first.reason, references[first.rule], ruleset.digest)


def to_bytes(request: Request) -> bytes:
    """The request head as a client sends it; nothing is repaired."""
    lines = [b"%s %s HTTP/1.%d" % (request.method, request.target, request.minor)]
    lines += [b"%s: %s" % header for header in request.headers]
    return b"\r\n".join([*lines, b"", b""])
