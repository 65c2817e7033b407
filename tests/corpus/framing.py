"""HTTP/1 framing: every class of request smuggling and desynchronisation we know of.

All against the ruleset `any`, so nothing but the grammar denies.
"""

from __future__ import annotations

from corpus.case import Case, allow, deny
from yett_policy.reason import Reason

LINE = b"GET /public HTTP/1.1\r\n"
HOST = b"Host: api\r\n"
GET = LINE + HOST + b"\r\n"
POST = b"POST /public HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /private HTTP/1.1\r\nHost: api\r\n\r\n"

R = Reason

REQUEST_LINE: tuple[Case, ...] = (
    deny("empty line before the request", b"\r\n", GET, R.HTTP_LEADING_CRLF),
    deny("bare LF before the request", b"\n", GET, R.HTTP_LEADING_CRLF, R.HTTP_BARE_LF),
    deny("bare CR before the request", b"\rG", GET[1:], R.HTTP_LEADING_CRLF, R.HTTP_BARE_CR),
    deny("space before the method", b" ", GET, R.HTTP_METHOD),
    deny("tab before the method", b"\t", GET, R.HTTP_METHOD),
    deny("NUL before the method", b"\0", GET, R.HTTP_METHOD),
    deny("NUL in the method", b"GE\0", b"T /public HTTP/1.1\r\n\r\n", R.HTTP_METHOD),
    deny("delimiter in the method", b"GE(", b"T /public HTTP/1.1\r\n\r\n", R.HTTP_METHOD),
    deny("8-bit byte in the method", b"G\xc8", b"T /public HTTP/1.1\r\n\r\n", R.HTTP_METHOD),
    deny("colon in the method", b"GET:", b" /public HTTP/1.1\r\n\r\n", R.HTTP_METHOD),
    deny("tab after the method", b"GET\t", b"/public HTTP/1.1\r\n\r\n", R.HTTP_METHOD),
    deny("line end after the method", b"GET\r", b"\n\r\n", R.HTTP_METHOD),
    deny(
        "two spaces after the method",
        b"GET  ",
        b"/public HTTP/1.1\r\n\r\n",
        R.HTTP_TARGET_FORM,
        R.HTTP_TARGET,
    ),
    deny("target without a slash", b"GET p", b"ublic HTTP/1.1\r\n\r\n", R.HTTP_TARGET_FORM),
    deny("absolute form", b"GET http:", b"//api/public HTTP/1.1\r\n" + HOST + b"\r\n", R.HTTP_TARGET_FORM),
    deny("asterisk form", b"OPTIONS *", b" HTTP/1.1\r\n" + HOST + b"\r\n", R.HTTP_TARGET_FORM),
    deny("NUL in the target", b"GET /\0", b" HTTP/1.1\r\n\r\n", R.HTTP_TARGET),
    deny("control byte in the target", b"GET /a\x01", b" HTTP/1.1\r\n\r\n", R.HTTP_TARGET),
    deny("DEL in the target", b"GET /a\x7f", b" HTTP/1.1\r\n\r\n", R.AMBIGUOUS_NON_ASCII),
    deny("tab in the target", b"GET /a\t", b" HTTP/1.1\r\n\r\n", R.HTTP_TARGET),
    deny("form feed in the target", b"GET /a\x0c", b"HTTP/1.1\r\n\r\n", R.HTTP_TARGET),
    deny("HTTP/0.9", b"GET /public\r\n", SMUGGLED, R.HTTP_VERSION),
    deny("HTTP/0.9 with a bare LF", b"GET /public\n", SMUGGLED, R.HTTP_VERSION, R.HTTP_BARE_LF),
    deny("empty version", b"GET /public \r", b"\n\r\n", R.HTTP_VERSION),
    deny("two spaces before the version", b"GET /public  ", b"HTTP/1.1\r\n\r\n", R.HTTP_VERSION),
    deny("space in the target", b"GET /public x", b" HTTP/1.1\r\n\r\n", R.HTTP_VERSION),
    deny("space after the version", LINE[:-2] + b" ", b"\r\n\r\n", R.HTTP_VERSION),
    deny("lower-case version", b"GET /public h", b"ttp/1.1\r\n\r\n", R.HTTP_VERSION),
    deny("HTTP/2.0 in HTTP/1", b"GET /public HTTP/2", b".0\r\n" + HOST + b"\r\n", R.HTTP_VERSION),
    deny("HTTP/1.2", b"GET /public HTTP/1.2", b"\r\n" + HOST + b"\r\n", R.HTTP_VERSION),
    deny("HTTP/1.10", b"GET /public HTTP/1.10", b"\r\n" + HOST + b"\r\n", R.HTTP_VERSION),
    deny("HTTP/01.1", b"GET /public HTTP/0", b"1.1\r\n" + HOST + b"\r\n", R.HTTP_VERSION),
    deny("HTTP/1,1", b"GET /public HTTP/1,", b"1\r\n" + HOST + b"\r\n", R.HTTP_VERSION),
    deny("HTTP/1.1 glued to the target", b"GET /publicHTTP/1.1\r", b"\n" + HOST + b"\r\n", R.HTTP_VERSION),
    deny("bare LF after the version", LINE[:-2] + b"\n", HOST + b"\r\n", R.HTTP_BARE_LF, R.HTTP_VERSION),
    deny("bare CR after the version", LINE[:-1] + b"H", HOST[1:] + b"\r\n", R.HTTP_BARE_CR, R.HTTP_VERSION),
    deny(
        "two CR after the version", LINE[:-1] + b"\r", b"\n" + HOST + b"\r\n", R.HTTP_BARE_CR, R.HTTP_VERSION
    ),
    deny("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\n", b"SM\r\n\r\n", R.HTTP2_PREFACE),
    deny("TLS client hello", b"\x16\x03\x01", b"\x02\x00\x01\x00\x01\xfc\x03\x03", R.TLS_ON_HTTP_PORT),
    deny("CONNECT", b"CONNECT api:443 HTTP/1.1\r\n", b"Host: api:443\r\n\r\n", R.CONNECT_DENIED),
    deny(
        "a response instead of a request", b"HTTP/1.1 ", b"200 OK\r\n\r\n", R.HTTP_METHOD, R.HTTP_TARGET_FORM
    ),
    deny("a method without an end", b"A" * 70000, b"", R.HTTP_HEAD_TOO_LONG, R.HTTP_METHOD),
    deny("a target without an end", b"GET /" + b"a" * 70000, b"", R.HTTP_HEAD_TOO_LONG),
)

