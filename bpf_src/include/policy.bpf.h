/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Who is the peer, and what does the document of the endpoint say of it? */
#ifndef YETT_POLICY_BPF_H
#define YETT_POLICY_BPF_H

#include "packet.bpf.h"

/* Unknown addresses are the world: never more trusted than that. */
static __always_inline __u32 identity_of(const __u8 *addr)
{
	struct ipcache_key key = {.prefixlen = 128};
	struct ipcache_entry *entry;

	__builtin_memcpy(key.addr, addr, 16);
	entry = bpf_map_lookup_elem(&ipcache, &key);
	return entry ? entry->identity : IDENTITY_WORLD;
}

/*
 * First hit wins:
 *   1. this peer, this protocol, this port (longest port prefix)
 *   2. this peer, any protocol
 *   3. any peer, this protocol, this port
 *   4. any peer, any protocol: the default of the direction
 * The compiler writes a peer's entries so completely that this order is right.
 *
 * Copies the entry to w->entry.  Without any, the document is not in: a denial.
 */
__noinline int ask_policy(struct work *w, __u32 slot, __u32 direction, __u32 peer, __u32 port)
{
	struct policy_key key = {.prefixlen = 64};
	struct policy_entry *entry;
	void *map;

	if (!w)
		return 0;
	w->entry.verdict = VERDICT_DENY;
	w->entry.reason = REASON_NOT_READY;
	w->entry.flags = 0;
	w->entry.rule = YETT_RULE_NONE;
	w->entry.ruleset = YETT_RULESET_NONE;
	map = bpf_map_lookup_elem(&policies, &slot);
	if (!map)
		return 0;
	key.direction = direction;
	key.peer = bpf_htonl(peer);
	key.proto = w->p.proto;
	key.port = port;
	entry = bpf_map_lookup_elem(map, &key);
	if (!entry) {
		key.proto = 0;
		entry = bpf_map_lookup_elem(map, &key);
	}
	if (!entry) {
		key.peer = 0;
		key.proto = w->p.proto;
		entry = bpf_map_lookup_elem(map, &key);
	}
	if (!entry) {
		key.proto = 0;
		entry = bpf_map_lookup_elem(map, &key);
	}
	if (!entry)
		return 0;
	w->entry = *entry;
	return 1;
}

static __always_inline int same_addr(const __u8 *a, const __u8 *b)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b; /* aligned to 4, not to 8 */

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

/* Is this one of the endpoint's own addresses? */
static __always_inline int owns_addr(struct endpoint *ep, const __u8 *addr)
{
	__u32 i;

	for (i = 0; i < YETT_ENDPOINT_ADDRS; i++) {
		if (i >= ep->addr_count)
			return 0;
		if (same_addr(ep->addrs[i], addr))
			return 1;
	}
	return 0;
}

#endif
