"""`yettctl lab`: the group, and what its commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from yett_cli.app import CONTEXT, LazyGroup
from yett_cli.errors import CommandError

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_NAME = "lab"


def name_option(function: F) -> F:
    """`--name`, also as `--lab`."""
    return click.option(
        "--name",
        "--lab",
        "name",
        metavar="LAB",
        envvar="YETT_LAB",
        help="Which lab; not needed when only one runs.",
    )(function)


def files_option(*, required: bool) -> Callable[[F], F]:
    """`-f`."""
    return click.option(
        "-f",
        "--filename",
        "files",
        multiple=True,
        required=required,
        metavar="FILE",
        help="A manifest, a directory of them, or - for stdin; may be repeated.",
    )


def images_option(function: F) -> F:
    """`--image`."""
    return click.option(
        "--image", "images", multiple=True, metavar="NAME=COMMAND", help="What runs in place of an image."
    )(function)


def need_root() -> None:
    """Complain early and clearly."""
    if os.geteuid() != 0:
        raise CommandError(
            "a lab makes network namespaces and loads BPF programs, which needs root; use sudo"
        )


lab = LazyGroup(
    name="lab",
    context_settings=CONTEXT,
    help="""\
    Run pods and policies on this machine, in network namespaces.

    Pods, Services and Deployments come from ordinary manifests; each pod is a network namespace,
    each node too, and policies are enforced by the same programs as in a cluster.  Needs root.
    A lab is for trying and testing: it does not isolate a pod's files from the machine.

    \b
    Examples:
      yettctl lab up -f app.yaml
      yettctl lab apply -f l7-policy.yaml
      yettctl lab exec client -- curl -s http://api-service/public
      yettctl lab down
    """,
    lazy={
        "up": ("yett_cli.lab_change:up", "Start a lab, with the objects of manifests."),
        "apply": ("yett_cli.lab_change:apply_", "Create or change objects: pods, services, policies."),
        "delete": ("yett_cli.lab_change:delete", "Delete objects, by file or by kind and name."),
        "exec": ("yett_cli.lab_pods:exec_", "Run a command in a pod; its exit code becomes ours."),
        "logs": ("yett_cli.lab_pods:logs", "Print what a pod's container has written."),
        "get": ("yett_cli.lab_pods:get", "List pods, services, policies or nodes."),
        "down": ("yett_cli.lab_pods:down", "Remove a lab: processes, namespaces, programs, state."),
    },
)
