// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* What it costs to be attached at all. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	return -1; /* TC_ACT_UNSPEC */
}

SEC("tc")
int to_pod(struct __sk_buff *skb)
{
	return -1;
}
