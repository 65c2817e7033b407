"""Calls that have done their work long before they return.

The kernel exchanges what is in a slot of a map of maps at once, and then waits out an RCU grace period (10 ms and
more) before it returns: from then on no program uses what was in the slot before.  That moment is nobody's concern here:
nothing points at a slot that is filled, and nothing has for long at one that is emptied.  So a thread makes the call,
and who asked for it goes on once the map shows the change.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

_CALLS = 32
"""That wait for their grace periods side by side; one more begins when one of them has returned."""
_FIRST_LOOK = 50e-6
_LAST_LOOK = 1e-3
"""Seconds between two looks, which double."""


class Grace:
    """Makes such calls."""

    def __init__(self) -> None:
        self._calls = ThreadPoolExecutor(_CALLS, thread_name_prefix="grace")

    def call(self, change: Callable[[], object], is_done: Callable[[], bool]) -> None:
        """Begin `change`, and return when it `is_done`, or has returned; raises what it raises until then.

        It must not be done already: then it might begin after something later.
        """
        pause, answer = _FIRST_LOOK, self._calls.submit(change)
        try:
            while not is_done():
                if wait([answer], pause).done:
                    answer.result()
                    return
                pause = min(2 * pause, _LAST_LOOK)
        except BaseException:
            wait([answer])  # whoever looks now must see what it has done
            raise
