"""The help teaches, and costs nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from yett_cli.app import root

from .conftest import Run


def commands(group: click.Group = root, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


ALL = sorted(commands())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...], run: Run) -> None:
    done = run(*path, "--help")
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout
    assert f"yettctl {' '.join(path)}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_the_list_of_commands_is_complete(run: Run) -> None:
    done = run("--help")
    assert {path[0] for path in ALL} == set(root.lazy)
    for name, (_, text) in root.lazy.items():
        assert f"  {name} " in done.stdout
        assert text in done.stdout


def test_help_loads_no_command_and_no_model() -> None:
    script = (
        "import sys; sys.argv = ['yettctl', '--help']\n"
        "from yett_cli.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith(('yett_', 'pydantic', 'yaml', 'asyncio'))), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == str(["yett_cli", "yett_cli.__main__", "yett_cli.app", "yett_cli.errors"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_us_back(shell: str, run: Run) -> None:
    done = run("completion", shell)
    assert "_YETTCTL_COMPLETE" in done.stdout


def test_completion_completes_commands(run: Run) -> None:
    done = run(_YETTCTL_COMPLETE="bash_complete", COMP_WORDS="yettctl la", COMP_CWORD="1")
    assert done.stdout == "plain,lab\n"


def test_the_plugin_calls_itself_kubectl_yett() -> None:
    script = (
        "import sys; sys.argv = ['/usr/bin/kubectl-yett', '-h']; from yett_cli.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: kubectl yett ")


@pytest.mark.parametrize(
    "args", [("nosuch",), ("lab", "apply"), ("--nosuch",), ("lab", "delete", "x", "y", "z", "w")]
)
def test_wrong_usage_is_exit_code_2(args: tuple[str, ...], run: Run) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
