// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The two hooks at a pod's veth, on the node's side of it:
 *   from_pod  ingress of the interface: what the pod sends
 *   to_pod    egress of the interface: what the pod receives
 *
 * Both do the same: parse -> flow -> (new: identity, policy) -> (HTTP: engine) -> verdict.
 * A pass is TC_ACT_UNSPEC, so that other programs on the hook have their say as well.
 */
#include "gate.bpf.h"
#include "verdict.bpf.h"

char LICENSE[] SEC("license") = "GPL";

#define HEAD_TIMEOUT_MS 10000

/* ARP (RFC 826): a pod speaks only for its own addresses. */
static __always_inline void judge_arp(struct __sk_buff *skb, struct work *w, const int from_pod)
{
	struct endpoint *ep;
	__u8 sender[16] __attribute__((aligned(4)));
	__be32 addr;

	if (!from_pod)
		goto pass;
	ep = ready_endpoint(skb, w);
	if (!ep) /* the link may come up before the document is in; nothing else passes */
		goto pass;
	w->reason = REASON_TRUNCATED;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + 14, &addr, 4))
		return;
	mapped_addr(sender, addr);
	w->reason = REASON_SPOOFED_SOURCE;
	if (addr && !owns_addr(ep, sender))
		return;
pass:
	w->verdict = VERDICT_ALLOW;
	w->reason = REASON_LINK;
}

