"""The reference semantics: what a document means for a flow, and a ruleset for a request.

The BPF programs and the sidecar are compared with this; it is written to be read.  Requests
here have passed the HTTP grammar, which is not a matter of policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from yett_policy.document import ANY_PEER, ANY_PROTO, Direction, Document, Entry, Ruleset, Verdict
from yett_policy.http import regex
from yett_policy.http.alternatives import names_connect
from yett_policy.http.ambiguity import ambiguities
from yett_policy.http.change import ChangeOp, changed, mismatched, resolved
from yett_policy.http.rule import (
    HeaderOp,
    HeaderRule,
    HttpRule,
    PathKind,
    Request,
    RuleAction,
    RulesetSpec,
)
from yett_policy.reason import Reason


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection as one endpoint sees it."""

    direction: Direction
    peer: int
    """Identity of the other side."""
    proto: int
    port: int
    """Of the server's side; of ICMP the type."""


NO_SECRETS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A request as the server sees it."""

    request: Request
    mismatched: tuple[str, ...] = ()
    """Headers that were not as a rule wants them that only records it (LOG), sorted."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and why."""

    verdict: Verdict
    reason: Reason
    rule: str
    """Reference; `none` if no rule is the cause."""
    ruleset: str = ""
    """Digest of the ruleset that judged, or would judge, the request."""

    @property
    def passes(self) -> bool:
        """Whether the packet or request goes through."""
        return self.verdict is not Verdict.DENY


def decide(
    document: Document,
    rulesets: Mapping[str, Ruleset],
    flow: Flow,
    request: Request | None = None,
) -> Decision:
    """The verdict of one endpoint on a flow, or on a request in it.

    Without a request, a flow that a ruleset governs is allowed: its requests are judged.
    """
    entry = look_up(document, flow)
    rule = document.rules[entry.rule]
    if not entry.ruleset or request is None:
        return Decision(entry.verdict, entry.reason, rule, entry.ruleset)
    return judge_request(rulesets[entry.ruleset].spec, request, entry.ruleset)


def look_up(document: Document, flow: Flow) -> Entry:
    """The entry that governs a flow: in the first of these that has any, the longest prefix.

    1. (peer, protocol, port)
    2. (peer, any, any)
    3. (any, protocol, port)
    4. (any, any, any), which is always there
    """
    for peer in (flow.peer, ANY_PEER):
        for proto in (flow.proto, ANY_PROTO):
            found = [
                entry
                for entry in document.entries
                if (entry.direction, entry.peer, entry.proto) == (flow.direction, peer, proto)
                and entry.port >> (16 - entry.port_bits) == flow.port >> (16 - entry.port_bits)
            ]
            if found:
                return max(found, key=lambda entry: entry.port_bits)
    raise LookupError(f"document {document.identity} has no default for {flow.direction.name}")


def judge_request(spec: RulesetSpec, request: Request, digest: str = "") -> Decision:
    """The verdict of a ruleset on a request.

    1. A target with an ambiguity that no rule tolerates is denied.
    2. A header that a rule names and that occurs twice denies.
    3. A deny rule that matches denies; one of an audit policy only marks.
    4. An allow rule that matches and tolerates the target's ambiguities allows.
    5. CONNECT needs an allow rule that spells it out.
    6. What is left is denied; put down to ambiguity if that alone stood in the way.

    In an audit ruleset what would be denied passes, and says so; but a deny rule denies, and
    where there is one so does what could hide a request from it (1, 2 and ambiguity in 6).
    """
    doubts = ambiguities(request.target)
    by_action = {action: [rule for rule in spec.rules if rule.action is action] for action in RuleAction}

    denying = by_action[RuleAction.DENY]

    def denied(reason: Reason, *, hides: bool = False) -> Decision:
        verdict = Verdict.AUDIT if spec.audit and not (hides and denying) else Verdict.DENY
        return Decision(verdict, reason, spec.default_rule, digest)

    hopeless = doubts - {reason for rule in spec.rules for reason in rule.tolerate}
    if hopeless:
        return denied(_named(hopeless), hides=True)
    if _repeated(spec, request):
        return denied(Reason.HTTP_AMBIGUOUS_HEADER, hides=True)
    for rule in denying:
        if matches(rule, request):
            return Decision(Verdict.DENY, Reason.DENY_RULE_L7, rule.ref, digest)
    allowing = [rule for rule in by_action[RuleAction.ALLOW] if matches(rule, request)]
    if request.method == b"CONNECT":
        allowing = [rule for rule in allowing if names_connect(rule)]
    for rule in allowing:
        if doubts <= set(rule.tolerate):
            for watched in by_action[RuleAction.AUDIT_DENY]:
                if matches(watched, request):
                    return Decision(Verdict.AUDIT, Reason.DENY_RULE_L7, watched.ref, digest)
            return Decision(Verdict.ALLOW, Reason.ALLOWED, rule.ref, digest)
    if allowing:
        return denied(_named(doubts - set(allowing[0].tolerate)), hides=True)
    if request.method == b"CONNECT":
        return denied(Reason.CONNECT_DENIED)
    return denied(Reason.POLICY_DENIED_L7)


