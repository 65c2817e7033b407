/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* unshare */
#include "attach.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
	LOOPBACK = 1,	  /* ifindex, in every namespace */
	TCX_INGRESS = 46, /* kernel 6.6; older headers lack them */
	TCX_EGRESS = 47,
	WAIT_US = 300000, /* for a datagram that a program may have dropped */
};

/* Numbers of kernel 6.6, which the headers of older distributions lack. */
static const enum bpf_attach_type tcx_ingress = 46, tcx_egress = 47;

static int new_namespace(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int status, fd;

	if (unshare(CLONE_NEWNET))
		return failed("make a network namespace");
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	status = ioctl(fd, SIOCSIFFLAGS, &request) ? failed("set lo up") : 0;
	close(fd);
	return status;
}

/* Whether a datagram to oneself arrives; -1: cannot tell. */
static int send_to_self(void)
{
	struct sockaddr_in self = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct timeval wait = {.tv_usec = WAIT_US};
	socklen_t len = sizeof(self);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	int arrived = -1;
	char byte;

	if (bind(fd, (struct sockaddr *)&self, sizeof(self)) ||
	    getsockname(fd, (struct sockaddr *)&self, &len) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)))
		failed("open a socket");
	/* an egress program that drops makes sendto fail with ENOBUFS or EPERM: no arrival */
	else if (sendto(fd, "x", 1, 0, (struct sockaddr *)&self, sizeof(self)) < 0)
		arrived = 0;
	else
		arrived = recv(fd, &byte, 1, 0) == 1;
	close(fd);
	return arrived;
}

static int attach_clsact(int program, bool egress)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = LOOPBACK,
		    .attach_point = egress ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = program);
	int error = bpf_tc_hook_create(&hook);

	if (error && error != -EEXIST)
		return error;
	return bpf_tc_attach(&hook, &options);
}

/* The name of the way that worked, or NULL. */
static const char *attach(int program, bool egress)
{
	if (bpf_link_create(program, LOOPBACK, egress ? tcx_egress : tcx_ingress, NULL) >= 0)
		return "tcx"; /* the link lives until this process ends */
	return attach_clsact(program, egress) ? NULL : "clsact";
}

int attach_and_send(const struct bpf_program *program)
{
	const char *name = bpf_program__name(program), *way;
	int before, after;

	if (new_namespace())
		return 1;
	before = send_to_self();
	way = attach(bpf_program__fd(program), !strcmp(name, "to_pod"));
	if (!way)
		return failed("attach a program");
	after = send_to_self();
	if (before != 1 || after < 0) {
		errno = ENETDOWN;
		return failed("send a datagram over lo");
	}
	printf("attached %s %s %s\n", name, way, after ? "passes" : "drops");
	return 0;
}
