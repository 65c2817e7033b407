// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The smallest object with the maps and program names of the real one: what the loader's
 * own tests load.  from_pod counts into `metrics` and passes; it drops when config.flags
 * has TINY_DROP, and writes an event when it has CONFIG_RECORD_ALLOWED.
 */
#define SEC(name)	   __attribute__((section(name), used))
#define __uint(name, val)  int(*name)[val]
#define __type(name, val)  typeof(val) *name
#define __array(name, val) typeof(val) *name[]

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
#define YETT_CDEF /* the types are above */
#include "yett_abi.h"

#ifndef TINY_VERDICT
#define TINY_VERDICT 0
#endif
#ifdef TINY_EXTRA
struct tiny_flow {
	struct flow flow;
	__u64 extra;
};
#else
#define tiny_flow flow
#endif
#ifndef TINY_METRICS
#define TINY_METRICS (2 * REASON_COUNT)
#endif
enum { TINY_DROP = 0x80000000 };

enum {
	MAP_HASH = 1,
	MAP_ARRAY = 2,
	MAP_PERCPU_ARRAY = 6,
	MAP_LPM_TRIE = 11,
	MAP_ARRAY_OF_MAPS = 12,
	MAP_RINGBUF = 27
};
enum { NO_PREALLOC = 1 };

static void *(*lookup)(void *map, const void *key) = (void *)1;
static __u64 (*ktime_get_ns)(void) = (void *)5;
static void *(*reserve)(void *map, __u64 size, __u64 flags) = (void *)131;
static void (*submit)(void *data, __u64 flags) = (void *)132;

/* the context, as far as it is read here */
struct skb {
	__u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto,
		priority, ingress_ifindex, ifindex;
};

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

struct {
	__uint(type, MAP_LPM_TRIE);
	__uint(map_flags, NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct ipcache_key);
	__type(value, struct ipcache_entry);
} ipcache SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(map_flags, NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

struct policy_map {
	__uint(type, MAP_LPM_TRIE);
	__uint(map_flags, NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct policy_key);
	__type(value, struct policy_entry);
};

/* clang 14 leaves a struct out of the BTF if only an inner map names it */
struct policy_key tiny_policy_key;
struct policy_entry tiny_policy_entry;

struct {
	__uint(type, MAP_ARRAY_OF_MAPS);
	__uint(max_entries, 64);
	__type(key, __u32);
	__array(values, struct policy_map);
} policies SEC(".maps");

#define RULESETS(tier, bytes)                                                                      \
	struct ruleset_map##tier {                                                                 \
		__uint(type, MAP_ARRAY);                                                           \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__uint(value_size, bytes);                                                         \
	};                                                                                         \
	struct {                                                                                   \
		__uint(type, MAP_ARRAY_OF_MAPS);                                                   \
		__uint(max_entries, 64);                                                           \
		__type(key, __u32);                                                                \
		__array(values, struct ruleset_map##tier);                                         \
	} rulesets##tier SEC(".maps")

RULESETS(0, 64 << 10);
RULESETS(1, 256 << 10);
RULESETS(2, 1 << 20);
RULESETS(3, 4 << 20);

struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 1024);
	__type(key, struct flow_key);
	__type(value, struct tiny_flow);
} flows SEC(".maps");

struct {
	__uint(type, MAP_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, TINY_METRICS);
	__type(key, __u32);
	__type(value, struct metric);
} metrics SEC(".maps");

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, YETT_RULE_MAX);
	__type(key, __u32);
	__type(value, __u64);
} rule_hits SEC(".maps");

static int judge(struct skb *skb, __u32 direction)
{
	struct config *settings;
	struct metric *count;
	__u32 zero = 0, index;

	settings = lookup(&config, &zero);
	if (!settings || settings->abi != YETT_ABI_VERSION)
		return 2;
	index = direction * REASON_COUNT +
		(settings->flags & TINY_DROP ? REASON_POLICY_DENIED : REASON_ALLOWED);
	count = lookup(&metrics, &index);
	if (count)
		count->packets++;
	if (settings->flags & CONFIG_RECORD_ALLOWED) {
		struct event *event = reserve(&events, sizeof(*event), 0);

		if (event) {
			__builtin_memset(event, 0, sizeof(*event));
			event->time = ktime_get_ns();
			event->type = EVENT_FLOW;
			event->ifindex = skb->ifindex;
			event->verdict = VERDICT_ALLOW;
			submit(event, 1); /* no wake-up */
		}
	}
	/* keep the other maps in the program's list */
	lookup(&endpoints, &zero);
	lookup(&policies, &zero);
	lookup(&rulesets0, &zero);
	lookup(&rule_hits, &zero);
	return settings->flags & TINY_DROP ? 2 : TINY_VERDICT;
}

SEC("tc")
int from_pod(struct skb *skb)
{
	return judge(skb, DIR_EGRESS);
}

SEC("tc")
int to_pod(struct skb *skb)
{
	return judge(skb, DIR_INGRESS);
}

char _license[] SEC("license") = "GPL";
