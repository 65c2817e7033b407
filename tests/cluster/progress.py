"""Lines that say what happens and how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_begin = time.monotonic()


def say(text: str) -> None:
    """One line, with the seconds since the program began."""
    print(f"cluster: {time.monotonic() - _begin:6.1f} s  {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what begins now, and afterwards how long it took if that was more than a second."""
    say(text)
    begin = time.monotonic()
    yield
    if (taken := time.monotonic() - begin) > 1:
        say(f"{text}: done in {taken:.1f} s")
