"""Whether HTTP rules fit the kernel engine, each list of them by itself.

Beside rules of other policies they may still not: then the sidecar judges them all, and the
status says why.
"""

from __future__ import annotations

from collections.abc import Iterator

from yett_policy.errors import PolicyError
from yett_policy.http.rule import RulesetSpec
from yett_policy.merge import Claim, Defaults, merge
from yett_policy.policy import Policy


def alone(policy: Policy) -> Iterator[tuple[str, RulesetSpec]]:
    """Field and ruleset of each list of HTTP rules, as if no other rule spoke of its peers and ports."""
    own = (policy.default_deny_ref,)
    asking = Defaults(audited=own) if policy.audit else Defaults(own)
    for rule in policy.rules:
        for port_rule in rule.ports or ():
            if not port_rule.http:
                continue
            claim = Claim(policy, port_rule.ref, rule.deny, port_rule.http)
            outcome = merge([claim], Defaults() if rule.deny else asking)
            if outcome.ruleset is not None:
                place = port_rule.ref.partition(":")[2]
                prefix = "" if place.startswith("specs[") else "spec."
                yield f"{prefix}{place}.rules.http", outcome.ruleset


def too_complex(field: str, measure: str) -> PolicyError:
    """What a policy with `engine: Kernel` is told; `measure` says which budget and by how much."""
    return PolicyError(
        field,
        f"too complex for the kernel, which the policy asks for: {measure}; "
        "write simpler patterns, or leave the choice with engine: Auto",
    )
