"""Exit codes and the errors that carry them."""

from __future__ import annotations

EXIT_FINDING = 1
EXIT_USAGE = 2
EXIT_FAILED = 3


class CommandError(Exception):
    """Something to tell the user in one sentence."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
