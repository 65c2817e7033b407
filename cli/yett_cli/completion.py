"""`yettctl completion`: click's own scripts."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from yett_cli.app import root


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      yettctl completion bash > /etc/bash_completion.d/yettctl
      yettctl completion zsh > "${fpath[1]}/_yettctl"
      yettctl completion fish > ~/.config/fish/completions/yettctl.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has all three
    click.echo(kind(root, {}, "yettctl", "_YETTCTL_COMPLETE").source())
