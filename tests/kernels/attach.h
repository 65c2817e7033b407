/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATTACH_H
#define ATTACH_H

#include <bpf/libbpf.h>

/*
 * Attaches a program to the loopback interface of a new network namespace as the loader
 * would on this kernel, sends a datagram through it, and prints
 *
 *   attached NAME tcx|clsact passes|drops
 *
 * Returns 0, or 1 after a line that says what failed.
 */
int attach_and_send(const struct bpf_program *program);

/* Prints "failed WHAT: WHY" of errno; returns 1. */
int failed(const char *what);

#endif
