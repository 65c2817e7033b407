"""Rows as every honest sender writes them, checked at a tenth of the cost.

A snapshot has tens of thousands.  None: the row is not of that plain kind, and must be read by
the checks that can say what is wrong with it; whatever is accepted here they accept, too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Network, ip_address, ip_network
from sys import intern

from yett_policy.sync.values import ADDRESSES_MAX, IDENTITY_MAX, NAME_LIMIT

_MAPPED = IPv6Network("::ffff:0:0/96")
"""In the kernel an IPv4 address is one of these: there it would be the same prefix."""
_TEXT_MAX = 64
_ACK = {"type", "seq", "applied", "dropped", "as_sent", "failures"}
_is_digest = re.compile("[0-9a-f]{64}").fullmatch

PodRow = tuple[tuple[str, str], tuple[int, tuple[str, ...]] | None]


def address(row: object) -> tuple[str, int | None] | None:
    """[prefix, identity or null]"""
    if type(row) is not list or len(row) != 2:
        return None
    text, identity = row
    if type(text) is not str or len(text) > _TEXT_MAX or not (identity is None or _number(identity)):
        return None
    try:
        return (text, identity) if one_spelling(text) else None
    except ValueError:
        return None


def pod(row: object) -> PodRow | None:
    """[namespace, name, identity, addresses]"""
    if type(row) is not list or len(row) != 4:
        return None
    namespace, name, identity, listed = row
    if not (_name(namespace) and _name(name) and _number(identity)):
        return None
    if type(listed) is not list or len(listed) > ADDRESSES_MAX:
        return None
    addresses = []
    for text in listed:
        if type(text) is not str or len(text) > _TEXT_MAX:
            return None
        spelled = _spelled(text)
        if not spelled:
            return None
        addresses.append(spelled)
    return (namespace, name), (identity, tuple(addresses))


def digests(rows: object) -> dict[int, str] | None:
    """[[identity, digest]...], each identity once"""
    if type(rows) is not list:
        return None
    found = {}
    for row in rows:
        if type(row) is not list or len(row) != 2 or not _number(row[0]) or not _digest(row[1]):
            return None
        found[row[0]] = intern(row[1])  # a hundred nodes name the same ones
    return found if len(found) == len(rows) else None


def ack(raw: object) -> tuple[int, dict[int, str]] | None:
    """Sequence and digests of an answer that says nothing else: a hundred come with each change."""
    if type(raw) is not dict or raw.keys() != _ACK or raw["dropped"] != [] or raw["failures"] != []:
        return None
    seq, applied = raw["seq"], digests(raw["applied"])
    if type(seq) is not int or seq < 0 or raw["as_sent"] is not False or applied is None:
        return None
    return seq, applied


def contents(rows: object) -> dict[str, str] | None:
    """{digest: digest...}"""
    if type(rows) is not dict or not all(map(_digest, rows)) or not all(map(_digest, rows.values())):
        return None
    return rows


@lru_cache(1 << 17)  # a snapshot names mostly what the one before named
def one_spelling(text: str) -> bool:
    """Whether no other text is the same prefix; ValueError if it is none."""
    network = ip_network(text)
    return str(network) == text and not (isinstance(network, IPv6Network) and network.subnet_of(_MAPPED))


@lru_cache(1 << 17)
def _spelled(text: str) -> str:
    """An address in its one spelling, empty if it is none."""
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


def _digest(value: object) -> bool:
    return type(value) is str and _is_digest(value) is not None


def _name(value: object) -> bool:
    return type(value) is str and len(value) <= NAME_LIMIT and value.isascii()


def _number(value: object) -> bool:
    return type(value) is int and 1 <= value <= IDENTITY_MAX
