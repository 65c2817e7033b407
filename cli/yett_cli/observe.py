"""`yettctl observe`: flows and requests, as they are judged."""

from __future__ import annotations

import json
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import click

from yett_cli import escape, flowline, node, output, record
from yett_cli.errors import CommandError
from yett_cli.node import Node
from yett_cli.record import Record
from yett_cli.wanted import Wanted
from yett_lab.nodeapi import NodeError

_DEFAULT_LAST = 20
_KEPT_BY_NODE = 4096
_RENEW_SECONDS = 5.0


@click.command()
@node.options
@click.option("-f", "--follow", is_flag=True, help="Go on; allowed requests are recorded meanwhile.")
@click.option(
    "--last",
    type=click.IntRange(0, _KEPT_BY_NODE),
    metavar="N",
    help="Begin with the last N [20; 0 with -f].",
)
@click.option("--from-pod", multiple=True, metavar="[NS/]POD", help="Sent by; `*` stands for anything.")
@click.option("--to-pod", multiple=True, metavar="[NS/]POD", help="Received by.")
@click.option("--pod", multiple=True, metavar="[NS/]POD", help="Sent or received by.")
@click.option("-n", "--namespace", multiple=True, metavar="NS", help="Of either end.")
@click.option("-l", "--label", multiple=True, metavar="KEY[=VALUE]", help="Of either end.")
@click.option(
    "--verdict",
    multiple=True,
    type=click.Choice(list(record.VERDICTS.values()), case_sensitive=False),
    help="May be repeated, as all filters.",
)
@click.option("--reason", multiple=True, metavar="REASON", help="Such as POLICY_DENIED_L7.")
@click.option(
    "-t",
    "--type",
    "kind",
    multiple=True,
    type=click.Choice(["flow", "request"]),
    help="Connections, or HTTP requests.",
)
@click.option("--method", multiple=True, metavar="METHOD", help="Of HTTP requests.")
@click.option("--path", multiple=True, metavar="REGEX", help="Found in the target of HTTP requests.")
@output.option("compact", "table", "json")
def observe(
    lab_name: str | None,
    socket: str | None,
    follow: bool,
    last: int | None,
    output: str,
    path: tuple[str, ...],
    **filters: tuple[str, ...],
) -> None:
    """Flows and requests, as they are judged, with the rule that decided.

    Denials are always recorded; what is allowed is recorded while `observe -f` runs.

    \b
    Examples:
      yettctl observe --verdict DROPPED
      yettctl observe --from-pod default/client --to-pod default/api-server -f
      yettctl observe -n shop --path '^/admin' -o json
    """
    wanted = Wanted(path=[_regex(text) for text in path], **filters)
    nodes = node.choose(lab_name, socket)
    count = last if last is not None else 0 if follow else _DEFAULT_LAST
    records = _follow(nodes, count) if follow else iter(_past(nodes))
    kept = (item for item in records if isinstance(item, int) or wanted(item))
    _PRINTERS[output](kept if follow else iter(_newest(list(kept), count)), follow=follow)


def _newest(records: list[Record | int], count: int) -> list[Record | int]:
    return records[-count:] if count else []


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise click.UsageError(f"--path {text!r}: {error}; write a regular expression") from None


def _past(nodes: list[Node]) -> list[Record | int]:
    """What the nodes have kept, in order of time."""
    found = [item for place in nodes for item in _read(place, follow=False, last=_KEPT_BY_NODE)]
    return sorted(found, key=lambda item: 0.0 if isinstance(item, int) else item.time.timestamp())


def _follow(nodes: list[Node], last: int) -> Iterator[Record | int]:
    """What is judged from now on, and `last` records of each node before; ends when a node goes."""
    ready: queue.Queue[Record | int | Exception | None] = queue.Queue(maxsize=10_000)
    for place in nodes:
        place.api.post("/v1/observe")
        threading.Thread(target=_feed, args=(place, last, ready), daemon=True).start()
    threading.Thread(target=_renew, args=(nodes,), daemon=True).start()
    left = len(nodes)
    while left:
        item = ready.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            left -= 1
            continue
        yield item
    raise CommandError("the nodes have ended the stream; are they going down?")


def _feed(place: Node, last: int, ready: queue.Queue[Record | int | Exception | None]) -> None:
    try:
        for item in _read(place, follow=True, last=last):
            ready.put(item)
        ready.put(None)
    except Exception as error:  # noqa: BLE001 - raised again in the main thread
        ready.put(error)


def _renew(nodes: list[Node]) -> None:
    """A node records what is allowed for some seconds after each request to do so."""
    while True:
        time.sleep(_RENEW_SECONDS)
        for place in nodes:
            try:
                place.api.post("/v1/observe")
            except NodeError:  # the stream of this node ends, too, and says so
                return


def _read(place: Node, *, follow: bool, last: int) -> Iterator[Record | int]:
    """Records, and numbers of records that were lost on the way."""
    query = {"last": str(last), "follow": "1"} if follow else {"last": str(last)}
    for line in place.api.lines("/v1/flows", timeout=None if follow else 30, **query):
        try:
            value = json.loads(line)
            yield int(value["lost"]) if "lost" in value else record.parse(line)
        except (ValueError, TypeError) as error:
            raise CommandError(
                f"cannot read a record of {place.name}: {error}; is it of another version?"
            ) from None


def _print_compact(records: Iterator[Record | int], *, follow: bool) -> None:
    del follow
    _line(flowline.HEADER)
    for item in records:
        _line(_lost(item) if isinstance(item, int) else flowline.compact(item))


def _print_table(records: Iterator[Record | int], *, follow: bool) -> None:
    if not follow:
        output.table(flowline.COLUMNS, [flowline.cells(item) for item in records if isinstance(item, Record)])
        return
    widths = (19, 30, 30, 12, 10, 60, 0)
    _line(" ".join(name.ljust(width) for name, width in zip(flowline.COLUMNS, widths, strict=True)).rstrip())
    for item in records:
        if isinstance(item, int):
            _line(_lost(item))
            continue
        cells = map(escape.text, flowline.cells(item))
        _line(" ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _print_json(records: Iterator[Record | int], *, follow: bool) -> None:
    del follow
    for item in records:
        value: Any = {"lost": item} if isinstance(item, int) else item.raw
        _line(json.dumps(value, ensure_ascii=True, separators=(",", ":")))


_PRINTERS = {"compact": _print_compact, "table": _print_table, "json": _print_json}


def _line(text: str) -> None:
    """At once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _lost(count: int) -> str:
    return f"... {count} records lost: this terminal is too slow"
