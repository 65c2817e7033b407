/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Inspected bytes that the server has not acknowledged yet.  A sender may send them again
 * with other content, and which copy the server takes is not ours to know: so a second copy
 * must equal the first.  Bodies are framed by their length alone and are not kept.
 *
 * A slot belongs to one flow while it is busy (something is unacknowledged); an idle slot
 * may be taken by another flow.  Owner changes happen under flow.busy of the owner.
 */
#ifndef YETT_HISTORY_BPF_H
#define YETT_HISTORY_BPF_H

#include "packet.bpf.h"

#define HISTORY_PROBES 8

static __always_inline void set_flags(struct flow *f, __u32 flags)
{
	__sync_fetch_and_or(&f->flags, flags);
}

static __always_inline void clear_flags(struct flow *f, __u32 flags)
{
	__sync_fetch_and_and(&f->flags, ~flags);
}

struct locking {
	struct flow *f;
	__u32 got;
};

static long try_lock(__u32 i, struct locking *l)
{
	l->got = !__sync_val_compare_and_swap(&l->f->busy, 0, 1);
	return l->got;
}

#define BUSY_SPINS 8192

/* One CPU at a time.  The holder needs a microsecond or two; a waiter gives up after many
 * times that, since the holder's CPU may have been taken away, and drops its packet. */
__noinline int lock_flow(struct flow *f)
{
	struct locking l = {.f = f};

	if (!f)
		return 0;
	bpf_loop(BUSY_SPINS, try_lock, &l, 0);
	return l.got;
}

static __always_inline void unlock_flow(struct flow *f)
{
	__sync_val_compare_and_swap(&f->busy, 1, 0);
}

static __always_inline struct history *owned_history(struct flow *f)
{
	__u32 slot = f->history - 1;
	struct history *h;

	if (!f->history)
		return NULL;
	h = bpf_map_lookup_elem(&history, &slot);
	if (!h || h->owner >> 1 != f->id)
		return NULL;
	return h;
}

/* Under flow.busy.  Everything was acknowledged: others may have the slot. */
static __always_inline void idle_history(struct flow *f)
{
	struct history *h = owned_history(f);

	if (h)
		__sync_val_compare_and_swap(&h->owner, f->id << 1 | 1, f->id << 1);
}

/* Under flow.busy.  Never NULL on a sane system: without a free slot, bytes are inspected in
 * a buffer of this CPU and cannot be compared later. */
static __noinline struct history *claim_history(struct flow *f)
{
	__u32 zero = 0, slots = 1024, slot, i;
	__u64 busy = f->id << 1 | 1, owner;
	struct config *cfg;
	struct history *h;

	slot = f->history - 1;
	if (f->history) {
		h = bpf_map_lookup_elem(&history, &slot);
		if (h) {
			owner = __sync_val_compare_and_swap(&h->owner, f->id << 1, busy);
			if (owner >> 1 == f->id)
				return h;
		}
		f->history = 0;
	}
	cfg = bpf_map_lookup_elem(&config, &zero);
	if (cfg && cfg->history_slots)
		slots = cfg->history_slots;
	slot = (__u32)(f->id * 2654435761u);
	for (i = 0; i < HISTORY_PROBES; i++) {
		slot = (slot + 1) & (slots - 1);
		h = bpf_map_lookup_elem(&history, &slot);
		if (!h)
			break;
		owner = h->owner;
		if (owner & 1)
			continue;
		if (__sync_val_compare_and_swap(&h->owner, owner, busy) != owner)
			continue;
		h->first = 0;
		h->count = 0;
		f->history = slot + 1;
		return h;
	}
	h = bpf_map_lookup_elem(&no_history, &zero);
	if (h) {
		h->first = 0;
		h->count = 0;
	}
	return h;
}

/* [start, end) was inspected. */
static __always_inline void keep_range(struct history *h, __u32 start, __u32 end)
{
	__u32 last = (h->first + h->count - 1) % HISTORY_RANGES;

	if (h->count && h->ranges[last].end == start) {
		h->ranges[last].end = end;
		return;
	}
	if (h->count == HISTORY_RANGES) {
		h->first = (h->first + 1) % HISTORY_RANGES;
		h->count--;
	}
	last = (h->first + h->count) % HISTORY_RANGES;
	h->ranges[last].start = start;
	h->ranges[last].end = end;
	h->count++;
}