/* The verdict in `w` is final and stands for this packet alone. */
static __always_inline int finish(struct __sk_buff *skb, struct work *w)
{
	record_flow(skb, w, NULL);
	return w->verdict == VERDICT_DENY ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* May the packet be the far side's answer to a connection of the sidecar, rather than part of
 * `f`?  Its connections have ports of their own, but a client may happen to use the same. */
static __always_inline int may_be_proxied(struct work *w, struct flow *f, __u32 mark)
{
	if (!f || (f->flags & FLOW_PROXIED))
		return 1;
	return (f->flags & FLOW_REDIRECTED) && !is_request(f, w) && mark != SIDECAR_ANSWER;
}

/* A packet of a flow that the sidecar judges: to it, or from it to the client. */
static __always_inline int redirect_flow(struct __sk_buff *skb, struct work *w, struct flow *f,
					 __u32 mark)
{
	if (!is_request(f, w)) /* only the sidecar may answer for the server */
		return mark == SIDECAR_ANSWER ? TC_ACT_UNSPEC : TC_ACT_SHOT;
	follow_client(f, &w->p);
	if (f->direction == DIR_INGRESS && (is_plain(&w->p) || is_syn(&w->p)))
		approve(skb, f->ruleset);
	return to_gate(skb, f->ruleset, f->direction);
}

/*
 * Does no policy speak of what the endpoint sends?  Then none forbids an answer to it, and what the
 * sidecar sends a client in an open connection need not ask for the client's flow.
 */
static __always_inline int is_open(struct __sk_buff *skb, struct work *w)
{
	const __u32 open = ENDPOINT_READY | ENDPOINT_OPEN;
	__u32 ifindex = skb->ifindex;
	struct endpoint *ep = bpf_map_lookup_elem(&endpoints, &ifindex);

	return ep && (ep->flags & open) == open && owns_addr(ep, w->key.local);
}

static __always_inline int judge(struct __sk_buff *skb, const int from_pod)
{
	struct config *cfg;
	struct flow *f = NULL;
	struct work *w;
	__u32 zero = 0, mark = 0, port;
	__u64 now;
	int syn, verdict;

	if (skb->mark == MARK_INJECTED)
		return TC_ACT_UNSPEC;
	w = bpf_map_lookup_elem(&scratch, &zero);
	cfg = bpf_map_lookup_elem(&config, &zero);
	if (!w || !cfg)
		return TC_ACT_SHOT;
	__builtin_memset(&w->p, 0, sizeof(w->p));
	w->identity = 0;
	w->rule = 0;
	w->recorded = 0;
	w->forbidden = 0;
	w->from_pod = from_pod;
	w->direction = from_pod ? DIR_EGRESS : DIR_INGRESS;
	w->epoch = cfg->epoch;
	w->verdict = VERDICT_DENY;
	w->reason = parse_packet(skb, &w->p);
	make_key(skb, w, from_pod);
	w->sender_seq = w->p.ack;
	if (w->reason)
		return finish(skb, w);
	if (cfg->abi != YETT_ABI_VERSION) {
		w->reason = REASON_INTERNAL;
		return finish(skb, w);
	}
	if (!w->p.family) {
		judge_arp(skb, w, from_pod);
		return finish(skb, w);
	}
	syn = is_syn(&w->p);
	if (!from_pod && cfg->gate && w->p.proto == IPPROTO_TCP && !w->p.odd)
		mark = sidecar_mark(skb);
	if (mark == SIDECAR_INGRESS && !syn) /* judged already, by the sidecar */
		return TC_ACT_UNSPEC;
	if (mark == SIDECAR_REPLY && is_plain(&w->p) && is_open(skb, w))
		return TC_ACT_UNSPEC;
	if (!w->p.odd)
		f = bpf_map_lookup_elem(&flows, &w->key);
	if (cfg->gate && w->p.proto == IPPROTO_TCP && !w->p.odd) {
		if (mark == SIDECAR_INGRESS) {
			if (f && !(f->flags & FLOW_REDIRECTED))
				set_flags(f, FLOW_PROXIED);
			return TC_ACT_UNSPEC;
		}
		if (!syn && may_be_proxied(w, f, mark) &&
		    is_for_sidecar(skb, w, from_pod ? SIDECAR_INGRESS : SIDECAR_EGRESS)) {
			struct endpoint *ep = ready_endpoint(skb, w);

			if (!ep || !owns_addr(ep, w->key.local)) {
				if (ep)
					w->reason = REASON_SPOOFED_SOURCE;
				return finish(skb, w);
			}
			return to_gate(skb, 0, DIR_INGRESS);
		}
	}
	if (f && (f->flags & FLOW_POISONED) && !syn) {
		count(f->direction, REASON_POISONED, 0);
		return answer_poisoned(skb, w, f);
	}
	now = bpf_ktime_get_coarse_ns();
	if (f && syn && (f->flags & FLOW_RESET) && (f->flags & FLOW_SYNCED) && is_request(f, w) &&
	    !is_over(f, now))
		return end_old_stream(skb, w, f);
	/* New, or to be judged again; or a new connection on ports that are free again. */
	if (!f || f->epoch != w->epoch || (syn && is_over(f, now))) {
		if (open_flow(skb, f) != OPENED_FLOW) {
			if (w->verdict == VERDICT_DENY && w->reason == REASON_MIDSTREAM)
				return reset_both(skb, w, w->p.seq);
			return finish(skb, w);
		}
		f = bpf_map_lookup_elem(&flows, &w->key);
		if (!f) {
			w->verdict = VERDICT_DENY;
			w->reason = REASON_FLOW_TABLE_FULL;
			return finish(skb, w);
		}
	}
	if (f->seen + NSEC_PER_SEC < now)
		f->seen = now;
	if (f->verdict == VERDICT_DENY) { /* a live flow lost its permission */
		w->identity = f->identity;
		take_verdict(w, f);
		record_flow(skb, w, f);
		if (w->p.proto != IPPROTO_TCP)
			return TC_ACT_SHOT;
		poison_flow(f, 0);
		verdict = reset_both(skb, w, w->p.seq);
		if (verdict == TC_ACT_UNSPEC && (f->flags & FLOW_REDIRECTED) && is_request(f, w))
			return to_gate(skb, 0, DIR_INGRESS);
		return verdict;
	}
	if (w->p.proto != IPPROTO_TCP)
		return TC_ACT_UNSPEC;
	if (syn && !is_request(f, w)) { /* the server opens a connection inside this one */
		w->verdict = VERDICT_DENY;
		w->reason = REASON_TCP_HANDSHAKE;
		return finish(skb, w);
	}
	if (f->verdict == VERDICT_REDIRECT)
		return redirect_flow(skb, w, f, mark);
	if (f->flags & FLOW_HTTP)
		return judge_stream(skb, w, f, cfg->head_timeout_ms ?: HEAD_TIMEOUT_MS);
	if (!(f->flags & FLOW_ESTABLISHED) && !is_request(f, w))
		set_flags(f, FLOW_ESTABLISHED);
	port = from_pod && f->approved && may_be_short(&w->p) ? approved_port(w, f, now) : 0;
	if (port && !((f->flags & FLOW_HEARD) && is_plain(&w->p)) && !tell_approver(w, f))
		port = 0;
	if (w->p.flags & TCP_RST) {
		set_flags(f, FLOW_CLOSED);
	} else if (w->p.flags & TCP_FIN) {
		set_flags(f, is_request(f, w) ? FLOW_FIN_REQUEST : FLOW_FIN_REPLY);
		if ((f->flags & FLOW_FIN_REQUEST) && (f->flags & FLOW_FIN_REPLY))
			set_flags(f, FLOW_CLOSED);
	}
	return port ? to_gate(skb, port, DIR_INGRESS) : TC_ACT_UNSPEC;
}

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	return judge(skb, 1);
}

SEC("tc")
int to_pod(struct __sk_buff *skb)
{
	return judge(skb, 0);
}
