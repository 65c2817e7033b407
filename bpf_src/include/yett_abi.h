/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The contract between the BPF programs and user space: every struct, number and
 * limit that both sides see, and nothing else.
 *
 * The BPF programs include this file.  The cffi extension compiles it too: it feeds
 * the preprocessed text to cffi (with YETT_CDEF defined) and the plain header to the
 * C compiler, so no struct, field or number is ever written twice.  Hence the style:
 * no function, no macro constant, enums for numbers.
 *
 * Byte order: host order unless a field says "network order".
 * Addresses: always 16 bytes, network order; IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2).
 * Enums of numbers that reach logs, metrics or disks are append-only.
 */
#ifndef YETT_ABI_H
#define YETT_ABI_H

#ifndef YETT_CDEF
#include <linux/types.h>
#endif

enum yett_limits {
	YETT_ABI_VERSION = 2,
	YETT_ADDR_LEN = 16,
	YETT_ENDPOINT_ADDRS = 8,   /* addresses of one endpoint */
	YETT_TRACKED_HEADERS = 32, /* headers the automaton knows by number in one ruleset */
	YETT_HEAD_EXCERPT = 512,   /* bytes of a request head kept in an event */
	YETT_HEAD_MAX = 65536,	   /* bytes of one request head; more is HTTP_HEAD_TOO_LONG */
	YETT_CHUNK_DIGITS = 8,	   /* hex digits of a chunk size */
	YETT_RULE_NONE = 0,	   /* rule number: no rule */
	YETT_RULE_MAX = 65536,	   /* rule numbers on a node (index of rule_hits) */
	YETT_RULESET_NONE = 0,	   /* policy_entry.ruleset: plain L3/L4 */
	YETT_RULESET_TIERS = 4,
	YETT_SERVICE_BACKENDS = 16, /* of one service port that are judged */
};

/* Numbers of identities that the data plane itself must know. */
enum reserved_identity {
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2, /* every address that ipcache does not know */
	IDENTITY_HOST_APISERVER = 16,
};

enum direction {
	DIR_INGRESS = 0, /* the endpoint is the server */
	DIR_EGRESS = 1,	 /* the endpoint is the client */
};

enum verdict {
	VERDICT_DENY = 0,
	VERDICT_ALLOW = 1,
	VERDICT_AUDIT = 2,    /* passes; would be denied were the policy not `audit: true` */
	VERDICT_REDIRECT = 3, /* handed to the sidecar engine */
};

/* Why.  One value per cause, also the index of the counters.  Append-only. */
enum reason {
	REASON_NONE = 0,
	/* passed */
	REASON_ALLOWED = 1,	 /* an allow rule matched */
	REASON_NOT_ENFORCED = 2, /* no policy selects the endpoint in this direction */
	REASON_REPLY = 3,
	REASON_RELATED = 4,  /* ICMP error that belongs to a flow */
	REASON_HOST = 5,     /* the node itself talks to its pod */
	REASON_LINK = 6,     /* ARP, neighbour discovery */
	REASON_INJECTED = 7, /* a reset or answer that yett itself made */

	/* denied by policy */
	REASON_POLICY_DENIED = 16,    /* default deny at L3/L4 */
	REASON_DENY_RULE = 17,	      /* an explicit deny rule at L3/L4 */
	REASON_POLICY_DENIED_L7 = 18, /* no HTTP rule allows the request */
	REASON_DENY_RULE_L7 = 19,     /* an HTTP deny rule matched */

	/* denied: the node is not able to judge */
	REASON_NOT_READY = 24,	      /* the endpoint has no document yet */
	REASON_UNKNOWN_ENDPOINT = 25, /* no endpoint is known behind this interface */
	REASON_FLOW_TABLE_FULL = 26,
	REASON_RULESET_GONE = 27, /* the head began under a ruleset that is no longer loaded */
	REASON_SIDECAR_DOWN = 28,
	REASON_INTERNAL = 29, /* a kernel helper failed */
	REASON_SERVICE_WITHOUT_BACKENDS = 30,
	REASON_SERVICE_MIXED = 31, /* backends of a service need different HTTP rules, or there
				    * are more kinds of them than can be judged */

