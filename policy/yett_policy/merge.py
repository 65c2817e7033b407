"""What several rules together mean for one peer and one port.

Precedence, for one direction of one subject:

0. The kubelet's probes (peer `host`, a port that it probes) pass, whatever any rule says.
1. A deny rule without HTTP rules that covers the peer and port denies.
2. The node itself (peer `host`) may reach its pods.
3. Where no policy asks for default deny, everything may pass.
4. Where one does, a plain allow rule that covers peer and port lets everything pass;
5. else allow rules with HTTP rules let the requests pass that one of them matches;
6. else the default denies.
7. HTTP deny rules take their requests out of what 2 to 5 let pass.
8. Allow rules that change headers change them whatever else lets the request pass.

Where policies with HTTP rules wish for different engines, neither of which is Auto, the oldest one's
counts.  Allow rules of those that contradict it then let nothing pass: what they would
permit was to be judged by another engine.  Their denials stay.

Policies with `audit: true` are left out of that.  Then it is asked again with them; where
the answer is "denied" only now, the verdict is AUDIT.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from yett_policy.document import Verdict
from yett_policy.http.rule import HttpRule, RuleAction, RulesetSpec
from yett_policy.policy import Policy
from yett_policy.reason import Reason
from yett_policy.selector import LabelSelector

NO_RULE = "none"
"""Reference of a verdict that no rule is the cause of."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What one rule says about one peer and port."""

    policy: Policy
    ref: str
    deny: bool
    http: tuple[HttpRule, ...] = ()

    @property
    def audit(self) -> bool:
        """Whether its policy only watches."""
        return self.policy.audit


KUBELET = Claim(Policy("", 0, LabelSelector.of(), (), (False, False)), NO_RULE, deny=False)
"""That the peer is the node itself, and the port one that its kubelet probes."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """Who asks for default deny, in one direction of one subject."""

    enforced: tuple[str, ...] = ()
    """References, sorted."""
    audited: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Both, sorted."""
        return tuple(sorted({*self.enforced, *self.audited}))


class Conflict(NamedTuple):
    """Two policies that cannot both be in force where they meet."""

    policy: str
    """The one that gives way, `Kind/namespace/name`."""
    engine: str
    """Its wish."""
    older: str
    """The one whose wish counts."""

    @property
    def sentence(self) -> str:
        """For the owner of the policy that gives way."""
        other = "Kernel" if self.engine == "Sidecar" else "Sidecar"
        whose = f"{self.older}, which is older" if self.older != self.policy else "another of its own specs"
        return (
            f"spec.engine: {self.engine} contradicts engine: {other} of {whose}; where both have HTTP rules "
            "for the same pods, peers and port, those of this policy let nothing pass; "
            "write the same engine in both, or leave the choice with engine: Auto"
        )


class Outcome(NamedTuple):
    """The meaning: a verdict on the connection, or a ruleset that judges requests."""

    verdict: Verdict
    reason: Reason
    rule: str
    ruleset: RulesetSpec | None = None
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    """Of one pass; `requests` None: the whole connection shares the verdict."""

    verdict: Verdict
    reason: Reason
    rule: str
    requests: tuple[HttpRule, ...] | None = None
    contributors: tuple[Claim, ...] = field(default=(), compare=False)
    engine: str = "Auto"
    conflicts: tuple[Conflict, ...] = ()


def merge(claims: Sequence[Claim], defaults: Defaults, *, host: bool = False) -> Outcome:
    """The outcome of all claims that cover one peer and port; order does not matter."""
    if KUBELET in claims:
        return Outcome(Verdict.ALLOW, Reason.HOST, NO_RULE)
    enforced = _judge([claim for claim in claims if not claim.audit], defaults.enforced, host=host)
    audited = [claim for claim in claims if claim.audit]
    if enforced.verdict is Verdict.DENY:
        return Outcome(enforced.verdict, enforced.reason, enforced.rule, conflicts=enforced.conflicts)
    if enforced.requests is not None and enforced.reason is Reason.NOT_ENFORCED and defaults.audited:
        return _watch_beside_bans(enforced, _judge(claims, defaults.all, host=host))
    if enforced.requests is not None:
        return _outcome(enforced, enforced.requests + _watched(audited), defaults.enforced, audit=False)
    if not audited and not defaults.audited:
        return Outcome(enforced.verdict, enforced.reason, enforced.rule)
    together = _judge(claims, defaults.all, host=host)
    if together.verdict is Verdict.DENY:
        return Outcome(Verdict.AUDIT, together.reason, together.rule, conflicts=together.conflicts)
    if together.requests is not None:
        return _outcome(together, together.requests, defaults.all, audit=True)
    return Outcome(enforced.verdict, enforced.reason, enforced.rule)


