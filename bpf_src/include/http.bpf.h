/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* HTTP over a flow: what the engine needs around its tables, and the choice of tier. */
#ifndef YETT_HTTP_BPF_H
#define YETT_HTTP_BPF_H

#include "history.bpf.h"
#include "record.bpf.h"

#define MESSAGE_STEPS 65536	 /* a GSO packet full of one-byte chunks takes three a chunk */
#define BODY_STEP     (1u << 30) /* keeps sequence comparisons within 2^31 */

enum found {
	FOUND_NONE,
	FOUND_ALLOW,
	FOUND_DENY,
};

/* Context of the loops: pointers cannot live in a map, the rest is in struct work. */
struct scan {
	struct __sk_buff *skb;
	struct flow *f;
	struct work *w;
	struct history *h;
	void *rules;
	__u32 end; /* sequence number after the payload */
	__u32 operand;
	__u16 before;
	__u16 action;
	__u8 byte;
};

static __always_inline long deny_scan(struct scan *s, __u32 reason)
{
	s->w->reason = reason;
	s->w->stop = 1;
	return 1;
}

static __always_inline __u32 duplicate_reason(__u32 header)
{
	switch (header) {
	case HEADER_HOST:
		return REASON_HTTP_DUPLICATE_HOST;
	case HEADER_CONTENT_LENGTH:
		return REASON_HTTP_DUPLICATE_LENGTH;
	case HEADER_TRANSFER_ENCODING:
		return REASON_HTTP_DUPLICATE_ENCODING;
	}
	return REASON_HTTP_AMBIGUOUS_HEADER;
}

/* How many of eight bytes there are before one below 0x20 or 0x7f.  (SWAR.) */
static __always_inline __u32 plain_in(__u64 a)
{
	const __u64 ones = 0x0101010101010101ULL, high = 0x8080808080808080ULL;
	__u64 x = a ^ (ones * 0x7f);
	/* A borrow can only make a false bit above a true one, and the lowest counts. */
	__u64 found = (((a - ones * 0x20) & ~a) | ((x - ones) & ~x)) & high;

	if (!found)
		return 8;
	return ((((found & -found) - 1) & ones) * ones >> 56) - 1;
}

/* Of PLAIN_STEP bytes. */
#define PLAIN_STEP 64
static __always_inline __u32 plain_bytes(const __u8 *in)
{
	__u32 n, k;

#pragma unroll
	for (k = 0; k < PLAIN_STEP; k += 8) {
		n = plain_in(*(const __u64 *)(in + k));
		if (n < 8)
			return k + n;
	}
	return PLAIN_STEP;
}

/* Position of the only bit of a number below 2^16. */
static __always_inline __u32 low_bit(__u32 bit)
{
	return !!(bit & 0xff00) << 3 | !!(bit & 0xf0f0) << 2 | !!(bit & 0xcccc) << 1 |
	       !!(bit & 0xaaaa);
}

/* Is the last answer at its end? */
static __always_inline int is_answered(struct flow *f)
{
	return f->answer == ANSWER_DONE ||
	       (f->answer == ANSWER_BODY && (__s32)(f->reply_seq - f->answer_end) >= 0);
}

/* A request passed: follow its answer, if it is the only one due. */
static __always_inline void expect_answer(struct flow *f)
{
	if (!is_answered(f) || (f->requests > 1 && f->answer == ANSWER_DONE)) {
		f->answer = ANSWER_UNKNOWN;
		return;
	}
	f->answer_at = f->reply_seq;
	f->answer_length = 0;
	f->answer_line = 0;
	f->answer_match = 0;
	f->answer_sized = 0;
	f->answer = ANSWER_HEAD;
}

/* What the search for an alternative found becomes a verdict; 0 or a reason to deny. */
static __always_inline __u32 judge_found(struct scan *s, struct ruleset *rs)
{
	struct flow *f = s->f;
	struct work *w = s->w;
	__u32 reason = REASON_ALLOWED, verdict = VERDICT_ALLOW;

	if (w->found == FOUND_DENY) {
		w->rule += rs->rule_base;
		return REASON_DENY_RULE_L7;
	}
	if (w->found == FOUND_NONE) {
		reason = REASON_POLICY_DENIED_L7;
		if (w->unmet) { /* the lowest bit: one reason, not several */
			__u32 bit;

			for (bit = 0; bit < 16; bit++)
				if (w->unmet & (1u << bit))
					break;
			reason = REASON_AMBIGUOUS_DOT_SEGMENT + bit;
		}
		w->rule = rs->default_rule + rs->rule_base;
		/* Beside rules that deny for good, audit forgives no ambiguity. */
		if (!(rs->flags & RULESET_AUDIT) || (w->unmet && (rs->flags & RULESET_DENIES)))
			return reason;
		verdict = VERDICT_AUDIT;
	} else if (w->audit_rule) {
		reason = REASON_DENY_RULE_L7;
		verdict = VERDICT_AUDIT;
		w->rule = w->audit_rule - 1 + rs->rule_base;
	} else {
		w->rule += rs->rule_base;
	}
	f->requests++;
	if ((f->seen_headers & (1 << HEADER_UPGRADE)) || w->connect) {
		__u32 flags = FLOW_UPGRADE;

		if (f->conditions & w->upgrade)
			flags |= FLOW_UPGRADE_OK;
		if (w->connect)
			flags |= FLOW_CONNECT;
		/* While an earlier answer is due, the answer to this one cannot be found. */
		if (f->requests > 1 && f->asked_seq == f->reply_seq)
			return REASON_UPGRADE_DENIED;
		f->upgrade_seq = f->reply_seq;
		f->upgrade_state = 0;
		clear_flags(f, FLOW_UPGRADE_OK | FLOW_CONNECT);
		set_flags(f, flags);
	}
	f->asked_seq = f->reply_seq;
	if (rs->flags & RULESET_FORBIDDEN)
		expect_answer(f);
	/* w->reason is for denials; the record borrows it. */
	w->verdict = verdict;
	w->reason = reason;
	record_request(s->skb, w, f, s->h);
	w->reason = 0;
	return 0;
}

