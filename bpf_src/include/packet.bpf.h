/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* From bytes to struct packet.  A parser that gives up never passes: it names a reason. */
#ifndef YETT_PACKET_BPF_H
#define YETT_PACKET_BPF_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include "maps.bpf.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define TCP_URG 0x20

#define IPPROTO_ICMP4 1
#define IPPROTO_ICMP6 58

#define HEADERS_MAX 128 /* Ethernet, IPv6, TCP with all options: 114 bytes */

static __always_inline void mapped_addr(__u8 *to, __be32 addr)
{
	__u32 *words = (__u32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = addr;
}

static __always_inline int is_mapped(const __u8 *addr)
{
	const __u32 *words = (const __u32 *)addr;

	return !(words[0] | words[1]) && words[2] == bpf_htonl(0xffff);
}

/* Ports and lengths of the transport header at `l4` with `left` bytes from there on. */
static __always_inline int parse_transport(void *data, void *end, struct packet *p, __u32 left)
{
	void *l4 = data + (p->l4 & 127);

	if (p->proto == IPPROTO_TCP) {
		struct tcphdr *tcp = l4;
		__u32 header;

		if ((void *)(tcp + 1) > end || left < sizeof(*tcp))
			return REASON_TRUNCATED;
		header = tcp->doff * 4;
		if (header < sizeof(*tcp) || header > left)
			return REASON_TRUNCATED;
		p->sport = tcp->source;
		p->dport = tcp->dest;
		p->seq = bpf_ntohl(tcp->seq);
		p->ack = bpf_ntohl(tcp->ack_seq);
		p->flags = ((__u8 *)tcp)[13];
		p->window = bpf_ntohs(tcp->window);
		p->payload = p->l4 + header;
		p->len = left - header;
		return 0;
	}
	if (p->proto == IPPROTO_UDP || p->proto == IPPROTO_SCTP) {
		__be16 *ports = l4;

		if (l4 + 8 > end || left < 8)
			return REASON_TRUNCATED;
		p->sport = ports[0];
		p->dport = ports[1];
		p->payload = p->l4 + 8;
		p->len = left - 8;
		return 0;
	}
	if ((p->proto == IPPROTO_ICMP4 && p->family == 4) ||
	    (p->proto == IPPROTO_ICMP6 && p->family == 6)) {
		__u8 *icmp = l4;

		if (l4 + 8 > end || left < 8)
			return REASON_TRUNCATED;
		p->icmp_type = icmp[0];
		/* Echo: the identifier keeps two pings apart. */
		p->sport = p->dport = *(__be16 *)(icmp + 4);
		p->payload = p->l4 + 8;
		p->len = left - 8;
		return 0;
	}
	p->odd = REASON_PROTOCOL;
	return 0;
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, void *data, void *end,
				      struct packet *p)
{
	struct iphdr *ip = data + ETH_HLEN;
	__u32 total, header;

	if ((void *)(ip + 1) > end || ip->version != 4)
		return REASON_TRUNCATED;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (!total && skb->gso_segs) /* BIG TCP leaves the field empty */
		total = skb->len - ETH_HLEN;
	if (header < sizeof(*ip) || total < header || total > skb->len - ETH_HLEN)
		return REASON_TRUNCATED;
	mapped_addr(p->src, ip->saddr);
	mapped_addr(p->dst, ip->daddr);
	p->family = 4;
	p->proto = ip->protocol;
	p->l4 = ETH_HLEN + header;
	if (header != sizeof(*ip))
		p->odd = REASON_IP_OPTIONS;
	if (ip->frag_off & bpf_htons(0x3fff)) {
		p->odd = REASON_FRAGMENT;
		return 0;
	}
	return parse_transport(data, end, p, total - header);
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, void *data, void *end,
				      struct packet *p)
{
	struct ipv6hdr *ip = data + ETH_HLEN;
	__u32 left;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return REASON_TRUNCATED;
	left = bpf_ntohs(ip->payload_len);
	if (!left && skb->gso_segs)
		left = skb->len - ETH_HLEN - sizeof(*ip);
	if (left > skb->len - ETH_HLEN - sizeof(*ip))
		return REASON_TRUNCATED;
	__builtin_memcpy(p->src, &ip->saddr, 16);
	__builtin_memcpy(p->dst, &ip->daddr, 16);
	p->family = 6;
	/* Our keys write IPv4 so; on the wire it is nobody's address (RFC 4038, 4.2). */
	if (is_mapped(p->src) || is_mapped(p->dst))
		return REASON_SPOOFED_SOURCE;
	p->proto = ip->nexthdr;
	p->l4 = ETH_HLEN + sizeof(*ip);
	switch (ip->nexthdr) {
	case 44: /* fragment */
		p->odd = REASON_FRAGMENT;
		return 0;
	case 0: { /* hop-by-hop: only a multicast listener report on the link */
		__u8 *ext = (void *)(ip + 1);

		if ((void *)(ext + 9) <= end && ext[0] == IPPROTO_ICMP6 && ext[1] == 0 &&
		    p->dst[0] == 0xff && p->dst[1] == 0x02 &&
		    (ext[8] == 143 || ext[8] == 131 || ext[8] == 132)) {
			p->proto = IPPROTO_ICMP6;
			p->icmp_type = ext[8];
			return 0;
		}
		p->odd = REASON_IPV6_EXTENSION;
		return 0;
	}
	case 43:  /* routing */
	case 50:  /* ESP */
	case 51:  /* authentication */
	case 60:  /* destination options */
	case 135: /* mobility */
	case 139: /* HIP */
	case 140: /* shim6 */
		p->odd = REASON_IPV6_EXTENSION;
		return 0;
	}
	return parse_transport(data, end, p, left);
}

static __always_inline int parse_once(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return REASON_TRUNCATED;
	p->l3 = ETH_HLEN;
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return parse_ipv4(skb, data, end, p);
	case bpf_htons(ETH_P_IPV6):
		return parse_ipv6(skb, data, end, p);
	case bpf_htons(ETH_P_ARP):
		return 0;
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return REASON_VLAN_TAG;
	}
	return REASON_ETHERTYPE;
}

/* 0, or the reason why the packet cannot be understood. */
static __always_inline int parse_packet(struct __sk_buff *skb, struct packet *p)
{
	int reason;

	if (skb->vlan_present)
		return REASON_VLAN_TAG;
	reason = parse_once(skb, p);
	if (reason == REASON_TRUNCATED) {
		/* Headers are linear nearly always; ask for them only where they are not. */
		bpf_skb_pull_data(skb, skb->len < HEADERS_MAX ? skb->len : HEADERS_MAX);
		reason = parse_once(skb, p);
	}
	return reason;
}

/* The flow of the packet, as the endpoint sees it. */
static __always_inline void make_key(struct __sk_buff *skb, struct work *w, const int from_pod)
{
	struct packet *p = &w->p;

	w->key.ifindex = skb->ifindex;
	w->key.proto = p->proto;
	__builtin_memset(w->key.pad, 0, sizeof(w->key.pad));
	w->key.local_port = from_pod ? p->sport : p->dport;
	w->key.remote_port = from_pod ? p->dport : p->sport;
	__builtin_memcpy(w->key.local, from_pod ? p->src : p->dst, 16);
	__builtin_memcpy(w->key.remote, from_pod ? p->dst : p->src, 16);
}

/* a is before b, modulo 2^32 (RFC 9293, 3.4) */
static __always_inline int before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

#endif
