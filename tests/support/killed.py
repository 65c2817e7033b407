"""A process of its own that is killed before any one of its effects."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Killing:
    """An effect that ends its process instead of doing step number `at`."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, _step: str, action: Callable[[], T]) -> T:
        if self._left <= 0:  # below: two threads came here at once
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return action()


def killed(at: int, work: Callable[[Killing], None]) -> bool:
    """Run `work` in a child; whether it was killed before its effect number `at`, or had fewer."""
    pid = os.fork()
    if pid == 0:
        try:
            work(Killing(at))
        except BaseException:  # noqa: BLE001 - whatever it is, it must not go on as a second pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"it ended with {code}, see above"
    return code != 0
