"""Targets, methods, hosts and headers that servers read in different ways, and plain policy."""

from __future__ import annotations

from corpus.case import Case, allow, deny
from yett_policy.reason import Reason

R = Reason
TAIL = b" HTTP/1.1\r\nHost: api\r\n\r\n"


def _target(target: bytes, rest: bytes, *reasons: Reason, rules: str = "any") -> Case:
    name = f"target {target[:40]!r}" + ("" if rest in (TAIL, b"") else f" + {rest[:20]!r}")
    return deny(name, b"GET " + target, rest, *reasons, rules=rules)


AMBIGUOUS: tuple[Case, ...] = (
    _target(b"/public/../", b"private" + TAIL, R.AMBIGUOUS_DOT_SEGMENT),
    _target(b"/.. ", TAIL[1:], R.AMBIGUOUS_DOT_SEGMENT),
    _target(b"/public/./", b"x" + TAIL, R.AMBIGUOUS_DOT_SEGMENT),
    _target(b"/./", b"public" + TAIL, R.AMBIGUOUS_DOT_SEGMENT),
    _target(b"/../", b"public" + TAIL, R.AMBIGUOUS_DOT_SEGMENT),
    _target(b"/public/.. ", TAIL[1:], R.AMBIGUOUS_DOT_SEGMENT),
    _target(b"/public/. ", TAIL[1:], R.AMBIGUOUS_DOT_SEGMENT),
    _target(b"/public/..?", b"x" + TAIL, R.AMBIGUOUS_DOT_SEGMENT),
    _target(b"/public/.?", b"x" + TAIL, R.AMBIGUOUS_DOT_SEGMENT),
    _target(b"//", b"public" + TAIL, R.AMBIGUOUS_EMPTY_SEGMENT),
    _target(b"/public//", b"x" + TAIL, R.AMBIGUOUS_EMPTY_SEGMENT),
    _target(b"///", b"private" + TAIL, R.AMBIGUOUS_EMPTY_SEGMENT),
    _target(b"/public/%2e", b"%2e/private" + TAIL, R.AMBIGUOUS_ENCODED_DOT),
    _target(b"/public/%2E", b"./private" + TAIL, R.AMBIGUOUS_ENCODED_DOT),
    _target(b"/public/.%2e", b"/private" + TAIL, R.AMBIGUOUS_ENCODED_DOT),
    _target(b"/public%2f", b"..%2fprivate" + TAIL, R.AMBIGUOUS_ENCODED_SLASH),
    _target(b"/public%2F", b"x" + TAIL, R.AMBIGUOUS_ENCODED_SLASH),
    _target(b"/public%5c", b"..%5cprivate" + TAIL, R.AMBIGUOUS_ENCODED_BACKSLASH),
    _target(b"/public%5C", b"x" + TAIL, R.AMBIGUOUS_ENCODED_BACKSLASH),
    _target(b"/%25", b"2e%252e/" + TAIL, R.AMBIGUOUS_ENCODED_PERCENT),
    _target(b"/public%25", b"00" + TAIL, R.AMBIGUOUS_ENCODED_PERCENT),
    _target(b"/public%00", b".json" + TAIL, R.AMBIGUOUS_ENCODED_NUL),
    _target(b"/public\\", b"..\\private" + TAIL, R.AMBIGUOUS_BACKSLASH),
    _target(b"/\\", b"private" + TAIL, R.AMBIGUOUS_BACKSLASH),
    _target(b"/public;", b"/../private" + TAIL, R.AMBIGUOUS_SEMICOLON),
    _target(b"/..;", b"/private" + TAIL, R.AMBIGUOUS_SEMICOLON),
    _target(b"/public;", b"x=1" + TAIL, R.AMBIGUOUS_SEMICOLON),
    _target(b"/public#", b"/private" + TAIL, R.AMBIGUOUS_FRAGMENT),
    _target(b"/private#", b"/../public" + TAIL, R.AMBIGUOUS_FRAGMENT),
    _target(b"/public?x#", b"y" + TAIL, R.AMBIGUOUS_FRAGMENT),
    _target(b"/caf\xc3", b"\xa9" + TAIL, R.AMBIGUOUS_NON_ASCII),
    _target(b"/\xc0", b"\xaf" + TAIL, R.AMBIGUOUS_NON_ASCII),
    _target(b"/\xff", TAIL, R.AMBIGUOUS_NON_ASCII),
    _target(b"/public% ", TAIL[1:], R.AMBIGUOUS_PERCENT),
    _target(b"/public%z", b"z" + TAIL, R.AMBIGUOUS_PERCENT),
    _target(b"/public%2z", TAIL, R.AMBIGUOUS_PERCENT),
    _target(b"/%u", b"002f" + TAIL, R.AMBIGUOUS_PERCENT),
    _target(b"/public%2 ", TAIL[1:], R.AMBIGUOUS_PERCENT),
)