	/* denied: L2 to L4 */
	REASON_SPOOFED_SOURCE = 32,
	REASON_ETHERTYPE = 33, /* neither IPv4, IPv6 nor ARP */
	REASON_VLAN_TAG = 34,
	REASON_TRUNCATED = 35, /* headers are cut short or contradict the lengths */
	REASON_FRAGMENT = 36,
	REASON_IP_OPTIONS = 37,
	REASON_IPV6_EXTENSION = 38,
	REASON_PROTOCOL = 39,  /* an IP protocol that policies cannot speak of */
	REASON_MIDSTREAM = 40, /* position in the HTTP stream unknown */
	REASON_TCP_FLAGS = 41,
	REASON_TCP_HANDSHAKE = 42, /* simultaneous open, split handshake, SYN in a live flow */
	REASON_TCP_SYN_DATA = 43,  /* data in a SYN (TCP Fast Open) */
	REASON_TCP_URGENT = 44,
	REASON_TCP_RETRANSMIT_DIFFERS = 45,
	REASON_TCP_RETRANSMIT_UNKNOWN = 46, /* inspected bytes no longer kept, cannot compare */
	REASON_TCP_FUTURE_SEGMENT = 47,
	REASON_TCP_FIN_IN_REQUEST = 48,
	REASON_TCP_BUSY = 49, /* another CPU judges the same flow right now */
	REASON_POISONED = 50, /* an earlier packet of the flow was denied */

	/* denied: HTTP grammar */
	REASON_HTTP_METHOD = 64,
	REASON_HTTP_TARGET = 65,      /* a byte that no request target may hold */
	REASON_HTTP_TARGET_FORM = 66, /* absolute, authority or asterisk form */
	REASON_HTTP_VERSION = 67,     /* not HTTP/1.0 or HTTP/1.1; HTTP/0.9 */
	REASON_HTTP_LEADING_CRLF = 68,
	REASON_HTTP_BARE_LF = 69,
	REASON_HTTP_BARE_CR = 70,
	REASON_HTTP_HEADER_NAME = 71,
	REASON_HTTP_SPACE_BEFORE_COLON = 72,
	REASON_HTTP_OBS_FOLD = 73,
	REASON_HTTP_CONTROL_BYTE = 74,
	REASON_HTTP_NO_HOST = 75,
	REASON_HTTP_HOST = 76, /* a Host value that is no host[:port] */
	REASON_HTTP_DUPLICATE_HOST = 77,
	REASON_HTTP_CONTENT_LENGTH = 78,
	REASON_HTTP_DUPLICATE_LENGTH = 79,
	REASON_HTTP_TRANSFER_ENCODING = 80, /* anything but exactly `chunked` */
	REASON_HTTP_DUPLICATE_ENCODING = 81,
	REASON_HTTP_LENGTH_AND_ENCODING = 82,
	REASON_HTTP_ENCODING_IN_10 = 83, /* Transfer-Encoding in HTTP/1.0 */
	REASON_HTTP_CHUNK = 84,
	REASON_HTTP_CHUNK_EXTENSION = 85,
	REASON_HTTP_TRAILER = 86,
	REASON_HTTP_AMBIGUOUS_HEADER = 87,  /* a header that a rule names occurs twice */
	REASON_HTTP_HEADER_UNDERSCORE = 88, /* an alias of a known header, `_` for `-` */
	REASON_HTTP_HEAD_TOO_LONG = 89,
	REASON_HTTP_HEAD_TIMEOUT = 90,
	REASON_HTTP2_PREFACE = 91,
	REASON_TLS_ON_HTTP_PORT = 92,
	REASON_UPGRADE_DENIED = 93,
	REASON_CONNECT_DENIED = 94,

