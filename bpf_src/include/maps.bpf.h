/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Every map, with one line of meaning each.  Sizes here are defaults; the loader sets them
 * between open and load. */
#ifndef YETT_MAPS_BPF_H
#define YETT_MAPS_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "yett_abi.h"

/* Inspected bytes of one flow that may still be sent again with other content: heads and chunk
 * lines, one behind the other in a ring.  A copy of at most SCAN_CHUNK bytes may run on beyond
 * the ring's edge, and is then also stored at its start. */
#define SCAN_CHUNK     4096
#define HISTORY_RING   16384
#define HISTORY_RANGES 1024

struct range {
	__u32 start; /* sequence numbers */
	__u32 end;
	__u32 at; /* of `start` in the ring, counted from the first byte ever kept */
};

struct history {
	__u64 owner; /* (flow.id << 1) | busy; 0: never used */
	__u32 first; /* ranges[first % N] is the oldest */
	__u32 count;
	__u32 total; /* bytes kept so far */
	__u32 known; /* from here on every structural byte is kept, or was overwritten since */
	struct range ranges[HISTORY_RANGES]; /* between two of them is body */
	__u8 bytes[HISTORY_RING + SCAN_CHUNK];
};

/* A packet, understood. */
struct packet {
	__u32 l3;      /* offset of the IP header */
	__u32 l4;      /* offset of the transport header */
	__u32 payload; /* offset of what follows the transport header */
	__u32 len;     /* bytes of payload */
	__u32 seq;
	__u32 ack;
	__u8 family; /* 4, 6; 0: ARP */
	__u8 proto;
	__u8 flags; /* TCP */
	__u8 icmp_type;
	__u8 odd;     /* reason that only matters on an enforced endpoint, or 0 */
	__u16 window; /* as in the header, not scaled */
	__u16 sport;  /* network order */
	__u16 dport;
	__u8 src[16] __attribute__((aligned(4)));
	__u8 dst[16] __attribute__((aligned(4)));
};

/* Everything about the packet that this CPU judges now.  Too big for the stack; nothing in it
 * outlives the program, and a nested run (a packet of our own) leaves before it touches it. */
#define TRACE_LEN 16

struct work {
	struct packet p;
	struct flow_key key;
	/* the verdict */
	__u32 epoch;
	__u32 collecting; /* this load of the programs has started the collector, on this CPU */
	__u32 identity;	  /* of the endpoint */
	__u32 reason;	  /* non-zero: deny */
	__u32 rule;	  /* number on this node that decided */
	__u8 direction;
	__u8 verdict;
	__u8 recorded;	    /* counted and written down already */
	__u8 from_pod;	    /* which hook */
	__u32 sender_seq;   /* what the sender of the packet expects next from the other side */
	__u32 forbidden;    /* the denial asks for a 403 */
	__u32 client_scale; /* window scale in the SYN at hand */
	__u32 audit;	    /* the denial is only an audit */
	struct policy_entry entry; /* what the document says */
	struct flow flow;	   /* a new flow before it is inserted */
	/* scanner; positions are sequence numbers of the request stream */
	__u32 chunk_seq; /* of the first byte of the chunk at hand */
	__u32 i;	 /* bytes of the chunk consumed */
	__u32 n;	 /* bytes in the chunk */
	__u32 state;
	__u32 stop;   /* leave the block loop */
	__u32 events; /* bit k: the state after byte k of the block has an action to run */
	__u32 before; /* state before the block */
	__u32 after;  /* state after it */
	__u32 from;   /* `i` before the block */
	__u32 walked; /* ... and after it */
	__u32 turned; /* the action went to another state than the automaton */
	__u32 handle; /* of the ruleset at hand */
	__u32 want;   /* of the one the next head must use */
	__u32 rebind; /* the next head needs another ruleset */
	__u32 ruleset_flags;
	__u32 found; /* of the search: enum found */
	__u32 audit_rule;
	__u32 connect; /* the request is a CONNECT that a rule allows */
	__u32 unmet;   /* ambiguities that the last candidate did not tolerate */
	__u32 low;     /* of a comparison */
	__u32 high;
	__u32 backend_port; /* as in struct flow, of the service at hand */
	__u64 head_timeout_ns;
	__u64 upgrade;
	__u16 trace[TRACE_LEN]; /* states after each byte of a block */
	__u8 frame[128];	/* headers of a packet of our own */
	__u8 compare[256 + 16];
	__u8 excerpt[2 * YETT_HEAD_EXCERPT];
	__u8 chunk[SCAN_CHUNK + YETT_HEAD_EXCERPT]; /* the bytes at hand; reads run on */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

/* What lives behind an interface. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

/* Address -> identity. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache_key);
	__type(value, struct ipcache_entry);
} ipcache SEC(".maps");

/* Address of a service -> who is behind it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

struct policy_map {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct policy_key));
	__uint(value_size, sizeof(struct policy_entry));
};

/* Document slot -> its entries; an update swaps the whole document. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__array(values, struct policy_map);
} policies SEC(".maps");

#define RULESET_TIER(TIER, BYTES)                                                                  \
	struct ruleset_map##TIER {                                                                 \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(max_entries, 1);                                                            \
		__uint(key_size, sizeof(__u32));                                                   \
		__uint(value_size, BYTES);                                                         \
	};                                                                                         \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                                          \
		__uint(max_entries, 1024);                                                         \
		__type(key, __u32);                                                                \
		__array(values, struct ruleset_map##TIER);                                         \
	} rulesets##TIER SEC(".maps")

/* HTTP automata by tier, see struct ruleset. */
RULESET_TIER(0, 65536);
RULESET_TIER(1, 262144);
RULESET_TIER(2, 1048576);
RULESET_TIER(3, 4194304);

/* Connections.  Never an LRU: a silently evicted entry is a bypass or a broken flow. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct history);
} history SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * REASON_COUNT);
	__type(key, __u32);
	__type(value, struct metric);
} metrics SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, YETT_RULE_MAX);
	__type(key, __u32);
	__type(value, __u64);
} rule_hits SEC(".maps");

/* Limits the records of denials. */
struct budget {
	__u64 second;
	__u32 used;
	__u32 suppressed;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct budget);
} event_budget SEC(".maps");

/* The clock that removes dead flows. */
struct collector {
	struct bpf_timer timer;
	__u64 last_run;
	__u64 next_flow_id;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct collector);
} collect SEC(".maps");

#endif
