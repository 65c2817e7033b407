/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The TCP discipline around the HTTP engine.  TCP lets a hostile sender show us bytes that
 * the server will not take, and the server bytes that we did not see; so:
 *   - the position in the stream comes from the server's own SYN-ACK, never from a guess;
 *   - the first copy of a byte counts; another copy must be equal (history.bpf.h);
 *   - where the bytes matter, nothing passes ahead of its turn;
 *   - what is inside a body of known length, or already acknowledged, may come in any order.
 */
#ifndef YETT_STREAM_BPF_H
#define YETT_STREAM_BPF_H

#include "http.bpf.h"

#define UNKNOWN_MAX 3
#define SEQ_WINDOW  (1u << 30)

/* a is before b, modulo 2^32 (RFC 9293, 3.4) */
static __always_inline int before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

/* MPTCP (RFC 8684) spreads a stream over subflows: without the option both sides fall back to
 * plain TCP.  Overwrites option 30 with no-operations; reads the window scale on the way. */
#define TCP_OPTIONS_MAX	    40
#define OPTION_MPTCP	    30
#define OPTION_WINDOW_SCALE 3

struct options {
	__u8 bytes[TCP_OPTIONS_MAX];
	__u32 at;
	__u32 len;
	__u32 wipe; /* bytes still to overwrite */
	__u32 found;
	__u32 scale;
};

/* One option, or one byte of an option that goes. */
static long strip_option(__u32 index, struct options *o)
{
	__u32 at = o->at, kind, len;

	if (at >= o->len || at >= TCP_OPTIONS_MAX - 1)
		return 1;
	if (o->wipe) {
		o->bytes[at] = 1;
		o->wipe--;
		o->at = at + 1;
		return 0;
	}
	kind = o->bytes[at];
	if (kind == 0)
		return 1;
	if (kind == 1) {
		o->at = at + 1;
		return 0;
	}
	len = o->bytes[at + 1];
	if (len < 2)
		return 1;
	if (kind == OPTION_WINDOW_SCALE && at + 2 < TCP_OPTIONS_MAX)
		o->scale = o->bytes[at + 2];
	if (kind == OPTION_MPTCP) {
		o->found = 1;
		o->wipe = len;
		return 0;
	}
	o->at = at + len;
	return 0;
}

__noinline int syn_options(struct __sk_buff *skb, struct work *w)
{
	struct options o = {};
	__u8 original[TCP_OPTIONS_MAX];
	__u32 at, len;
	__s64 diff;

	if (!w)
		return 0;
	w->client_scale = 0;
	at = w->p.l4 + 20;
	len = w->p.payload - at;

	if (len < 4 || len > TCP_OPTIONS_MAX)
		return 0;
	if (bpf_skb_load_bytes(skb, at, o.bytes, len))
		return 0;
	__builtin_memcpy(original, o.bytes, TCP_OPTIONS_MAX);
	o.len = len;
	bpf_loop(2 * TCP_OPTIONS_MAX, strip_option, &o, 0);
	w->client_scale = o.scale > 14 ? 14 : o.scale;
	if (!o.found)
		return 0;
	diff = bpf_csum_diff((__be32 *)original, TCP_OPTIONS_MAX, (__be32 *)o.bytes,
			     TCP_OPTIONS_MAX, 0);
	if (diff < 0)
		return 0;
	bpf_skb_store_bytes(skb, at, o.bytes, len, BPF_F_RECOMPUTE_CSUM);
	bpf_l4_csum_replace(skb, w->p.l4 + 16, 0, diff, 0);
	return 0;
}

/* Under flow.busy.  The stream begins where the server's SYN-ACK says. */
static __always_inline void begin_stream(struct flow *f, struct packet *p)
{
	free_history(f);
	set_zone(f, p->ack, p->ack);
	f->start_seq = f->passed_seq = f->acked_seq = p->ack;
	f->server_isn = p->seq;
	f->answer_seq = f->reply_seq = p->seq + 1;
	f->requests = 0;
	f->answer = ANSWER_DONE;
	f->phase = PHASE_START;
	f->body_left = 0;
	f->scan_flags = 0;
	clear_flags(f, ~(FLOW_HTTP | FLOW_MIDSTREAM));
	set_flags(f, FLOW_SYNCED | FLOW_ESTABLISHED);
}

/*
 * A SYN-ACK.  It begins the stream if it answers the last SYN and the client has sent nothing
 * else since: the server could otherwise have opened the connection by another SYN (with SYN
 * cookies it remembers none).  A repetition must not set the position back.
 */
