"""A long answer to an update names no document: all that was asked for is in force."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from support import wanted as build
from support.sync import Loader, Replica, Source, Target, pod, until
from yett_loader.sync.target import InForce
from yett_policy.document import Verdict
from yett_policy.sync import encode
from yett_policy.sync.message import Ack, Failing

Serve = Callable[..., Awaitable[Replica]]
Load = Callable[..., Loader]

MANY = range(300, 320)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Ack]:
    """What loaders answer."""
    answers: list[Ack] = []
    real = encode.ack

    def note(message: Ack) -> bytes:
        answers.append(message)
        return real(message)

    monkeypatch.setattr(encode, "ack", note)
    return answers


def crowd(verdict: Verdict = Verdict.DENY, identities: range = MANY) -> dict[str, object]:
    """On node-a a pod of each."""
    return {
        "documents": tuple(build.document(number, verdict=verdict) for number in identities),
        "identities": {number: (f"k8s:app=web-{number}",) for number in identities},
        "pods": {
            f"default/web-{number}": pod(f"web-{number}", "node-a", f"10.0.0.{number - 299}", identity=number)
            for number in identities
        },
    }


def digests(source: Source) -> dict[int, str]:
    return {number: document.digest for number, document in source.documents.items()}


async def begun(serve: Serve, load: Load) -> tuple[Source, Replica]:
    """With a loader that has all of the crowd in force."""
    source = Source()
    source.tell(**crowd())  # type: ignore[arg-type]
    replica = await serve(source)
    load(replica)
    await until(lambda: replica.sink.nodes.get("node-a") == digests(source))
    return source, replica


async def test_a_loader_that_has_in_force_what_a_snapshot_asks_for_names_nothing(
    serve: Serve, load: Load, said: list[Ack]
) -> None:
    await begun(serve, load)
    assert said == [Ack(1, {}, as_sent=True)]


async def test_a_change_of_few_documents_is_answered_by_name_and_one_of_many_is_not(
    serve: Serve, load: Load, said: list[Ack]
) -> None:
    source, replica = await begun(serve, load)
    source.tell(**crowd(Verdict.ALLOW, range(300, 302)))  # type: ignore[arg-type]
    await until(lambda: replica.sink.nodes["node-a"] == digests(source))
    source.tell(**crowd(Verdict.ALLOW))  # type: ignore[arg-type]
    await until(lambda: replica.sink.nodes["node-a"] == digests(source))
    assert [answer.as_sent for answer in said] == [True, False, True]
    assert said[1].applied.keys() == {300, 301}


class Short(Target):
    """Has one document less in force than it should, until it is mended."""

    mended = False

    def in_force(self) -> InForce:
        whole = super().in_force()
        if self.mended or not whole.applied:
            return whole
        applied = {number: digest for number, digest in whole.applied.items() if number != MANY[-1]}
        return InForce(applied, (Failing(MANY[-1], "NotAttached", "no interface"),))


async def test_a_loader_that_lacks_one_names_what_it_has_and_later_the_one(
    serve: Serve, load: Load, said: list[Ack]
) -> None:
    source, target = Source(), Short()
    source.tell(**crowd())  # type: ignore[arg-type]
    replica = await serve(source)
    load(replica, target=target)
    await until(lambda: replica.sink.failures.get("node-a"))
    assert replica.sink.nodes["node-a"].keys() == {*MANY[:-1]}
    target.mended = True
    target.changed()
    await until(lambda: replica.sink.nodes["node-a"] == digests(source))
    assert [answer.as_sent for answer in said] == [False, False]
    assert said[-1].applied.keys() == {MANY[-1]}


async def test_after_documents_went_the_rest_is_as_sent(serve: Serve, load: Load, said: list[Ack]) -> None:
    source, replica = await begun(serve, load)
    kept = crowd(Verdict.ALLOW, range(300, 310))
    gone = {f"default/web-{number}": None for number in range(310, 320)}
    for number in range(310, 320):
        del source.documents[number]
    source.tell(**{**kept, "pods": gone})  # type: ignore[arg-type]
    await until(lambda: replica.sink.nodes["node-a"] == digests(source))
    assert replica.sink.nodes["node-a"].keys() == {*range(300, 310)}
    assert said[-1] == replace(said[0], seq=2)
