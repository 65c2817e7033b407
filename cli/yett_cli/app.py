"""The tree of commands; a command's module is imported when it is called or its help is asked for."""

from __future__ import annotations

import importlib
from typing import Any

import click


class LazyGroup(click.Group):
    """A group that knows its commands' one-line help without importing them."""

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}
        """Command -> (`module:attribute`, help in one line)."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.lazy.items()])


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

root = LazyGroup(
    name="yettctl",
    context_settings=CONTEXT,
    help="""\
    L7 (HTTP) network policy for Kubernetes, enforced in the kernel.

    \b
    Try it on this machine, without a cluster:
      yettctl lab up -f app.yaml
      yettctl lab apply -f l7-policy.yaml
      yettctl lab exec client -- curl -s http://api-service/private
      yettctl observe --verdict DROPPED

    \b
    Ask before you apply:
      yettctl lint policies/
      yettctl explain --from default/client --to default/api-server GET /private -f app.yaml -f l7-policy.yaml

    Exit codes: 0 fine, 1 a finding, 2 usage or bad input, 3 the node, lab or cluster failed.
    """,
    lazy={
        "lab": ("yett_cli.lab:lab", "Run pods and policies on this machine, in network namespaces."),
        "lint": ("yett_cli.lint:lint", "Check policy files, offline."),
        "explain": ("yett_cli.explain:explain", "Who may talk to whom, and which rule says so."),
        "observe": ("yett_cli.observe:observe", "Flows and requests, as they are judged."),
        "status": ("yett_cli.status:status", "Whether the nodes enforce what they should."),
        "endpoint": ("yett_cli.endpoint:endpoint", "The pods that a node enforces policy for."),
        "bpf": ("yett_cli.bpf:bpf", "What the kernel's maps hold: policy, connections."),
        "completion": ("yett_cli.completion:completion", "Print the completion script of a shell."),
    },
)
root = click.version_option(package_name="yett", prog_name="yettctl", message="%(prog)s %(version)s")(root)
