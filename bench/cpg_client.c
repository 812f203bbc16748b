// SPDX-License-Identifier: GPL-2.0-only
/*
 * A client of corosync's closed process groups, for the comparison: it does what bench/client.py does on our side, with the same
 * words on stdin and stdout.
 *
 * It is in C so that the peer is shown at its best. One loop sends and takes deliveries, as corosync's own cpgbench does.
 *
 *   flood BYTES SECONDS   send as fast as corosync takes it, then an end mark
 *   ping COUNT GAP_US BYTES   pause (half to one and a half times GAP), send one, wait for it; then an end mark
 *   one BYTES             send one ping, and say when it is back: "pong NS"
 *   quit
 *
 * It says "ready" when it is in the group, "conf T MEMBERS" at each ring configuration, and at an end mark, for what it was delivered:
 * "end SENDER COUNT BYTES T_FIRST T_LAST LATENCY..." (ns; the latencies of pings only). Times are CLOCK_MONOTONIC.
 */
#include <corosync/corotypes.h>
#include <corosync/cpg.h>

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SENDERS_MAX 64
#define PINGS_MAX 100000
#define PAYLOAD_MAX (1 << 20)
#define NS 1000000000ULL

enum kind { FLOOD = 1, PING, END };

struct header {
	uint32_t kind;
	uint32_t sender;
	uint64_t sent;
};

struct tally {
	uint64_t count, bytes, first, last;
	uint64_t *latency;
	uint64_t latencies;
};

static cpg_handle_t handle;
static unsigned int self;
static struct tally tallies[SENDERS_MAX];
static uint64_t own_pings;
static uint64_t own_ends;
static uint64_t last_own;
static char payload[PAYLOAD_MAX];

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static void die(const char *what, int code)
{
	fprintf(stderr, "cpg_client: %s: %d\n", what, code);
	exit(1);
}

static void tell(unsigned int sender)
{
	struct tally *t = &tallies[sender];

	printf("end %u %lu %lu %lu %lu", sender, t->count, t->bytes, t->first, t->last);
	for (uint64_t i = 0; i < t->latencies; i++)
		printf(" %lu", t->latency[i]);
	printf("\n");
	fflush(stdout);
	free(t->latency);
	memset(t, 0, sizeof(*t));
}

static void deliver(cpg_handle_t h, const struct cpg_name *group, uint32_t nodeid, uint32_t pid, void *data, size_t size)
{
	struct header head;
	struct tally *t;

	(void)h, (void)group, (void)pid;
	memcpy(&head, data, sizeof(head));
	if (nodeid >= SENDERS_MAX)
		die("sender", (int)nodeid);
	t = &tallies[nodeid];
	if (head.kind == END) {
		tell(nodeid);
		if (nodeid == self)
			own_ends++;
		return;
	}
	t->last = now();
	if (!t->count)
		t->first = t->last;
	t->count++;
	t->bytes += size;
	if (head.kind != PING)
		return;
	if (!t->latency)
		t->latency = malloc(PINGS_MAX * sizeof(*t->latency));
	if (t->latency && t->latencies < PINGS_MAX)
		t->latency[t->latencies++] = t->last - head.sent;
	if (nodeid == self) {
		own_pings++;
		last_own = t->last - head.sent;
	}
}

static void changed(cpg_handle_t h, const struct cpg_name *g, const struct cpg_address *m, size_t n, const struct cpg_address *l, size_t nl,
		    const struct cpg_address *j, size_t nj)
{
	(void)h, (void)g, (void)m, (void)n, (void)l, (void)nl, (void)j, (void)nj;
}

static void totem_changed(cpg_handle_t h, struct cpg_ring_id ring, uint32_t count, const uint32_t *members)
{
	(void)h;
	printf("conf %lu %u.%lu", now(), ring.nodeid, ring.seq);
	for (uint32_t i = 0; i < count; i++)
		printf(" %u", members[i]);
	printf("\n");
	fflush(stdout);
}

static void dispatch(cs_dispatch_flags_t how)
{
	cs_error_t e = cpg_dispatch(handle, how);

	if (e == CS_ERR_LIBRARY)
		exit(0); /* the daemon is gone: it was killed */
	if (e != CS_OK && e != CS_ERR_TRY_AGAIN)
		die("cpg_dispatch", e);
}

