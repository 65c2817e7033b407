/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Removes dead flows.  In the kernel, so that the table stays clean while no loader runs. */
#ifndef YETT_COLLECT_BPF_H
#define YETT_COLLECT_BPF_H

#include "history.bpf.h"

#define COLLECT_EVERY	   (2 * 1000000000ULL)
#define CLOCK_MONOTONIC_ID 1

enum idle_seconds {
	IDLE_TCP = 8000,       /* an established connection that says nothing */
	IDLE_TCP_OPENING = 60, /* only one side was heard */
	IDLE_TCP_CLOSED = 1,   /* both sides are done: time for the last acknowledgement */
	IDLE_POISONED = 60,
	IDLE_OTHER = 60, /* UDP, SCTP, ICMP */
};

static __always_inline __u64 idle_limit(const struct flow_key *key, const struct flow *f)
{
	if (key->proto != IPPROTO_TCP)
		return IDLE_OTHER;
	if (f->flags & FLOW_POISONED)
		return IDLE_POISONED;
	if (f->flags & (FLOW_CLOSED | FLOW_RESET))
		return IDLE_TCP_CLOSED;
	if (!(f->flags & FLOW_ESTABLISHED))
		return IDLE_TCP_OPENING;
	return IDLE_TCP;
}

static long collect_flow(void *map, struct flow_key *key, struct flow *f, __u64 *now)
{
	/* `seen` is only kept to the second, and may be later than `now`: other CPUs go on. */
	if (f->seen + (idle_limit(key, f) + 1) * 1000000000ULL >= *now)
		return 0;
	if (__sync_val_compare_and_swap(&f->busy, 0, 1)) /* not dead after all */
		return 0;
	free_history(f);
	bpf_map_delete_elem(&flows, key);
	return 0;
}

static int collect_flows(void *map, __u32 *key, struct collector *c)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	c->last_run = now;
	bpf_for_each_map_elem(&flows, collect_flow, &now, 0);
	bpf_timer_start(&c->timer, COLLECT_EVERY, 0);
	return 0;
}

/* Starts the timer, once for each load of the programs (so that an upgrade's callback takes over)
 * and CPU, and whenever it does not run. */
static __always_inline void keep_collecting(struct collector *c, struct work *w)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	if (w->collecting && now - c->last_run < 3 * COLLECT_EVERY)
		return;
	w->collecting = 1;
	c->last_run = now;
	bpf_timer_init(&c->timer, &collect, CLOCK_MONOTONIC_ID);
	bpf_timer_set_callback(&c->timer, collect_flows);
	bpf_timer_start(&c->timer, COLLECT_EVERY, 0);
}

/* The table is full: dead flows go now, not at the next tick. */
static __always_inline void collect_now(struct collector *c)
{
	if (bpf_ktime_get_coarse_ns() - c->last_run > COLLECT_EVERY / 10)
		bpf_timer_start(&c->timer, 0, 0);
}

#endif