	/* denied: a target that servers read in different ways */
	REASON_AMBIGUOUS_DOT_SEGMENT = 96,
	REASON_AMBIGUOUS_EMPTY_SEGMENT = 97,	  /* // */
	REASON_AMBIGUOUS_ENCODED_DOT = 98,	  /* %2e */
	REASON_AMBIGUOUS_ENCODED_SLASH = 99,	  /* %2f */
	REASON_AMBIGUOUS_ENCODED_BACKSLASH = 100, /* %5c */
	REASON_AMBIGUOUS_ENCODED_PERCENT = 101,	  /* %25 */
	REASON_AMBIGUOUS_ENCODED_NUL = 102,	  /* %00 */
	REASON_AMBIGUOUS_BACKSLASH = 103,
	REASON_AMBIGUOUS_SEMICOLON = 104,
	REASON_AMBIGUOUS_FRAGMENT = 105,  /* # */
	REASON_AMBIGUOUS_NON_ASCII = 106, /* a raw byte above 0x7e */
	REASON_AMBIGUOUS_PERCENT = 107,	  /* % without two hex digits */

	REASON_COUNT = 128,
};

/* -- rulesets: the tables of the HTTP automaton -------------------------------------- */

/*
 * A ruleset is the one value of an array map; the outer array-of-maps `rulesets0..3` is
 * chosen by tier.  A tier is the size of the value; the size fixes how a 15-bit state
 * number becomes an offset: index of the state's row in the u16 view = state << shift.
 *
 *   tier  value size  shift
 *      0      64 KiB      0
 *      1     256 KiB      2
 *      2       1 MiB      4
 *      3       4 MiB      6
 *
 * A policy entry names a ruleset by handle: (tier << 24) | slot, slot >= 1.
 *
 * Row of a state (u16 each): [0] operand, [1] action, [2 + class] next state per byte
 * class.  Bit 15 of a next state says that the state reached has an action to run.
 * Rows of states that end the scan (ACTION_DENY) hold only [0] and [1].
 */
enum ruleset_layout {
	RULESET_EVENT = 0x8000,
	RULESET_ROW_OPERAND = 0,
	RULESET_ROW_ACTION = 1,
	RULESET_ROW_NEXT = 2,
	RULESET_ACTION = 0x00ff,  /* of [1]: enum http_action */
	RULESET_REASON_SHIFT = 8, /* of [1]: the reason of ACTION_AMBIGUOUS; else 0 */
	RULESET_SET_KNOWN = 0xffff,
};

enum ruleset_flags {
	RULESET_AUDIT = 1,     /* what would be denied for policy passes as VERDICT_AUDIT */
	RULESET_FORBIDDEN = 2, /* denied by default: answer 403 instead of a bare reset */
	RULESET_DENIES = 4,    /* some rule denies for good: even under RULESET_AUDIT that is a
				* denial, and so is a stream that breaks the grammar */
};

/* What the engine does when it enters a state.  "operand" is [0] of the state's row,
 * "before" is [0] of the row of the state that the last byte left. */
enum http_action {
	ACTION_NONE = 0,
	ACTION_DENY = 1,	 /* operand: enum reason */
	ACTION_TARGET_END = 2,	 /* before: number of the rule set that method and path match, or
				  * RULESET_SET_KNOWN: the one that ACTION_RULE_SET told */
	ACTION_VERSION = 3,	 /* operand: 0 for HTTP/1.0, 1 for HTTP/1.1 */
	ACTION_HEADER = 4,	 /* operand: number of a tracked header; its name is complete */
	ACTION_VALUE_END = 5,	 /* before: number of the condition word to OR in */
	ACTION_LENGTH_DIGIT = 6, /* the byte is a digit of Content-Length */
	ACTION_CHUNKED = 7,	 /* Transfer-Encoding is exactly `chunked` */
	ACTION_AMBIGUOUS = 8,	 /* reason in the high byte of [1]; remembered, since some rule
				  * tolerates it.  Operand: as without an action, for the next
				  * byte may be the one of ACTION_TARGET_END */
	ACTION_HEAD_END = 9,
	ACTION_CHUNK_DIGIT = 10,    /* the byte is a hex digit of a chunk size */
	ACTION_CHUNK_LINE_END = 11, /* size known: skip the data, or the last chunk */
	ACTION_BODY_END = 12,	    /* the CRLF after the last chunk is complete */
	ACTION_RULE_SET = 13,	    /* inside the target.  Operand: number of the rule set; whatever
				     * follows in the target, ACTION_TARGET_END will keep it */
};

