/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The way to the sidecar and back, without iptables and with the true addresses on both sides.
 *
 *   client -> [to_pod of the server, or from_pod of the client] -> gate -> Envoy
 *   Envoy, speaking from the client's address -> server
 *   server's answers -> [from_pod of the server, or to_pod of the client] -> gate -> Envoy
 *   Envoy, speaking from the server's address -> client
 *
 * The gate is an interface whose incoming packets are delivered to this host whatever their
 * address is.  Envoy has one listener for each ruleset, on a port that is the ruleset's handle,
 * so BPF has always decided who talks to whom before Envoy hears of it.  Envoy closes what
 * comes to that port by itself.
 */
#ifndef YETT_REDIRECT_BPF_H
#define YETT_REDIRECT_BPF_H

#include "packet.bpf.h"

#ifndef BPF_TCP_LISTEN
#define BPF_TCP_LISTEN 10
#endif
#define PACKET_HOST 0

/* What is left of a connection whose owner has closed it. */
struct sock_common {
	__u32 skc_tw_rcv_nxt;
} __attribute__((preserve_access_index));

struct inet_timewait_sock {
	struct sock_common __tw_common;
	__u32 tw_mark;
} __attribute__((preserve_access_index));

struct tcp_timewait_sock {
	struct inet_timewait_sock tw_sk;
} __attribute__((preserve_access_index));

/* On a packet between a hook and the gate: the listener's port in the low bits, and which policy
 * asks for it; no port if only a connection that exists may have it.  "Again": the gate has sent
 * it to itself. */
#define MARK_TO_GATE	    0x79660000
#define MARK_TO_GATE_MASK   0xfff60000
#define MARK_TO_GATE_EGRESS 0x00080000
#define MARK_TO_GATE_AGAIN  0x00010000

/* RFC 7600: the IPv4 dummy address; RFC 6666: the discard prefix. */
#define LISTENER_ADDR4 bpf_htonl(0xc0000008) /* 192.0.0.8 */
#define LISTENER_ADDR6                                                                             \
	{                                                                                          \
		0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08                               \
	} /* 100::8 */

/* Whose packet is it: enum sidecar_mark, or 0.  A CNI's rules may have changed the packet's own
 * mark on the way, so the socket is asked; a SYN-ACK has none yet that could be. */
static __always_inline __u32 sidecar_mark(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (skb->mark - SIDECAR_INGRESS <= SIDECAR_REPLY - SIDECAR_INGRESS)
		return skb->mark;
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	return sk ? sk->mark : 0;
}

static __always_inline int to_gate(struct __sk_buff *skb, __u32 port, __u8 direction)
{
	struct config *cfg;
	__u32 zero = 0;

	cfg = bpf_map_lookup_elem(&config, &zero);
	if (!cfg || !cfg->gate)
		return 2; /* TC_ACT_SHOT */
	skb->mark = MARK_TO_GATE | (port & 0xffff) |
		    (direction == DIR_EGRESS ? MARK_TO_GATE_EGRESS : 0);
	return bpf_redirect(cfg->gate, BPF_F_INGRESS);
}

static __always_inline void packet_tuple(struct bpf_sock_tuple *t, const struct packet *p)
{
	if (p->family == 4) {
		__builtin_memcpy(&t->ipv4.saddr, p->src + 12, 4);
		__builtin_memcpy(&t->ipv4.daddr, p->dst + 12, 4);
		t->ipv4.sport = p->sport;
		t->ipv4.dport = p->dport;
		return;
	}
	__builtin_memcpy(t->ipv6.saddr, p->src, 16);
	__builtin_memcpy(t->ipv6.daddr, p->dst, 16);
	t->ipv6.sport = p->sport;
	t->ipv6.dport = p->dport;
}

/* The same, but to a listener of the sidecar. */
static __always_inline void listener_tuple(struct bpf_sock_tuple *t, const struct packet *p,
					   __u32 port)
{
	const __u8 addr6[16] = LISTENER_ADDR6;

	if (p->family == 4) {
		__builtin_memcpy(&t->ipv4.saddr, p->src + 12, 4);
		t->ipv4.daddr = LISTENER_ADDR4;
		t->ipv4.sport = p->sport;
		t->ipv4.dport = bpf_htons(port);
		return;
	}
	__builtin_memcpy(t->ipv6.saddr, p->src, 16);
	__builtin_memcpy(t->ipv6.daddr, addr6, 16);
	t->ipv6.sport = p->sport;
	t->ipv6.dport = bpf_htons(port);
}

/* A socket that only the sidecar can have: another program may hold its port while it is down. */
static __always_inline int is_listener(struct bpf_sock *sk)
{
	return sk->state == BPF_TCP_LISTEN &&
	       (sk->mark == SIDECAR_REPLY || sk->mark == SIDECAR_ANSWER);
}

