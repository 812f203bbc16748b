/* SPDX-License-Identifier: GPL-2.0-only */
/* The family of the switch over a netlink socket, for kernel_loop.c: one request at a time, and what its answer said. */
#ifndef KERNEL_NETLINK_H
#define KERNEL_NETLINK_H

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/vcs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define GROUPS		1024

struct seen {
	uint64_t session, incarnation, generation, highest;	/* what an answer said last */
	unsigned int messages, members;
	bool torn;			/* views of two generations in one dump */
	unsigned int groups;
	char names[GROUPS][64];
	uint64_t acked[GROUPS];		/* the event, of the phase that is waited for */
};

static struct {
	struct nlmsghdr n;
	struct genlmsghdr g;
	char room[4096];
} ask;

static char answer[1 << 16];
static struct seen seen;
static uint16_t family;
static uint32_t seq, wanted_phase, hints_group;
static const char *handle;
static int sock;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int open_socket(void)
{
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);

	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		die("netlink socket");
	return fd;
}

static void put(int type, const void *data, size_t len)
{
	struct nlattr *a = (void *)((char *)&ask + NLMSG_ALIGN(ask.n.nlmsg_len));

	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + len;
	memcpy(a + 1, data, len);
	ask.n.nlmsg_len = NLMSG_ALIGN(ask.n.nlmsg_len) + NLA_ALIGN(a->nla_len);
}

static void put_u32(int type, uint32_t value)
{
	put(type, &value, sizeof(value));
}

static void put_u64(int type, uint64_t value)
{
	put(type, &value, sizeof(value));
}

static void put_member(uint32_t nodeid, uint64_t incarnation)
{
	struct nlattr *nest = (void *)((char *)&ask + NLMSG_ALIGN(ask.n.nlmsg_len));

	put(VCS_A_MEMBER | NLA_F_NESTED, "", 0);
	put_u32(VCS_MEMBER_A_NODEID, nodeid);
	put_u64(VCS_MEMBER_A_INCARNATION, incarnation);
	nest->nla_len = (char *)&ask + ask.n.nlmsg_len - (char *)nest;
}

static void begin(uint16_t to, uint8_t command, uint16_t flags)
{
	ask.n = (struct nlmsghdr){ .nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN), .nlmsg_type = to,
				   .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = ++seq };
	ask.g = (struct genlmsghdr){ .cmd = command, .version = 1 };
}

/* About our cluster. */
static void about(uint8_t command, uint16_t flags)
{
	begin(family, command, flags);
	put(VCS_A_HANDLE, handle, strlen(handle) + 1);
}

static uint64_t value_of(const struct nlattr *a)
{
	uint64_t value = 0;

	memcpy(&value, a + 1, a->nla_len - NLA_HDRLEN > 8 ? 8 : a->nla_len - NLA_HDRLEN);
	return value;
}

static void see_group(const char *name, uint64_t event, uint32_t phase)
{
	if (!seen.groups || strcmp(seen.names[seen.groups - 1], name)) {
		if (seen.groups == GROUPS) {
			errno = E2BIG;
			die("groups");
		}
		snprintf(seen.names[seen.groups++], sizeof(seen.names[0]), "%s", name);
	}
	seen.acked[seen.groups - 1] = phase == wanted_phase ? event : 0;
}

static void see(const struct nlmsghdr *h)
{
	const char *at = (const char *)h + NLMSG_LENGTH(GENL_HDRLEN), *end = (const char *)h + h->nlmsg_len;
	const char *group = NULL;
	uint64_t generation = 0, event = 0;
	uint32_t phase = 0;

	for (const struct nlattr *a; at < end; at += NLA_ALIGN(a->nla_len)) {
		a = (const void *)at;
		switch (a->nla_type & NLA_TYPE_MASK) {
		case VCS_A_SESSION: seen.session = value_of(a); break;
		case VCS_A_INCARNATION: seen.incarnation = value_of(a); break;
		case VCS_A_GENERATION: generation = value_of(a); break;
		case VCS_A_HIGHEST_EVENT: seen.highest = value_of(a); break;
		case VCS_A_ACKED_EVENT: event = value_of(a); break;
		case VCS_A_ACKED_PHASE: phase = value_of(a); break;
		case VCS_A_GROUP: group = (const char *)(a + 1); break;
		case VCS_A_MEMBER: seen.members++; break;
		}
	}
	if (group)
		see_group(group, event, phase);
	seen.torn |= seen.messages++ && generation != seen.generation;
	seen.generation = generation;
}

/* The errno; -1 for a dump that was interrupted. */
static int call(int fd)
{
	bool interrupted = false;
	ssize_t len;

	seen.messages = seen.members = seen.groups = 0;
	seen.torn = false;
	if (send(fd, &ask, ask.n.nlmsg_len, 0) < 0)
		die("send");
	for (;;) {
		len = recv(fd, answer, sizeof(answer), 0);
		if (len < 0)
			die("recv");
		for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
			if (h->nlmsg_seq != seq)
				continue;
			interrupted |= h->nlmsg_flags & NLM_F_DUMP_INTR;
			if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE)
				return interrupted ? -1 : -*(int *)NLMSG_DATA(h);
			if (h->nlmsg_type == family)
				see(h);
		}
	}
}

static void order(const char *what)
{
	errno = call(sock);
	if (errno)
		die(what);
}

/* The family's number, and that of its only multicast group. */
static void find_family(void)
{
	const char *at, *end;

	begin(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	put(CTRL_ATTR_FAMILY_NAME, VCS_GENL_NAME, sizeof(VCS_GENL_NAME));
	if (send(sock, &ask, ask.n.nlmsg_len, 0) < 0 || recv(sock, answer, sizeof(answer), 0) < 0)
		die("the family");
	at = answer + NLMSG_LENGTH(GENL_HDRLEN);
	end = answer + ((struct nlmsghdr *)answer)->nlmsg_len;
	for (const struct nlattr *a; at < end; at += NLA_ALIGN(a->nla_len)) {
		a = (const void *)at;
		if ((a->nla_type & NLA_TYPE_MASK) == CTRL_ATTR_FAMILY_ID)
			family = value_of(a);
		if ((a->nla_type & NLA_TYPE_MASK) == CTRL_ATTR_MCAST_GROUPS) {
			/* A list of one nest: its id and its name, in either order. */
			const char *in = (const char *)(a + 1) + NLA_HDRLEN;

			for (const struct nlattr *b; in < (const char *)a + a->nla_len; in += NLA_ALIGN(b->nla_len)) {
				b = (const void *)in;
				if ((b->nla_type & NLA_TYPE_MASK) == CTRL_ATTR_MCAST_GRP_ID)
					hints_group = value_of(b);
			}
		}
	}
	if (!family || !hints_group) {
		errno = ENOENT;
		die("the family");
	}
}

#endif