HEADER_LINES: tuple[Case, ...] = (
    deny("LF only", b"GET /public HTTP/1.1\n", b"Host: api\n\n", R.HTTP_BARE_LF, R.HTTP_VERSION),
    deny("fold after the request line", LINE + b" ", b"X: y\r\n" + HOST + b"\r\n", R.HTTP_OBS_FOLD),
    deny("tab after the request line", LINE + b"\t", b"X: y\r\n" + HOST + b"\r\n", R.HTTP_OBS_FOLD),
    deny("folded value", LINE + HOST + b"X: a\r\n ", b"b\r\n\r\n", R.HTTP_OBS_FOLD),
    deny("folded value with a tab", LINE + HOST + b"X: a\r\n\t", b"b\r\n\r\n", R.HTTP_OBS_FOLD),
    deny(
        "folded Content-Length",
        POST + b"Content-Length:\r\n ",
        b"5\r\n\r\nhello",
        R.HTTP_OBS_FOLD,
        R.HTTP_CONTENT_LENGTH,
    ),
    deny(
        "folded Transfer-Encoding",
        POST + b"Transfer-Encoding:\r\n ",
        b"chunked\r\n\r\n",
        R.HTTP_OBS_FOLD,
        R.HTTP_TRANSFER_ENCODING,
    ),
    deny("space before the colon", LINE + HOST + b"X :", b" y\r\n\r\n", R.HTTP_SPACE_BEFORE_COLON),
    deny("tab before the colon", LINE + HOST + b"X\t:", b" y\r\n\r\n", R.HTTP_SPACE_BEFORE_COLON),
    deny(
        "space before the colon of Content-Length",
        POST + b"Content-Length :",
        b" 5\r\n\r\n",
        R.HTTP_SPACE_BEFORE_COLON,
    ),
    deny(
        "space before the colon of Transfer-Encoding",
        POST + b"Transfer-Encoding :",
        b" chunked\r\n\r\n",
        R.HTTP_SPACE_BEFORE_COLON,
    ),
    deny(
        "space in a name", LINE + HOST + b"X y:", b" z\r\n\r\n", R.HTTP_SPACE_BEFORE_COLON, R.HTTP_HEADER_NAME
    ),
    deny("empty name", LINE + HOST + b":", b" y\r\n\r\n", R.HTTP_HEADER_NAME),
    deny("NUL in a name", LINE + HOST + b"X\0", b": y\r\n\r\n", R.HTTP_HEADER_NAME),
    deny("8-bit byte in a name", LINE + HOST + b"X\xa0", b": y\r\n\r\n", R.HTTP_HEADER_NAME),
    deny(
        "8-bit byte before Content-Length", POST + b"\xa0", b"Content-Length: 5\r\n\r\n", R.HTTP_HEADER_NAME
    ),
    deny("delimiter in a name", LINE + HOST + b"X(", b"): y\r\n\r\n", R.HTTP_HEADER_NAME),
    deny("slash in a name", LINE + HOST + b"X/", b"Y: y\r\n\r\n", R.HTTP_HEADER_NAME),
    deny("line without a colon", LINE + HOST + b"X\r\n", b"\r\n", R.HTTP_HEADER_NAME),
    deny(
        "underscore for the dash of Content-Length",
        POST + b"Content_Length:",
        b" 5\r\n\r\nhello",
        R.HTTP_HEADER_UNDERSCORE,
    ),
    deny(
        "underscore for the dash of Transfer-Encoding",
        POST + b"Transfer_Encoding:",
        b" chunked\r\n\r\n",
        R.HTTP_HEADER_UNDERSCORE,
    ),
    deny("NUL in a value", LINE + HOST + b"X: a\0", b"b\r\n\r\n", R.HTTP_CONTROL_BYTE),
    deny("control byte in a value", LINE + HOST + b"X: a\x01", b"\r\n\r\n", R.HTTP_CONTROL_BYTE),
    deny("vertical tab in a value", LINE + HOST + b"X: a\x0b", b"\r\n\r\n", R.HTTP_CONTROL_BYTE),
    deny("DEL in a value", LINE + HOST + b"X: a\x7f", b"\r\n\r\n", R.HTTP_CONTROL_BYTE),
    deny("bare LF in a value", LINE + HOST + b"X: a\n", b"Y: b\r\n\r\n", R.HTTP_BARE_LF),
    deny("bare CR in a value", LINE + HOST + b"X: a\rb", b"\r\n\r\n", R.HTTP_BARE_CR),
    deny("two CR at the end of a line", LINE + HOST + b"X: a\r\r", b"\n\r\n", R.HTTP_BARE_CR),
    deny("bare LF as the end of the head", LINE + HOST + b"\n", SMUGGLED, R.HTTP_BARE_LF),
    deny("bare CR as the end of the head", LINE + HOST + b"\rX", SMUGGLED, R.HTTP_BARE_CR),
    deny("bare LF after Host", LINE + b"Host: api\n", b"\r\n", R.HTTP_BARE_LF),
    deny(
        "a header value without an end",
        LINE + HOST + b"X: " + b"a" * 70000,
        b"\r\n\r\n",
        R.HTTP_HEAD_TOO_LONG,
    ),
    deny("headers without an end", LINE + HOST + b"X: a\r\n" * 12000, b"\r\n", R.HTTP_HEAD_TOO_LONG),
)