/* Under flow.busy.  The flow's slot may go to anybody. */
static __always_inline void free_history(struct flow *f)
{
	struct history *h = owned_history(f);

	if (h) {
		__sync_val_compare_and_swap(&h->owner, f->id << 1 | 1, 0);
		__sync_val_compare_and_swap(&h->owner, f->id << 1, 0);
	}
	f->history = 0;
}

/* Nothing of the flow passes any more.  The flags first: whoever waits for the lock looks at
 * them again when it has it. */
static __always_inline void poison_flow(struct flow *f, __u32 flags)
{
	set_flags(f, FLOW_POISONED | flags);
	if (lock_flow(f)) {
		free_history(f);
		unlock_flow(f);
	}
}

struct comparison {
	struct __sk_buff *skb;
	struct history *h;
	struct work *w;
	__u32 payload; /* offset of the payload in the packet */
	__u32 seq;     /* of the packet */
	__u32 low;     /* compare [low, high) */
	__u32 high;
	__u32 from; /* of the block at hand */
	__u32 n;
	__u32 reason;
};

static long compare_byte(__u32 i, struct comparison *c)
{
	if (i >= c->n)
		return 1;
	if (c->w->compare[i & 255] != c->h->bytes[(c->from + i) & (HISTORY_RING - 1)]) {
		c->reason = REASON_TCP_RETRANSMIT_DIFFERS;
		return 1;
	}
	return 0;
}

static long compare_block(__u32 index, struct comparison *c)
{
	__u32 from = c->low + index * 256, n = c->high - from;

	if ((__s32)n <= 0)
		return 1;
	if (n > 256)
		n = 256;
	if (c->h->top - from > HISTORY_RING) {
		c->reason = REASON_TCP_RETRANSMIT_UNKNOWN;
		return 1;
	}
	if (bpf_skb_load_bytes(c->skb, c->payload + (from - c->seq), c->w->compare,
			       ((n - 1) & 255) + 1)) {
		c->reason = REASON_INTERNAL;
		return 1;
	}
	c->from = from;
	c->n = n;
	bpf_loop(256, compare_byte, c, 0);
	return c->reason != 0;
}

static long compare_range(__u32 index, struct comparison *c)
{
	struct history *h = c->h;
	__u32 low = c->low, high = c->high, start, end;
	__u32 at = (h->first + index) % HISTORY_RANGES;

	if (index >= h->count)
		return 1;
	start = h->ranges[at].start;
	end = h->ranges[at].end;
	if (index == 0 && (__s32)(low - start) < 0) {
		c->reason = REASON_TCP_RETRANSMIT_UNKNOWN;
		return 1;
	}
	if ((__s32)(start - low) > 0)
		c->low = start;
	if ((__s32)(end - high) < 0)
		c->high = end;
	if ((__s32)(c->high - c->low) > 0)
		bpf_loop(65536 / 256 + 1, compare_block, c, 0);
	c->low = low;
	c->high = high;
	return c->reason != 0;
}

/* Do the structural bytes [w->low, w->high) of the packet equal what was inspected?  0 or a
 * reason. */
__noinline int compare_history(struct __sk_buff *skb, struct work *w, struct flow *f)
{
	struct comparison c = {.skb = skb, .w = w};

	if (!w || !f)
		return REASON_INTERNAL;
	c.payload = w->p.payload;
	c.seq = w->p.seq;
	c.low = w->low;
	c.high = w->high;

	c.h = owned_history(f);
	if (!c.h || !c.h->count)
		return REASON_TCP_RETRANSMIT_UNKNOWN;
	/* The sender may own the pages and change them after we looked: make them ours. */
	if (bpf_skb_pull_data(skb, w->p.payload + (w->high - w->p.seq)))
		return REASON_INTERNAL;
	bpf_loop(HISTORY_RANGES, compare_range, &c, 0);
	return c.reason;
}

#endif
