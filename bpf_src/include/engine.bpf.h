/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The kernel HTTP engine: runs the automaton of a ruleset over the request bytes of a flow.
 *
 * Everything that differs between rulesets is in the tables (struct ruleset); everything
 * here is the same for all: walking the table, and the dozen actions it asks for.  Bytes are
 * walked in blocks of sixteen without a branch: each step is two loads and an add, and the
 * first state with an action is found afterwards from the trace.
 *
 * The file is included once per tier, with TIER, TIER_BYTES and TIER_SHIFT defined, since
 * the verifier wants the size of a value as a constant.
 */

#define CAT_(a, b)	    a##b
#define CAT(a, b)	    CAT_(a, b)
#define FN(name)	    CAT(name, TIER)
#define ENTRY_MASK	    (TIER_BYTES / 2 - 1)
#define WORD_MASK	    (TIER_BYTES / 8 - 1)
#define ENTRY(rules, index) (((__u16 *)(rules))[(index)&ENTRY_MASK])
#define WORD(rules, index)  (((__u64 *)(rules))[(index)&WORD_MASK])

/* One alternative of the rule set; stops at the first that decides. */
static long FN(alternative)(__u32 index, struct scan *s)
{
	struct flow *f = s->f;
	struct work *w = s->w;
	__u32 at = s->operand + index * 3;
	__u64 head = WORD(s->rules, at);
	__u64 needs = WORD(s->rules, at + 1);
	__u8 kind = head >> 32;
	__u32 unmet;

	if ((f->conditions & needs) != needs)
		return 0;
	if (kind == ALTERNATIVE_DENY) {
		w->found = FOUND_DENY;
		w->rule = (__u32)head;
		w->forbidden = (head >> 40) & ALTERNATIVE_FORBIDDEN;
		return 1;
	}
	if (kind == ALTERNATIVE_AUDIT_DENY) {
		if (!w->audit_rule)
			w->audit_rule = (__u32)head + 1;
		return 0;
	}
	unmet = f->ambiguous & ~(__u32)(head >> 48);
	if (unmet) {
		w->unmet = unmet;
		return 0;
	}
	w->found = FOUND_ALLOW;
	w->rule = (__u32)head;
	w->upgrade = WORD(s->rules, at + 2);
	w->connect = !!((head >> 40) & ALTERNATIVE_CONNECT);
	return 1;
}

/* The head is complete: is the request allowed?  0 or the reason why not. */
static __always_inline __u32 FN(judge_head)(struct scan *s)
{
	struct ruleset *rs = s->rules;
	struct flow *f = s->f;
	struct work *w = s->w;
	__u32 seen = f->seen_headers, encoding = seen & (1 << HEADER_TRANSFER_ENCODING);
	__u64 set;

	if (f->minor == 1 && !(seen & (1 << HEADER_HOST)))
		return REASON_HTTP_NO_HOST;
	if (encoding && (seen & (1 << HEADER_CONTENT_LENGTH)))
		return REASON_HTTP_LENGTH_AND_ENCODING;
	if (encoding && f->minor == 0)
		return REASON_HTTP_ENCODING_IN_10;

	set = WORD(rs, rs->sets + f->rule_set);
	w->found = FOUND_NONE;
	w->audit_rule = 0;
	w->unmet = 0;
	w->upgrade = 0;
	w->connect = 0;
	s->operand = (__u32)set;
	bpf_loop((__u32)(set >> 32), FN(alternative), s, 0);
	return judge_found(s, rs);
}

/* The target is complete.  A rule that denies whatever the headers say does so at once: some
 * servers execute a request before its head is complete. */
static __always_inline __u32 FN(judge_target)(struct scan *s)
{
	struct ruleset *rs = s->rules;
	__u64 set = WORD(rs, rs->sets + s->f->rule_set), head;
	__u32 first = (__u32)set;

	if (!(set >> 32))
		return rs->flags & RULESET_AUDIT ? 0 : REASON_POLICY_DENIED_L7;
	head = WORD(rs, first);
	if ((__u8)(head >> 32) != ALTERNATIVE_DENY || WORD(rs, first + 1))
		return 0;
	s->w->rule = (__u32)head + rs->rule_base;
	s->w->forbidden = (head >> 40) & ALTERNATIVE_FORBIDDEN;
	return REASON_DENY_RULE_L7;
}

