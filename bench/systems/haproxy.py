"""HAProxy as a transparent proxy: TPROXY in, the client's address out.

The rules are in files, as its manual recommends for long lists: exact paths and prefixes become
trees, regexes (PCRE2, compiled to machine code) a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.rules import Rule
from bench.systems.proxy import Proxy
from bench.systems.tproxy import PROXY_PORT
from yett_policy.http.rule import PathKind

_CONFIG = """\
global
    nbthread 1
    maxconn 4096
    tune.bufsize 32768
defaults
    mode http
    option splice-auto
    http-reuse never
    timeout client 60s
    timeout server 60s
    timeout connect 5s
    timeout http-keep-alive 60s
frontend gate
    bind :{port} transparent backlog 4096
    {rules}
    http-request reject unless {allowed}
    default_backend server
backend server
    source 0.0.0.0 usesrc clientip
    server origin * maxconn 4096
"""


class Haproxy(Proxy):
    """The strongest proxy."""

    name = "haproxy"
    label = "HAProxy 2.6, transparent"

    def argv(self, rules: tuple[Rule, ...], directory: Path) -> Sequence[str]:
        """One thread."""
        declared, allowed = [], []
        for method in sorted({rule.method for rule in rules}):
            mine = [rule for rule in rules if rule.method == method]
            declared.append(f"acl {method} method {method}")
            for kind, match in ((PathKind.EXACT, "str"), (PathKind.PREFIX, "beg"), (PathKind.REGEX, "reg")):
                name = f"{method}_{kind}"
                patterns = [_pattern(rule) for rule in mine if rule.kind is kind]
                if not patterns:
                    continue
                (directory / name).write_text("".join(f"{pattern}\n" for pattern in patterns))
                declared.append(f"acl {name} path -m {match} -f {directory / name}")
                allowed.append(f"{method} {name}")
        text = _CONFIG.format(port=PROXY_PORT, rules="\n    ".join(declared), allowed=" or ".join(allowed))
        (directory / "haproxy.cfg").write_text(text)
        return ["haproxy", "-db", "-q", "-f", str(directory / "haproxy.cfg")]


def _pattern(rule: Rule) -> str:
    match rule.kind:
        case PathKind.EXACT:
            return rule.path
        case PathKind.PREFIX:
            return f"{rule.path}/"
        case PathKind.REGEX:
            return f"^{rule.path}$"