def forward(spec: RulesetSpec, request: Request, secrets: Mapping[str, str] = NO_SECRETS) -> Forwarded | None:
    """What the server sees of a request; None: nothing, it is denied.

    The changes of every rule that allows it are made, whichever of them the verdict is put down to.
    What passes only because nothing is enforced (audit) is not changed.  `secrets`: the values of
    those that are there, by `namespace/name`.
    """
    spec = replace(spec, rules=resolved(spec.rules, secrets))
    if not judge_request(spec, request).passes:
        return None
    changes = [item for rule in allowing(spec, request) for item in rule.changes]
    headers = changed(request.headers, changes, secrets)
    logged = [item for item in changes if item.op is ChangeOp.LOG]
    return Forwarded(replace(request, headers=headers), mismatched(request.headers, logged, secrets))


def allowing(spec: RulesetSpec, request: Request) -> list[HttpRule]:
    """The rules that allow a request that no rule denies."""
    doubts = ambiguities(request.target)
    if doubts - {reason for rule in spec.rules for reason in rule.tolerate} or _repeated(spec, request):
        return []
    return [
        rule
        for rule in spec.rules
        if rule.action is RuleAction.ALLOW
        and matches(rule, request)
        and doubts <= set(rule.tolerate)
        and (request.method != b"CONNECT" or names_connect(rule))
    ]


def _repeated(spec: RulesetSpec, request: Request) -> bool:
    """Whether a header occurs twice on which rules depend."""
    named = {header.name.encode("latin-1") for rule in spec.rules for header in rule.headers}
    if any(rule.host is not None for rule in spec.rules):
        named.add(b"host")
    return any(_count(request, name) > 1 for name in named)


def _named(doubts: frozenset[Reason]) -> Reason:
    """One reason for several: the first ambiguity; HTTP_TARGET, two in one byte, if that is all."""
    return min(doubts - {Reason.HTTP_TARGET}, default=Reason.HTTP_TARGET)


def matches(rule: HttpRule, request: Request) -> bool:
    """Whether every condition of a rule holds."""
    return (
        (rule.method is None or regex.matches(rule.method, request.method))
        and _path_matches(rule, request.target)
        and _host_matches(rule, request)
        and all(_header_matches(header, request) for header in rule.headers)
    )


def _path_matches(rule: HttpRule, target: bytes) -> bool:
    if rule.path is None:
        return True
    path = target.partition(b"?")[0]
    wanted = rule.path.encode("latin-1")
    match rule.path_kind:
        case PathKind.REGEX:
            return regex.matches(rule.path, target)
        case PathKind.EXACT:
            return path == wanted
        case PathKind.PREFIX:
            wanted = wanted.rstrip(b"/")
            return path == wanted or path.startswith(wanted + b"/")


def _host_matches(rule: HttpRule, request: Request) -> bool:
    if rule.host is None:
        return True
    return any(regex.matches(rule.host, value.lower()) for value in _values(request, b"host"))


def _header_matches(header: HeaderRule, request: Request) -> bool:
    values = _values(request, header.name.encode("latin-1"))
    wanted = header.value.encode("latin-1")
    match header.op:
        case HeaderOp.PRESENT:
            return bool(values)
        case HeaderOp.ABSENT:
            return not values
        case HeaderOp.EXACT:
            return any(value == wanted for value in values)
        case HeaderOp.PREFIX:
            return any(value.startswith(wanted) for value in values)
        case HeaderOp.SUFFIX:
            return any(value.endswith(wanted) for value in values)
        case HeaderOp.REGEX:
            return any(regex.matches(header.value, value) for value in values)


def _values(request: Request, name: bytes) -> list[bytes]:
    return [value for sent, value in request.headers if sent.lower() == name]


def _count(request: Request, name: bytes) -> int:
    return len(_values(request, name))
