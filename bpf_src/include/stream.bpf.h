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
#include "options.bpf.h"
#include "reply.bpf.h"

#define UNKNOWN_MAX 3
#define SEQ_WINDOW  (1u << 30)

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
	clear_flags(f, ~(FLOW_HTTP | FLOW_MIDSTREAM | FLOW_FORWARDED));
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

/* -- the server's side ------------------------------------------------------------------ */

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