/* Numbers of the headers that every ruleset tracks; rules add theirs from FIRST_RULE on. */
enum tracked_header {
	HEADER_HOST = 0,
	HEADER_CONTENT_LENGTH = 1,
	HEADER_TRANSFER_ENCODING = 2,
	HEADER_UPGRADE = 3,
	HEADER_FIRST_RULE = 4,
};

/* The start of a ruleset's value.  Offsets of sets, alternatives and conditions count u64
 * words from the start of the value. */
struct ruleset {
	__u32 abi;	    /* YETT_ABI_VERSION */
	__u32 size;	    /* bytes in use */
	__u64 id;	    /* first 8 bytes of the digest, never 0 */
	__u32 flags;	    /* enum ruleset_flags */
	__u32 rule_base;    /* number on this node of rule 0; set by the loader, not digested */
	__u32 default_rule; /* rule (relative) that a denial without a matching rule is put down to
			     */
	__u16 start;	    /* state before the first byte of a request */
	__u16 chunk;	    /* state before a chunk size */
	__u16 chunk_end;    /* state before the CRLF that ends chunk data */
	__u16 trailer;	    /* state after the last chunk's size line */
	__u16 skip;	    /* state inside a header value that no rule looks at */
	__u16 classes;	    /* number of byte classes */
	__u32 sets;	    /* offset of struct rule_set[]; set 0 is the empty one */
	__u32 set_count;
	__u32 conditions; /* offset of u64[]; word k, for a tracked header k, is what its empty
			   * value gives (the state of ACTION_HEADER has operand k, and
			   * ACTION_VALUE_END may follow at once); word 0 is 0 */
	__u32 condition_count;
	__u64 initially;      /* conditions true until a header says otherwise (absence) */
	__u64 on_header[32];  /* conditions that the presence of a tracked header makes true */
	__u64 off_header[32]; /* ... makes false */
	__u8 class_of[256];
};

/* One word: the alternatives that apply once method and path are known. */
struct rule_set {
	__u32 first; /* offset of the first struct alternative, in u64 words */
	__u32 count;
};

enum alternative_kind {
	ALTERNATIVE_ALLOW = 0,
	ALTERNATIVE_DENY = 1,
	ALTERNATIVE_AUDIT_DENY = 2, /* a deny rule of an `audit: true` policy */
};

enum alternative_flags {
	ALTERNATIVE_FORBIDDEN = 1, /* a deny answers 403 */
	ALTERNATIVE_CONNECT = 2,   /* an allow rule that names the method CONNECT */
};

/*
 * In a set the denies come first, then audit-denies, then allows; the first whose needs
 * are met decides (an audit-deny only marks and the search goes on).
 */
struct alternative {
	__u32 rule; /* relative to rule_base */
	__u8 kind;
	__u8 flags;
	__u16 tolerates; /* bit (reason - REASON_AMBIGUOUS_DOT_SEGMENT): that ambiguity is fine */
	__u64 needs;	 /* conditions that must hold */
	__u64 upgrade;	 /* conditions any of which lets the request upgrade the protocol */
};

/* -- maps ----------------------------------------------------------------------------- */

