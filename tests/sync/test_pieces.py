"""Big messages reach TLS in pieces that it need not keep much room for."""

from __future__ import annotations

import asyncio

import pytest

from yett_operator.sync.pieces import SIZE, Pieces


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": "p"})
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 10 * SIZE + 7])
def test_what_is_written_arrives_whole_and_never_more_than_a_piece_at_once(size: int) -> None:
    transport = Transport()
    data = bytes(number % 251 for number in range(size))
    Pieces(transport).write(data)
    assert b"".join(transport.written) == data
    assert all(len(piece) <= SIZE for piece in transport.written)


def test_all_else_is_the_transports_own() -> None:
    assert Pieces(Transport()).get_extra_info("peername") == "p"