UNAMBIGUOUS: tuple[Case, ...] = tuple(
    allow(f"target {target!r}", b"GET " + target + TAIL)
    for target in (
        b"/",
        b"/...",
        b"/.hidden",
        b"/a..b/c.",
        b"/a.b/",
        b"/public?x=../y",
        b"/public?x=//y",
        b"/public?x=;",
        b"/public?x=%2f%2e%25",
        b"/public?",
        b"/public?a=b?c=d",
        b"/%20%41%7e",
        b"/a:b@c!$&'()*+,=-_~",
        b"/" + b"a" * 5000,
    )
)

POLICY: tuple[Case, ...] = (
    allow("the path of the rule", b"GET /public" + TAIL, "public"),
    _target(b"/pr", b"ivate" + TAIL, R.POLICY_DENIED_L7, rules="public"),
    _target(b"/Pu", b"blic" + TAIL, R.POLICY_DENIED_L7, rules="public"),
    _target(b"/public/", TAIL, R.POLICY_DENIED_L7, rules="public"),
    _target(b"/public?", b"x=1" + TAIL, R.POLICY_DENIED_L7, rules="public"),
    _target(b"/publi ", TAIL[1:], R.POLICY_DENIED_L7, rules="public"),
    _target(b"/publicc", TAIL, R.POLICY_DENIED_L7, rules="public"),
    _target(b"/public" + b"a" * 5000, TAIL, R.POLICY_DENIED_L7, rules="public"),
    _target(b"/public/../", b"private" + TAIL, R.POLICY_DENIED_L7, R.AMBIGUOUS_DOT_SEGMENT, rules="public"),
    _target(
        b"/public%2f", b"..%2fprivate" + TAIL, R.POLICY_DENIED_L7, R.AMBIGUOUS_ENCODED_SLASH, rules="public"
    ),
    _target(b"/private#", b"/public" + TAIL, R.POLICY_DENIED_L7, R.AMBIGUOUS_FRAGMENT, rules="public"),
    _target(b"/p%75", b"blic" + TAIL, R.POLICY_DENIED_L7, rules="public"),
    deny("another method", b"PO", b"ST /public" + TAIL, R.POLICY_DENIED_L7, rules="public"),
    deny("lower-case method", b"g", b"et /public" + TAIL, R.POLICY_DENIED_L7, rules="public"),
    deny(
        "method that only begins like the rule's",
        b"GETX",
        b" /public" + TAIL,
        R.POLICY_DENIED_L7,
        rules="public",
    ),
    deny("method that ends too early", b"GE ", b"/public" + TAIL, R.POLICY_DENIED_L7, rules="public"),
    deny(
        "HTTP/2 preface",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"SM\r\n\r\n",
        R.HTTP2_PREFACE,
        R.POLICY_DENIED_L7,
        rules="public",
    ),
    deny("HTTP/0.9 for another path", b"GET /pr", b"ivate\r\n", R.POLICY_DENIED_L7, rules="public"),
    allow(
        "a header that claims another method",
        b"GET /public HTTP/1.1\r\nHost: api\r\nX-HTTP-Method-Override: DELETE\r\n\r\n",
        "public",
    ),
    # prefix
    allow("the prefix itself", b"GET /api" + TAIL, "prefix"),
    allow("the prefix with a slash", b"GET /api/" + TAIL, "prefix"),
    allow("below the prefix", b"GET /api/v1/x" + TAIL, "prefix"),
    allow("the prefix with a query", b"GET /api?x=/../y" + TAIL, "prefix"),
    allow(
        "POST below the prefix",
        b"POST /api/x HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\n\r\nhello",
        "prefix",
    ),
    _target(b"/apix", TAIL, R.POLICY_DENIED_L7, rules="prefix"),
    _target(b"/ap ", TAIL[1:], R.POLICY_DENIED_L7, rules="prefix"),
    _target(b"/ap?", b"i" + TAIL, R.POLICY_DENIED_L7, rules="prefix"),
    _target(b"/api/../", b"private" + TAIL, R.AMBIGUOUS_DOT_SEGMENT, rules="prefix"),
    _target(b"/api/%2e", b"%2e/private" + TAIL, R.AMBIGUOUS_ENCODED_DOT, rules="prefix"),
    _target(b"/api/..%2f", b"private" + TAIL, R.AMBIGUOUS_ENCODED_SLASH, rules="prefix"),
    _target(b"/api//", b"x" + TAIL, R.AMBIGUOUS_EMPTY_SEGMENT, rules="prefix"),
    _target(b"/api;", b"/../private" + TAIL, R.AMBIGUOUS_SEMICOLON, R.POLICY_DENIED_L7, rules="prefix"),
    _target(b"/api/..\\", b"private" + TAIL, R.AMBIGUOUS_BACKSLASH, rules="prefix"),
    deny("DELETE below the prefix", b"D", b"ELETE /api/x" + TAIL, R.POLICY_DENIED_L7, rules="prefix"),
    # host
    allow("the host of the rule", b"GET /public HTTP/1.1\r\nHost: api.example\r\n\r\n", "host"),
    allow("the host in capitals", b"GET /public HTTP/1.1\r\nHost: API.Example\r\n\r\n", "host"),
    *(
        deny(
            f"host {host!r}",
            b"GET /public HTTP/1.1\r\nHost: " + host + b"\r\n\r\n",
            b"",
            R.POLICY_DENIED_L7,
            rules="host",
        )
        for host in (
            b"apixexample",
            b"api.example.",
            b"api.example:80",
            b"api.example.evil",
            b"evil.api.example",
            b"other",
        )
    ),
    deny(
        "the right host second",
        b"GET /public HTTP/1.1\r\nHost: other\r\nHost: api.example\r\n\r\n",
        b"",
        R.HTTP_DUPLICATE_HOST,
        R.POLICY_DENIED_L7,
        rules="host",
    ),
    deny(
        "the right host first",
        b"GET /public HTTP/1.1\r\nHost: api.example\r\nHost: other\r\n\r\n",
        b"",
        R.HTTP_DUPLICATE_HOST,
        rules="host",
    ),
    deny(
        "the right host in another header",
        b"GET /public HTTP/1.1\r\nHost: other\r\nX-Forwarded-Host: api.example\r\n\r\n",
        b"",
        R.POLICY_DENIED_L7,
        rules="host",
    ),
    # header
    *(
        allow(f"header {line!r}", b"GET /public HTTP/1.1\r\nHost: api\r\n" + line + b"\r\n\r\n", "header")
        for line in (b"X-Token: secret", b"x-token:secret", b"X-TOKEN: \t secret \t")
    ),
    *(
        deny(
            f"header {line!r}",
            b"GET /public HTTP/1.1\r\nHost: api\r\n" + line + b"\r\n\r\n",
            b"",
            *reasons,
            rules="header",
        )
        for line, reasons in (
            (b"X: y", (R.POLICY_DENIED_L7,)),
            (b"X-Token: secre", (R.POLICY_DENIED_L7,)),
            (b"X-Token: secrets", (R.POLICY_DENIED_L7,)),
            (b"X-Token: Secret", (R.POLICY_DENIED_L7,)),
            (b"X-Token: secret secret", (R.POLICY_DENIED_L7,)),
            (b"X-Token: secret, other", (R.POLICY_DENIED_L7,)),
            (b"X-Token:", (R.POLICY_DENIED_L7,)),
            (b"X-Tokens: secret", (R.POLICY_DENIED_L7,)),
            (b"X-Token: secret\r\nX-Token: other", (R.HTTP_AMBIGUOUS_HEADER,)),
            (b"X-Token: other\r\nX-Token: secret", (R.HTTP_AMBIGUOUS_HEADER, R.POLICY_DENIED_L7)),
            (b"X-Token: secret\r\nx-token: secret", (R.HTTP_AMBIGUOUS_HEADER,)),
            (b"X_Token: secret", (R.HTTP_HEADER_UNDERSCORE, R.POLICY_DENIED_L7)),
            (b"X-Token: secret\r\nX_Token: other", (R.HTTP_HEADER_UNDERSCORE,)),
        )
    ),
    # regex
    allow("digits", b"GET /item/42" + TAIL, "regex"),
    allow("digits and a query", b"GET /item/42?x=/../private" + TAIL, "regex"),
    _target(b"/item/ ", TAIL[1:], R.POLICY_DENIED_L7, rules="regex"),
    _target(b"/item/4x", TAIL, R.POLICY_DENIED_L7, rules="regex"),
    _target(b"/item/4/", TAIL, R.POLICY_DENIED_L7, rules="regex"),
    # bodies
    allow(
        "POST with a body", b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\n\r\nhello", "post"
    ),
    allow(
        "POST to the exact path with a query",
        b"POST /upload?a=b HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\n\r\nhello",
        "post",
    ),
    allow(
        "POST in chunks",
        b"POST /upload HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "post",
    ),
    deny("POST to GET's path", b"POST /p", b"ublic" + TAIL, R.POLICY_DENIED_L7, rules="post"),
    deny("GET of POST's path", b"GET /u", b"pload" + TAIL, R.POLICY_DENIED_L7, rules="post"),
    deny(
        "a denied request right behind a body by length",
        b"POST /upload HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\n\r\nhelloGET /pr",
        b"ivate" + TAIL,
        R.POLICY_DENIED_L7,
        rules="post",
    ),
    deny(
        "a denied request right behind a body in chunks",
        b"POST /upload HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /pr",
        b"ivate" + TAIL,
        R.POLICY_DENIED_L7,
        rules="post",
    ),
    deny(
        "a denied request behind GET, as the body of a GET without a length",
        b"GET /public HTTP/1.1\r\nHost: api\r\n\r\nGET /pr",
        b"ivate" + TAIL,
        R.POLICY_DENIED_L7,
        rules="post",
    ),
    # options of a ruleset
    allow(
        "chunk extensions and trailers, where allowed",
        b"POST /upload HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\nX: y\r\n\r\n",
        "chunky",
    ),
    deny(
        "a bare LF in a chunk extension, though extensions are allowed",
        b"POST /upload HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n5;a\n",
        b"hello\r\n0\r\n\r\n",
        R.HTTP_BARE_LF,
        R.HTTP_CHUNK,
        R.HTTP_CHUNK_EXTENSION,
        rules="chunky",
    ),
    allow("a tolerated semicolon", b"GET /tolerant/a;b" + TAIL, "tolerant"),
    allow("a tolerated encoded slash", b"GET /tolerant/a%2fb" + TAIL, "tolerant"),
    deny(
        "an ambiguity that the matching rule does not tolerate",
        b"GET /strict/a;b" + TAIL,
        b"",
        R.AMBIGUOUS_SEMICOLON,
        rules="tolerant",
    ),
    deny(
        "an ambiguity that no rule tolerates",
        b"GET /tolerant/a/../",
        b"b" + TAIL,
        R.AMBIGUOUS_DOT_SEGMENT,
        rules="tolerant",
    ),
)

CASES: tuple[Case, ...] = (*AMBIGUOUS, *UNAMBIGUOUS, *POLICY)
