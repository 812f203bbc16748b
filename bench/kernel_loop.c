// SPDX-License-Identifier: GPL-2.0-only
/*
 * In a guest: the provider and the reader of bench/kernel.py, in C, so that what is measured is the switch.
 *
 *	kernel_loop views HANDLE TIMES		from VIEW_SET to the view notifier of vcs_bench.ko
 *	kernel_loop rounds HANDLE TIMES		stop, start and finish of all groups that vcs_bench.ko joined
 *	kernel_loop groups HANDLE TIMES		dumps of all groups, while views change
 *	kernel_loop nodes HANDLE TIMES NODES	dumps of a view of vcs_test_provider.ko, while views change
 *
 * It attaches to the cluster, which is there. Prints one line of JSON; times are in microseconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernel_netlink.h"

#define DEBUGFS		"/sys/kernel/debug/vcs_bench/"
#define NODES		"/sys/module/vcs_test_provider/parameters/nodes"
#define CHANGE_US	20000	/* from one view to the next while something is dumped */

static int hints;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* --- as a provider --------------------------------------------------------------------------------------------------- */

static void attach(const char *type)
{
	about(VCS_CMD_PROVIDER_ATTACH, NLM_F_ACK);
	put(VCS_A_PROVIDER, type, strlen(type) + 1);
	order("attach");
}

/* Its generation. */
static uint64_t set_view(uint64_t ring)
{
	about(VCS_CMD_VIEW_SET, NLM_F_ACK);
	put_u64(VCS_A_SESSION, seen.session);
	put_u64(VCS_A_RING_SEQ, ring);
	put_u32(VCS_A_RING_REP, 1);
	put_u32(VCS_A_VIEW_FLAGS, VCS_VIEW_QUORATE);
	put_member(1, seen.incarnation);
	put_member(2, ring);
	order("view-set");
	return seen.generation;
}

static void group_order(uint8_t command, const char *group, uint64_t event)
{
	about(command, NLM_F_ACK);
	put_u64(VCS_A_SESSION, seen.session);
	put(VCS_A_GROUP, group, strlen(group) + 1);
	put_u64(VCS_A_EVENT, event);
	if (command == VCS_CMD_GROUP_START)
		put_member(1, seen.incarnation);
	order("an order");
}

static int dump(int fd, uint8_t command)
{
	about(command, NLM_F_DUMP);
	return call(fd);
}

/* Two numbers of a file of vcs_bench.ko. */
static void read_two(const char *file, uint64_t *first, uint64_t *second)
{
	static char text[64];
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (len < 0)
		die(file);
	text[len] = 0;
	close(fd);
	if (sscanf(text, "%lu %lu", first, second) != 2) {
		errno = EBADMSG;
		die(file);
	}
}

/* --- what is measured ---------------------------------------------------------------------------------------------------- */

static void print_us(const char *name, const double *us, unsigned int n, const char *after)
{
	printf("\"%s\": [", name);
	for (unsigned int i = 0; i < n; i++)
		printf("%s%.1f", i ? ", " : "", us[i]);
	printf("]%s", after);
}

static void views(unsigned int times)
{
	double *called = calloc(times, sizeof(*called)), *answered = calloc(times, sizeof(*answered));
	uint64_t begun, generation, seen_generation, seen_ns;

	attach("user");
	for (unsigned int i = 0; i < times; i++) {
		begun = now_ns();
		generation = set_view(i + 1);
		answered[i] = (now_ns() - begun) / 1e3;
		do
			read_two(DEBUGFS "views", &seen_generation, &seen_ns);
		while (seen_generation < generation);
		called[i] = ((double)seen_ns - (double)begun) / 1e3;
		usleep(2000);
	}
	printf("{");
	print_us("called_us", called, times, ", ");
	print_us("answered_us", answered, times, "}\n");
}

/* Until every group has acknowledged; between two looks until a hint comes. */
static void wait_acked(uint32_t phase, uint64_t event)
{
	struct pollfd some = { .fd = hints, .events = POLLIN };
	unsigned int i;

	wanted_phase = phase;
	for (;;) {
		while (recv(hints, answer, sizeof(answer), MSG_DONTWAIT) > 0 || errno == ENOBUFS)
			;
		if (!dump(sock, VCS_CMD_GROUP_GET)) {
			for (i = 0; i < seen.groups && seen.acked[i] == event; i++)
				;
			if (i == seen.groups)
				return;
		}
		poll(&some, 1, 50);
	}
}