/* map `config`, array of one */
enum config_flags {
	CONFIG_RECORD_ALLOWED = 1, /* write an event for allowed requests and new flows too */
};

struct config {
	__u32 abi;   /* YETT_ABI_VERSION: programs that find another number deny */
	__u32 epoch; /* changes when any verdict may have changed; flows judge again */
	__u32 flags; /* enum config_flags */
	__u32 deny_events_per_second; /* per CPU; the rest is counted in event.suppressed */
	__u32 head_timeout_ms;	      /* a request head must be complete in this time */
	__u32 history_slots;	      /* entries of map `history`, a power of two; 0: 1024 */
	__u32 gate; /* interface that leads to the sidecar; 0: there is none, its flows are denied
		     */
};

/* Marks of the sidecar's sockets (SO_MARK), by which the hooks know its packets.  A pod cannot
 * set them: marks and sockets end at the border of a network namespace. */
enum sidecar_mark {
	SIDECAR_INGRESS = 0x79650001, /* to a server whose ingress the sidecar has judged */
	SIDECAR_EGRESS = 0x79650002,  /* to a server, for a client whose egress it has judged */
	SIDECAR_ANSWER = 0x79650003,  /* to that client; and the listeners for egress rules */
	SIDECAR_REPLY = 0x79650004,   /* to a client of such a server; the listeners for ingress */
};

/* map `endpoints`, hash by ifindex of the host side */
enum endpoint_flags {
	ENDPOINT_READY = 1, /* its document is in */
	ENDPOINT_OPEN = 2,  /* its document says nothing of egress: services need no look */
};

struct endpoint {
	__u32 identity;
	__u32 policy; /* slot in `policies` */
	__u32 flags;  /* enum endpoint_flags */
	__u32 addr_count;
	__u8 addrs[8][16];
};

/* map `ipcache`, LPM */
struct ipcache_key {
	__u32 prefixlen; /* 0..128 */
	__u8 addr[16];
};

struct ipcache_entry {
	__u32 identity;
};

/*
 * map `services`, hash: the addresses that kube-proxy translates, behind from_pod.  Egress to
 * one of them is judged by who may get the connection: it must be allowed to all of them.
 */
struct service_key {
	__u8 addr[16];
	__u16 port; /* network order */
	__u8 proto;
	__u8 pad;
};

struct service {
	__u32 count; /* 0: nobody; more than YETT_SERVICE_BACKENDS: too many to be judged */
	__u32 identities[16];
	__u16 ports[16]; /* network order */
};

/*
 * map `policies`: array of LPM maps, one per document.  Look-up order, first hit wins:
 * (peer, proto, port), (peer, 0, 0), (0, proto, port), (0, 0, 0).  The compiler makes the
 * entries of a peer complete enough for that order to be right; (0, 0, 0) is the default
 * of a direction and always there.
 */
struct policy_key {
	__u32 prefixlen; /* 48 + bits of the port that count */
	__u32 peer;	 /* network order; 0 is any */
	__u8 direction;	 /* enum direction */
	__u8 proto;	 /* IP protocol; 0 is any */
	__u16 port;	 /* network order; of the server's side; ICMP: the type */
};

enum policy_flags {
	POLICY_FORBIDDEN = 1,
};

struct policy_entry {
	__u8 verdict; /* enum verdict */
	__u8 reason;  /* enum reason */
	__u8 flags;   /* enum policy_flags */
	__u8 pad;
	__u32 rule;    /* number on this node */
	__u32 ruleset; /* handle, or YETT_RULESET_NONE; of VERDICT_REDIRECT: the listener's port */
};

/* map `flows`, hash: one connection as one endpoint sees it */
struct flow_key {
	__u32 ifindex; /* of the endpoint */
	__u8 proto;
	__u8 pad[3];
	__u16 local_port;  /* network order; ICMP echo: the identifier in both */
	__u16 remote_port; /* network order */
	__u8 local[16];
	__u8 remote[16];
};

