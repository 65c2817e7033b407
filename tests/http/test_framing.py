"""The framing and confusion classes of HTTP/1, each with the reason and the byte that shows it."""

from __future__ import annotations

import pytest

from yett_policy.document import Verdict
from yett_policy.http.compile import compile_tables
from yett_policy.http.machine import Judgement, Machine
from yett_policy.http.rule import HeaderOp, HeaderRule, HttpRule, RulesetSpec
from yett_policy.reason import Reason

ANY = compile_tables(RulesetSpec((HttpRule("any"),), "default")).data
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
"""A head that lacks the empty line."""


def judge(data: bytes, tables: bytes = ANY) -> list[Judgement]:
    return Machine(tables).feed(data)


R = Reason
DENIED: list[tuple[bytes, Reason, bytes]] = [
    # (stream, reason, what follows the byte that shows it)
    (b"\r\nGET / HTTP/1.1\r\n", R.HTTP_LEADING_CRLF, b"\nGET / HTTP/1.1\r\n"),
    (b"\nGET / HTTP/1.1\r\n", R.HTTP_LEADING_CRLF, b"GET / HTTP/1.1\r\n"),
    (b"\x16\x03\x01\x02\x00", R.TLS_ON_HTTP_PORT, b"\x03\x01\x02\x00"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", R.HTTP2_PREFACE, b" HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (b" GET / HTTP/1.1\r\n", R.HTTP_METHOD, b"GET / HTTP/1.1\r\n"),
    (b"GE\x00T / HTTP/1.1\r\n", R.HTTP_METHOD, b"T / HTTP/1.1\r\n"),
    (b"GET\t/ HTTP/1.1\r\n", R.HTTP_METHOD, b"/ HTTP/1.1\r\n"),
    (b"GET\r\n", R.HTTP_METHOD, b"\n"),
    (b"\x80GET / HTTP/1.1\r\n", R.HTTP_METHOD, b"GET / HTTP/1.1\r\n"),
    (b"GET  / HTTP/1.1\r\n", R.HTTP_TARGET, b"/ HTTP/1.1\r\n"),
    (b"GET /a\x00b HTTP/1.1\r\n", R.HTTP_TARGET, b"b HTTP/1.1\r\n"),
    (b"GET /a\tHTTP/1.1\r\n", R.HTTP_TARGET, b"HTTP/1.1\r\n"),
    (b"GET http://a/ HTTP/1.1\r\n", R.HTTP_TARGET_FORM, b"ttp://a/ HTTP/1.1\r\n"),
    (b"OPTIONS * HTTP/1.1\r\n", R.HTTP_TARGET_FORM, b" HTTP/1.1\r\n"),
    (b"GET a:80 HTTP/1.1\r\n", R.HTTP_TARGET_FORM, b":80 HTTP/1.1\r\n"),
    (b"CONNECT a:443 HTTP/1.1\r\n", R.CONNECT_DENIED, b"a:443 HTTP/1.1\r\n"),
    (b"GET /\r\n", R.HTTP_VERSION, b"\n"),
    (b"GET /\n", R.HTTP_VERSION, b""),
    (b"GET / HTTP/0.9\r\n", R.HTTP_VERSION, b".9\r\n"),
    (b"GET / HTTP/1.2\r\n", R.HTTP_VERSION, b"\r\n"),
    (b"GET / HTTP/1.32\r\n", R.HTTP_VERSION, b"2\r\n"),
    (b"GET / HTTP/1.12\r\n", R.HTTP_VERSION, b"\r\n"),
    (b"GET / HTTP/2.0\r\n", R.HTTP_VERSION, b".0\r\n"),
    (b"GET / http/1.1\r\n", R.HTTP_VERSION, b"ttp/1.1\r\n"),
    (b"GET / HTTP/1.1 \r\n", R.HTTP_VERSION, b"\r\n"),
    (b"GET / x HTTP/1.1\r\n", R.HTTP_VERSION, b" HTTP/1.1\r\n"),
    (b"GET / HTTP/1.1\nHost: a\n\n", R.HTTP_BARE_LF, b"Host: a\n\n"),
    (b"GET / HTTP/1.1\r\r\n", R.HTTP_BARE_CR, b"\n"),
    (GET + b"\n", R.HTTP_BARE_LF, b""),
    (GET + b"\rX: y\r\n", R.HTTP_BARE_CR, b": y\r\n"),
    (GET + b"X: y\nZ: z\r\n", R.HTTP_BARE_LF, b"Z: z\r\n"),
    (GET + b"X: y\rZ: z\r\n", R.HTTP_BARE_CR, b": z\r\n"),
    (GET + b"X: y\x00\r\n", R.HTTP_CONTROL_BYTE, b"\r\n"),
    (GET + b"X: y\x0b\r\n", R.HTTP_CONTROL_BYTE, b"\r\n"),
    (GET + b"X: y\x7f\r\n", R.HTTP_CONTROL_BYTE, b"\r\n"),
    (GET + b" X: y\r\n", R.HTTP_OBS_FOLD, b"X: y\r\n"),
    (GET + b"X: y\r\n\tz\r\n", R.HTTP_OBS_FOLD, b"z\r\n"),
    (b"GET / HTTP/1.1\r\n Host: a\r\n", R.HTTP_OBS_FOLD, b"Host: a\r\n"),
    (GET + b"X : y\r\n", R.HTTP_SPACE_BEFORE_COLON, b": y\r\n"),
    (GET + b"Content-Length\t: 5\r\n", R.HTTP_SPACE_BEFORE_COLON, b": 5\r\n"),
    (GET + b": y\r\n", R.HTTP_HEADER_NAME, b" y\r\n"),
    (GET + b"X\r\n", R.HTTP_HEADER_NAME, b"\n"),
    (GET + b"X\x00: y\r\n", R.HTTP_HEADER_NAME, b": y\r\n"),
    (GET + b"\xc5X: y\r\n", R.HTTP_HEADER_NAME, b"X: y\r\n"),
    (GET + b"X(: y\r\n", R.HTTP_HEADER_NAME, b": y\r\n"),
    (GET + b"Content_Length: 5\r\n", R.HTTP_HEADER_UNDERSCORE, b" 5\r\n"),
    (GET + b"transfer_encoding: chunked\r\n", R.HTTP_HEADER_UNDERSCORE, b" chunked\r\n"),
    (b"GET / HTTP/1.1\r\n\r\n", R.HTTP_NO_HOST, b""),
    (b"GET / HTTP/1.1\r\nHost:\r\n", R.HTTP_HOST, b"\n"),
    (b"GET / HTTP/1.1\r\nHost: \r\n", R.HTTP_HOST, b"\n"),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n", R.HTTP_HOST, b"\r\n"),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n", R.HTTP_HOST, b"a\r\n"),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n", R.HTTP_HOST, b"b\r\n"),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n", R.HTTP_HOST, b" b\r\n"),
    (b"GET / HTTP/1.1\r\nHost: a:123456\r\n", R.HTTP_HOST, b"\r\n"),
    (b"GET / HTTP/1.1\r\nHost: [::1\r\n", R.HTTP_HOST, b"\n"),
    (GET + b"Host: a\r\n", R.HTTP_DUPLICATE_HOST, b" a\r\n"),
    (GET + b"hOST: a\r\n", R.HTTP_DUPLICATE_HOST, b" a\r\n"),
    (GET + b"Content-Length: 5\r\nContent-Length: 5\r\n", R.HTTP_DUPLICATE_LENGTH, b" 5\r\n"),
    (GET + b"Content-Length:\r\n", R.HTTP_CONTENT_LENGTH, b"\n"),
    (GET + b"Content-Length: +5\r\n", R.HTTP_CONTENT_LENGTH, b"5\r\n"),
    (GET + b"Content-Length: -1\r\n", R.HTTP_CONTENT_LENGTH, b"1\r\n"),
    (GET + b"Content-Length: 5, 5\r\n", R.HTTP_CONTENT_LENGTH, b" 5\r\n"),
    (GET + b"Content-Length: 0x5\r\n", R.HTTP_CONTENT_LENGTH, b"5\r\n"),
    (GET + b"Content-Length: 5_0\r\n", R.HTTP_CONTENT_LENGTH, b"0\r\n"),
    (GET + b"Content-Length: 5 5\r\n", R.HTTP_CONTENT_LENGTH, b"\r\n"),
    (GET + b"Content-Length: 9223372036854775808\r\n", R.HTTP_CONTENT_LENGTH, b"\r\n"),
    (GET + b"Content-Length: 18446744073709551617\r\n", R.HTTP_CONTENT_LENGTH, b"\r\n"),
    (GET + b"Transfer-Encoding: gzip\r\n", R.HTTP_TRANSFER_ENCODING, b"zip\r\n"),
    (GET + b"Transfer-Encoding: gzip, chunked\r\n", R.HTTP_TRANSFER_ENCODING, b"zip, chunked\r\n"),
    (GET + b"Transfer-Encoding: chunked, identity\r\n", R.HTTP_TRANSFER_ENCODING, b" identity\r\n"),
    (GET + b"Transfer-Encoding: xchunked\r\n", R.HTTP_TRANSFER_ENCODING, b"chunked\r\n"),
    (GET + b"Transfer-Encoding: chunke\r\n", R.HTTP_TRANSFER_ENCODING, b"\n"),
    (GET + b"Transfer-Encoding:\r\n", R.HTTP_TRANSFER_ENCODING, b"\n"),
    (GET + b'Transfer-Encoding: "chunked"\r\n', R.HTTP_TRANSFER_ENCODING, b'chunked"\r\n'),
    (GET + b"Transfer-Encoding: \x0bchunked\r\n", R.HTTP_CONTROL_BYTE, b"chunked\r\n"),
    (GET + b"Transfer-Encoding: chunked\x0b\r\n", R.HTTP_CONTROL_BYTE, b"\r\n"),
    (GET + b"Transfer-Encoding: \xa0chunked\r\n", R.HTTP_TRANSFER_ENCODING, b"chunked\r\n"),
    (GET + b"Transfer-Encoding: chunked\x85\r\n", R.HTTP_TRANSFER_ENCODING, b"\r\n"),
    (GET + b"Transfer-Encoding: chunked\x00\r\n", R.HTTP_CONTROL_BYTE, b"\r\n"),
    (GET + b"Transfer-Encoding: chu\rnked\r\n", R.HTTP_TRANSFER_ENCODING, b"nked\r\n"),
    (GET + b"Transfer-Encoding: chunked\rX\r\n", R.HTTP_BARE_CR, b"\r\n"),
    (GET + b"Transfer-Encoding: chunked\nX\r\n", R.HTTP_BARE_LF, b"X\r\n"),
    (GET + b"Transfer-Encoding\x00: chunked\r\n", R.HTTP_HEADER_NAME, b": chunked\r\n"),
    (
        GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        R.HTTP_DUPLICATE_ENCODING,
        b" chunked\r\n",
    ),
    (GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", R.HTTP_LENGTH_AND_ENCODING, b""),
    (GET + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", R.HTTP_LENGTH_AND_ENCODING, b""),
    (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", R.HTTP_ENCODING_IN_10, b""),
    (GET + b"Upgrade: websocket\r\nUpgrade: h2c\r\n", R.HTTP_AMBIGUOUS_HEADER, b" h2c\r\n"),
    # targets that servers read in different ways
    (b"GET /a/../b HTTP/1.1\r\n", R.AMBIGUOUS_DOT_SEGMENT, b"b HTTP/1.1\r\n"),
    (b"GET /./b HTTP/1.1\r\n", R.AMBIGUOUS_DOT_SEGMENT, b"b HTTP/1.1\r\n"),
    (b"GET /a/.. HTTP/1.1\r\n", R.AMBIGUOUS_DOT_SEGMENT, b"HTTP/1.1\r\n"),
    (b"GET /a/..?x HTTP/1.1\r\n", R.AMBIGUOUS_DOT_SEGMENT, b"x HTTP/1.1\r\n"),
    (b"GET /. HTTP/1.1\r\n", R.AMBIGUOUS_DOT_SEGMENT, b"HTTP/1.1\r\n"),
    (b"GET //a HTTP/1.1\r\n", R.AMBIGUOUS_EMPTY_SEGMENT, b"a HTTP/1.1\r\n"),
    (b"GET /a//b HTTP/1.1\r\n", R.AMBIGUOUS_EMPTY_SEGMENT, b"b HTTP/1.1\r\n"),
    (b"GET /a;b HTTP/1.1\r\n", R.AMBIGUOUS_SEMICOLON, b"b HTTP/1.1\r\n"),
    (b"GET /..;/b HTTP/1.1\r\n", R.AMBIGUOUS_SEMICOLON, b"/b HTTP/1.1\r\n"),
    (b"GET /a\\b HTTP/1.1\r\n", R.AMBIGUOUS_BACKSLASH, b"b HTTP/1.1\r\n"),
    (b"GET /%2e/b HTTP/1.1\r\n", R.AMBIGUOUS_ENCODED_DOT, b"/b HTTP/1.1\r\n"),
    (b"GET /%2E%2e/b HTTP/1.1\r\n", R.AMBIGUOUS_ENCODED_DOT, b"%2e/b HTTP/1.1\r\n"),
    (b"GET /a%2Fb HTTP/1.1\r\n", R.AMBIGUOUS_ENCODED_SLASH, b"b HTTP/1.1\r\n"),
    (b"GET /a%5Cb HTTP/1.1\r\n", R.AMBIGUOUS_ENCODED_BACKSLASH, b"b HTTP/1.1\r\n"),
    (b"GET /a%252fb HTTP/1.1\r\n", R.AMBIGUOUS_ENCODED_PERCENT, b"2fb HTTP/1.1\r\n"),
    (b"GET /a%00b HTTP/1.1\r\n", R.AMBIGUOUS_ENCODED_NUL, b"b HTTP/1.1\r\n"),
    (b"GET /a%u002f HTTP/1.1\r\n", R.AMBIGUOUS_PERCENT, b"002f HTTP/1.1\r\n"),
    (b"GET /a%4 HTTP/1.1\r\n", R.AMBIGUOUS_PERCENT, b"HTTP/1.1\r\n"),
    (b"GET /a#b HTTP/1.1\r\n", R.AMBIGUOUS_FRAGMENT, b"b HTTP/1.1\r\n"),
    (b"GET /?a#b HTTP/1.1\r\n", R.AMBIGUOUS_FRAGMENT, b"b HTTP/1.1\r\n"),
    (b"GET /\xc0\xaf HTTP/1.1\r\n", R.AMBIGUOUS_NON_ASCII, b"\xaf HTTP/1.1\r\n"),
    (b"GET /?\xe9 HTTP/1.1\r\n", R.AMBIGUOUS_NON_ASCII, b" HTTP/1.1\r\n"),
    (b"GET /\x7f HTTP/1.1\r\n", R.AMBIGUOUS_NON_ASCII, b" HTTP/1.1\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("stream", "reason", "rest"), DENIED, ids=lambda value: repr(value)[:60])
def test_a_malformed_head_is_denied_at_the_byte_that_shows_it(
    stream: bytes, reason: Reason, rest: bytes
) -> None:
    (judgement,) = judge(stream)
    assert (judgement.verdict, judgement.reason) == (Verdict.DENY, reason)
    assert stream[judgement.offset + 1 :] == rest


CHUNKED = GET.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS_DENIED: list[tuple[bytes, Reason, bytes]] = [
    (b"\r\n", R.HTTP_CHUNK, b"\n"),
    (b"0x5\r\n", R.HTTP_CHUNK, b"5\r\n"),
    (b"+5\r\n", R.HTTP_CHUNK, b"5\r\n"),
    (b"-5\r\n", R.HTTP_CHUNK, b"5\r\n"),
    (b"5_0\r\n", R.HTTP_CHUNK, b"0\r\n"),
    (b" 5\r\n", R.HTTP_CHUNK, b"5\r\n"),
    (b"80000000\r\n", R.HTTP_CHUNK, b""),
    (b"100000005\r\n", R.HTTP_CHUNK, b"\r\n"),
    (b"000000005\r\n", R.HTTP_CHUNK, b"\r\n"),
    (b"5 \r\n", R.HTTP_CHUNK_EXTENSION, b"\r\n"),
    (b"5\t\r\n", R.HTTP_CHUNK_EXTENSION, b"\r\n"),
    (b"5;a=b\r\n", R.HTTP_CHUNK_EXTENSION, b"a=b\r\n"),
    (b"5;\nxx\r\n", R.HTTP_CHUNK_EXTENSION, b"\nxx\r\n"),
    (b"5\nhello\r\n", R.HTTP_BARE_LF, b"hello\r\n"),
    (b"5\rhello\r\n", R.HTTP_BARE_CR, b"ello\r\n"),
    (b"5\r\nhelloX\r\n", R.HTTP_CHUNK, b"\r\n"),
    (b"5\r\nhello\n0\r\n", R.HTTP_CHUNK, b"0\r\n"),
    (b"5\r\nhello\rX", R.HTTP_CHUNK, b""),
    (b"0\r\nContent-Length: 5\r\n\r\n", R.HTTP_TRAILER, b"ontent-Length: 5\r\n\r\n"),
    (b"0\r\nX: y\r\n\r\n", R.HTTP_TRAILER, b": y\r\n\r\n"),
    (b"0\r\n X: y\r\n\r\n", R.HTTP_OBS_FOLD, b"X: y\r\n\r\n"),
    (b"0\r\n\nGET /", R.HTTP_BARE_LF, b"GET /"),
    (b"0\r\n\rGET /", R.HTTP_BARE_CR, b"ET /"),
    (b"0\r\nGET /admin HTTP/1.1\r\n", R.HTTP_TRAILER, b"ET /admin HTTP/1.1\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "reason", "rest"), CHUNKS_DENIED, ids=lambda value: repr(value)[:60])
def test_a_malformed_chunked_body_is_denied_at_the_byte_that_shows_it(
    body: bytes, reason: Reason, rest: bytes
) -> None:
    allowed, denied = judge(CHUNKED + body)
    assert allowed.verdict is Verdict.ALLOW
    assert (denied.verdict, denied.reason) == (Verdict.DENY, reason)
    assert (CHUNKED + body)[denied.offset + 1 :] == rest


ALLOWED = [
    GET + b"\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"M-SEARCH /?a/../b//;\\%zz HTTP/1.1\r\nhost:a\r\n\r\n",
    b"GET /.well-known/...a/.a./%41%7e HTTP/1.1\r\nHost: [::1]:8080 \t\r\n\r\n",
    GET + b"X: \xe9 \t x\r\nEmpty:\r\nX: again\r\n\r\n",
    GET + b"Content-Length:  0005\t \r\n\r\nhello",
    GET + b"Content-Length: 9223372036854775807\r\n\r\n",
    GET + b"Expect: 100-continue\r\nConnection: close, X-Auth\r\n\r\n",
    GET + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n00000001\r\n!\r\n0\r\n\r\n",
    CHUNKED.replace(b"chunked", b"\t CHUNKED \t") + b"00\r\n\r\n",
    CHUNKED + b"7fffffff\r\n",
    GET.replace(b"GET", b"DELETE") + b"Content-Length: 1\r\n\r\n\x00",
]


@pytest.mark.parametrize("stream", ALLOWED, ids=lambda value: repr(value)[:60])
def test_a_well_formed_request_is_allowed_and_its_body_not_looked_at(stream: bytes) -> None:
    (judgement,) = judge(stream)
    assert (judgement.verdict, judgement.reason, judgement.rule) == (Verdict.ALLOW, Reason.ALLOWED, 0)
    assert stream[: judgement.offset + 1].endswith(b"\r\n\r\n")


def test_extensions_and_trailers_pass_where_the_policy_opts_in() -> None:
    tables = compile_tables(
        RulesetSpec((HttpRule("any"),), "default", chunk_extensions=True, trailers=True)
    ).data
    body = b'5;a="b" c\r\nhello\r\n0 ;last\r\nDigest: x\r\n\r\n'
    assert [j.verdict for j in judge(CHUNKED + body + GET + b"\r\n", tables)] == [Verdict.ALLOW] * 2
    for bad, reason in [
        (b"5;a\nb\r\n", Reason.HTTP_BARE_LF),
        (b"5;a\rb\r\n", Reason.HTTP_BARE_CR),
        (b"5 5\r\n", Reason.HTTP_CHUNK_EXTENSION),
        (b"5;\x00\r\n", Reason.HTTP_CONTROL_BYTE),
        (b"0\r\nTransfer-Encoding: chunked\r\n", Reason.HTTP_TRAILER),
        (b"0\r\ncontent_length: 5\r\n", Reason.HTTP_TRAILER),
        (b"0\r\nX: y\n\r\n", Reason.HTTP_BARE_LF),
    ]:
        assert judge(CHUNKED + bad, tables)[-1].reason is reason


def test_a_header_that_a_rule_names_may_not_occur_twice_nor_have_an_alias() -> None:
    rule = HttpRule("r", headers=(HeaderRule("x-team", HeaderOp.EXACT, "a"),))
    tables = compile_tables(RulesetSpec((rule,), "default")).data
    assert judge(GET + b"X-Team: a\r\n\r\n", tables)[0].verdict is Verdict.ALLOW
    assert judge(GET + b"X-Team: a\r\nx-team: b\r\n", tables)[0].reason is Reason.HTTP_AMBIGUOUS_HEADER
    assert judge(GET + b"X_Team: a\r\n", tables)[0].reason is Reason.HTTP_HEADER_UNDERSCORE


def test_a_head_of_more_than_64_kib_is_denied_at_its_65537th_byte() -> None:
    fits = GET + b"X: " + b"y" * (65536 - len(GET) - 7) + b"\r\n\r\n"
    assert len(fits) == 65536
    assert judge(fits)[0].verdict is Verdict.ALLOW
    (judgement,) = judge(fits.replace(b"X: ", b"X:  "))
    assert (judgement.reason, judgement.offset) == (Reason.HTTP_HEAD_TOO_LONG, 65536)
