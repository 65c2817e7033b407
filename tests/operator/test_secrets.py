"""Secrets that rules name, against a real API server, as a user who has no more rights than the operator."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.apiserver import ApiServer, eventually
from yett_operator.compilation.publish import Publisher
from yett_operator.kube.client import Kube
from yett_operator.ports import PublishedSecret
from yett_operator.secrets import Secrets, Unusable, value_of

MANIFEST = Path(__file__).resolve().parents[2] / "manifests/optional/secret-reader.yaml"
USER = "system:serviceaccount:yett-system:yett-operator"
POLICY = "L7Policy/n/p"


def secret(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


class World:
    """What was published, and who was told."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.published: dict[str, PublishedSecret | None] = {}
        self.told: list[str] = []
        self.secrets: Secrets

    def publish(self, name: str, value: PublishedSecret | None) -> None:
        self.published[name] = value

    def changed(self, sources: Iterable[str]) -> None:
        self.told += sources

    async def kubectl(self, *argv: str, stdin: Any = None) -> str:
        text = None if stdin is None else json.dumps(stdin)
        return await asyncio.to_thread(self.api.kubectl, "-n", self.namespace, *argv, stdin=text)

    async def says(self, text: str) -> None:
        """Sooner or later, of the policy."""
        await eventually(lambda: any(text in problem for problem in self.secrets.problems(POLICY)))

    async def has(self, value: str) -> PublishedSecret:
        name = f"{self.namespace}/token"

        def found() -> PublishedSecret | None:
            known = self.published.get(name)
            return known if known is not None and known.value == value else None

        return await eventually(found)


@asynccontextmanager
async def watching(api: ApiServer, namespace: str) -> AsyncIterator[World]:
    api.authority.issue("operator", USER, "system:serviceaccounts")
    kubeconfig = api.directory / "operator.kubeconfig"
    api.authority.kubeconfig(kubeconfig, "operator", api.url)
    world = World(api, namespace)
    async with await Kube.connect(str(kubeconfig)) as kube:
        world.secrets = Secrets(kube, world.publish, world.changed)
        world.secrets.named({POLICY: {f"{namespace}/token": False}})
        task = asyncio.create_task(world.secrets.run())
        try:
            yield world
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def namespace(api: ApiServer) -> str:
    api.kubectl("create", "namespace", "secrets", check=False)
    api.kubectl("delete", "secrets,rolebindings,roles", "--all", "-n", "secrets")
    api.kubectl("apply", "-f", str(MANIFEST))
    return "secrets"


@pytest.mark.cluster
async def test_a_secret_is_asked_for_until_it_may_be_read_comes_changes_and_goes(
    api: ApiServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with watching(api, namespace) as world:
        await world.says(
            "secrets/token cannot be read by the operator; bind the ClusterRole yett-secret-reader"
        )
        await world.kubectl(
            "create", "rolebinding", "r", "--clusterrole=yett-secret-reader", f"--user={USER}"
        )
        await world.says("is not there: the rules that name it match nothing")
        await world.kubectl("apply", "-f", "-", stdin=secret("other", key="of-another"))
        await world.kubectl("apply", "-f", "-", stdin=secret("token", key="first-value"))
        first = await world.has("first-value")
        assert world.secrets.problems(POLICY) == ()
        await world.kubectl("apply", "-f", "-", stdin=secret("token", key="second-value"))
        second = await world.has("second-value")
        assert first.version != second.version
        await world.kubectl("label", "secret", "token", "a=b")
        await world.kubectl("apply", "-f", "-", stdin=secret("token", key="second-value", more="x"))
        await world.says("has 2 keys, not one")
        assert world.published[f"{namespace}/token"] is None
        await world.kubectl("delete", "secret", "token")
        await world.says("is not there")
        await world.kubectl("apply", "-f", "-", stdin=secret("token", key="third-value"))
        third = await world.has("third-value")
        await world.kubectl("delete", "rolebinding", "r")
        world.secrets.named({POLICY: {}})
        await eventually(lambda: world.published[f"{namespace}/token"] is None)
        assert set(world.told) == {POLICY}
        assert set(world.published) == {f"{namespace}/token"}
    said = caplog.text + repr([first, second, third, world.secrets.__dict__])
    assert "value of" not in said
    for value in ("first-value", "second-value", "third-value", "of-another"):
        assert value not in said


@pytest.mark.cluster
async def test_the_right_to_one_secret_is_enough_for_it(api: ApiServer, namespace: str) -> None:
    async with watching(api, namespace) as world:
        await world.kubectl("apply", "-f", "-", stdin=secret("token", key="v"))
        await world.says("cannot be read")
        what = ("--verb=list,watch", "--resource=secrets", "--resource-name=token")
        await world.kubectl("create", "role", "one", *what)
        await world.kubectl("create", "rolebinding", "r", "--role=one", f"--user={USER}")
        await world.has("v")
        world.secrets.named({"L7Policy/n/q": {f"{namespace}/other": True}})
        await eventually(
            lambda: "rules that name it use their value" in " ".join(world.secrets.problems("L7Policy/n/q"))
        )


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({}, "has 0 keys, not one"),
        ({"a": "YQ==", "b": "Yg=="}, "has 2 keys, not one"),
        ({"a": ""}, "is no header value: it is empty"),
        ({"a": "YQ0KYjogYw=="}, "is no header value: it has characters"),  # "a\r\nb: c"
        ({"a": "AAEC"}, "is no header value: it has characters"),
        ({"a": "w6k="}, "is no header value: it has characters"),
        ({"a": "not base64"}, "is no header value: it has characters"),
        ({"a": "dG9rZW4K"}, "is no header value: it has characters"),  # "token\n", as echo makes it
        ({"a": "YWFhYWFhYWFh" * 1000}, "is no header value: it is longer"),
    ],
)
def test_a_secret_that_is_no_header_value_is_unusable_and_says_why(
    data: dict[str, str], problem: str
) -> None:
    found = value_of({"data": data})
    assert isinstance(found, Unusable)
    assert found.problem.startswith(problem)


def test_a_secret_with_one_key_is_its_value() -> None:
    assert value_of({"data": {"any": "dG9rZW4="}}) == "token"


def test_before_anything_is_compiled_a_secret_makes_no_revision() -> None:
    publisher = Publisher()
    publisher.publish_secret("n/s", PublishedSecret("0" * 32, "v"))
    assert publisher.revision == 0
