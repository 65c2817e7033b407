/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What a denial looks like to the two sides of a TCP connection. */
#ifndef YETT_VERDICT_BPF_H
#define YETT_VERDICT_BPF_H

#include "answer.bpf.h"
#include "flow.bpf.h"
#include "stream.bpf.h"

#define TC_ACT_UNSPEC (-1)
#define TC_ACT_SHOT   2

static __always_inline int is_request(struct flow *f, struct work *w)
{
	return (f->direction == DIR_INGRESS) != w->from_pod;
}

/* Acknowledges everything in the packet, to its sender. */
static __always_inline void answer_sender(struct work *w, struct answer *a, __u8 flags)
{
	__builtin_memset(a, 0, sizeof(*a));
	a->reverse = 1;
	a->seq = w->sender_seq;
	a->ack = w->p.seq + w->p.len + !!(w->p.flags & TCP_FIN);
	a->flags = flags;
}

/*
 * Both sides learn that the connection is over.  The sender's reset (or its 403) carries the
 * very number it expects next (RFC 5961, 3.2: any other would be challenged); the packet
 * itself becomes the reset of the other side, which expects `forward_seq`.
 */
__noinline int reset_both(struct __sk_buff *skb, struct work *w, __u32 forward_seq)
{
	struct answer a;

	if (!w || (w->p.flags & TCP_RST))
		return TC_ACT_SHOT;
	answer_sender(w, &a, TCP_RST | TCP_ACK);
	if (w->forbidden) {
		a.flags = TCP_PSH | TCP_ACK | TCP_FIN;
		a.forbidden = 1;
	}
	if (w->p.flags & TCP_ACK) {
		if (make_answer(skb, w, &a))
			return TC_ACT_SHOT;
		send_back(skb, w->from_pod);
		a.swapped = 1;
	}
	a.reverse = 0;
	a.forbidden = 0;
	a.seq = forward_seq;
	a.ack = w->p.ack;
	a.flags = TCP_RST | TCP_ACK;
	return make_answer(skb, w, &a) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/*
 * A SYN on ports whose client has just sent a reset: perhaps the server did not take that, and
 * still knows the old connection.  So the SYN becomes a reset that it must take, and the client's
 * next SYN, a second later, finds the ports free.
 */
__noinline int end_old_stream(struct __sk_buff *skb, struct work *w, struct flow *f)
{
	struct answer a = {.flags = TCP_RST | TCP_ACK};

	if (!w || !f)
		return TC_ACT_SHOT;
	count(f->direction, REASON_TCP_HANDSHAKE, 0);
	a.seq = f->passed_seq;
	a.ack = f->reply_seq;
	poison_flow(f, 0);
	return make_answer(skb, w, &a) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* A packet of a flow that was denied: answered with what ends the connection, never passed. */
__noinline int answer_poisoned(struct __sk_buff *skb, struct work *w, struct flow *f)
{
	struct answer a;

	if (!w || !f || w->p.proto != IPPROTO_TCP || (w->p.flags & TCP_RST) ||
	    !(w->p.flags & TCP_ACK))
		return TC_ACT_SHOT;
	answer_sender(w, &a, TCP_RST | TCP_ACK);
	if ((f->flags & FLOW_FORBIDDEN) && is_request(f, w) && !(w->p.flags & TCP_FIN)) {
		/* The client may still be sending a body: let it finish and read the 403. */
		if (!w->p.len)
			return TC_ACT_SHOT;
		a.flags = TCP_ACK;
		a.seq = f->reply_seq;
	}
	if (!make_answer(skb, w, &a))
		send_back(skb, w->from_pod);
	return TC_ACT_SHOT;
}

/* A segment ahead of its turn is dropped; a duplicate ACK keeps fast retransmit alive
 * (RFC 5681, 3.2).  An early probe gets the ACK that it asks for. */
__noinline int answer_future(struct __sk_buff *skb, struct work *w, struct flow *f)
{
	struct answer a;

	if (!w || !f)
		return TC_ACT_SHOT;
	answer_sender(w, &a, TCP_ACK);
	a.ack = is_request(f, w) ? f->acked_seq : f->upgrade_seq;
	if (!make_answer(skb, w, &a))
		send_back(skb, w->from_pod);
	return TC_ACT_SHOT;
}

/* May a 403 be put in?  Behind the answer to the last request, where the client awaits it, and
 * not beyond the client's window, where it would be thrown away. */
static __always_inline int may_answer(struct flow *f, struct work *w)
{
	if (f->reply_seq != w->p.ack || (__u32)w->p.window << f->client_scale <= FORBIDDEN_LEN)
		return 0;
	return !f->requests || (f->answer == ANSWER_BODY && f->reply_seq == f->answer_end);
}

/* The HTTP engine's say on a packet of a flow. */
__noinline int judge_stream(struct __sk_buff *skb, struct work *w, struct flow *f,
			    __u32 head_timeout_ms)
{
	__u32 forward_seq, reason;
	int request;

	if (!w || !f)
		return TC_ACT_SHOT;
	w->identity = f->identity;
	w->audit = 0;
	w->forbidden = 0;
	w->head_timeout_ns = head_timeout_ms * 1000000ULL;
	request = is_request(f, w);
	if (request)
		reason = from_client(skb, w, f);
	else
		reason = from_server(skb, w, f);
	if (!reason)
		return TC_ACT_UNSPEC;
	if (reason == REASON_POISONED) {
		count(f->direction, REASON_POISONED, 0);
		return answer_poisoned(skb, w, f);
	}
	if (!w->recorded) {
		w->direction = f->direction;
		w->verdict = VERDICT_DENY;
		w->reason = reason;
		w->rule = f->rule;
		record_flow(skb, w, f);
	}
	if (reason == REASON_TCP_FUTURE_SEGMENT ||
	    (reason == REASON_TCP_HANDSHAKE && request && is_early_probe(&w->p, f)))
		return answer_future(skb, w, f);
	if (is_passing_trouble(reason) && !(reason == REASON_TCP_HANDSHAKE && !request))
		return TC_ACT_SHOT;
	if (w->audit)
		return TC_ACT_UNSPEC;
	if (!request || !may_answer(f, w))
		w->forbidden = 0;
	forward_seq = w->p.seq;
	if (request && (f->flags & FLOW_SYNCED)) {
		forward_seq = f->passed_seq;
		/* What the server sent before arrives before our reset does. */
		if (before(w->sender_seq, f->reply_seq))
			w->sender_seq = f->reply_seq;
	}
	if (w->forbidden)
		f->reply_seq = w->sender_seq + FORBIDDEN_LEN + 1;
	poison_flow(f, w->forbidden ? FLOW_FORBIDDEN : 0);
	return reset_both(skb, w, forward_seq);
}

#endif