static void rounds(unsigned int times)
{
	double *took = calloc(times, sizeof(*took));
	uint64_t begun, before, count, ns, event;
	unsigned int groups;

	attach("user");
	event = seen.highest;
	set_view(1);
	if (setsockopt(hints, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &hints_group, sizeof(hints_group)))
		die("hints");
	while (dump(sock, VCS_CMD_GROUP_GET))
		;
	groups = seen.groups;
	for (unsigned int i = 0; i < times; i++) {
		read_two(DEBUGFS "finishes", &before, &ns);
		event++;
		begun = now_ns();
		for (unsigned int g = 0; g < groups; g++)
			group_order(VCS_CMD_GROUP_STOP, seen.names[g], event);
		wait_acked(VCS_PHASE_STOP, event);
		for (unsigned int g = 0; g < groups; g++)
			group_order(VCS_CMD_GROUP_START, seen.names[g], event);
		wait_acked(VCS_PHASE_START, event);
		for (unsigned int g = 0; g < groups; g++)
			group_order(VCS_CMD_GROUP_FINISH, seen.names[g], event);
		do
			read_two(DEBUGFS "finishes", &count, &ns);
		while (count - before < groups);
		took[i] = (ns - begun) / 1e3;
	}
	printf("{\"groups\": %u, ", groups);
	print_us("took_us", took, times, "}\n");
}

/* A process that changes the view again and again, until we end. */
static pid_t changing(void (*change)(uint64_t n, const char *text), const char *text)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint64_t n = 2;; n++) {
		change(n, text);
		usleep(CHANGE_US);
	}
}

static void change_by_order(uint64_t n, const char *text)
{
	(void)text;
	set_view(n);
}

static void change_by_module(uint64_t n, const char *nodes)
{
	int fd = open(NODES, O_WRONLY | O_CLOEXEC);

	(void)n;
	if (fd < 0 || write(fd, nodes, strlen(nodes)) < 0)
		die(NODES);
	close(fd);
}

/* Dumps over a socket of their own; one that was interrupted is begun anew, and both together are its time. */
static void dumps(uint8_t command, unsigned int times, pid_t changer)
{
	double *took = calloc(times, sizeof(*took));
	unsigned int again = 0, least = ~0u, torn = 0, changes = 0;
	uint64_t begun, last = 0;
	int fd = open_socket();

	for (unsigned int i = 0; i < times; i++) {
		begun = now_ns();
		while ((errno = dump(fd, command)) == -1)
			again++;
		if (errno)
			die("dump");
		took[i] = (now_ns() - begun) / 1e3;
		changes += command == VCS_CMD_VIEW_GET && seen.generation != last;
		last = seen.generation;
		if ((command == VCS_CMD_VIEW_GET ? seen.members : seen.groups) < least)
			least = command == VCS_CMD_VIEW_GET ? seen.members : seen.groups;
		torn += command == VCS_CMD_VIEW_GET && seen.torn;
		usleep(3000);
	}
	kill(changer, SIGKILL);
	waitpid(changer, NULL, 0);
	printf("{\"least\": %u, \"messages\": %u, \"again\": %u, \"torn\": %u, \"changes\": %u, ", least, seen.messages, again, torn,
	       changes);
	print_us("took_us", took, times, "}\n");
}

int main(int argc, char **argv)
{
	unsigned int times = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;

	if (argc < 4 || !times) {
		fprintf(stderr, "usage: %s views|rounds|groups|nodes HANDLE TIMES [NODES]\n", argv[0]);
		return 2;
	}
	handle = argv[2];
	sock = open_socket();
	hints = open_socket();
	find_family();
	begin(family, VCS_CMD_INFO_GET, NLM_F_ACK);
	order("info-get");
	if (!strcmp(argv[1], "views")) {
		views(times);
	} else if (!strcmp(argv[1], "rounds")) {
		rounds(times);
	} else if (!strcmp(argv[1], "groups")) {
		attach("user");
		set_view(1);
		dumps(VCS_CMD_GROUP_GET, times, changing(change_by_order, NULL));
	} else if (!strcmp(argv[1], "nodes") && argc > 4) {
		attach("test");
		change_by_module(0, argv[4]);
		dumps(VCS_CMD_VIEW_GET, times, changing(change_by_module, argv[4]));
	} else {
		fprintf(stderr, "%s: not known\n", argv[1]);
		return 2;
	}
	return 0;
}
