// SPDX-License-Identifier: GPL-2.0-only
/*
 * One process that locks and unlocks one byte of a file with fcntl(2) for so many seconds, and says how long each lock call took.
 *
 *	plock_loop FILE BYTE SECONDS
 *
 * Prints one line of JSON: pairs, seconds, and the lock call's times in microseconds (p50, p99, max).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define CALLS_MAX (8u << 20)

static uint32_t took_us[CALLS_MAX];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct flock range = { .l_whence = SEEK_SET, .l_len = 1 };
	uint64_t begun, ends, now;
	size_t calls = 0;
	int fd;

	if (argc != 4) {
		fprintf(stderr, "usage: plock_loop FILE BYTE SECONDS\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_CREAT, 0644);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	range.l_start = atoll(argv[2]);
	begun = now_ns();
	ends = begun + (uint64_t)(atof(argv[3]) * 1e9);
	do {
		uint64_t asked = now_ns();

		range.l_type = F_WRLCK;
		if (fcntl(fd, F_SETLKW, &range)) {
			perror("F_SETLKW");
			return 1;
		}
		if (calls < CALLS_MAX)
			took_us[calls++] = (uint32_t)((now_ns() - asked) / 1000);
		range.l_type = F_UNLCK;
		if (fcntl(fd, F_SETLK, &range)) {
			perror("F_UNLCK");
			return 1;
		}
		now = now_ns();
	} while (now < ends);
	qsort(took_us, calls, sizeof(took_us[0]), by_size);
	printf("{\"pairs\": %zu, \"seconds\": %.3f, \"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u}\n", calls,
	       (double)(now - begun) / 1e9, took_us[calls / 2], took_us[calls * 99 / 100], took_us[calls - 1]);
	return 0;
}
