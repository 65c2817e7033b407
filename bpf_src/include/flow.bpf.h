/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* From a packet without a valid flow to a verdict, and to a flow if it may pass. */
#ifndef YETT_FLOW_BPF_H
#define YETT_FLOW_BPF_H

#include <asm-generic/errno-base.h>

#include "collect.bpf.h"
#include "record.bpf.h"
#include "redirect.bpf.h"
#include "related.bpf.h"
#include "service.bpf.h"

enum opened {
	OPENED_NOTHING, /* the verdict in `w` is all there is */
	OPENED_FLOW,	/* a flow with w->key is in the table, judged under w->epoch */
};

static __always_inline int is_syn(const struct packet *p)
{
	return p->proto == IPPROTO_TCP && (p->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

#define REUSE_AFTER (3 * NSEC_PER_SEC)

/*
 * May a SYN begin another connection on the ports of this flow?  The server's answer to an old
 * SYN could still be on its way if the flow was alive just now; if it was silent for a while, a
 * server that still knows the connection will answer with anything but a SYN-ACK (RFC 5961, 4).
 */
static __always_inline int is_over(struct flow *f, __u64 now)
{
	return (f->flags & (FLOW_POISONED | FLOW_CLOSED)) || f->seen + REUSE_AFTER < now;
}

/* The port that policy speaks of: the server's; for ICMP the type. */
static __always_inline __u32 policy_port(struct work *w, __u8 direction)
{
	if (w->p.proto == IPPROTO_ICMP4 || w->p.proto == IPPROTO_ICMP6)
		return bpf_htons(w->p.icmp_type);
	return direction == DIR_INGRESS ? w->key.local_port : w->key.remote_port;
}

/* enum flow_flags of a flow that this packet begins. */
static __always_inline __u32 origin_of(struct __sk_buff *skb, struct work *w)
{
	return w->from_pod || skb->sk ? 0 : FLOW_FORWARDED;
}

/*
 * Who is at the far side.  The node may do nearly everything, so an address of it is the node only
 * if a socket here sent the packet: kube-proxy puts one in the place of any client's that
 * comes by a node port (masquerading), and who that was cannot be told any more.
 */
static __always_inline __u32 peer_of(struct work *w, __u32 flags)
{
	__u32 peer = identity_of(w->key.remote);

	if ((flags & FLOW_FORWARDED) && (peer == IDENTITY_HOST || peer == IDENTITY_HOST_APISERVER))
		return IDENTITY_WORLD;
	return peer;
}

/* What the document says of the far side of `f` in one direction, to w->entry; who that is. */
static __always_inline __u32 ask_document(struct endpoint *ep, struct work *w, struct flow *f,
					  __u8 direction)
{
	__u32 peer = 0;

	w->backend_port = 0;
	if (direction == DIR_EGRESS && !(ep->flags & ENDPOINT_OPEN))
		peer = ask_service(w, ep->policy, f->peer, f->backend_port);
	if (peer)
		return peer;
	peer = peer_of(w, f->flags);
	ask_policy(w, ep->policy, direction, peer, policy_port(w, direction));
	return peer;
}

/* Asks the document of the endpoint and writes the answer into the flow. */
static __always_inline void judge_flow(struct endpoint *ep, struct work *w, struct flow *f)
{
	__u8 other = f->direction == DIR_INGRESS ? DIR_EGRESS : DIR_INGRESS;

	f->epoch = w->epoch;
	f->identity = ep->identity;
	f->peer = ask_document(ep, w, f, f->direction);
	f->backend_port = w->backend_port;
	f->verdict = w->entry.verdict;
	f->reason = w->entry.reason;
	f->rule = w->entry.rule;
	f->ruleset = w->entry.ruleset;
	if (f->ruleset && f->verdict != VERDICT_REDIRECT && w->p.proto == IPPROTO_TCP)
		set_flags(f, FLOW_HTTP);
	else
		clear_flags(f, FLOW_HTTP | FLOW_SYNCED);
	if (f->verdict == VERDICT_DENY || !(f->flags & FLOW_MIDSTREAM))
		return;
	/*
	 * A connection older than our knowledge: who opened it is unknown, so both readings
	 * must be allowed, and neither may need a look into the stream.
	 */
	ask_document(ep, w, f, other);
	if (f->ruleset || w->entry.verdict == VERDICT_DENY || w->entry.ruleset) {
		f->verdict = VERDICT_DENY;
		f->reason = REASON_MIDSTREAM;
	}
}

/* The listener that a flow is redirected to, 0 if it is not. */
static __always_inline __u32 listener_of(struct flow *f)
{
	return f->verdict == VERDICT_REDIRECT ? f->ruleset : 0;
}

static __always_inline void deny_flow(struct flow *f, __u8 reason)
{
	f->verdict = VERDICT_DENY;
	f->reason = reason;
}

static __always_inline void take_verdict(struct work *w, struct flow *f)
{
	w->direction = f->direction;
	w->verdict = f->verdict;
	w->reason = f->reason;
	w->rule = f->rule;
}

/* What hides its ports cannot be judged; where nothing is enforced nobody has to. */
static __always_inline void judge_odd(struct __sk_buff *skb, struct endpoint *ep, struct work *w)
{
	__u32 peer = 0;

	if (w->p.odd == REASON_PROTOCOL)
		peer = peer_of(w, origin_of(skb, w)); /* rules for all protocols hold for it */
	else
		w->p.proto = 0;
	ask_policy(w, ep->policy, w->direction, peer, 0);
	w->reason = w->p.odd;
	w->rule = w->entry.rule;
	if (w->entry.verdict == VERDICT_DENY || w->entry.verdict == VERDICT_REDIRECT)
		return;
	w->verdict = w->entry.verdict;
	if (w->verdict == VERDICT_ALLOW)
		w->reason = w->entry.reason;
}

static __always_inline struct endpoint *ready_endpoint(struct __sk_buff *skb, struct work *w)
{
	__u32 ifindex = skb->ifindex;
	struct endpoint *ep = bpf_map_lookup_elem(&endpoints, &ifindex);

	w->verdict = VERDICT_DENY;
	w->reason = REASON_UNKNOWN_ENDPOINT;
	if (!ep)
		return NULL;
	w->identity = ep->identity;
	w->reason = REASON_NOT_READY;
	return ep->flags & ENDPOINT_READY ? ep : NULL;
}

/* 0 also if another CPU was faster: its entry is as good. */
static __always_inline int insert_flow(struct work *w, struct flow *f)
{
	long error = bpf_map_update_elem(&flows, &w->key, f, BPF_NOEXIST);

	return error && error != -EEXIST;
}

/* Judges the packet in w->p; returns enum opened.  w->direction says what it is if it is new; `old`
 * is the flow that has its ports, or NULL. */
__noinline int open_flow(struct __sk_buff *skb, struct flow *old)
{
	struct work *w;
	struct collector *c;
	struct endpoint *ep;
	struct flow *f;
	__u32 zero = 0, listener;
	int syn;

	/* Linux 6.1 takes no argument of a global function as a map's key or value. */
	w = bpf_map_lookup_elem(&scratch, &zero);
	if (!w)
		return OPENED_NOTHING;
	ep = ready_endpoint(skb, w);
	if (!ep)
		return OPENED_NOTHING;
	if (is_link_traffic(&w->p) &&
	    (!w->from_pod || is_link_addr(w->key.local) || owns_addr(ep, w->key.local))) {
		w->reason = REASON_SPOOFED_SOURCE;
		if (w->from_pod && is_link_spoof(skb, w, ep))
			return OPENED_NOTHING;
		w->verdict = VERDICT_ALLOW;
		w->reason = REASON_LINK;
		return OPENED_NOTHING;
	}
	if (!owns_addr(ep, w->key.local)) {
		if (w->from_pod) {
			w->reason = REASON_SPOOFED_SOURCE;
			return OPENED_NOTHING;
		}
		if (!is_multicast(w->key.local)) {
			w->reason = REASON_UNKNOWN_ENDPOINT;
			return OPENED_NOTHING;
		}
	}
	if (w->p.odd) {
		judge_odd(skb, ep, w);
		return OPENED_NOTHING;
	}
	if (is_related(skb, w)) {
		w->verdict = VERDICT_ALLOW;
		w->reason = REASON_RELATED;
		return OPENED_NOTHING;
	}
	syn = is_syn(&w->p);
	if (old && !(old->flags & FLOW_POISONED) &&
	    !(syn && is_over(old, bpf_ktime_get_coarse_ns()))) {
		listener = listener_of(old);
		judge_flow(ep, w, old); /* the same stream after a change of policy */
		/* A stream stays with whom it began: the server, or one listener. */
		if (old->verdict != VERDICT_DENY && listener_of(old) != listener)
			deny_flow(old, REASON_MIDSTREAM);
		take_verdict(w, old);
		return OPENED_FLOW;
	}
	f = &w->flow;
	__builtin_memset(f, 0, sizeof(*f));
	f->direction = w->direction;
	f->seen = bpf_ktime_get_coarse_ns();
	f->flags = origin_of(skb, w);
	if (w->p.proto == IPPROTO_TCP && !syn)
		f->flags |= FLOW_MIDSTREAM;
	judge_flow(ep, w, f);
	if (f->verdict == VERDICT_REDIRECT) {
		f->flags |= FLOW_REDIRECTED;
		if (w->p.proto != IPPROTO_TCP || !has_listener(skb, w, f->ruleset))
			deny_flow(f, REASON_SIDECAR_DOWN);
	}
	take_verdict(w, f);
	if (f->verdict == VERDICT_DENY) {
		record_flow(skb, w, f);
		return OPENED_NOTHING;
	}
	c = bpf_map_lookup_elem(&collect, &zero);
	if (!c)
		return OPENED_NOTHING;
	f->id = __sync_fetch_and_add(&c->next_flow_id, 1) + 1;
	keep_collecting(c, w);
	if (old) {
		/* In place, for other CPUs may hold a pointer to the entry. */
		if (!lock_flow(old)) {
			w->verdict = VERDICT_DENY;
			w->reason = REASON_TCP_BUSY;
			return OPENED_NOTHING;
		}
		free_history(old);
		f->busy = 1;
		if (old->flags & (FLOW_SYNCED | FLOW_RETURNED)) {
			f->server_isn = old->server_isn;
			f->flags |= FLOW_RETURNED;
		}
		*old = *f;
		unlock_flow(old);
	} else if (insert_flow(w, f)) {
		collect_now(c);
		w->verdict = VERDICT_DENY;
		w->reason = REASON_FLOW_TABLE_FULL;
		w->rule = YETT_RULE_NONE;
		return OPENED_NOTHING;
	}
	record_flow(skb, w, f);
	w->recorded = 0; /* the stream may still deny this very packet */
	return OPENED_FLOW;
}

#endif