static __always_inline __u32 syn_ack(struct packet *p, struct flow *f)
{
	__u32 reason = 0;

	if (!lock_flow(f))
		return REASON_TCP_BUSY;
	if (!(f->flags & FLOW_SYN) || p->ack != f->pending_seq)
		goto out;
	if ((f->flags & (FLOW_SYNCED | FLOW_RETURNED)) && p->seq == f->server_isn)
		goto out; /* the same again, perhaps of a connection that still lives */
	if ((f->flags & FLOW_SYNCED) && (f->flags & FLOW_OPENED))
		reason = REASON_TCP_HANDSHAKE;
	else
		begin_stream(f, p);
out:
	unlock_flow(f);
	return reason;
}

/* -- the server's side: only the answer to an Upgrade is looked at ---------------------- */

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

__noinline int from_server(struct __sk_buff *skb, struct work *w, struct flow *f)
{
	struct packet *p;
	__u32 end, seen, i;

	if (!w || !f)
		return REASON_INTERNAL;
	p = &w->p;
	if ((p->flags & TCP_SYN) && (p->flags & TCP_ACK))
		return syn_ack(p, f);
	if (p->flags & TCP_RST) {
		set_flags(f, FLOW_CLOSED);
		return 0;
	}
	if (p->flags & TCP_FIN) {
		set_flags(f, FLOW_FIN_REPLY);
		if (f->flags & FLOW_FIN_REQUEST)
			set_flags(f, FLOW_CLOSED);
	}
	if (!(f->flags & FLOW_SYNCED))
		return 0;
	if ((p->flags & TCP_ACK) && before(f->acked_seq, p->ack) &&
	    !before(f->passed_seq, p->ack)) {
		f->acked_seq = p->ack;
		f->unknowns = 0;
		/* Comparisons hold for distances below 2^31. */
		if (p->ack - f->start_seq > SEQ_WINDOW)
			f->start_seq = p->ack - SEQ_WINDOW / 2;
		if (f->keeping && !before(p->ack, f->body_seq) && lock_flow(f)) {
			if (!before(f->acked_seq, f->body_seq))
				idle_history(f);
			unlock_flow(f);
		}
	}
	if (f->flags & FLOW_UPGRADE) {
		__u32 reason = watch_upgrade(skb, p, f);

		if (reason)
			return reason;
	}
	if (f->answer == ANSWER_HEAD && p->len)
		follow_answer(skb, w, f);
	end = p->seq + p->len + !!(p->flags & TCP_FIN);
	/* It must never go back: what a client acknowledges is held against it. */
	for (i = 0; i < 8; i++) {
		seen = f->reply_seq;
		if (!before(seen, end) ||
		    __sync_val_compare_and_swap(&f->reply_seq, seen, end) == seen)
			break;
	}
	if (end - f->answer_seq > SEQ_WINDOW && before(f->answer_seq, end))
		f->answer_seq = end - SEQ_WINDOW / 2;
	return 0;
}

/* The sender will try again, with the same bytes if it is honest. */
static __always_inline int is_passing_trouble(__u32 reason)
{
	return reason == REASON_TCP_BUSY || reason == REASON_TCP_FUTURE_SEGMENT ||
	       reason == REASON_TCP_RETRANSMIT_UNKNOWN || reason == REASON_TCP_SYN_DATA ||
	       reason == REASON_TCP_HANDSHAKE || reason == REASON_TCP_FLAGS;
}

/* -- the client's side -------------------------------------------------------------------- */

/* Under flow.busy: data or FIN of the request stream. */
static __always_inline __u32 request_bytes(struct __sk_buff *skb, struct work *w, struct flow *f)
{
	struct packet *p = &w->p;
	__u32 end = p->seq + p->len, reason;

	if (before(f->next_seq, p->seq))
		return REASON_TCP_FUTURE_SEGMENT;

	/* Bytes seen before and not acknowledged, but for the body just before next_seq. */
	w->low = before(p->seq, f->acked_seq) ? f->acked_seq : p->seq;
	w->high = before(end, f->body_seq) ? end : f->body_seq;
	if (before(w->low, w->high)) {
		reason = compare_history(skb, w, f);
		/* An honest sender that comes again and again will not get through either:
		 * better an end than silence. */
		if (reason == REASON_TCP_RETRANSMIT_UNKNOWN && ++f->unknowns > UNKNOWN_MAX)
			return REASON_TCP_RETRANSMIT_DIFFERS;
		if (reason)
			return reason;
	}
	if (before(f->next_seq, end)) {
		if ((f->scan_flags & SCAN_IN_HEAD) &&
		    bpf_ktime_get_coarse_ns() - f->head_time > w->head_timeout_ns)
			return REASON_HTTP_HEAD_TIMEOUT;
		reason = inspect(skb, w, f);
		if (reason)
			return reason;
	}
	if (p->flags & TCP_FIN) {
		/* Some servers execute what they have when the client is done sending. */
		if (end != f->next_seq || f->phase != PHASE_START || f->body_left)
			return before(end, f->acked_seq) ? 0 : REASON_TCP_FIN_IN_REQUEST;
		set_flags(f, FLOW_FIN_REQUEST);
		if (f->flags & FLOW_FIN_REPLY)
			set_flags(f, FLOW_CLOSED);
	}
	if (before(f->passed_seq, end))
		f->passed_seq = end;
	return 0;
}

