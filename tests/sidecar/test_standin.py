"""One socket, two servers: the loader takes it, the stand-in only has it while nobody else does."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from yett_loader.sidecar import accepted
from yett_loader.sidecar.listeners import listener
from yett_loader.sidecar.process import control
from yett_loader.sidecar.seat import is_served
from yett_loader.sidecar.standin import stand_in
from yett_loader.sidecar.xds import LISTENER, ROUTES, Ads
from yett_policy.document import Direction

STATE = {LISTENER: {"a": {"name": "a"}}, ROUTES: {"a": {"name": "a"}}}


def ads() -> Ads:
    return Ads(lambda _name, _entry: None)


def sockets(directory: Path) -> list[str]:
    return [item.name for item in directory.iterdir() if item.is_socket()]


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of a file system
            await asyncio.sleep(0.01)


async def test_it_serves_what_was_accepted_until_the_loader_comes(tmp_path: Path) -> None:
    path = control(tmp_path)
    accepted.write(tmp_path, STATE)
    standing = asyncio.create_task(stand_in(tmp_path))
    loader = ads()
    try:
        await until(lambda: is_served(path))
        first = path.stat().st_ino
        assert await loader.start(path)
        assert loader.seated
        assert path.stat().st_ino != first
        # It leaves, and does not come back while we serve.
        await asyncio.sleep(1.2)
        assert loader.seated
        assert is_served(path)
        await loader.stop()
        await until(lambda: is_served(path))
        assert not loader.seated
    finally:
        standing.cancel()
        await asyncio.gather(standing, return_exceptions=True)
    assert not is_served(path)


async def test_one_that_only_wants_a_free_seat_takes_none_from_another(tmp_path: Path) -> None:
    path = control(tmp_path)
    first, second = ads(), ads()
    assert await first.start(path)
    assert not await second.start(path, only_if_free=True)
    assert first.seated
    assert is_served(path)
    assert sockets(tmp_path) == [path.name]
    await first.stop()


async def test_without_anything_accepted_it_serves_nothing(tmp_path: Path) -> None:
    standing = asyncio.create_task(stand_in(tmp_path))
    await asyncio.sleep(0.7)
    assert not standing.done()
    assert not is_served(control(tmp_path))
    standing.cancel()
    await asyncio.gather(standing, return_exceptions=True)


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1}', "{", '{"' + LISTENER + '": {"a": {"nonsense": 1}}}'])
async def test_a_file_that_is_damaged_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "accepted.json").write_text(text)
    standing = asyncio.create_task(stand_in(tmp_path))
    await asyncio.sleep(0.7)
    assert not standing.done()
    assert not is_served(control(tmp_path))
    standing.cancel()
    await asyncio.gather(standing, return_exceptions=True)


def test_what_was_accepted_is_for_root_only_and_whole(tmp_path: Path) -> None:
    state = {LISTENER: {"a": listener(61_001, Direction.INGRESS)}}
    accepted.write(tmp_path, STATE)
    accepted.write(tmp_path, state)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert accepted.read(tmp_path) == state


def test_what_was_written_before_is_written_again_as_it_is(tmp_path: Path) -> None:
    known = accepted.texts()
    resources = {'a "name"': {"deep": ["ä", 1, None]}, "b": {}}
    for state in (
        {"kind": resources, "none": {}},
        {"kind": {**resources, "c": {"new": 1}}},
        {"kind": {}},
        {},
    ):
        accepted.write(tmp_path, state, known)
        assert accepted.read(tmp_path) == state
        text = (tmp_path / "accepted.json").read_text()
        assert text == json.dumps(state, separators=(",", ":"))
