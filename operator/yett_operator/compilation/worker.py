"""The compiling process: policies as text in, documents as bytes out."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from yett_operator.compilation import encode
from yett_operator.compilation.batch import KEPT_MAX, Batch, Judgement, Outcome, PolicyText
from yett_operator.labels import noise_in, noise_in_service, quiet
from yett_operator.ports import PublishedDocument, PublishedRuleset
from yett_policy import budget
from yett_policy.cluster import PodFacts, Service, pod_name
from yett_policy.compiled import Delta
from yett_policy.compiler import Compiler
from yett_policy.document import Ruleset
from yett_policy.errors import PolicyError
from yett_policy.http.rule import RulesetSpec
from yett_policy.identity import Labels
from yett_policy.policy import Policy
from yett_policy.rulesets import compile_spec
from yett_policy.source.parse import parse_policy

_UNSUPPORTED = "not supported"
_SPARE = 16
"""Packed rulesets that are kept: a policy that changes back is quick."""


class Worker:
    """Holds the compiler between batches."""

    def __init__(self, *, forbidden: bool = False) -> None:
        self._compiler = Compiler(
            rulesets=self._compile, allocate=False, forbidden=forbidden, counted=self._quiet
        )
        self._packed: dict[str, PublishedRuleset] = {}
        """Of the compiler's rulesets, which are without tables, those made last: the other side has the rest."""
        self._policies: dict[str, list[Policy]] = {}
        """Source -> the version in force."""
        self._noise: Counter[str] = Counter()
        self._services: dict[tuple[str, str], Service] = {}
        self._named: dict[int, tuple[str, ...]] = {}
        """Identity -> rulesets that its document names."""
        self._uses: Counter[str] = Counter()
        """Ruleset -> documents that name it.  The other side has exactly these."""
        self._judgements: dict[str, Judgement] = {}
        """Of policies that were taken in since the last outcome; so are these:"""
        self._to_forget: set[Labels] = set()
        self._seconds = 0.0

    def take(self, batch: Batch) -> None:
        """Take in changes that have more to follow."""
        begin = time.monotonic()
        compiler = self._compiler
        compiler.learn(batch.numbers)
        noise = frozenset(+self._noise)
        self._judgements |= self._take_policies(batch)
        self._take_services(batch)
        for key, item in batch.slices.items():
            if item is None:
                compiler.drop_slice(*key)
            else:
                compiler.put_slice(item)
        if frozenset(+self._noise) != noise:
            compiler.count_anew()
        for pod_key, pod in batch.pods.items():
            if pod is None:
                compiler.drop_pod(*pod_name(pod_key))
            else:
                compiler.put_facts(pod_name(pod_key)[1], PodFacts(pod.workload, pod.prefixes))
        for name, namespace in batch.namespaces.items():
            if namespace is None:
                compiler.drop_namespace(name)
            else:
                compiler.put_namespace(namespace)
        for name, node in batch.nodes.items():
            if node is None:
                compiler.drop_node(name)
            else:
                compiler.put_node(node)
        if batch.api_servers is not None:
            compiler.set_api_servers(batch.api_servers)
        self._to_forget |= batch.forgotten
        compiler.gather()
        self._seconds += time.monotonic() - begin

    def step(self, batch: Batch) -> Outcome:
        """Take in the changes, and work out what follows as far as all numbers are known."""
        self.take(batch)
        begin = time.monotonic() - self._seconds
        judgements, to_forget = self._judgements, self._to_forget
        self._judgements, self._to_forget, self._seconds = {}, set(), 0.0
        compiler = self._compiler
        missing = compiler.missing()
        forgotten = compiler.forget(to_forget - missing)
        if any(label.startswith("cidr:") for labels in missing for label in labels):
            return Outcome(
                judgements, missing, stalled=True, forgotten=forgotten, seconds=time.monotonic() - begin
            )
        outcome = self._publish(compiler.flush())
        return replace(
            outcome,
            judgements=judgements,
            missing=missing,
            forgotten=forgotten,
            seconds=time.monotonic() - begin,
        )

    # -- in

    def _take_policies(self, batch: Batch) -> dict[str, Judgement]:
        judgements: dict[str, Judgement] = {}
        for source, text in batch.policies.items():
            old = self._policies.get(source, [])
            if text is None:
                new: list[Policy] = []
                self._policies.pop(source, None)
            else:
                judgements[source], new = self._judge(source, text)
            self._compiler.put_policies(source, new)
            self._noise.update(noise_in(new))
            self._noise.subtract(noise_in(old))
        return judgements

    def _take_services(self, batch: Batch) -> None:
        for key, service in batch.services.items():
            self._noise.subtract(noise_in_service(self._services.pop(key, None)))
            if service is None:
                self._compiler.drop_service(*key)
                continue
            self._noise.update(noise_in_service(service))
            self._services[key] = service
            self._compiler.put_service(service)

    def _judge(self, source: str, text: PolicyText) -> tuple[Judgement, list[Policy]]:
        obj = json.loads(text.body)
        try:
            policies = parse_policy(obj)
        except PolicyError as error:
            reason = "UnsupportedField" if _UNSUPPORTED in error.message else "Invalid"
            policies = self._older(source, text)
            return _judgement(reason, _sentence(error), policies), policies
        except Exception as error:  # noqa: BLE001 - one policy must not stop all the others
            policies = self._older(source, text)
            return _judgement("Invalid", f"cannot be read: {error!r}", policies), policies
        if excess := self._over_budget(policies):
            policies = self._older(source, text)
            return _judgement("RegexTooComplex", _sentence(excess), policies), policies
        self._policies[source] = policies
        message = Judgement().message
        if len(text.body) > KEPT_MAX:
            message += (
                f", and with {len(text.body):,} bytes too big to be kept in its PolicyStatus (at most"
                f" {KEPT_MAX:,}): if its next version is refused, a restarted operator has none to fall back on"
            )
        return _judgement("Accepted", message, policies), policies

    def _over_budget(self, policies: list[Policy]) -> PolicyError | None:
        """What does not fit the kernel though the policy asks for it."""
        lists = [each for policy in policies if policy.engine == "Kernel" for each in budget.alone(policy)]
        found = [
            budget.too_complex(field, why) for field, spec in lists if (why := self._compiler.fits(spec))
        ]
        if not found:
            return None
        found[0].others = tuple(found[1:])
        return found[0]

    def _older(self, source: str, text: PolicyText) -> list[Policy]:
        """The version that stays in force.

        Whoever could write a PolicyStatus must not thereby make a policy for another namespace, or the whole cluster.
        """
        if source not in self._policies and text.fallback:
            try:
                older = parse_policy(json.loads(text.fallback))
            except (PolicyError, ValueError):
                return []
            if all(policy.source == source for policy in older):
                self._policies[source] = older
        return self._policies.get(source, [])

    def _quiet(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        return quiet(labels, frozenset(+self._noise))

    def _compile(self, spec: RulesetSpec) -> Ruleset:
        ruleset = compile_spec(spec)
        self._packed[ruleset.digest] = encode.ruleset(ruleset)
        return replace(ruleset, tables=b"")

    # -- out

    def _count_uses(
        self, documents: Mapping[int, PublishedDocument], gone: frozenset[int]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """(rulesets that are used now and were not, the other way round)."""
        if not documents and not gone:
            return frozenset(), frozenset()
        before = frozenset(self._uses)
        for number, published in documents.items():
            self._uses.update(published.rulesets)
            self._uses.subtract(self._named.pop(number, ()))
            self._named[number] = published.rulesets
        for number in gone:
            self._uses.subtract(self._named.pop(number, ()))
        self._uses = +self._uses
        return frozenset(self._uses.keys() - before), frozenset(before - self._uses.keys())

    def _publish(self, delta: Delta) -> Outcome:
        documents = {number: encode.document(document) for number, document in delta.documents.items()}
        new_digests, unused = self._count_uses(documents, delta.gone)
        new = [self._compiler.ruleset(digest) for digest in sorted(new_digests)]
        for ruleset in new:
            if ruleset.digest not in self._packed:  # nothing named it for a while
                self._compile(ruleset.spec)
        packed = {ruleset.digest: self._packed[ruleset.digest] for ruleset in new}
        self._packed = dict([*self._packed.items()][-_SPARE:])
        return Outcome(
            documents=documents,
            gone=delta.gone,
            rulesets=packed,
            rulesets_gone=unused,
            ruleset_facts={ruleset.digest: encode.facts(ruleset) for ruleset in new},
            ipcache=delta.ipcache,
            node_addresses=delta.node_addresses,
            identities=delta.identities,
            services=delta.services,
            pods=delta.pods,
            subjects=delta.subjects,
            conflicts={each.policy: each.sentence for each in sorted(delta.conflicts, reverse=True)},
        )


def _judgement(reason: str, message: str, policies: list[Policy]) -> Judgement:
    return Judgement(
        reason=reason,
        message=message,
        kept=reason != "Accepted" and bool(policies),
        audit=any(policy.audit for policy in policies),
        secrets=_secrets(policies),
    )


def _secrets(policies: list[Policy]) -> tuple[tuple[str, bool], ...]:
    named: dict[str, bool] = {}
    for policy in policies:
        for name, replaceable in policy.secrets.items():
            named[name] = named.get(name, True) and replaceable
    return tuple(sorted(named.items()))


def _sentence(error: PolicyError) -> str:
    more = f" (and {len(error.others)} more)" if error.others else ""
    return f"{error}{more}"