/* Both directions of a flow may be on two CPUs: flow.flags is changed by atomic or/and only. */
enum flow_flags {
	FLOW_POISONED = 1,    /* a packet was denied: nothing passes any more */
	FLOW_HTTP = 2,	      /* the kernel HTTP engine follows it */
	FLOW_SYNCED = 4,      /* the engine knows its position in the request stream */
	FLOW_OPAQUE = 8,      /* an allowed upgrade took place, or an audited stream broke */
	FLOW_UPGRADE = 16,    /* a request with Upgrade or CONNECT awaits its response */
	FLOW_UPGRADE_OK = 32, /* ... and a rule allows the upgrade */
	FLOW_CONNECT = 64,    /* ... and it is a CONNECT */
	FLOW_FIN_REQUEST = 128,
	FLOW_FIN_REPLY = 256,
	FLOW_ESTABLISHED = 512, /* both directions seen */
	FLOW_CLOSED = 1024,	/* reset, or both sides sent FIN */
	FLOW_FORBIDDEN = 2048,	/* poisoned, and the client was told 403 */
	FLOW_SYN = 4096,	/* a SYN awaits its SYN-ACK; pending_seq is its next byte */
	FLOW_MIDSTREAM = 8192,	/* picked up without a SYN: judged in both directions */
	FLOW_AUDITED = 16384,	/* a denial passed because of audit */
	FLOW_OPENED = 32768,	/* the client acknowledged the SYN-ACK that began the stream */
	FLOW_RESET = 65536,	/* the client sent a reset: whether the server took it is unknown */
	FLOW_RETURNED = 131072, /* server_isn is of an earlier stream on the same ports */
	FLOW_REDIRECTED = 262144, /* the other end is the sidecar; flow.ruleset is its listener */
	FLOW_PROXIED = 524288,	  /* the sidecar has a connection of its own on these ports */
	FLOW_HEARD = 1048576,	  /* the flow at the server's end knows that the client answered */
	FLOW_FORWARDED = 2097152, /* no socket of this node sent its first packet */
};

/* Of flow.scan_flags, which belongs to the holder of flow.busy. */
enum scan_flags {
	SCAN_IN_HEAD = 1, /* inside a request head */
	SCAN_CHUNKED = 2, /* the request's body is chunked */
};

/* What is known of the answer to the last request; only followed where a denial answers 403,
 * which must not land inside it. */
enum answer_state {
	ANSWER_DONE = 0,    /* none is due */
	ANSWER_HEAD = 1,    /* its head is read from answer_at on */
	ANSWER_BODY = 2,    /* it ends at answer_end */
	ANSWER_UNKNOWN = 3, /* its end cannot be told: no Content-Length, pipelined ... */
};

/* Where the engine stands between packets.  Named places survive a change of ruleset. */
enum flow_phase {
	PHASE_STATE = 0,     /* at flow.state of flow.scan_ruleset */
	PHASE_START = 1,     /* before a request */
	PHASE_CHUNK_END = 3, /* before the CRLF that ends chunk data */
};

struct flow {
	__u64 id;   /* unique on the node until reboot */
	__u64 seen; /* bpf_ktime_get_coarse_ns of the last packet */
	__u32 epoch;
	__u32 peer;    /* identity */
	__u32 ruleset; /* handle that policy asks for now */
	__u32 rule;    /* number on this node */
	__u32 flags;   /* enum flow_flags */
	__u8 direction;
	__u8 verdict;
	__u8 reason;
	__u8 keeping; /* some kept bytes are not acknowledged yet */

	__u64 approved; /* to_pod's word for the short way to the sidecar, see redirect.bpf.h */

