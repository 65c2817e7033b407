/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Packets that yett makes itself: resets, the 403, acknowledgements.  The packet at hand is
 * rewritten, so every header field is set here and the old payload is cut off. */
#ifndef YETT_ANSWER_BPF_H
#define YETT_ANSWER_BPF_H

#include "redirect.bpf.h"

/* On packets of our own, so that our other hook lets them through.  A pod cannot set it:
 * the mark is cleared when a packet leaves a network namespace. */
#define MARK_INJECTED 0x79657474

/* RFC 9110, 15.5.4.  The length is a multiple of four, for bpf_csum_diff. */
const char forbidden_body[] = "HTTP/1.1 403 Forbidden\r\n"
			      "Content-Type: text/plain\r\n"
			      "Content-Length: 15\r\n"
			      "Connection: close\r\n"
			      "Server: yett\r\n"
			      "\r\n"
			      "Access denied\r\n";
#define FORBIDDEN_LEN ((__u32)sizeof(forbidden_body) - 1)
_Static_assert((sizeof(forbidden_body) - 1) % 4 == 0, "the 403 must be a multiple of four bytes");

struct answer {
	__u32 seq;
	__u32 ack;
	__u8 flags;
	__u8 reverse;	/* to the sender of the packet at hand */
	__u8 swapped;	/* the frame at hand is an answer already: its addresses are swapped */
	__u8 forbidden; /* with the 403 as payload */
};

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

/* Is the checksum left to the device (CHECKSUM_PARTIAL)?  There is no field to read, but
 * bpf_l4_csum_replace leaves the checksum alone in that case and only then. */
static __always_inline int checksum_is_partial(struct __sk_buff *skb, __u32 at)
{
	__u16 before = 0x1234, after = 0;

	if (bpf_skb_store_bytes(skb, at, &before, 2, 0) ||
	    bpf_l4_csum_replace(skb, at, 0, bpf_htons(0x0101), 2) ||
	    bpf_skb_load_bytes(skb, at, &after, 2))
		return 0;
	return before == after;
}

/* Turns the packet into the answer; 0 or a negative error (then it must be dropped). */
__noinline int make_answer(struct __sk_buff *skb, struct work *w, struct answer *a)
{
	struct packet *p;
	__u32 payload, l4, tcp_len;
	struct ethhdr *eth;
	struct tcphdr *tcp;
	__u64 sum = 0;
	__u32 i;

	if (!w || !a)
		return -1;
	p = &w->p;
	payload = a->forbidden ? FORBIDDEN_LEN : 0;
	l4 = p->family == 4 ? ETH_HLEN + 20 : ETH_HLEN + 40;
	tcp_len = 20 + payload;
	eth = (void *)w->frame;

	if (p->l4 != l4) /* IP options: such packets are denied before there is a flow */
		return -1;
	if (bpf_skb_change_tail(skb, l4 + tcp_len, 0))
		return -1;
	if (bpf_skb_load_bytes(skb, 0, w->frame, ETH_HLEN + 20))
		return -1;
	if (a->reverse != a->swapped) {
		__u8 mac[ETH_ALEN];

		__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
		__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
		__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	}
	if (p->family == 4) {
		struct iphdr *ip = (void *)(w->frame + ETH_HLEN);

		__builtin_memset(ip, 0, sizeof(*ip));
		ip->version = 4;
		ip->ihl = 5;
		ip->tot_len = bpf_htons(20 + tcp_len);
		ip->frag_off = bpf_htons(0x4000);
		ip->ttl = 64;
		ip->protocol = IPPROTO_TCP;
		__builtin_memcpy(&ip->saddr, (a->reverse ? p->dst : p->src) + 12, 4);
		__builtin_memcpy(&ip->daddr, (a->reverse ? p->src : p->dst) + 12, 4);
		for (i = 0; i < 10; i++)
			sum += ((__u16 *)ip)[i];
		ip->check = ~fold(sum);
		tcp = (void *)(w->frame + ETH_HLEN + 20);
	} else {
		struct ipv6hdr *ip = (void *)(w->frame + ETH_HLEN);

		__builtin_memset(ip, 0, sizeof(*ip));
		ip->version = 6;
		ip->payload_len = bpf_htons(tcp_len);
		ip->nexthdr = IPPROTO_TCP;
		ip->hop_limit = 64;
		__builtin_memcpy(&ip->saddr, a->reverse ? p->dst : p->src, 16);
		__builtin_memcpy(&ip->daddr, a->reverse ? p->src : p->dst, 16);
		tcp = (void *)(w->frame + ETH_HLEN + 40);
	}
	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->source = a->reverse ? p->dport : p->sport;
	tcp->dest = a->reverse ? p->sport : p->dport;
	tcp->seq = bpf_htonl(a->seq);
	tcp->ack_seq = bpf_htonl(a->ack);
	tcp->doff = 5;
	((__u8 *)tcp)[13] = a->flags;
	tcp->window = a->flags & TCP_RST ? 0 : bpf_htons(65535);

	/* Pseudo header (RFC 9293, 3.1); mapped IPv4 addresses add 0xffff each, which is 0 in
	 * one's complement. */
	sum = bpf_htons(IPPROTO_TCP) + (__u64)bpf_htons(tcp_len);
	for (i = 0; i < 8; i++)
		sum += (__u64)((__u16 *)p->src)[i] + ((__u16 *)p->dst)[i];

	if (!checksum_is_partial(skb, l4 + 16)) {
		if (payload) {
			__s64 diff;

			__builtin_memcpy(w->compare, forbidden_body, FORBIDDEN_LEN);
			diff = bpf_csum_diff(NULL, 0, (__be32 *)w->compare, FORBIDDEN_LEN, 0);
			if (diff < 0)
				return -1;
			sum += (__u32)diff;
		}
		for (i = 0; i < 10; i++)
			sum += ((__u16 *)tcp)[i];
		tcp->check = ~fold(sum);
	} else {
		tcp->check = fold(sum); /* the device adds the rest */
	}
	if (p->family == 4) {
		if (bpf_skb_store_bytes(skb, 0, w->frame, ETH_HLEN + 40, BPF_F_RECOMPUTE_CSUM))
			return -1;
	} else {
		if (bpf_skb_store_bytes(skb, 0, w->frame, ETH_HLEN + 60, BPF_F_RECOMPUTE_CSUM))
			return -1;
	}
	if (payload &&
	    bpf_skb_store_bytes(skb, l4 + 20, forbidden_body, FORBIDDEN_LEN, BPF_F_RECOMPUTE_CSUM))
		return -1;
	return 0;
}

/* Sends a copy of the answer back where the packet came from: to the pod, into the node as if the
 * pod had sent it, or to the sidecar, for what it sends has addresses of pods, which the node would
 * send it to. */
static __always_inline void send_back(struct __sk_buff *skb, int from_pod)
{
	__u32 zero = 0, to = skb->ifindex;
	struct config *cfg = bpf_map_lookup_elem(&config, &zero);

	if (!from_pod && cfg && cfg->gate && sidecar_mark(skb)) {
		to = cfg->gate;
		skb->mark = MARK_TO_GATE;
	} else {
		skb->mark = MARK_INJECTED;
	}
	bpf_clone_redirect(skb, to, from_pod ? 0 : BPF_F_INGRESS);
	skb->mark = 0;
}

#endif