HOSTS: tuple[Case, ...] = (
    deny("no Host", LINE + b"\r\n", b"", R.HTTP_NO_HOST),
    deny("no Host among other headers", LINE + b"X: y\r\nHosts: api\r\n\r\n", b"", R.HTTP_NO_HOST),
    deny("two Hosts", LINE + HOST + b"Host: other\r\n\r\n", b"", R.HTTP_DUPLICATE_HOST),
    deny("two equal Hosts", LINE + HOST + HOST + b"\r\n", b"", R.HTTP_DUPLICATE_HOST),
    deny("two Hosts in other case", LINE + HOST + b"hOsT: other\r\n\r\n", b"", R.HTTP_DUPLICATE_HOST),
    deny("space in the host", LINE + b"Host: api other\r\n\r\n", b"", R.HTTP_HOST),
    deny("list of hosts", LINE + b"Host: api,other\r\n\r\n", b"", R.HTTP_HOST),
    deny("userinfo in the host", LINE + b"Host: me@api\r\n\r\n", b"", R.HTTP_HOST),
    deny("path in the host", LINE + b"Host: api/x\r\n\r\n", b"", R.HTTP_HOST),
    deny("scheme in the host", LINE + b"Host: http://api\r\n\r\n", b"", R.HTTP_HOST),
)

