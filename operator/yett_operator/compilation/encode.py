"""Documents and rulesets as the frames that every loader gets."""

from __future__ import annotations

import hashlib

from yett_operator.compilation.batch import RulesetFacts
from yett_operator.ports import PublishedDocument, PublishedRuleset
from yett_policy.document import Document, Ruleset, canonical
from yett_policy.sync import encode, values


def document(value: Document) -> PublishedDocument:
    """Encoded once, however many nodes need it."""
    body = value.to_bytes()
    digest = hashlib.sha256(body).hexdigest()
    rulesets = sorted({digest for digest, _ in value.rulesets})
    return PublishedDocument(value.identity, digest, tuple(rulesets), encode.document(digest, body))


def ruleset(value: Ruleset) -> PublishedRuleset:
    """As the loader reads rulesets in snapshots."""
    body = canonical(values.ruleset_json(value))
    content = hashlib.sha256(body).hexdigest()
    frame = encode.ruleset(content, body)
    return PublishedRuleset(value.digest, content, value.engine.value, frame, value.spec.secrets)


def facts(value: Ruleset) -> RulesetFacts:
    """For the status of the policies that have rules in it."""
    references = [rule.ref for rule in value.spec.rules] + value.spec.default_rule.split(", ")
    return RulesetFacts(
        value.engine.value,
        value.engine_reason,
        tuple(sorted({reference.partition(":")[0] for reference in references})),
    )
