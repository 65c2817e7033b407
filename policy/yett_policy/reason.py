"""Why a verdict is what it is: one value per cause, the same numbers in kernel, logs and metrics.

Numbers and names are those of `enum reason` in bpf_src/include/yett_abi.h (a test compares
them through the compiler); append-only.
"""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """See the header for what each means."""

    NONE = 0
    # passed
    ALLOWED = 1
    NOT_ENFORCED = 2
    REPLY = 3
    RELATED = 4
    HOST = 5
    LINK = 6
    INJECTED = 7
    # denied by policy
    POLICY_DENIED = 16
    DENY_RULE = 17
    POLICY_DENIED_L7 = 18
    DENY_RULE_L7 = 19
    # denied: the node is not able to judge
    NOT_READY = 24
    UNKNOWN_ENDPOINT = 25
    FLOW_TABLE_FULL = 26
    RULESET_GONE = 27
    SIDECAR_DOWN = 28
    INTERNAL = 29
    SERVICE_WITHOUT_BACKENDS = 30
    SERVICE_MIXED = 31
    # denied: L2 to L4
    SPOOFED_SOURCE = 32
    ETHERTYPE = 33
    VLAN_TAG = 34
    TRUNCATED = 35
    FRAGMENT = 36
    IP_OPTIONS = 37
    IPV6_EXTENSION = 38
    PROTOCOL = 39
    MIDSTREAM = 40
    TCP_FLAGS = 41
    TCP_HANDSHAKE = 42
    TCP_SYN_DATA = 43
    TCP_URGENT = 44
    TCP_RETRANSMIT_DIFFERS = 45
    TCP_RETRANSMIT_UNKNOWN = 46
    TCP_FUTURE_SEGMENT = 47
    TCP_FIN_IN_REQUEST = 48
    TCP_BUSY = 49
    POISONED = 50
    # denied: HTTP grammar
    HTTP_METHOD = 64
    HTTP_TARGET = 65
    HTTP_TARGET_FORM = 66
    HTTP_VERSION = 67
    HTTP_LEADING_CRLF = 68
    HTTP_BARE_LF = 69
    HTTP_BARE_CR = 70
    HTTP_HEADER_NAME = 71
    HTTP_SPACE_BEFORE_COLON = 72
    HTTP_OBS_FOLD = 73
    HTTP_CONTROL_BYTE = 74
    HTTP_NO_HOST = 75
    HTTP_HOST = 76
    HTTP_DUPLICATE_HOST = 77
    HTTP_CONTENT_LENGTH = 78
    HTTP_DUPLICATE_LENGTH = 79
    HTTP_TRANSFER_ENCODING = 80
    HTTP_DUPLICATE_ENCODING = 81
    HTTP_LENGTH_AND_ENCODING = 82
    HTTP_ENCODING_IN_10 = 83
    HTTP_CHUNK = 84
    HTTP_CHUNK_EXTENSION = 85
    HTTP_TRAILER = 86
    HTTP_AMBIGUOUS_HEADER = 87
    HTTP_HEADER_UNDERSCORE = 88
    HTTP_HEAD_TOO_LONG = 89
    HTTP_HEAD_TIMEOUT = 90
    HTTP2_PREFACE = 91
    TLS_ON_HTTP_PORT = 92
    UPGRADE_DENIED = 93
    CONNECT_DENIED = 94
    # denied: a target that servers read in different ways
    AMBIGUOUS_DOT_SEGMENT = 96
    AMBIGUOUS_EMPTY_SEGMENT = 97
    AMBIGUOUS_ENCODED_DOT = 98
    AMBIGUOUS_ENCODED_SLASH = 99
    AMBIGUOUS_ENCODED_BACKSLASH = 100
    AMBIGUOUS_ENCODED_PERCENT = 101
    AMBIGUOUS_ENCODED_NUL = 102
    AMBIGUOUS_BACKSLASH = 103
    AMBIGUOUS_SEMICOLON = 104
    AMBIGUOUS_FRAGMENT = 105
    AMBIGUOUS_NON_ASCII = 106
    AMBIGUOUS_PERCENT = 107
    COUNT = 128