	/* TCP positions, sequence numbers in host order */
	__u32 next_seq;	   /* next byte the engine must see: beyond a body of known length */
	__u32 body_seq;	   /* [body_seq, next_seq) is body: its bytes do not matter */
	__u32 pending_seq; /* after the last SYN: what the server's SYN-ACK must acknowledge */
	__u32 start_seq;   /* nothing before it belongs to this stream */
	__u32 server_isn;  /* of the SYN-ACK that began the stream, or the one before */
	__u32 answer_seq;  /* nothing before it can be acknowledged by the client */
	__u32 passed_seq;  /* end of what was let through to the server */
	__u32 acked_seq;   /* what the server acknowledged */
	__u32 busy;	   /* 1 while a CPU runs the engine on this flow */

	/* the engine */
	__u64 scan_ruleset_id;
	__u32 scan_ruleset; /* handle the current head began with */
	__u16 state;
	__u8 phase; /* enum flow_phase */
	__u8 minor; /* HTTP/1.minor */
	__u64 conditions;
	__u64 length;	    /* Content-Length or chunk size read so far */
	__u64 body_left;    /* body bytes beyond next_seq */
	__u64 head_time;    /* bpf_ktime_get_coarse_ns at the head's first byte */
	__u32 head_seq;	    /* first byte of the current head */
	__u32 seen_headers; /* bit per tracked header */
	__u16 rule_set;
	__u16 ambiguous; /* as alternative.tolerates */
	__u8 chunk_digits;
	__u8 upgrade_state;  /* position in the response's status line */
	__u8 scan_flags;     /* enum scan_flags */
	__u8 client_scale;   /* of the client's window (RFC 7323, 2) */
	__u32 upgrade_seq;   /* next response byte to look at */
	__u32 reply_seq;     /* end of what the server sent, or of our 403 */
	__u32 asked_seq;     /* reply_seq when the last request was complete */
	__u32 answer_at;     /* next byte of the answer's head */
	__u32 answer_end;    /* sequence number after the answer */
	__u32 answer_length; /* Content-Length read so far */
	__u8 answer;	     /* enum answer_state */
	__u8 answer_line;    /* bytes of the line at hand, up to 255 */
	__u8 answer_match;   /* of them that match the field name; ANSWER_OTHER: none */
	__u8 answer_sized;   /* a Content-Length was there */
	__u32 history;	     /* slot of the kept bytes, plus 1; 0: none */
	__u32 head_at;	     /* where the current head begins among the kept bytes */
	__u32 requests;
	__u32 identity; /* of the endpoint */
	__u32 unknowns; /* retransmissions in a row that could not be compared */
	/* Network order: the far side is a service with one kind of backend, `peer` at this port.
	 * Else 0. */
	__u16 backend_port;
	__u16 pad;
	__u32 approver; /* interface of the endpoint whose to_pod wrote `approved` */
};

/* map `events`, ring buffer */
enum event_type {
	EVENT_FLOW = 1,	   /* verdict on a new or re-judged flow, or on a lone packet */
	EVENT_REQUEST = 2, /* verdict on an HTTP request */
};

struct event {
	__u64 time; /* bpf_ktime_get_ns */
	__u64 flow; /* flow.id, 0 for a lone packet */
	__u64 ruleset_id;
	__u32 ifindex;
	__u32 identity;
	__u32 peer;
	__u32 rule;
	__u32 suppressed; /* events left out before this one, on this CPU */
	__u8 type;
	__u8 direction; /* enum direction */
	__u8 verdict;
	__u8 reason;
	__u8 proto;
	__u8 tcp_flags;
	__u8 reply; /* the packet came from the server's side */
	__u8 pad;
	__u16 local_port;  /* network order */
	__u16 remote_port; /* network order */
	__u8 local[16];
	__u8 remote[16];
	__u16 head_len; /* bytes of `head` in use */
	__u16 pad2[3];
	__u8 head[512]; /* the request as received, from its first byte; attacker-made */
};

/* map `metrics`, per-CPU array by direction * REASON_COUNT + reason */
struct metric {
	__u64 packets;
	__u64 requests;
};

#endif