LENGTHS: tuple[Case, ...] = (
    *(
        deny(
            f"Content-Length {value!r}",
            POST + b"Content-Length: " + value + b"\r\n\r\n",
            b"hello" + SMUGGLED,
            *reasons,
        )
        for value, reasons in (
            (b"+5", (R.HTTP_CONTENT_LENGTH,)),
            (b"-5", (R.HTTP_CONTENT_LENGTH,)),
            (b"5, 5", (R.HTTP_CONTENT_LENGTH,)),
            (b"5,5", (R.HTTP_CONTENT_LENGTH,)),
            (b"5, 6", (R.HTTP_CONTENT_LENGTH,)),
            (b"5 5", (R.HTTP_CONTENT_LENGTH,)),
            (b"5\t6", (R.HTTP_CONTENT_LENGTH,)),
            (b"0x5", (R.HTTP_CONTENT_LENGTH,)),
            (b"5_0", (R.HTTP_CONTENT_LENGTH,)),
            (b"5e0", (R.HTTP_CONTENT_LENGTH,)),
            (b"5.0", (R.HTTP_CONTENT_LENGTH,)),
            (b"5;", (R.HTTP_CONTENT_LENGTH,)),
            (b"five", (R.HTTP_CONTENT_LENGTH,)),
            (b"", (R.HTTP_CONTENT_LENGTH,)),
            (b"   ", (R.HTTP_CONTENT_LENGTH,)),
            (b"\x0b5", (R.HTTP_CONTENT_LENGTH, R.HTTP_CONTROL_BYTE)),
            (b"5\x0c", (R.HTTP_CONTENT_LENGTH, R.HTTP_CONTROL_BYTE)),
            (b"5\0", (R.HTTP_CONTENT_LENGTH, R.HTTP_CONTROL_BYTE)),
            (b"\xa05", (R.HTTP_CONTENT_LENGTH,)),
            (b"\xef\xbc\x95", (R.HTTP_CONTENT_LENGTH,)),
            (b"9223372036854775808", (R.HTTP_CONTENT_LENGTH,)),
            (b"18446744073709551616", (R.HTTP_CONTENT_LENGTH,)),
            (b"18446744073709551621", (R.HTTP_CONTENT_LENGTH,)),
            (b"1" * 40, (R.HTTP_CONTENT_LENGTH,)),
        )
    ),
    deny(
        "two equal lengths",
        POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"hello",
        R.HTTP_DUPLICATE_LENGTH,
    ),
    deny(
        "two different lengths",
        POST + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\n",
        b"hello",
        R.HTTP_DUPLICATE_LENGTH,
    ),
    deny(
        "two lengths in other case",
        POST + b"Content-Length: 0\r\ncontent-length: 5\r\n\r\n",
        b"hello",
        R.HTTP_DUPLICATE_LENGTH,
    ),
)