/*
 * Is the packet of the stream that we follow?  It may not acknowledge what the server of this
 * stream did not send: another SYN-ACK has other numbers.  Nor may it lie before the stream;
 * a keep-alive probe repeats the byte before it.
 *
 * A server that uses SYN cookies opens the connection where the first packet it accepts says,
 * give or take three bytes (the cookie's low bits are the MSS index): until it has
 * acknowledged something, nothing may begin that near to the start but not at it.
 */
static __always_inline int is_of_stream(struct packet *p, struct flow *f)
{
	__u32 from_start = p->seq - f->start_seq;

	if (before(p->ack, f->answer_seq) || before(f->reply_seq, p->ack))
		return 0;
	if (f->acked_seq != f->start_seq)
		return !before(p->seq, f->start_seq - 1);
	return from_start == 0 || (from_start > 3 && from_start < 1u << 31);
}

__noinline int from_client(struct __sk_buff *skb, struct work *w, struct flow *f)
{
	struct packet *p;
	__u32 end, reason, body, next;
	__u64 zone;

	if (!w || !f)
		return REASON_INTERNAL;
	p = &w->p;
	end = p->seq + p->len;
	if (p->flags & TCP_RST) {
		set_flags(f, FLOW_RESET);
		return 0;
	}
	if (p->flags & TCP_SYN) {
		if (p->flags & TCP_ACK)
			return REASON_TCP_HANDSHAKE;
		if (p->len)
			return REASON_TCP_SYN_DATA;
		/* Perhaps a new connection on the same ports: the server's answer will tell. */
		f->pending_seq = p->seq + 1;
		set_flags(f, FLOW_SYN);
		syn_options(skb, w);
		f->client_scale = w->client_scale;
		return 0;
	}
	if (f->flags & FLOW_OPAQUE)
		return 0;
	/* Linux remembers the urgent pointer of any segment, an empty one too, and takes that
	 * byte out of the stream. */
	if (p->flags & TCP_URG)
		return REASON_TCP_URGENT;
	if (!(p->flags & TCP_ACK))
		return REASON_TCP_FLAGS;
	if ((f->flags & FLOW_SYN) || (f->flags & (FLOW_SYNCED | FLOW_OPENED)) == FLOW_SYNCED) {
		/* Whatever SYN-ACK comes from here on, this packet may open the connection. */
		if (!lock_flow(f))
			return REASON_TCP_BUSY;
		clear_flags(f, FLOW_SYN);
		if ((f->flags & FLOW_SYNCED) && is_of_stream(p, f))
			set_flags(f, FLOW_OPENED);
		unlock_flow(f);
	}
	if ((f->flags & FLOW_SYNCED) && !is_of_stream(p, f))
		return REASON_TCP_HANDSHAKE;
	if (!p->len && !(p->flags & TCP_FIN))
		return 0;
	if (!(f->flags & FLOW_SYNCED))
		return REASON_MIDSTREAM;
	/* The server has it already and will throw it away. */
	if (!before(f->acked_seq, end) && !(p->flags & TCP_FIN))
		return 0;
	/* Inside a body: the usual packet of an upload. */
	zone = *(volatile __u64 *)&f->next_seq;
	body = zone >> 32;
	next = (__u32)zone;
	if (!before(p->seq, body) && !before(next, end) && !(p->flags & TCP_FIN) && body != next) {
		if (before(f->passed_seq, end))
			f->passed_seq = end;
		return 0;
	}
	if (!lock_flow(f))
		return REASON_TCP_BUSY;
	if (f->flags & FLOW_POISONED) { /* by the CPU that we waited for */
		reason = REASON_POISONED;
	} else {
		reason = request_bytes(skb, w, f);
		/* Only watching: from here on there is nothing left to watch. */
		if (reason && w->audit)
			set_flags(f, FLOW_OPAQUE | FLOW_AUDITED);
		else if (reason && !is_passing_trouble(reason))
			set_flags(f, FLOW_POISONED);
	}
	unlock_flow(f);
	return reason;
}

#endif
