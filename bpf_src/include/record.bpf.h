/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Counters and events: every verdict is counted once, every denial is written down. */
#ifndef YETT_RECORD_BPF_H
#define YETT_RECORD_BPF_H

#include "packet.bpf.h"

#include <stddef.h>

#define NSEC_PER_SEC 1000000000ULL

static __always_inline void count(__u8 direction, __u8 reason, int request)
{
	__u32 key = (direction ? REASON_COUNT : 0) + (reason & (REASON_COUNT - 1));
	struct metric *metric = bpf_map_lookup_elem(&metrics, &key);

	if (!metric) /* a per-CPU array: cannot be */
		return;
	if (request)
		metric->requests++;
	else
		metric->packets++;
}

static __always_inline void count_rule(__u32 rule)
{
	__u64 *hits = bpf_map_lookup_elem(&rule_hits, &rule);

	if (hits)
		(*hits)++;
}

/* Denials beyond the budget of this second are only counted. */
static __always_inline int within_budget(__u32 per_second, __u32 *suppressed)
{
	__u64 second = bpf_ktime_get_coarse_ns() / NSEC_PER_SEC;
	__u32 zero = 0;
	struct budget *budget = bpf_map_lookup_elem(&event_budget, &zero);

	if (!budget)
		return 0;
	if (budget->second != second) {
		budget->second = second;
		budget->used = 0;
	}
	if (budget->used >= per_second) {
		budget->suppressed++;
		return 0;
	}
	budget->used++;
	*suppressed = budget->suppressed;
	budget->suppressed = 0;
	return 1;
}

/* Writes down the verdict in `w`, with `head_len` bytes of w->excerpt. */
static __always_inline void write_event(struct __sk_buff *skb, struct work *w, struct flow *f,
					__u8 type, __u32 head_len)
{
	__u32 zero = 0, suppressed = 0;
	struct config *cfg = bpf_map_lookup_elem(&config, &zero);
	struct event *e;

	if (!cfg)
		return;
	/* What is redirected is judged by the sidecar, which writes its own records. */
	if (w->verdict == VERDICT_ALLOW || w->verdict == VERDICT_REDIRECT) {
		if (!(cfg->flags & CONFIG_RECORD_ALLOWED))
			return;
	} else if (!within_budget(cfg->deny_events_per_second, &suppressed)) {
		return;
	}
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		struct budget *budget = bpf_map_lookup_elem(&event_budget, &zero);

		if (budget)
			budget->suppressed += 1 + suppressed;
		return;
	}
	__builtin_memset(e, 0, offsetof(struct event, head));
	e->time = bpf_ktime_get_ns();
	if (f) {
		e->flow = f->id;
		e->peer = f->peer;
		if (type == EVENT_REQUEST)
			e->ruleset_id = f->scan_ruleset_id;
	}
	e->ifindex = skb->ifindex;
	e->identity = w->identity;
	e->rule = w->rule;
	e->suppressed = suppressed;
	e->type = type;
	e->direction = w->direction;
	e->verdict = w->verdict;
	e->reason = w->reason;
	e->proto = w->p.proto;
	e->tcp_flags = w->p.flags;
	e->reply = (w->direction == DIR_INGRESS) == w->from_pod;
	e->local_port = w->key.local_port;
	e->remote_port = w->key.remote_port;
	__builtin_memcpy(e->local, w->key.local, 16);
	__builtin_memcpy(e->remote, w->key.remote, 16);
	if (head_len) {
		e->head_len = head_len < YETT_HEAD_EXCERPT ? head_len : YETT_HEAD_EXCERPT;
		__builtin_memcpy(e->head, w->excerpt, YETT_HEAD_EXCERPT);
	}
	/* The loader reads on a timer: a wake-up per event would cost more than the event. */
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* The verdict on a new flow or on a lone packet. */
__noinline int record_flow(struct __sk_buff *skb, struct work *w, struct flow *f)
{
	if (!w || w->recorded)
		return 0;
	w->recorded = 1;
	count(w->direction, w->reason, 0);
	if (w->rule)
		count_rule(w->rule);
	write_event(skb, w, f, EVENT_FLOW, 0);
	return 0;
}

/* The first bytes of the current head into w->excerpt: what came in earlier packets is among
 * the kept bytes, the rest at hand.  Returns how many. */
static __always_inline __u32 take_excerpt(struct work *w, struct flow *f, struct history *h)
{
	__u32 before = w->chunk_seq - f->head_seq, at;

	if (!w->n)
		return 0;
	if ((__s32)before <= 0) {
		at = -before & (SCAN_CHUNK - 1);
		__builtin_memcpy(w->excerpt, w->chunk + at, YETT_HEAD_EXCERPT);
		return w->n - at;
	}
	if (!h)
		return 0;
	at = f->head_at & (HISTORY_RING - 1);
	__builtin_memcpy(w->excerpt, h->bytes + at, YETT_HEAD_EXCERPT);
	if (before >= YETT_HEAD_EXCERPT)
		return before;
	__builtin_memcpy(w->excerpt + (before & (YETT_HEAD_EXCERPT - 1)), w->chunk,
			 YETT_HEAD_EXCERPT);
	return before + w->n;
}

/* The verdict on a request. */
__noinline int record_request(struct __sk_buff *skb, struct work *w, struct flow *f,
			      struct history *h)
{
	__u32 zero = 0;
	struct config *cfg = bpf_map_lookup_elem(&config, &zero);

	if (!w || !f || !cfg)
		return 0;
	w->direction = f->direction;
	count(w->direction, w->reason, 1);
	count_rule(w->rule);
	if (w->verdict == VERDICT_ALLOW && !(cfg->flags & CONFIG_RECORD_ALLOWED))
		return 0;
	write_event(skb, w, f, EVENT_REQUEST, take_excerpt(w, f, h));
	return 0;
}

#endif
