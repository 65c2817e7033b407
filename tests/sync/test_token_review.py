"""Who may call: what a TokenReview says, by the rules and by a real API server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration

from support.apiserver import ApiServer, api_server
from yett_operator.sync.auth import Caller, Denied, Unavailable
from yett_operator.sync.token_review import NODE_NAME, POD_NAME, TokenReview, caller_of

LOADER = "system:serviceaccount:yett-system:yett-loader"


def status(**changes: Any) -> SimpleNamespace:
    user = SimpleNamespace(
        username=changes.pop("username", LOADER),
        extra=changes.pop("extra", {NODE_NAME: ["node-a"], POD_NAME: ["yett-loader-x"]}),
    )
    fields = {"authenticated": True, "error": None, "audiences": ["yett-operator"], "user": user}
    return SimpleNamespace(**(fields | changes))


def test_the_loaders_own_token_names_its_node() -> None:
    assert caller_of(status(), LOADER) == Caller("node-a", "yett-loader-x")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "NotAuthenticated"),
        (status(authenticated=None), "NotAuthenticated"),
        (status(authenticated=False, error="expired"), "NotAuthenticated"),
        (status(audiences=None), "WrongAudience"),
        (status(audiences=["https://kubernetes.default.svc"]), "WrongAudience"),
        (status(username="system:serviceaccount:default:yett-loader"), "WrongAccount"),
        (status(user=None), "WrongAccount"),
        (status(extra=None), "NotBound"),
        (status(extra={NODE_NAME: []}), "NotBound"),
        (status(extra={NODE_NAME: ["a", "b"]}), "NotBound"),
        (status(extra={NODE_NAME: [""]}), "NotBound"),
    ],
)
def test_anything_else_is_denied(answer: Any, reason: str) -> None:
    with pytest.raises(Denied) as caught:
        caller_of(answer, LOADER)
    assert caught.value.reason == reason


async def test_an_api_server_that_is_away_is_no_denial_and_no_secret_is_told() -> None:
    configuration = Configuration()
    configuration.host = "https://127.0.0.1:1"
    async with ApiClient(configuration) as client:
        with pytest.raises(Unavailable) as caught:
            await TokenReview(client, "yett-system").authenticate("secret")
    assert "secret" not in str(caught.value)


# -- a real API server ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("api")) as server:
        server.kubectl("create", "namespace", "yett-system")
        server.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}})
        for account in ("yett-loader", "other"):
            server.kubectl("create", "serviceaccount", account, "-n", "yett-system")
            server.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": account, "namespace": "yett-system"},
                    "spec": {
                        "serviceAccountName": account,
                        "nodeName": "node-a",
                        "containers": [{"name": "c", "image": "i"}],
                    },
                }
            )
        yield server


@pytest.fixture
async def review(api: ApiServer) -> AsyncIterator[TokenReview]:
    configuration = Configuration()
    await config.load_kube_config(config_file=str(api.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as client:
        yield TokenReview(client, "yett-system")


def token(
    api: ApiServer, account: str = "yett-loader", audience: str = "yett-operator", *, bound: bool = True
) -> str:
    binding = ("--bound-object-kind=Pod", f"--bound-object-name={account}") if bound else ()
    audiences = ("--audience", audience) if audience else ()
    return api.kubectl("create", "token", account, "-n", "yett-system", *audiences, *binding).strip()


@pytest.mark.cluster
async def test_a_bound_token_is_accepted_and_no_other(api: ApiServer, review: TokenReview) -> None:
    good = token(api)
    assert await review.authenticate(good) == Caller("node-a", "yett-loader")
    head, body, signature = good.split(".")
    forged = ".".join((head, body, signature[:-8] + signature[-8:][::-1]))
    for wrong, reason in (
        (forged, "NotAuthenticated"),
        ("no-token", "NotAuthenticated"),
        (token(api, audience="https://kubernetes.default.svc.cluster.local"), "NotAuthenticated"),
        (token(api, audience="another"), "NotAuthenticated"),
        (token(api, bound=False), "NotBound"),
        (token(api, "other"), "WrongAccount"),
    ):
        with pytest.raises(Denied) as caught:
            await review.authenticate(wrong)
        assert caught.value.reason == reason, json.dumps(str(caught.value))


@pytest.mark.cluster
async def test_a_token_dies_with_its_pod(api: ApiServer, review: TokenReview) -> None:
    theirs = token(api, "other")
    api.kubectl("delete", "pod", "other", "-n", "yett-system", "--force", "--grace-period=0")
    with pytest.raises(Denied) as caught:
        await review.authenticate(theirs)
    assert caught.value.reason == "NotAuthenticated"
