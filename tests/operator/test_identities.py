"""Numbers are given whatever becomes of one of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from yett_operator import identities as module
from yett_operator.compilation.world import World
from yett_operator.identities import REFUSED_FOR, Identities
from yett_operator.kube.client import ApiError

BAD = ("k8s:app=a", *(f"k8s:label-{number}=x" for number in range(300)))
OTHERS = [(f"k8s:app=b{number:02}",) for number in range(40)]


class Api:
    """Refuses what is too long, and fails as often as a test says."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.down = 0

    async def post(self, path: str, body: Any) -> Any:
        labels = tuple(body["spec"]["labels"])
        self.asked.append(labels)
        if self.down:
            self.down -= 1
            raise ApiError(f"create {path}", 503, "", "try again")
        if len(labels) > 256:
            raise ApiError(f"create {path}", 422, "Invalid", "spec.labels: Too many: 301")
        return body


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY", 0.01)


async def test_labels_that_cannot_have_a_number_keep_no_other_pod_from_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api, world, now = Api(), World(fallback=lambda _: b""), [1000.0]
    made = Identities(api, world, lambda: None, clock=lambda: now[0])  # type: ignore[arg-type]
    run = asyncio.create_task(made.run())
    missing = frozenset([BAD, *OTHERS])
    with caplog.at_level(logging.ERROR):
        made.want(missing)
        await asyncio.sleep(0.1)
    assert world.numbers.keys() == set(OTHERS)
    assert "there is no identity for these 301 labels" in caplog.text
    assert "spec.labels: Too many" in caplog.text
    for pause, times in ((1, 1), (REFUSED_FOR, 2)):
        now[0] += pause
        made.want(missing)
        await asyncio.sleep(0.1)
        assert api.asked.count(BAD) == times, "not with every batch, but now and then"
    run.cancel()


async def test_a_server_that_fails_for_a_moment_is_asked_again_for_those_alone() -> None:
    api, world = Api(), World(fallback=lambda _: b"")
    made = Identities(api, world, lambda: None)  # type: ignore[arg-type]
    api.down = 3
    run = asyncio.create_task(made.run())
    made.want(frozenset(OTHERS))
    await asyncio.sleep(0.2)
    run.cancel()
    assert world.numbers.keys() == set(OTHERS)
    assert len(set(world.numbers.values())) == len(OTHERS)
    assert len(api.asked) == len(OTHERS) + 3
