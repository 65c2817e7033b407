/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is read of the server's side: the answer to an Upgrade, and where an answer ends. */
#ifndef YETT_REPLY_BPF_H
#define YETT_REPLY_BPF_H

#include "http.bpf.h"

/* -- the answer to an Upgrade -------------------------------------------------------------- */

struct response {
	struct __sk_buff *skb;
	struct flow *f;
	__u32 offset;
	__u32 len;
	__u32 reason;
};

enum response_state {
	RESPONSE_MINOR = 7,  /* position of the minor version */
	RESPONSE_STATUS = 9, /* position of the first digit in "HTTP/1.1 101" */
	RESPONSE_SKIP = 16,  /* inside an interim response */
	RESPONSE_CR = 17,
	RESPONSE_LF = 18,
	RESPONSE_CR2 = 19,
};

/* "HTTP/1.1 " */
static __always_inline __u8 status_line_byte(__u32 i)
{
	return i < 8 ? 0x312e312f50545448ULL >> (8 * i) : ' ';
}

/* One byte of the response to a request with Upgrade (RFC 9110, 15.2 and 7.8). */
static long response_byte(__u32 i, struct response *r)
{
	struct flow *f = r->f;
	__u8 byte, state = f->upgrade_state;

	if (i >= r->len || !(f->flags & FLOW_UPGRADE))
		return 1;
	if (bpf_skb_load_bytes(r->skb, r->offset + i, &byte, 1)) {
		r->reason = REASON_INTERNAL;
		return 1;
	}
	f->upgrade_seq++;
	if (state < RESPONSE_STATUS) {
		if (byte != status_line_byte(state) && state != RESPONSE_MINOR) {
			/* The rest of an earlier answer: look again where the next packet
			 * begins. */
			f->upgrade_state = 0;
			f->upgrade_seq += r->len - i - 1;
			return 1;
		}
		f->upgrade_state = state + 1;
	} else if (state == RESPONSE_STATUS) {
		if (byte != '1') { /* final: a tunnel, or the connection stays HTTP/1 */
			clear_flags(f, FLOW_UPGRADE);
			if (byte == '2' && (f->flags & FLOW_CONNECT))
				set_flags(f, FLOW_OPAQUE);
			return 1;
		}
		f->upgrade_state = state + 1;
	} else if (state == RESPONSE_STATUS + 1) {
		f->upgrade_state = byte == '0' ? state + 1 : RESPONSE_SKIP;
	} else if (state == RESPONSE_STATUS + 2) {
		if (byte == '1') {
			clear_flags(f, FLOW_UPGRADE);
			if (f->flags & FLOW_UPGRADE_OK)
				set_flags(f, FLOW_OPAQUE);
			else
				r->reason = REASON_UPGRADE_DENIED;
			return 1;
		}
		f->upgrade_state = RESPONSE_SKIP;
	} else if (byte == '\r') {
		f->upgrade_state = state == RESPONSE_LF ? RESPONSE_CR2 : RESPONSE_CR;
	} else if (byte == '\n') {
		if (state == RESPONSE_CR2 || state == RESPONSE_LF)
			f->upgrade_state = 0;
		else
			f->upgrade_state = RESPONSE_LF;
	} else {
		f->upgrade_state = RESPONSE_SKIP;
	}
	return 0;
}

/* -- where the answer ends, for a 403 that must come behind it -------------------------- */

#define ANSWER_OTHER	  255
#define ANSWER_NAME_LEN	  15
#define ANSWER_LENGTH_MAX (1u << 30)

/* "content-length:" */
static __always_inline __u8 length_name_byte(__u32 i)
{
	return i < 8 ? 0x2d746e65746e6f63ULL >> (8 * i) : 0x3a6874676e656cULL >> (8 * (i - 8));
}

struct answer_scan {
	struct __sk_buff *skb;
	struct flow *f;
	struct work *w;
	__u32 n;
};

/* One byte of the head of an answer (RFC 9112, 6.3). */
static long answer_byte(__u32 i, struct answer_scan *s)
{
	struct flow *f = s->f;
	__u8 byte;

	if (i >= s->n || f->answer != ANSWER_HEAD)
		return 1;
	byte = s->w->compare[i & 255];
	f->answer_at++;
	if (byte == '\r')
		return 0;
	if (byte == '\n') {
		if (!f->answer_line) {
			f->answer = f->answer_sized ? ANSWER_BODY : ANSWER_UNKNOWN;
			f->answer_end = f->answer_at + f->answer_length;
		}
		f->answer_line = 0;
		f->answer_match = 0;
		return 0;
	}
	if (f->answer_line < 255)
		f->answer_line++;
	if (f->answer_match < ANSWER_NAME_LEN) {
		__u8 lower = byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;

		f->answer_match = lower == length_name_byte(f->answer_match) ? f->answer_match + 1
									     : ANSWER_OTHER;
		/* Two lengths, or a body by chunks: not for us to tell. */
		if (f->answer_match == ANSWER_NAME_LEN && f->answer_sized++)
			f->answer = ANSWER_UNKNOWN;
	} else if (f->answer_match == ANSWER_NAME_LEN && byte >= '0' && byte <= '9') {
		f->answer_length = f->answer_length * 10 + (byte - '0');
		if (f->answer_length > ANSWER_LENGTH_MAX)
			f->answer = ANSWER_UNKNOWN;
	}
	return 0;
}

static long answer_block(__u32 index, struct answer_scan *s)
{
	struct work *w = s->w;
	struct flow *f = s->f;
	__u32 n = w->p.seq + w->p.len - f->answer_at;

	if (f->answer != ANSWER_HEAD || (__s32)n <= 0)
		return 1;
	if (n > 256)
		n = 256;
	if (bpf_skb_load_bytes(s->skb, w->p.payload + (f->answer_at - w->p.seq), w->compare,
			       ((n - 1) & 255) + 1)) {
		f->answer = ANSWER_UNKNOWN;
		return 1;
	}
	s->n = n;
	bpf_loop(256, answer_byte, s, 0);
	return 0;
}

static __noinline int follow_answer(struct __sk_buff *skb, struct work *w, struct flow *f)
{
	struct answer_scan s = {.skb = skb, .f = f, .w = w};

	if ((__s32)(w->p.seq - f->answer_at) > 0)
		f->answer = ANSWER_UNKNOWN; /* a part went by unseen */
	else
		bpf_loop(65536 / 256 + 1, answer_block, &s, 0);
	return 0;
}

static __always_inline __u32 watch_upgrade(struct __sk_buff *skb, struct packet *p, struct flow *f)
{
	__u32 end = p->seq + p->len;
	struct response r = {.skb = skb, .f = f};

	if (!p->len || !before(f->upgrade_seq, end))
		return 0;
	if (before(f->upgrade_seq, p->seq))
		return REASON_TCP_FUTURE_SEGMENT;
	r.offset = p->payload + (f->upgrade_seq - p->seq);
	r.len = end - f->upgrade_seq;
	bpf_loop(r.len, response_byte, &r, 0);
	return r.reason;
}

#endif