ENCODINGS: tuple[Case, ...] = (
    deny(
        "length, then encoding",
        POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\n\r\nG",
        R.HTTP_LENGTH_AND_ENCODING,
    ),
    deny(
        "encoding, then length",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n",
        b"0\r\n\r\nG",
        R.HTTP_LENGTH_AND_ENCODING,
    ),
    deny(
        "encoding, then length 0",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        b"0\r\n\r\nG",
        R.HTTP_LENGTH_AND_ENCODING,
    ),
    *(
        deny(
            f"Transfer-Encoding {value!r}",
            POST + b"Transfer-Encoding: " + value + b"\r\n\r\n",
            b"0\r\n\r\n" + SMUGGLED,
            *reasons,
        )
        for value, reasons in (
            (b"gzip, chunked", (R.HTTP_TRANSFER_ENCODING,)),
            (b"gzip,chunked", (R.HTTP_TRANSFER_ENCODING,)),
            (b"chunked, identity", (R.HTTP_TRANSFER_ENCODING,)),
            (b"chunked, chunked", (R.HTTP_TRANSFER_ENCODING,)),
            (b"identity", (R.HTTP_TRANSFER_ENCODING,)),
            (b"gzip", (R.HTTP_TRANSFER_ENCODING,)),
            (b"xchunked", (R.HTTP_TRANSFER_ENCODING,)),
            (b"chunkedx", (R.HTTP_TRANSFER_ENCODING,)),
            (b"chunke", (R.HTTP_TRANSFER_ENCODING,)),
            (b"chunked,", (R.HTTP_TRANSFER_ENCODING,)),
            (b",chunked", (R.HTTP_TRANSFER_ENCODING,)),
            (b"chunked chunked", (R.HTTP_TRANSFER_ENCODING,)),
            (b"chunked;q=1", (R.HTTP_TRANSFER_ENCODING,)),
            (b'"chunked"', (R.HTTP_TRANSFER_ENCODING,)),
            (b"", (R.HTTP_TRANSFER_ENCODING,)),
            (b"\x0bchunked", (R.HTTP_TRANSFER_ENCODING, R.HTTP_CONTROL_BYTE)),
            (b"chunked\x0b", (R.HTTP_TRANSFER_ENCODING, R.HTTP_CONTROL_BYTE)),
            (b"chunked\0", (R.HTTP_TRANSFER_ENCODING, R.HTTP_CONTROL_BYTE)),
            (b"\xa0chunked", (R.HTTP_TRANSFER_ENCODING,)),
            (b"chunked\x85", (R.HTTP_TRANSFER_ENCODING,)),
            (b"chunked\rX", (R.HTTP_BARE_CR, R.HTTP_TRANSFER_ENCODING)),
            (b"\nchunked", (R.HTTP_BARE_LF, R.HTTP_TRANSFER_ENCODING)),
        )
    ),
    deny(
        "encoding twice",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\n\r\n",
        R.HTTP_DUPLICATE_ENCODING,
    ),
    deny(
        "encoding twice, one identity",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-encoding: identity\r\n\r\n",
        b"0\r\n\r\n",
        R.HTTP_DUPLICATE_ENCODING,
        R.HTTP_TRANSFER_ENCODING,
    ),
    deny(
        "encoding in HTTP/1.0",
        b"POST /public HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
        b"0\r\n\r\n",
        R.HTTP_ENCODING_IN_10,
    ),
    deny(
        "encoding on GET with a length",
        LINE + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        b"0\r\n\r\n",
        R.HTTP_LENGTH_AND_ENCODING,
    ),
)

CHUNKS: tuple[Case, ...] = (
    *(
        deny(f"chunk size {line!r}, then {rest[:12]!r}", CHUNKED + line, rest, *reasons)
        for line, rest, reasons in (
            (b"0x", b"5\r\nhello\r\n0\r\n\r\n", (R.HTTP_CHUNK,)),
            (b"5_", b"0\r\n", (R.HTTP_CHUNK,)),
            (b"+", b"5\r\nhello\r\n", (R.HTTP_CHUNK,)),
            (b"-", b"5\r\nhello\r\n", (R.HTTP_CHUNK,)),
            (b" ", b"5\r\nhello\r\n", (R.HTTP_CHUNK,)),
            (b"5 ", b"\r\nhello\r\n", (R.HTTP_CHUNK, R.HTTP_CHUNK_EXTENSION)),
            (b"5\t", b"\r\nhello\r\n", (R.HTTP_CHUNK, R.HTTP_CHUNK_EXTENSION)),
            (b"\r", b"\n5\r\nhello\r\n", (R.HTTP_CHUNK,)),
            (b"\n", b"5\r\nhello\r\n", (R.HTTP_CHUNK, R.HTTP_BARE_LF)),
            (b"g", b"\r\n", (R.HTTP_CHUNK,)),
            (b"5.", b"0\r\n", (R.HTTP_CHUNK,)),
            (b"5,", b"5\r\n", (R.HTTP_CHUNK,)),
            (b"\0", b"5\r\nhello\r\n", (R.HTTP_CHUNK,)),
            (b"000000005", b"\r\nhello\r\n0\r\n\r\n", (R.HTTP_CHUNK,)),
            (b"100000005\r\n", b"hello\r\n0\r\n\r\n", (R.HTTP_CHUNK,)),
            (b"80000000\r\n", b"hello", (R.HTTP_CHUNK,)),
            (b"ffffffff\r\n", b"hello", (R.HTTP_CHUNK,)),
            (b"5\n", b"hello\r\n0\r\n\r\n", (R.HTTP_CHUNK, R.HTTP_BARE_LF)),
            (b"5\rX", b"\nhello\r\n", (R.HTTP_CHUNK, R.HTTP_BARE_CR)),
            (b"5\r\r", b"\nhello\r\n", (R.HTTP_CHUNK, R.HTTP_BARE_CR)),
            (b"5;", b"ext\r\nhello\r\n0\r\n\r\n", (R.HTTP_CHUNK_EXTENSION,)),
            (b"5;", b"a=b\nhello\r\n0\r\n\r\n", (R.HTTP_CHUNK_EXTENSION,)),
            (b"0;", b"\n\r\n" + SMUGGLED, (R.HTTP_CHUNK_EXTENSION,)),
            (b"5\r\nhelloX", b"\r\n0\r\n\r\n", (R.HTTP_CHUNK,)),
            (b"5\r\nhello\n", b"0\r\n\r\n", (R.HTTP_CHUNK, R.HTTP_BARE_LF)),
            (b"5\r\nhello0", b"\r\n\r\n", (R.HTTP_CHUNK,)),
            (b"5\r\nhello\rX", b"0\r\n\r\n", (R.HTTP_CHUNK, R.HTTP_BARE_CR)),
            (b"0\r\nX", b": y\r\n\r\n", (R.HTTP_TRAILER,)),
            (b"0\r\nContent-Length:", b" 50\r\n\r\n", (R.HTTP_TRAILER,)),
            (b"0\r\nG", b"ET /private HTTP/1.1\r\n\r\n", (R.HTTP_TRAILER,)),
            (b"0\r\n ", b"\r\n\r\n", (R.HTTP_TRAILER, R.HTTP_CHUNK, R.HTTP_OBS_FOLD)),
            (b"0\r\n\n", SMUGGLED, (R.HTTP_BARE_LF, R.HTTP_CHUNK, R.HTTP_TRAILER)),
            (b"0\r\n\rG", SMUGGLED[1:], (R.HTTP_BARE_CR, R.HTTP_CHUNK, R.HTTP_TRAILER)),
            (b"00\r\nX", b": y\r\n\r\n", (R.HTTP_TRAILER,)),
        )
    ),
)

