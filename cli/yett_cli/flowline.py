"""A flow record as a line, in the columns that users of Hubble know."""

from __future__ import annotations

from yett_cli import escape, output, reasons
from yett_cli.record import Record

HEADER = "TIMESTAMP           SOURCE:PORT -> DESTINATION:PORT   TYPE   VERDICT     SUMMARY"
COLUMNS = ("TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY", "RULE")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_COLOURS = {"FORWARDED": "green", "DROPPED": "red", "AUDIT": "yellow", "REDIRECTED": "cyan"}
_TYPE_WIDTH = 13
_VERDICT_WIDTH = 11


def compact(record: Record) -> str:
    """`May 20 15:30:01.123 default/client:34567 -> default/api-server:80 http-request  FORWARDED   GET http://...`"""
    source, destination = escape.text(record.source.text), escape.text(record.destination.text)
    arrow = "<-" if record.reply else "->"
    verdict = _verdict(record).ljust(_VERDICT_WIDTH + len(_verdict(record)) - len(record.verdict))
    what = summary(record)
    if record.verdict in {"DROPPED", "AUDIT"} and record.rule:
        what += f"; {escape.text(record.rule)}"
    line = f"{timestamp(record)} {source} {arrow} {destination} {escape.text(record.kind):<{_TYPE_WIDTH}} {verdict} {what}"
    return _left_out(record) + line.rstrip()


def cells(record: Record) -> tuple[str, ...]:
    """For a table, one for each of COLUMNS; not yet escaped."""
    return (
        timestamp(record),
        record.source.text,
        record.destination.text,
        record.kind,
        record.verdict,
        _summary(record),
        record.rule,
    )


def timestamp(record: Record) -> str:
    """Local time, milliseconds; the month in English whatever the locale."""
    local = record.time.astimezone()
    return f"{_MONTHS[local.month - 1]} {local.day:2d} {local:%H:%M:%S}.{local.microsecond // 1000:03d}"


def summary(record: Record) -> str:
    """What it was about, and what was wrong with it."""
    return escape.text(_summary(record))


def _summary(record: Record) -> str:
    if record.is_request:
        what = f"{record.method} {record.url}" if record.method or record.target else ""
    else:
        what = f"{record.protocol} {record.tcp_flags}".rstrip()
    if record.verdict == "FORWARDED":
        return what
    why = reasons.text(record.reason)
    return f"{why}: {what}" if what and record.is_request else f"{why} ({what})" if what else why


def _verdict(record: Record) -> str:
    return output.paint(escape.text(record.verdict), _COLOURS.get(record.verdict, "white"))


def _left_out(record: Record) -> str:
    if not record.suppressed:
        return ""
    return f"... {record.suppressed} more record{'' if record.suppressed == 1 else 's'} left out by the rate limit\n"