static __always_inline void begin_head(struct scan *s)
{
	struct flow *f = s->f;

	f->head_seq = f->next_seq;
	f->head_time = bpf_ktime_get_coarse_ns();
	f->length = 0;
	f->seen_headers = 0;
	f->ambiguous = 0;
	f->rule_set = 0;
	f->chunk_digits = 0;
	f->minor = 0;
	f->scan_flags = SCAN_IN_HEAD;
}

/* Bytes of a body of known length are stepped over; true if that is what there was to do. */
static __always_inline int skip_body(struct scan *s)
{
	struct flow *f = s->f;
	__u64 step = f->body_left;

	if (!step)
		return 0;
	if ((__s32)(s->end - f->next_seq) < 0) /* the packet ends inside the body */
		return 0;
	if (step > BODY_STEP)
		step = BODY_STEP;
	set_zone(f, f->next_seq, f->next_seq + (__u32)step);
	f->body_left -= step;
	return 1;
}

/* Has the bytes of the stream from `from` on at hand; true if that failed. */
static __always_inline int load_chunk(struct scan *s, __u32 from)
{
	struct work *w = s->w;
	__u32 n, offset;

	if (from - w->chunk_seq < w->n) { /* still there: pipelined requests, small chunks */
		w->i = from - w->chunk_seq;
		return 0;
	}
	n = s->end - from;
	if (n > SCAN_CHUNK)
		n = SCAN_CHUNK;
	if (s->f->scan_flags & SCAN_IN_HEAD) {
		__u32 room = YETT_HEAD_MAX - (from - s->f->head_seq);

		if (!room) {
			w->reason = REASON_HTTP_HEAD_TOO_LONG;
			return 1;
		}
		if (n > room)
			n = room;
	}
	offset = w->p.payload + (from - w->p.seq);
	/*
	 * The pages of the payload may still be in the sender's hands (sendfile, splice): what
	 * is inspected must be what is delivered, so it moves into the packet's own buffer.
	 */
	if ((void *)(long)s->skb->data + offset + n > (void *)(long)s->skb->data_end &&
	    bpf_skb_pull_data(s->skb, offset + n)) {
		w->reason = REASON_INTERNAL;
		return 1;
	}
	if (bpf_skb_load_bytes(s->skb, offset, w->chunk, ((n - 1) & (SCAN_CHUNK - 1)) + 1)) {
		w->reason = REASON_INTERNAL;
		return 1;
	}
	w->chunk_seq = from;
	w->i = 0;
	w->n = n;
	return 0;
}

#define TIER	   0
#define TIER_BYTES 65536
#define TIER_SHIFT 0
#include "engine.bpf.h"
#define TIER	   1
#define TIER_BYTES 262144
#define TIER_SHIFT 2
#include "engine.bpf.h"
#define TIER	   2
#define TIER_BYTES 1048576
#define TIER_SHIFT 4
#include "engine.bpf.h"
#define TIER	   3
#define TIER_BYTES 4194304
#define TIER_SHIFT 6
#include "engine.bpf.h"

static __always_inline __u32 run_tier(struct __sk_buff *skb, struct work *w, struct flow *f,
				      struct history *h)
{
	switch (w->handle >> 24) {
	case 0:
		return engine0(skb, w, f, h);
	case 1:
		return engine1(skb, w, f, h);
	case 2:
		return engine2(skb, w, f, h);
	case 3:
		return engine3(skb, w, f, h);
	}
	return REASON_RULESET_GONE;
}

/* Inspects the payload from flow.next_seq on; 0 or the reason to deny.  Under flow.busy. */
static __always_inline __u32 inspect(struct __sk_buff *skb, struct work *w, struct flow *f)
{
	struct history *h = claim_history(f);
	__u32 reason;

	w->n = 0;
	w->want = f->ruleset;
	w->reason = 0;
	w->forbidden = 0;
	w->rule = f->rule;
	w->state = f->state;
	w->ruleset_flags = 0;
	w->rebind = 0;
	w->handle = f->phase == PHASE_START ? w->want : f->scan_ruleset;
	reason = run_tier(skb, w, f, h);
	if (!reason && w->rebind) {
		/* The packet finished a request under the old ruleset and begins another. */
		w->rebind = 0;
		w->handle = w->want;
		reason = run_tier(skb, w, f, h);
	}
	if (!reason && (__s32)(w->p.seq + w->p.len - f->next_seq) > 0)
		reason = REASON_INTERNAL; /* the loops ran out: never let the rest through */
	if (!reason)
		return 0;
	if (reason != REASON_DENY_RULE_L7 && (w->ruleset_flags & RULESET_FORBIDDEN))
		w->forbidden = 1;
	w->audit = (w->ruleset_flags & (RULESET_AUDIT | RULESET_DENIES)) == RULESET_AUDIT;
	w->recorded = 1;
	w->verdict = w->audit ? VERDICT_AUDIT : VERDICT_DENY;
	w->reason = reason;
	record_request(skb, w, f, h);
	return reason;
}

#endif