/* Take deliveries until ``*counter`` reaches ``target``. */
static void await_count(const uint64_t *counter, uint64_t target)
{
	int fd;

	cpg_fd_get(handle, &fd);
	while (*counter < target) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			die("poll", errno);
		dispatch(CS_DISPATCH_ALL);
	}
}

static int mcast(enum kind kind, size_t size)
{
	struct header head = { .kind = kind, .sender = self, .sent = now() };
	struct iovec iov = { .iov_base = payload, .iov_len = size };
	cs_error_t e;

	memcpy(payload, &head, sizeof(head));
	e = cpg_mcast_joined(handle, CPG_TYPE_AGREED, &iov, 1);
	if (e == CS_ERR_TRY_AGAIN)
		return 0;
	if (e != CS_OK)
		die("cpg_mcast_joined", e);
	return 1;
}

static void mcast_surely(enum kind kind, size_t size)
{
	while (!mcast(kind, size))
		dispatch(CS_DISPATCH_ALL);
}

static void end_mark(void)
{
	uint64_t target = own_ends + 1;

	mcast_surely(END, sizeof(struct header));
	await_count(&own_ends, target);
}

static void flood(size_t size, double seconds)
{
	uint64_t until = now() + (uint64_t)(seconds * 1e9);

	while (now() < until) {
		mcast(FLOOD, size);
		dispatch(CS_DISPATCH_ALL);
	}
	end_mark();
}

static void ping(uint64_t count, useconds_t gap, size_t size)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t target = own_pings + 1;

		usleep(gap / 2 + (useconds_t)rand() % gap);
		mcast_surely(PING, size);
		await_count(&own_pings, target);
	}
	end_mark();
}

/* One line of stdin. Returns 0 at the end. */
static int command(void)
{
	char line[256];
	unsigned long size, count, gap;
	double seconds;

	if (!fgets(line, sizeof(line), stdin) || !strncmp(line, "quit", 4))
		return 0;
	if (sscanf(line, "flood %lu %lf", &size, &seconds) == 2) {
		flood(size, seconds);
	} else if (sscanf(line, "ping %lu %lu %lu", &count, &gap, &size) == 3) {
		ping(count, (useconds_t)gap, size);
	} else if (sscanf(line, "one %lu", &size) == 1) {
		uint64_t target = own_pings + 1;

		mcast_surely(PING, size);
		await_count(&own_pings, target);
		printf("pong %lu\n", last_own);
		fflush(stdout);
	} else if (!strncmp(line, "mark", 4)) {
		end_mark();
	} else {
		die(line, 0);
	}
	return 1;
}

int main(void)
{
	cpg_model_v1_data_t model = {
		.model = CPG_MODEL_V1,
		.cpg_deliver_fn = deliver,
		.cpg_confchg_fn = changed,
		.cpg_totem_confchg_fn = totem_changed,
		.flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF,
	};
	struct cpg_name group = { .length = 5, .value = "bench" };
	cs_error_t e;
	int fd;

	setvbuf(stdin, NULL, _IONBF, 0);
	while ((e = cpg_model_initialize(&handle, CPG_MODEL_V1, (cpg_model_data_t *)&model, NULL)) != CS_OK) {
		/* The daemon may not listen yet, and libqb offers nothing to wait on. */
		if (e != CS_ERR_TRY_AGAIN && e != CS_ERR_LIBRARY)
			die("cpg_model_initialize", e);
		usleep(20000);
	}
	cpg_local_get(handle, &self);
	while ((e = cpg_join(handle, &group)) == CS_ERR_TRY_AGAIN)
		usleep(20000);
	if (e != CS_OK)
		die("cpg_join", e);
	cpg_fd_get(handle, &fd);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .fd = 0, .events = POLLIN } };

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			die("poll", errno);
		if (p[0].revents)
			dispatch(CS_DISPATCH_ALL);
		if (p[1].revents && !command())
			break;
	}
	cpg_finalize(handle);
	return 0;
}