ALLOWED: tuple[Case, ...] = (
    allow("plain GET", GET),
    allow("HTTP/1.0", b"GET /public HTTP/1.0\r\nHost: api\r\n\r\n"),
    allow("Host with a port", LINE + b"Host: api:8080\r\n\r\n"),
    allow("Host in other case", LINE + b"hOST: Api\r\n\r\n"),
    allow("Host that is an IPv6 address", LINE + b"Host: [fd00::1]:80\r\n\r\n"),
    allow("Host without a space", LINE + b"Host:api\r\n\r\n"),
    allow("spaces and tabs around a value", LINE + b"Host: \t api \t \r\nX:\t y \r\n\r\n"),
    allow("empty value", LINE + HOST + b"X:\r\nY: \r\n\r\n"),
    allow("8-bit bytes in a value", LINE + HOST + b"X: \xc3\xa9\xff\r\n\r\n"),
    allow("colon in a value", LINE + HOST + b"Referer: http://a/b:c\r\n\r\n"),
    allow("the same unknown header twice", LINE + HOST + b"X: 1\r\nX: 2\r\n\r\n"),
    allow(
        "a header that only begins like a known one",
        LINE + HOST + b"Hos: a\r\nHostt: b\r\nContent-Lengths: x\r\n\r\n",
    ),
    allow("an underscore in an unknown header", LINE + HOST + b"X_Y: z\r\n\r\n"),
    allow("many headers", LINE + HOST + b"".join(b"X-%d: %d\r\n" % (i, i) for i in range(200)) + b"\r\n"),
    allow("a long value", LINE + HOST + b"X: " + b"a" * 8000 + b"\r\n\r\n"),
    allow("every token character in a name", LINE + HOST + b"!#$%&'*+-.^_`|~09azAZ: y\r\n\r\n"),
    allow("length 0", POST + b"Content-Length: 0\r\n\r\n"),
    allow("body by length", POST + b"Content-Length: 5\r\n\r\nhello"),
    allow(
        "a body that looks like a request", POST + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED
    ),
    allow("GET with a body", LINE + HOST + b"Content-Length: 5\r\n\r\nhello"),
    allow("body in chunks", CHUNKED + b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n"),
    allow("empty body in chunks", CHUNKED + b"0\r\n\r\n"),
    allow("chunk size with leading zeros", CHUNKED + b"00000005\r\nhello\r\n000\r\n\r\n"),
    allow("chunk size in both cases", CHUNKED + b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
    allow(
        "a chunk that looks like a request", CHUNKED + b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n"
    ),
    allow("Expect: 100-continue", POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
    allow("an unknown method", b"BREW /pot HTTP/1.1\r\n" + HOST + b"\r\n"),
)

CASES: tuple[Case, ...] = (*REQUEST_LINE, *HEADER_LINES, *HOSTS, *LENGTHS, *ENCODINGS, *CHUNKS, *ALLOWED)
