"""The entry point: one error, one sentence, one exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from yett_cli.app import root
from yett_cli.errors import EXIT_FAILED, EXIT_USAGE, CommandError


def main() -> None:
    """Run a command line and exit."""
    name = Path(sys.argv[0]).name
    program = "kubectl yett" if name.startswith("kubectl-yett") else "yettctl"
    try:
        sys.exit(root.main(prog_name=program, standalone_mode=False, complete_var="_YETTCTL_COMPLETE") or 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, grep -q) has what it wanted; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except CommandError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except PermissionError as error:
        _complain(f"cannot open {error.filename}: permission denied; run it as root (sudo)")
        sys.exit(EXIT_FAILED)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        _complain(str(error))
        sys.exit(code)


def _complain(message: str) -> None:
    from yett_cli import escape  # noqa: PLC0415 - only on the way out

    click.echo(f"error: {escape.lines(message)}", err=True)


def _exit_code(error: Exception) -> int | None:
    """Of errors that the packages below raise for people; None: a defect of ours, show the traceback."""
    lab = sys.modules.get("yett_lab.errors")
    if lab is not None and isinstance(error, lab.LabError):
        return EXIT_USAGE if isinstance(error, lab.InputError) else EXIT_FAILED
    return None


if __name__ == "__main__":
    main()
