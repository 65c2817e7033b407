"""Rules and requests that meet often: few names, many seams."""

from __future__ import annotations

from hypothesis import strategies as st

from yett_policy.http.compile import AMBIGUITIES
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, PathKind, RuleAction, RulesetSpec

_LITERAL_PATHS = ["/a", "/a/b", "/", "/api", "/api/", "/api/v1/items", "/api/v1/users"]
_REGEX_PATHS = [
    "/a", "/a/[a-c]+", "/.*", "/a.*", "(/a|/b)(/.*)?", "/[^/]*", "/a b", ".*;.*", "/a/?", "[^?]*",
    r"a\.b:443", ".*b", "^/a$", "/api/v[0-9]/items(/.*)?", "/api/v[0-9]/users/[^/]+",
]  # fmt: skip

headers = st.builds(
    HeaderRule,
    name=st.sampled_from(
        ["x-a", "x-b", "host", "upgrade", "x_a", "content-length", "transfer-encoding", "hos"]
    ),
    op=st.sampled_from(HeaderOp),
    value=st.sampled_from(["a", "", "ab", "a b", "[ab]+", ".*b", "5", "chunked", "a$", "^.?$"]),
)


@st.composite
def rules(draw: st.DrawFn, ref: str) -> HttpRule:
    kind = draw(st.sampled_from(PathKind))
    path = draw(st.sampled_from([None, *(_REGEX_PATHS if kind is PathKind.REGEX else _LITERAL_PATHS)]))
    return HttpRule(
        ref,
        draw(st.sampled_from([*[RuleAction.ALLOW] * 5, RuleAction.DENY, RuleAction.AUDIT_DENY])),
        draw(st.sampled_from([None, "GET", "GET|POST", "G.*", "CONNECT", "GET|CONNECT", "P[A-Z]*", ".*"])),
        path,
        kind,
        draw(st.sampled_from([None, None, None, "a", "a(:80)?", "[a-z.]+", ".*", "A"])),
        tuple(sorted(set(draw(st.lists(headers, max_size=2))))),
        draw(st.sampled_from([(), (), (), ("websocket",), ("h2c", "websocket")])),
        tuple(sorted(draw(st.sets(st.sampled_from(sorted(AMBIGUITIES)), max_size=4)))),
        draw(st.booleans()),
    )


@st.composite
def specs(draw: st.DrawFn, max_rules: int = 5) -> RulesetSpec:
    count = draw(st.integers(0, max_rules))
    return RulesetSpec(
        tuple(draw(rules(f"r{number}")) for number in range(count)),
        "default",
        audit=draw(st.sampled_from([False, False, False, True])),
        chunk_extensions=draw(st.booleans()),
        trailers=draw(st.booleans()),
    )


methods = st.sampled_from([b"GET"] * 5 + [b"POST", b"PRI", b"CONNECT", b"P", b"G T", b"", b"PUT"])
_target_bits = st.sampled_from(
    [b"/", b".", b"..", b"%2e", b"%2F", b"%5c", b"%25", b"%00", b"%", b"%4", b"%41", b";", b"\\", b"#",
     b"\x80", b"\x7f", b"?", b"a", b"b", b" ", b"\t", b"\x01", b"\r", b"%2E%2e", b"//", b"x"]
)  # fmt: skip
targets = st.builds(
    lambda start, bits: start + b"".join(bits),
    st.sampled_from(
        [b"/a", b"/a/b", b"/", b"/api", b"/b", b"/a/c", b"/api/x?y=1", b"/api/v1/items", b"/api/v2/users/",
         b"*", b"a.b:443", b"[::1]:1", b"http://a/", b""]
    ),
    st.lists(_target_bits, max_size=4) | st.just([]),
)  # fmt: skip
_names = st.sampled_from(
    [b"Host", b"host", b"HOST", b"X-A", b"x-b", b"x_a", b"X_B", b"Content-Length", b"content_length",
     b"Transfer-Encoding", b"Upgrade", b"Foo", b"X-Ab", b"", b"x a", b"hos", b"host ", b" x",
     b"transfer_encoding", b"transfer-Encodin"]
)  # fmt: skip
_values = st.sampled_from(
    [b"a", b"a", b"ab", b"a b", b"", b" ", b"\ta\t ", b"5", b"chunked", b"Chunked ", b"chunked, a",
     b"websocket", b"WebSocket, h2c", b"a:80", b"a:", b"[::1]:80", b"a@b", b"A.b", b"a\x01", b"\xff",
     b"a\nb", b"a\rb", b"9223372036854775807", b"9223372036854775808", b"+5", b"5 5", b",websocket",
     b"\x7f", b"a  b ", b"\x00"]
)  # fmt: skip
fields = st.builds(
    lambda name, value, end: name + b":" + value + end,
    _names,
    _values,
    st.sampled_from([b"\r\n"] * 10 + [b"\n", b"\r"]),
)
versions = st.sampled_from(
    [b" HTTP/1.1\r\n"] * 8
    + [b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b"\r\n", b" HTTP/1.1\n", b" HTTP/1.1 \r\n", b" HTTP/1.1\r\r\n"]
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A request head, whole or broken somewhere."""
    head = draw(methods) + b" " + draw(targets) + draw(versions)
    head += draw(st.sampled_from([b"Host: a\r\n", b"Host: a:80\r\n", b"Host: b.c\r\n", b""]))
    head += b"".join(draw(st.lists(fields, max_size=3)))
    head += draw(st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r\r", b""]))
    if head and draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(head) - 1))
        head = head[:at] + bytes([draw(st.integers(0, 255))]) + head[at + 1 :]
    return head


bodies = st.sampled_from(
    [b"", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"a;x=1\r\n0123456789\r\n0\r\n\r\n", b"0\r\nX: y\r\n\r\n",
     b"1\r\nab", b"g\r\n", b"fffffffff\r\n", b"80000000\r\n", b"0\r\nHost: a\r\n\r\n", b"hello", b"5\nhello"]
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Requests one after the other, some with bodies."""
    return b"".join(head + body for head, body in draw(st.lists(st.tuples(heads(), bodies), max_size=4)))
