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

#include <stddef.h>

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

/* The two positions are read without the lock, so they are written as one. */
static __always_inline void set_zone(struct flow *f, __u32 body, __u32 next)
{
	_Static_assert(offsetof(struct flow, next_seq) % 8 == 0 &&
			       offsetof(struct flow, body_seq) ==
				       offsetof(struct flow, next_seq) + 4,
		       "next_seq and body_seq must be one aligned word");
	*(volatile __u64 *)&f->next_seq = (__u64)body << 32 | next;
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

	f->keeping = 0;
	if (h)
		__sync_val_compare_and_swap(&h->owner, f->id << 1 | 1, f->id << 1);
}

/* An empty history: what is not acknowledged yet is body, or was never kept. */
static __always_inline void reset_history(struct flow *f, struct history *h)
{
	h->first = 0;
	h->count = 0;
	h->total = 0;
	h->known = (__s32)(f->acked_seq - f->body_seq) < 0 ? f->next_seq : f->acked_seq;
}

/* Under flow.busy.  NULL if no slot is free: then bytes pass that cannot be compared later. */
static __noinline struct history *claim_history(struct flow *f)
{
	__u32 zero = 0, slots = 1024, slot, i;
	__u64 busy = f->id << 1 | 1, owner;
	struct config *cfg;
	struct history *h;

	f->keeping = 1;
	slot = f->history - 1;
	if (f->history) {
		h = bpf_map_lookup_elem(&history, &slot);
		if (h) {
			owner = __sync_val_compare_and_swap(&h->owner, f->id << 1, busy);
			if (owner == f->id << 1 && !(f->scan_flags & SCAN_IN_HEAD)) {
				/* All was acknowledged: begin at the start, where the
				 * cache is warm. */
				reset_history(f, h);
			}
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
		reset_history(f, h);
		f->history = slot + 1;
		return h;
	}
	return NULL;
}

/* Small bodies between two ranges of one packet are kept too: fewer ranges. */
#define KEEP_GAP 16

/* The bytes [start, end) of the packet, at most SCAN_CHUNK, were inspected. */
static __always_inline void keep_bytes(struct __sk_buff *skb, struct work *w, struct history *h,
				       __u32 start, __u32 end)
{
	__u32 slot = (h->first + h->count - 1) % HISTORY_RANGES, last = 0, n, at, wrap;

	if (h->count) {
		last = h->ranges[slot].end;
		if (start - last <= KEEP_GAP && last - w->p.seq <= w->p.len &&
		    end - last <= SCAN_CHUNK) {
			start = last;
			h->ranges[slot].end = end;
		} else {
			last = start - 1;
		}
	}
	if (!h->count || last != start) {
		if (h->count == HISTORY_RANGES) {
			h->known = h->ranges[h->first % HISTORY_RANGES].end;
			h->first = (h->first + 1) % HISTORY_RANGES;
			h->count--;
		}
		slot = (h->first + h->count) % HISTORY_RANGES;
		h->ranges[slot].start = start;
		h->ranges[slot].end = end;
		h->ranges[slot].at = h->total;
		h->count++;
	}
	n = end - start;
	if (!n)
		return;
	at = h->total & (HISTORY_RING - 1);
	h->total += n;
	start = w->p.payload + (start - w->p.seq);
	bpf_skb_load_bytes(skb, start, h->bytes + at, ((n - 1) & (SCAN_CHUNK - 1)) + 1);
	if (at + n > HISTORY_RING) {
		wrap = at + n - HISTORY_RING;
		bpf_skb_load_bytes(skb, start + n - wrap, h->bytes,
				   ((wrap - 1) & (SCAN_CHUNK - 1)) + 1);
	}
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
	__u32 from;	/* of the block at hand */
	__u32 first_at; /* of `low` among the kept bytes */
	__u32 at;	/* of `from` */
	__u32 n;
	__u32 reason;
};

static long compare_byte(__u32 i, struct comparison *c)
{
	if (i >= c->n)
		return 1;
	if (c->w->compare[i & 255] != c->h->bytes[(c->at + i) & (HISTORY_RING - 1)]) {
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
	c->at = c->first_at + index * 256;
	if (c->h->total - c->at > HISTORY_RING) {
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

/* From the newest range back to the first that is wholly before `low`. */
static long compare_range(__u32 index, struct comparison *c)
{
	struct history *h = c->h;
	__u32 low = c->low, high = c->high, start, end;
	__u32 at = (h->first + h->count - 1 - index) % HISTORY_RANGES;

	start = h->ranges[at].start;
	end = h->ranges[at].end;
	if ((__s32)(end - low) <= 0)
		return 1;
	if ((__s32)(start - low) > 0)
		c->low = start;
	if ((__s32)(end - high) < 0)
		c->high = end;
	c->first_at = h->ranges[at].at + (c->low - start);
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
	if (!c.h || (__s32)(c.low - c.h->known) < 0)
		return REASON_TCP_RETRANSMIT_UNKNOWN;
	/* The sender may own the pages and change them after we looked: make them ours. */
	if (bpf_skb_pull_data(skb, w->p.payload + (w->high - w->p.seq)))
		return REASON_INTERNAL;
	bpf_loop(c.h->count, compare_range, &c, 0);
	return c.reason;
}

#endif
