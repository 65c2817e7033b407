"""iptables -m string: an allow list of strings in the packet, everything else with a request in it reset.

It searches one packet, not the request: the page shows how it is evaded.
"""

from __future__ import annotations

import re

from bench.rules import Rule
from bench.systems.system import System
from bench.systems.tproxy import restore
from bench.world import PORT, UPLOAD_PORT
from yett_policy.http.rule import PathKind

_WINDOW = 160
"""Bytes from the start of the IP header in which the string must begin."""


class Strings(System):
    """The kernel's own way to look into packets."""

    name = "strings"
    label = "iptables -m string"
    enforces = True
    kinds = frozenset({PathKind.EXACT, PathKind.PREFIX})
    most_rules = 1000
    """10,000 searches per packet: not a thing to wait for."""

    def configure(self, rules: tuple[Rule, ...]) -> None:
        """Allowed strings first, then whatever looks like a request."""
        server = self.world.topology.server
        search = "-m string --algo bm --from 40"
        lines = ["*filter", ":FORWARD ACCEPT [0:0]", ":L7 - [0:0]"]
        lines += [
            f"-A FORWARD -o {server.ifname} -p tcp -d {server.v4} --dport {PORT}:{UPLOAD_PORT} -m length --length 61:65535 -j L7"
        ]
        lines += [f'-A L7 {search} --to {_WINDOW} --string "{_needle(rule)}" -j RETURN' for rule in rules]
        lines += [
            f'-A L7 {search} --to 16384 --string " HTTP/1." -p tcp -j REJECT --reject-with tcp-reset',
            "COMMIT",
            "",
        ]
        with self.world.topology.node:
            restore("\n".join(lines))


def _needle(rule: Rule) -> str:
    """Regexes are beyond it: their literal beginning."""
    match rule.kind:
        case PathKind.EXACT:
            return f"{rule.method} {rule.path} "
        case PathKind.PREFIX:
            return f"{rule.method} {rule.path}/"
        case PathKind.REGEX:
            return f"{rule.method} {re.split(r'[^-/0-9A-Za-z]', rule.path)[0]}"
