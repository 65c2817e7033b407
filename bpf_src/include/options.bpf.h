/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The options of a SYN: one that goes, one that is remembered. */
#ifndef YETT_OPTIONS_BPF_H
#define YETT_OPTIONS_BPF_H

#include "packet.bpf.h"

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

#endif