def _judge(claims: Iterable[Claim], defaults: tuple[str, ...], *, host: bool) -> _Answer:
    claims = list(claims)
    denies = [claim.ref for claim in claims if claim.deny and not claim.http]
    if denies:
        return _Answer(Verdict.DENY, Reason.DENY_RULE, min(denies))
    plain = [claim.ref for claim in claims if not claim.deny and not claim.http]
    asking = [claim for claim in claims if not claim.deny and claim.http]
    banning = [claim for claim in claims if claim.deny]
    bans = tuple(rule for claim in banning for rule in claim.http)
    engine = "Auto"
    conflicts: tuple[Conflict, ...] = ()
    if defaults and not plain and not host:
        engine, conflicts, asking = _agreed(asking, banning)
    elif banning:
        engine, conflicts, _ = _agreed([], banning)
    if host:
        reason, rule = Reason.HOST, NO_RULE
    elif not defaults:
        reason, rule = Reason.NOT_ENFORCED, NO_RULE
    elif plain:
        reason, rule = Reason.ALLOWED, min(plain)
    elif asking:
        requests = tuple(rule for claim in asking for rule in claim.http)
        first = min(claim.ref for claim in asking)
        return _Answer(
            Verdict.ALLOW, Reason.ALLOWED, first, requests + bans, tuple(asking), engine, conflicts
        )
    else:
        return _Answer(Verdict.DENY, Reason.POLICY_DENIED, ", ".join(defaults), conflicts=conflicts)
    changing = [claim for claim in asking if any(item.changes for item in claim.http)]
    if bans or changing:
        changes = tuple(item for claim in changing for item in claim.http if item.changes)
        requests = (HttpRule(ref=rule), *changes, *bans)
        speaking = (*banning, *changing)
        return _Answer(Verdict.ALLOW, reason, rule, requests, speaking, engine, conflicts)
    return _Answer(Verdict.ALLOW, reason, rule)


def _agreed(asking: list[Claim], banning: list[Claim]) -> tuple[str, tuple[Conflict, ...], list[Claim]]:
    """The engine that the claims wish for, who contradicts, and the allowing claims that do not."""
    wishing = [claim.policy for claim in (*asking, *banning) if claim.policy.engine != "Auto"]
    engines = {policy.engine for policy in wishing}
    if len(engines) < 2:
        return next(iter(engines), "Auto"), (), asking
    oldest = min(wishing, key=lambda policy: policy.seniority)
    agreed = {"Auto", oldest.engine}
    conflicts = {
        Conflict(policy.source, policy.engine, oldest.source)
        for policy in wishing
        if policy.engine not in agreed
    }
    return (
        oldest.engine,
        tuple(sorted(conflicts)),
        [claim for claim in asking if claim.policy.engine in agreed],
    )


def _watched(audited: Iterable[Claim]) -> tuple[HttpRule, ...]:
    """What deny rules of audit policies record in a ruleset that is in force."""
    rules: list[HttpRule] = []
    for claim in audited:
        if claim.deny:
            rules += claim.http or (HttpRule(ref=claim.ref, action=RuleAction.AUDIT_DENY),)
    return tuple(rules)


def _watch_beside_bans(enforced: _Answer, together: _Answer) -> Outcome:
    """Everything but some requests may pass, and an audit policy would let pass still less.

    What that policy tolerates of ambiguity must not help a request to hide from the bans.
    """
    bans = [rule for rule in enforced.requests or () if rule.action is RuleAction.DENY]
    if together.requests is None:
        blame = together.rule
        changing = [rule for rule in enforced.requests or () if rule.changes]
        passing = [*changing, HttpRule(ref=blame, action=RuleAction.AUDIT_DENY)] if changing else []
    else:
        passing = list(together.requests)
    requests = tuple(replace(rule, tolerate=()) for rule in (*bans, *passing))
    outcome = _outcome(enforced, requests, (), audit=True)
    if together.requests is not None:
        blame = ", ".join(sorted({c.policy.default_deny_ref for c in together.contributors}))
    assert outcome.ruleset is not None  # noqa: S101 - _outcome makes one
    return outcome._replace(ruleset=replace(outcome.ruleset, default_rule=blame))


def _outcome(
    answer: _Answer, requests: tuple[HttpRule, ...], defaults: tuple[str, ...], *, audit: bool
) -> Outcome:
    policies = [claim.policy for claim in answer.contributors]
    spec = RulesetSpec(
        rules=tuple(sorted(set(requests), key=lambda rule: (rule.ref, rule.action))),
        default_rule=_blame(answer.contributors, defaults),
        audit=audit,
        forbidden=any(policy.forbidden for policy in policies),
        chunk_extensions=any(policy.chunk_extensions for policy in policies),
        trailers=any(policy.trailers for policy in policies),
        engine=answer.engine,
    )
    return Outcome(Verdict.ALLOW, answer.reason, answer.rule, spec, answer.conflicts)


def _blame(contributors: Iterable[Claim], defaults: tuple[str, ...]) -> str:
    """What a denial that no rule matched is put down to: the default deny of the policies
    that have HTTP rules here; where none of them asks for it, whoever does; where nobody
    does, the deny rules that made requests be read at all.
    """
    contributors = list(contributors)
    own = {claim.policy.default_deny_ref for claim in contributors if not claim.deny}
    if own and defaults:
        return ", ".join(sorted(own.intersection(defaults)) or defaults)
    return ", ".join(sorted({claim.ref for claim in contributors}))