/* Runs the action of the state just entered; non-zero leaves the block loop. */
static __noinline long FN(act)(struct scan *s)
{
	struct ruleset *rs = s->rules;
	struct flow *f = s->f;
	struct work *w = s->w;
	__u32 operand = s->operand, digit, reason;

	switch (s->action & RULESET_ACTION) {
	case ACTION_NONE:
		return 0;
	case ACTION_RULE_SET:
		f->rule_set = operand;
		return 0;
	case ACTION_TARGET_END:
		if (s->before != RULESET_SET_KNOWN)
			f->rule_set = s->before;
		reason = FN(judge_target)(s);
		return reason ? deny_scan(s, reason) : 0;
	case ACTION_VERSION:
		f->minor = operand;
		return 0;
	case ACTION_HEADER:
		operand &= YETT_TRACKED_HEADERS - 1;
		if (f->seen_headers & (1u << operand))
			return deny_scan(s, duplicate_reason(operand));
		f->seen_headers |= 1u << operand;
		f->conditions = (f->conditions & ~rs->off_header[operand]) | rs->on_header[operand];
		return 0;
	case ACTION_VALUE_END:
		f->conditions |= WORD(rs, rs->conditions + s->before);
		return 0;
	case ACTION_LENGTH_DIGIT:
		digit = (s->byte - '0') & 15;
		/* 2^63 - 1 = 9223372036854775807 */
		if (f->length > 922337203685477580ULL ||
		    (f->length == 922337203685477580ULL && digit > 7))
			return deny_scan(s, REASON_HTTP_CONTENT_LENGTH);
		f->length = f->length * 10 + digit;
		return 0;
	case ACTION_CHUNKED:
		f->scan_flags |= SCAN_CHUNKED;
		return 0;
	case ACTION_AMBIGUOUS:
		f->ambiguous |= 1u << (((s->action >> RULESET_REASON_SHIFT) -
					REASON_AMBIGUOUS_DOT_SEGMENT) &
				       15);
		return 0;
	case ACTION_HEAD_END:
		reason = FN(judge_head)(s);
		if (reason)
			return deny_scan(s, reason);
		f->scan_flags &= ~SCAN_IN_HEAD;
		if (f->scan_flags & SCAN_CHUNKED) {
			f->length = 0;
			f->chunk_digits = 0;
			w->state = rs->chunk;
			w->turned = 1;
			return 0;
		}
		f->body_left = f->length;
		f->phase = PHASE_START;
		w->stop = 1;
		return 1;
	case ACTION_CHUNK_DIGIT:
		if (f->chunk_digits >= YETT_CHUNK_DIGITS)
			return deny_scan(s, REASON_HTTP_CHUNK);
		f->chunk_digits++;
		digit = s->byte;
		digit = digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10;
		f->length = f->length << 4 | (digit & 15);
		return 0;
	case ACTION_CHUNK_LINE_END:
		if (f->length > 0x7fffffff)
			return deny_scan(s, REASON_HTTP_CHUNK);
		f->chunk_digits = 0;
		if (!f->length) {
			w->state = rs->trailer;
			w->turned = 1;
			return 0;
		}
		f->body_left = f->length;
		f->length = 0;
		f->phase = PHASE_CHUNK_END;
		w->stop = 1;
		return 1;
	case ACTION_BODY_END:
		f->scan_flags &= ~SCAN_CHUNKED;
		f->phase = PHASE_START;
		w->stop = 1;
		return 1;
	case ACTION_DENY:
		return deny_scan(s, operand ? operand : REASON_INTERNAL);
	}
	return deny_scan(s, REASON_INTERNAL); /* an action of a newer compiler */
}

/* Acts on the first event of the trace at hand and leaves the others for the next turn: an action
 * does not change which state follows, so the bytes need not be walked again. */
static __always_inline long FN(event)(struct scan *s)
{
	struct work *w = s->w;
	struct ruleset *rs = s->rules;
	__u32 low = w->events & -w->events, k, state;

	k = low_bit(low) & (TRACE_LEN - 1);
	w->events ^= low;
	state = k ? w->trace[(k - 1) & (TRACE_LEN - 1)] : w->before;
	s->before = ENTRY(rs, (state << TIER_SHIFT) + RULESET_ROW_OPERAND);
	state = w->trace[k];
	s->operand = ENTRY(rs, (state << TIER_SHIFT) + RULESET_ROW_OPERAND);
	s->action = ENTRY(rs, (state << TIER_SHIFT) + RULESET_ROW_ACTION);
	s->byte = w->chunk[(w->from + k) & (SCAN_CHUNK - 1)];
	w->state = state & ~RULESET_EVENT;
	w->i = w->from + k + 1;
	w->turned = 0;
	if (FN(act)(s))
		return 1;
	if (w->turned) {
		w->events = 0;
	} else if (!w->events) {
		w->state = w->after;
		w->i = w->walked;
	}
	return 0;
}

