"""What runs in the compiling process: it takes one piece of work after the other from a socket."""

from __future__ import annotations

import gc
import pickle
import signal
import struct
import traceback
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from socket import socket

from yett_operator import memory
from yett_operator.compilation.batch import Batch, Outcome, Rows, cut
from yett_operator.compilation.worker import Worker

PIECE = 500
"""Pods that come or go at once.  What many of them leave when they are kept, in either process, is holes."""
_COLLECT = (400, 2, 2)
"""See `gc.set_threshold`: only whole collections empty Python's lists of spare tuples and the like, and what stays
long should not lie between them."""
LENGTH = struct.Struct("!Q")
"""Goes before each pickle: that of (method of `Desk`, arguments), that of (whether it did not raise, result or
exception)."""


class Desk:
    """Where the parent's work is done."""

    def __init__(self, *, forbidden: bool = False) -> None:
        self._worker = Worker(forbidden=forbidden)
        self._rows: Iterator[Rows] = iter(())
        """Of the last outcome, not fetched yet."""

    def take(self, batch: Batch) -> None:
        """`Worker.take`."""
        self._worker.take(batch)

    def step(self, batch: Batch) -> Outcome:
        """`Worker.step`; what is too much for one piece is left to `rows`."""
        outcome = self._worker.step(batch)
        if len(outcome.ipcache) <= PIECE and len(outcome.pods) <= PIECE:
            return outcome
        self._rows = chain(
            ((ipcache, {}) for ipcache in cut(outcome.ipcache, PIECE)),
            (({}, pods) for pods in cut(outcome.pods, PIECE)),
        )
        return replace(outcome, ipcache={}, pods={}, more=True)

    def rows(self) -> Rows | None:
        """More of the last outcome; None: that was all."""
        return next(self._rows, None)

    def give_back(self) -> None:
        """What a big batch needed for a moment."""
        memory.give_back()


def serve(end: socket, forbidden: bool) -> None:
    """Until the other end is closed, be it that the parent died: without it there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent
    memory.set_up()
    gc.set_threshold(*_COLLECT)
    desk = Desk(forbidden=forbidden)
    with end, end.makefile("rwb") as stream:
        while head := stream.read(LENGTH.size):
            (size,) = LENGTH.unpack(head)
            work, arguments = pickle.loads(stream.read(size))  # noqa: S301 - from our parent
            try:
                answer = pickle.dumps((True, work(desk, *arguments)))
            except Exception as error:  # noqa: BLE001 - it is the parent's to handle
                error.add_note(f"in the compiling process: {traceback.format_exc()}")
                answer = pickle.dumps((False, error))
            stream.write(LENGTH.pack(len(answer)))
            stream.write(answer)
            stream.flush()
            del work, arguments, answer  # the next may be hours away
