"""Certificates once, and servers and loaders that end with their test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from support.sync import Certificates, Loader, Replica, Source, Target
from yett_operator.sync.settings import Settings


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def serve(certificates: Certificates) -> AsyncIterator[Callable[..., Awaitable[Replica]]]:
    """Starts an operator."""
    running: list[Replica] = []

    async def start(source: Source, settings: Settings | None = None, **where: object) -> Replica:
        replica = Replica(certificates, source, settings)
        await replica.start(**where)  # type: ignore[arg-type]
        running.append(replica)
        return replica

    yield start
    for replica in running:
        await replica.stop()


@pytest.fixture
async def load(tmp_path: Path) -> AsyncIterator[Callable[..., Loader]]:
    """Starts a loader."""
    running: list[Loader] = []

    def start(replica: Replica, node: str = "node-a", target: Target | None = None) -> Loader:
        loader = Loader(replica, node, tmp_path, target)
        loader.start()
        running.append(loader)
        return loader

    yield start
    for loader in running:
        await loader.stop()