/* Does the sidecar listen for the ruleset? */
__noinline int has_listener(struct __sk_buff *skb, struct work *w, __u32 port)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 zero = 0;
	struct config *cfg;
	int found;

	if (!w)
		return 0;
	cfg = bpf_map_lookup_elem(&config, &zero);
	if (!cfg || !cfg->gate)
		return 0;
	listener_tuple(&t, &w->p, port);
	if (w->p.family == 4)
		sk = bpf_sk_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_tcp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	found = is_listener(sk);
	bpf_sk_release(sk);
	return found;
}

/* Is the packet meant for a connection of the sidecar whose socket has this mark?  Also one that it
 * has closed, while the server still speaks: its kernel answers then, and nobody is reset. */
__noinline int is_for_sidecar(struct __sk_buff *skb, struct work *w, __u32 mark)
{
	struct bpf_sock_tuple t = {};
	struct tcp_timewait_sock *closed;
	struct bpf_sock *sk, *full;
	__u32 has = 0;

	if (!w)
		return 0;
	packet_tuple(&t, &w->p);
	if (w->p.family == 4)
		sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	full = bpf_sk_fullsock(sk);
	if (full) {
		if (full->state != BPF_TCP_LISTEN)
			has = full->mark;
		asm volatile("" : "+r"(has)); /* else one load serves two kinds of pointers */
	} else {
		closed = bpf_skc_to_tcp_timewait_sock(sk);
		if (closed)
			has = closed->tw_sk.tw_mark;
	}
	bpf_sk_release(sk);
	return has == mark;
}

/*
 * The short way.  A packet of the client passes from_pod, forwarding, to_pod and the gate.  Where
 * both pods are on this node and nothing translates their addresses, from_pod can send it to the
 * gate itself.  What to_pod decides must hold all the same, so it leaves its word in the client's
 * flow: the epoch it judged by, the listener, the second, for it sees a packet again in each, and
 * where its own flow is: what a packet says of the connection's state is written there, too.
 * A SYN always goes the long way, and a reset, which connection tracking must not miss.
 */
static __always_inline int is_plain(const struct packet *p)
{
	return (p->flags & ~TCP_PSH) == TCP_ACK;
}

static __always_inline int may_be_short(const struct packet *p)
{
	return (p->flags & (TCP_ACK | TCP_SYN | TCP_RST | TCP_URG)) == TCP_ACK;
}

/* A second is 2^30 ns here. */
static __always_inline __u64 approval(__u32 epoch, __u32 port, __u64 now)
{
	return (__u64)epoch << 32 | (now >> 30 & 0xffff) << 16 | (port & 0xffff);
}

/* to_pod has just judged a packet that perhaps came from a pod of this node. */
__noinline int approve(struct __sk_buff *skb, __u32 port)
{
	struct flow_key key = {.ifindex = skb->ingress_ifindex, .proto = IPPROTO_TCP};
	__u32 zero = 0;
	struct work *w;
	struct flow *f;

	w = bpf_map_lookup_elem(&scratch, &zero);
	if (!w)
		return 0;
	key.local_port = w->p.sport;
	key.remote_port = w->p.dport;
	__builtin_memcpy(key.local, w->p.src, 16);
	__builtin_memcpy(key.remote, w->p.dst, 16);
	f = bpf_map_lookup_elem(&flows, &key);
	if (f) {
		f->approver = skb->ifindex;
		f->approved = approval(w->epoch, port, bpf_ktime_get_coarse_ns());
	}
	return 0;
}

/* What a client's packet says of a connection that is redirected, to the flow at the server's end.
 */
static __always_inline void follow_client(struct flow *f, const struct packet *p)
{
	if (p->flags & TCP_RST)
		set_flags(f, FLOW_CLOSED);
	else if (p->flags & TCP_FIN)
		set_flags(f, FLOW_FIN_REQUEST | FLOW_CLOSED);
	else if (!(f->flags & FLOW_ESTABLISHED) && !(p->flags & TCP_SYN))
		set_flags(f, FLOW_ESTABLISHED);
}

/* The same from the client's end, `f` being its flow there.  0: to_pod must see the packet itself.
 */
__noinline int tell_approver(struct work *w, struct flow *f)
{
	struct flow_key key = {.proto = IPPROTO_TCP};
	struct flow *there;

	if (!w || !f)
		return 0;
	key.ifindex = f->approver;
	key.local_port = w->p.dport;
	key.remote_port = w->p.sport;
	__builtin_memcpy(key.local, w->p.dst, 16);
	__builtin_memcpy(key.remote, w->p.src, 16);
	there = bpf_map_lookup_elem(&flows, &key);
	if (!there || there->epoch != w->epoch || there->verdict != VERDICT_REDIRECT ||
	    (there->flags & FLOW_POISONED))
		return 0;
	follow_client(there, &w->p);
	set_flags(f, FLOW_HEARD);
	return 1;
}

/* The listener that to_pod would send a packet of this flow to, if it said so just now; or 0. */
static __always_inline __u32 approved_port(struct work *w, struct flow *f, __u64 now)
{
	__u32 port = f->approved & 0xffff;

	return port && f->approved == approval(w->epoch, port, now) ? port : 0;
}

#endif
