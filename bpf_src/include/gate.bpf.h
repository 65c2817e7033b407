/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate: what comes in here belongs to a connection of the sidecar, or begins one. */
#ifndef YETT_GATE_BPF_H
#define YETT_GATE_BPF_H

#include "flow.bpf.h"
#include "verdict.bpf.h"

/*
 * A client uses a port again, and the sidecar's last connection there is in TIME-WAIT (both sides
 * had closed at the same time).  The kernel would look for a listener at the server's own address,
 * find none, and answer for the old connection; the client's next SYN comes 10 ms later, or a
 * second.  So the old one ends now, as behind TPROXY in netfilter: the SYN becomes the reset that
 * it takes, and a copy of the SYN comes after it.  A negative error: the packet must be dropped.
 */
static __always_inline int end_time_wait(struct __sk_buff *skb, struct work *w, struct bpf_sock *sk,
					 __u32 mark)
{
	struct answer a = {.flags = TCP_RST};
	struct tcp_timewait_sock *old = bpf_skc_to_tcp_timewait_sock(sk);

	if (!old || (old->tw_sk.tw_mark != SIDECAR_REPLY && old->tw_sk.tw_mark != SIDECAR_ANSWER))
		return 0;
	a.seq = old->tw_sk.__tw_common.skc_tw_rcv_nxt;
	skb->mark = mark | MARK_TO_GATE_AGAIN;
	if (bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS))
		return 0;
	skb->mark = 0;
	return make_answer(skb, w, &a);
}

/* A packet of an open connection, and Envoy is gone with its sockets.  (New ones do not come here.)
 * Whose interface it was meant for is not known here, but who that is. */
static __always_inline void record_down(struct __sk_buff *skb, struct work *w, __u32 mark)
{
	w->direction = mark & MARK_TO_GATE_EGRESS ? DIR_EGRESS : DIR_INGRESS;
	w->from_pod = w->direction == DIR_EGRESS;
	make_key(skb, w, w->from_pod);
	w->identity = identity_of(w->key.local);
	w->rule = YETT_RULE_NONE;
	w->verdict = VERDICT_DENY;
	w->reason = REASON_SIDECAR_DOWN;
	w->recorded = 0;
	record_flow(skb, w, NULL);
}

SEC("tc")
int gate(struct __sk_buff *skb)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	struct work *w;
	__u32 mark = skb->mark, port = mark & 0xffff, zero = 0;
	long error;

	w = bpf_map_lookup_elem(&scratch, &zero);
	if (!w || (mark & MARK_TO_GATE_MASK) != MARK_TO_GATE)
		return TC_ACT_SHOT;
	skb->mark = 0;
	__builtin_memset(&w->p, 0, sizeof(w->p));
	if (parse_packet(skb, &w->p) || w->p.odd || w->p.proto != IPPROTO_TCP)
		return TC_ACT_SHOT;
	if (bpf_skb_change_type(skb, PACKET_HOST))
		return TC_ACT_SHOT;
	packet_tuple(&t, &w->p);
	if (w->p.family == 4)
		sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (sk && sk->state == BPF_TCP_LISTEN) {
		/* A server of the node itself on a wildcard address: never meant here. */
		bpf_sk_release(sk);
		sk = NULL;
	}
	if (sk && sk->state == BPF_TCP_TIME_WAIT && !(mark & MARK_TO_GATE_AGAIN) && is_syn(&w->p) &&
	    end_time_wait(skb, w, sk, mark)) {
		bpf_sk_release(sk);
		return TC_ACT_SHOT;
	}
	if (!sk && port) {
		__builtin_memset(&t, 0, sizeof(t));
		listener_tuple(&t, &w->p, port);
		if (w->p.family == 4)
			sk = bpf_sk_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
		else
			sk = bpf_sk_lookup_tcp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
		if (sk && !is_listener(sk)) {
			bpf_sk_release(sk);
			sk = NULL;
		}
	}
	if (!sk) {
		if (port)
			record_down(skb, w, mark);
		return TC_ACT_SHOT;
	}
	error = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return error ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

#endif
