/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* A connection to a service's address, which somebody translates behind from_pod. */
#ifndef YETT_SERVICE_BPF_H
#define YETT_SERVICE_BPF_H

#include "policy.bpf.h"

/* HTTP rules say less than an audit, an audit less than a plain word. */
static __always_inline int strictness(const struct policy_entry *entry)
{
	if (entry->ruleset)
		return 2;
	return entry->verdict == VERDICT_AUDIT;
}

static __always_inline void deny_service(struct work *w, __u8 reason)
{
	w->entry.verdict = VERDICT_DENY;
	w->entry.reason = reason;
	w->entry.flags = 0;
	w->entry.ruleset = YETT_RULESET_NONE;
}

static __always_inline int is_behind(struct service *service, __u32 peer, __u16 port)
{
	__u32 i;

	for (i = 0; i < YETT_SERVICE_BACKENDS && i < service->count; i++) {
		if (service->identities[i] == peer && service->ports[i] == port)
			return 1;
	}
	return 0;
}

/*
 * Who gets the connection is not known yet, so the strictest word on anybody who may get it is
 * copied to w->entry.  `peer` and `port`: who got it, if that was told at its beginning; else 0.
 * A connection stays with its backend, so what happens to others, or that none is ready any more,
 * does not concern it; but it does if nobody there is like it any more.
 *
 * Returns the identity of the first of them; 0: the far side is no service, and nothing is said.
 */
__noinline __u32 ask_service(struct work *w, __u32 slot, __u32 peer, __u32 port)
{
	struct service_key key = {};
	struct policy_entry said = {};
	struct service *service;
	__u32 i;

	if (!w)
		return 0;
	w->backend_port = 0;
	__builtin_memcpy(key.addr, w->key.remote, 16);
	key.port = w->key.remote_port;
	key.proto = w->p.proto;
	service = bpf_map_lookup_elem(&services, &key);
	if (port && (!service || !service->count || is_behind(service, peer, port))) {
		w->backend_port = port;
		ask_policy(w, slot, DIR_EGRESS, peer, port);
		return peer;
	}
	if (!service)
		return 0;
	w->entry.rule = YETT_RULE_NONE;
	deny_service(w, REASON_SERVICE_WITHOUT_BACKENDS);
	if (!service->count)
		return IDENTITY_WORLD;
	peer = service->identities[0] ?: IDENTITY_WORLD;
	/* Connection tracking forgets who got UDP packets when an endpoint goes. */
	if (service->count == 1 && w->p.proto == IPPROTO_TCP)
		w->backend_port = service->ports[0];
	for (i = 0; i < YETT_SERVICE_BACKENDS && i < service->count; i++) {
		ask_policy(w, slot, DIR_EGRESS, service->identities[i], service->ports[i]);
		if (w->entry.verdict == VERDICT_DENY)
			return peer;
		if (!i || strictness(&w->entry) > strictness(&said)) {
			said = w->entry;
		} else if (w->entry.ruleset &&
			   (w->entry.ruleset != said.ruleset || w->entry.verdict != said.verdict)) {
			deny_service(w, REASON_SERVICE_MIXED);
			return peer;
		}
	}
	if (service->count > YETT_SERVICE_BACKENDS) {
		w->entry.rule = YETT_RULE_NONE;
		deny_service(w, REASON_SERVICE_MIXED);
		return peer;
	}
	w->entry = said;
	return peer;
}

#endif
