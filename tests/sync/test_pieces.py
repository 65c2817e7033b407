"""Snapshots go to TLS in small pieces, and are kept no longer than they are asked for."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from support.sync import Source
from yett_operator.sync import frames
from yett_operator.sync.frames import Frames
from yett_operator.sync.history import History
from yett_operator.sync.pieces import SIZE, Pieces


class Recorder(asyncio.Transport):
    """Remembers what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


@pytest.mark.parametrize("size", [0, 1, SIZE, SIZE + 1, 5 * SIZE, 5 * SIZE + 7])
def test_the_pieces_of_a_snapshot_are_small_and_together_the_whole(size: int) -> None:
    transport, data = Recorder(), bytes(i % 251 for i in range(size))
    pieces = Pieces(transport)
    pieces.write(data)
    assert transport.written == [data], "what is no snapshot is not cut"
    transport.written.clear()
    pieces.small = True
    pieces.write(data)
    assert b"".join(transport.written) == data
    assert all(len(piece) <= SIZE for piece in transport.written)


async def test_a_snapshot_is_forgotten_when_nobody_has_asked_for_it_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "KEPT", 0.01)
    source = Source()
    source.begin("node-a")
    made = Frames(History(source, lambda _: None))
    task, _ = made.snapshot(source.snapshot("node-a"))
    assert await task
    gone = asyncio.Event()
    weakref.finalize(task, gone.set)
    del task
    await asyncio.wait_for(gone.wait(), 10)
