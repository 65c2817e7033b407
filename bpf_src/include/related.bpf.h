/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is not a flow of its own: ICMP errors about one, and what keeps the link alive. */
#ifndef YETT_RELATED_BPF_H
#define YETT_RELATED_BPF_H

#include "policy.bpf.h"

/* An ICMP error (RFC 792, RFC 4443) belongs to the flow whose packet it quotes. */
__noinline int is_related(struct __sk_buff *skb, struct work *w)
{
	struct flow_key key = {};
	__u32 at, ports, i;
	__u16 pair[2];
	__u8 proto, type;

	if (!w)
		return 0;
	type = w->p.icmp_type;
	at = w->p.l4 + 8;
	if (w->p.family == 4 && w->p.proto == IPPROTO_ICMP4) {
		struct iphdr ip;

		if (type != 3 && type != 11 && type != 12)
			return 0;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.ihl < 5)
			return 0;
		proto = ip.protocol;
		ports = at + ip.ihl * 4;
		mapped_addr(key.local, ip.saddr);
		mapped_addr(key.remote, ip.daddr);
	} else if (w->p.family == 6 && w->p.proto == IPPROTO_ICMP6) {
		struct ipv6hdr ip;

		if (type < 1 || type > 4)
			return 0;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
			return 0;
		proto = ip.nexthdr;
		ports = at + sizeof(ip);
		__builtin_memcpy(key.local, &ip.saddr, 16);
		__builtin_memcpy(key.remote, &ip.daddr, 16);
	} else {
		return 0;
	}
	if (proto == IPPROTO_ICMP4 || proto == IPPROTO_ICMP6)
		ports += 4; /* the identifier of an echo */
	if (bpf_skb_load_bytes(skb, ports, pair, 4))
		return 0;
	if (proto == IPPROTO_ICMP4 || proto == IPPROTO_ICMP6)
		pair[1] = pair[0];
	key.ifindex = skb->ifindex;
	key.proto = proto;
	/* The error travels against the packet it quotes: what we receive quotes what we sent. */
	if (w->from_pod) {
		for (i = 0; i < 4; i++) {
			__u32 swap = ((__u32 *)key.local)[i];

			((__u32 *)key.local)[i] = ((__u32 *)key.remote)[i];
			((__u32 *)key.remote)[i] = swap;
		}
		key.local_port = pair[1];
		key.remote_port = pair[0];
	} else {
		key.local_port = pair[0];
		key.remote_port = pair[1];
	}
	return bpf_map_lookup_elem(&flows, &key) != NULL;
}

/* Neighbour discovery (RFC 4861) and listener reports (RFC 3810): no link without them. */
static __always_inline int is_link_traffic(struct packet *p)
{
	__u8 type = p->icmp_type;

	if (p->family != 6 || p->proto != IPPROTO_ICMP6 || p->odd)
		return 0;
	return (type >= 133 && type <= 137) || type == 143 || type == 131 || type == 132;
}

/* fe80::/10 and the unspecified address: only good on the link. */
static __always_inline int is_link_addr(const __u8 *addr)
{
	const __u32 *words = (const __u32 *)addr;

	return (addr[0] == 0xfe && (addr[1] & 0xc0) == 0x80) ||
	       !(words[0] | words[1] | words[2] | words[3]);
}

/* A pod is no router, and it announces nobody's address but its own (RFC 4861, 4.2 to 4.5). */
static __always_inline int is_link_spoof(struct __sk_buff *skb, struct work *w, struct endpoint *ep)
{
	__u8 target[16] __attribute__((aligned(4)));

	switch (w->p.icmp_type) {
	case 134: /* router advertisement */
	case 137: /* redirect */
		return 1;
	case 136: /* neighbour advertisement */
		if (bpf_skb_load_bytes(skb, w->p.l4 + 8, target, sizeof(target)))
			return 1;
		return !is_link_addr(target) && !owns_addr(ep, target);
	}
	return 0;
}

static __always_inline int is_multicast(const __u8 *addr)
{
	const __u32 *words = (const __u32 *)addr;

	if (addr[0] == 0xff)
		return 1;
	if (words[0] | words[1] || words[2] != bpf_htonl(0xffff))
		return 0;
	return (addr[12] & 0xf0) == 0xe0 || words[3] == 0xffffffff;
}

#endif