/* Walks up to sixteen bytes; true if there is nothing to act on. */
static __always_inline int FN(walk)(struct scan *s)
{
	struct work *w = s->w;
	struct ruleset *rs = s->rules;
	__u32 i = w->i, left, state = w->state, events = 0, k;
	const __u8 *in = w->chunk + (i & (SCAN_CHUNK - 1));

	left = w->n - i;
	/* A value that no rule looks at: straight to its end. */
	if (state == rs->skip) {
		k = plain_bytes(in);
		if (k) {
			w->i = i + (k < left ? k : left);
			return 1;
		}
	}
	w->before = state;
#pragma unroll
	for (k = 0; k < TRACE_LEN; k++) {
		/* The way from one state to the next is what this loop costs: all that does
		 * not depend on the state is computed beside it, and stays there. */
		__u32 column = (rs->class_of[in[k]] + RULESET_ROW_NEXT) * 2;
		__u64 at;

		asm volatile("" : "+r"(column));
		at = ((state << (TIER_SHIFT + 1)) + column) & (TIER_BYTES - 2);
		state = *(__u16 *)((void *)rs + at);
		w->trace[k] = state;
		events |= state >> 15 << k;
	}
	if (left < TRACE_LEN)
		events &= (1u << left) - 1;
	else
		left = TRACE_LEN;
	w->state = w->trace[(left - 1) & (TRACE_LEN - 1)] & ~RULESET_EVENT;
	w->i = i + left;
	if (!events)
		return 1;
	w->from = i;
	w->walked = w->i;
	w->after = w->state;
	w->events = events;
	return 0;
}

/* Walks a block, or acts on an event among the bytes just walked. */
static long FN(block)(__u32 index, struct scan *s)
{
	struct work *w = s->w;

	if (w->stop)
		return 1;
	if (!w->events) {
		if (w->i >= w->n)
			return 1;
		if (FN(walk)(s))
			return 0;
	}
	return FN(event)(s);
}

/* One step of the stream: skip a body, begin a head, or walk one chunk of bytes. */
static long FN(message)(__u32 index, struct scan *s)
{
	struct ruleset *rs = s->rules;
	struct flow *f = s->f;
	struct work *w = s->w;
	__u32 from;

	if (w->reason || skip_body(s))
		return w->reason != 0;
	from = f->next_seq;
	if ((__s32)(s->end - from) <= 0)
		return 1;
	switch (f->phase) {
	case PHASE_START:
		if (w->want != w->handle) { /* this head is for another ruleset */
			w->rebind = 1;
			return 1;
		}
		begin_head(s);
		f->conditions = rs->initially;
		w->state = rs->start;
		break;
	case PHASE_CHUNK_END:
		f->chunk_digits = 0;
		f->length = 0;
		w->state = rs->chunk_end;
		break;
	}
	f->phase = PHASE_STATE;
	if (load_chunk(s, from))
		return 1;
	w->stop = 0;
	w->events = 0;
	bpf_loop(2 * SCAN_CHUNK, FN(block), s, 0);
	f->state = w->state;
	set_zone(f, w->chunk_seq + w->i, w->chunk_seq + w->i);
	if (s->h) {
		keep_bytes(s->skb, w, s->h, from, f->next_seq);
		f->head_at = s->h->total - (f->next_seq - f->head_seq);
	}
	return w->reason != 0;
}

/* Runs the engine with ruleset w->handle, which is of this tier; 0 or the reason to deny.  A
 * global function: the verifier looks at it once, not once per way to get here. */
__noinline int FN(engine)(struct __sk_buff *skb, struct work *w, struct flow *f, struct history *h)
{
	struct scan s = {.skb = skb, .f = f, .w = w, .h = h};
	__u32 zero = 0, slot;
	struct ruleset *rs;
	void *map;

	if (!w || !f)
		return REASON_INTERNAL;
	slot = w->handle & 0xffffff;
	map = bpf_map_lookup_elem(&CAT(rulesets, TIER), &slot);
	if (!map)
		return REASON_RULESET_GONE;
	rs = bpf_map_lookup_elem(map, &zero);
	if (!rs || rs->abi != YETT_ABI_VERSION)
		return REASON_RULESET_GONE;
	if (f->phase == PHASE_START) {
		f->scan_ruleset = w->handle;
		f->scan_ruleset_id = rs->id;
	} else if (rs->id != f->scan_ruleset_id) {
		return REASON_RULESET_GONE;
	}
	w->ruleset_flags = rs->flags;
	s.rules = rs;
	s.end = w->p.seq + w->p.len;
	bpf_loop(MESSAGE_STEPS, FN(message), &s, 0);
	if (w->reason && w->reason != REASON_DENY_RULE_L7)
		w->rule = rs->default_rule + rs->rule_base;
	return w->reason;
}

#undef FN
#undef CAT
#undef CAT_
#undef ENTRY
#undef WORD
#undef ENTRY_MASK
#undef WORD_MASK
#undef TIER
#undef TIER_BYTES
#undef TIER_SHIFT
