// SPDX-License-Identifier: GPL-2.0-only
/*
 * In a guest: sends the netlink messages that tests/kernel/fuzz/spec_fuzz.py made,
 * from a few sockets, and counts the answers.
 *
 *	sender FILE TIMES
 *
 * A record is struct record and then a generic netlink message. What only the
 * running kernel knows stands in it as MAGIC + n: a session that an earlier answer
 * gave (n < SLOTS), this kernel's incarnation, or the time. A line for each command
 * and errno is printed at the end.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SOCKETS		8
#define SLOTS		64
#define MAGIC		0x7663735f00000000ULL
#define INCARNATION	64
#define NOW		65
#define REOPEN		0xffff
/* A_SESSION and A_INCARNATION come from the spec, by the command line of the compiler. */
#define ERRNOS		600

struct record {
	uint16_t len;
	uint8_t sock;
	uint8_t slot;		/* of the session in the answer; SLOTS: it is dropped */
	uint16_t flags;
	uint16_t unused;
};

static int sockets[SOCKETS];
static uint64_t slots[SLOTS], incarnation;
static unsigned long outcomes[256][ERRNOS];
static uint16_t family;
static uint32_t seq;
static char answer[1 << 18];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int open_socket(void)
{
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };
	struct timeval limit = { .tv_sec = 20 };	/* no command waits for anybody */
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC), one = 1;

	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		die("netlink socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
	return fd;
}

static const struct nlattr *find(const void *data, int len, int type)
{
	const struct nlattr *a = data;

	while (len >= (int)sizeof(*a) && a->nla_len >= sizeof(*a) && a->nla_len <= len) {
		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		len -= NLA_ALIGN(a->nla_len);
		a = (const void *)((const char *)a + NLA_ALIGN(a->nla_len));
	}
	return NULL;
}

static uint64_t u64_of(const struct nlmsghdr *h, int type)
{
	const struct nlattr *a = find((const char *)h + NLMSG_HDRLEN + GENL_HDRLEN,
				      h->nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN, type);
	uint64_t value = 0;

	if (a && a->nla_len == NLA_HDRLEN + sizeof(value))
		memcpy(&value, a + 1, sizeof(value));
	return value;
}

/* Until the answer is whole. The errno; 0 for a success. */
static int receive(int fd, int slot)
{
	struct nlmsghdr *h;
	ssize_t len;

	for (;;) {
		len = recv(fd, answer, sizeof(answer), 0);
		if (len < 0)
			return errno;
		for (h = (void *)answer; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
			if (h->nlmsg_seq != seq)
				continue;
			if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE)
				return -*(int *)NLMSG_DATA(h);
			if (h->nlmsg_type != family)
				continue;
			if (slot < SLOTS && u64_of(h, A_SESSION))
				slots[slot] = u64_of(h, A_SESSION);
			if (slot == INCARNATION)
				incarnation = u64_of(h, A_INCARNATION);
		}
	}
}

static int send_one(int fd, uint16_t type, uint16_t flags, void *body, size_t size, int slot)
{
	struct nlmsghdr h = {
		.nlmsg_len = NLMSG_HDRLEN + size, .nlmsg_type = type, .nlmsg_seq = ++seq,
		.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags,
	};
	struct iovec iov[2] = { { &h, sizeof(h) }, { body, size } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (sendmsg(fd, &msg, 0) < 0)
		return errno;
	return receive(fd, slot);
}

static void resolve(void)
{
	struct {
		struct genlmsghdr g;
		struct nlattr a;
		char name[4];
	} ask = { { .cmd = CTRL_CMD_GETFAMILY, .version = 1 }, { 8, CTRL_ATTR_FAMILY_NAME }, "vcs" };
	struct genlmsghdr info = { .cmd = 1, .version = 1 };
	const struct nlattr *id;
	struct nlmsghdr h = {
		.nlmsg_len = NLMSG_HDRLEN + sizeof(ask), .nlmsg_type = GENL_ID_CTRL,
		.nlmsg_flags = NLM_F_REQUEST,
	};
	struct iovec iov[2] = { { &h, sizeof(h) }, { &ask, sizeof(ask) } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	int fd = open_socket();
	ssize_t len;

	if (sendmsg(fd, &msg, 0) < 0 || (len = recv(fd, answer, sizeof(answer), 0)) < 0)
		die("the family");
	id = find(answer + NLMSG_HDRLEN + GENL_HDRLEN, len - NLMSG_HDRLEN - GENL_HDRLEN,
		  CTRL_ATTR_FAMILY_ID);
	if (!id)
		die("the family vcs");
	memcpy(&family, id + 1, sizeof(family));
	if (send_one(fd, family, 0, &info, sizeof(info), INCARNATION) || !incarnation)
		die("info-get");
	close(fd);
}

static uint64_t known(unsigned int n)
{
	struct timespec now;

	if (n < SLOTS)
		return slots[n];
	if (n == INCARNATION)
		return incarnation;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static void fill(char *body, size_t size)
{
	uint64_t value;
	size_t at;

	for (at = 0; at + sizeof(value) <= size; at += 4) {
		memcpy(&value, body + at, sizeof(value));
		if ((value & ~0xffULL) != MAGIC || (value & 0xff) > NOW)
			continue;
		value = known(value & 0xff);
		memcpy(body + at, &value, sizeof(value));
	}
}

static unsigned long replay(const char *data, size_t size)
{
	static char body[1 << 16];
	unsigned long sent = 0;
	struct record r;
	size_t at = 0;
	int err;

	while (at + sizeof(r) <= size) {
		memcpy(&r, data + at, sizeof(r));
		at += sizeof(r);
		if (r.flags == REOPEN) {
			close(sockets[r.sock % SOCKETS]);
			sockets[r.sock % SOCKETS] = open_socket();
			continue;
		}
		if (at + r.len > size)
			break;
		memcpy(body, data + at, r.len);
		at += r.len;
		fill(body, r.len);
		err = send_one(sockets[r.sock % SOCKETS], family, r.flags, body, r.len, r.slot);
		outcomes[(unsigned char)body[0]][err < 0 || err >= ERRNOS ? ERRNOS - 1 : err]++;
		sent++;
	}
	return sent;
}

int main(int argc, char **argv)
{
	unsigned long sent = 0;
	struct stat st;
	char *data;
	int fd, i, j;

	fd = argc == 3 ? open(argv[1], O_RDONLY) : -1;
	if (fd < 0 || fstat(fd, &st))
		die("usage: sender FILE TIMES");
	data = malloc(st.st_size);
	if (!data || read(fd, data, st.st_size) != st.st_size)
		die(argv[1]);
	resolve();
	for (i = 0; i < SOCKETS; i++)
		sockets[i] = open_socket();
	for (i = atoi(argv[2]); i > 0; i--)
		sent += replay(data, st.st_size);
	for (i = 0; i < 256; i++)
		for (j = 0; j < ERRNOS; j++)
			if (outcomes[i][j])
				printf("%d %d %lu\n", i, j, outcomes[i][j]);
	printf("sent %lu\n", sent);
	return 0;
}
