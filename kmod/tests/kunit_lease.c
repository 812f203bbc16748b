// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit: the lease, by its source that is compiled in here. What it decides is pure:
 * time and the lease are arguments.
 */
#define NOTRACE
#include <linux/module.h>
#include <linux/prandom.h>

#include "kunit_here.h"
#include "../lease.c"

#define SECOND	((u64)NSEC_PER_SEC)
#define MS	((u64)NSEC_PER_MSEC)

static struct vcs_lease armed_lease(u64 lease_ns, u64 grace_ns, u64 valid_from)
{
	struct vcs_lease l = { .lease_ns = lease_ns, .grace_ns = grace_ns, .armed = true };

	prolong(&l, valid_from);
	return l;
}

static void lease_states(struct kunit *test)
{
	struct vcs_lease none = {}, l = armed_lease(2 * SECOND, SECOND, 10 * SECOND);

	KUNIT_EXPECT_EQ(test, vcs_lease_next(&none, U64_MAX), VCS_LEASE_NONE);
	KUNIT_EXPECT_TRUE(test, vcs_lease_covers(&none, U64_MAX));
	KUNIT_EXPECT_EQ(test, vcs_lease_next(&l, 12 * SECOND - 1), VCS_LEASE_ARMED);
	KUNIT_EXPECT_TRUE(test, vcs_lease_covers(&l, 12 * SECOND - 1));
	KUNIT_EXPECT_EQ(test, vcs_lease_next(&l, 12 * SECOND), VCS_LEASE_EXPIRED);
	KUNIT_EXPECT_FALSE(test, vcs_lease_covers(&l, 12 * SECOND));
	KUNIT_EXPECT_EQ(test, vcs_lease_next(&l, 13 * SECOND - 1), VCS_LEASE_EXPIRED);
	KUNIT_EXPECT_EQ(test, vcs_lease_next(&l, 13 * SECOND), VCS_LEASE_RESET);
	l.armed = false;
	KUNIT_EXPECT_EQ(test, vcs_lease_next(&l, 13 * SECOND), VCS_LEASE_IDLE);
	KUNIT_EXPECT_FALSE(test, vcs_lease_over(&l, 13 * SECOND));
	l = armed_lease(2 * SECOND, 0, 10 * SECOND);
	KUNIT_EXPECT_EQ(test, vcs_lease_next(&l, U64_MAX), VCS_LEASE_EXPIRED);
	KUNIT_EXPECT_FALSE(test, vcs_lease_over(&l, U64_MAX));
}

static void lease_evidence(struct kunit *test)
{
	struct vcs_lease none = {}, l = armed_lease(2 * SECOND, SECOND, 10 * SECOND);

	KUNIT_EXPECT_EQ(test, renew_next(&none, 5, 10), -EINVAL);
	/* The future; older than the last; run out itself; and good ones. */
	KUNIT_EXPECT_EQ(test, renew_next(&l, 11 * SECOND + 1, 11 * SECOND), -EINVAL);
	KUNIT_EXPECT_EQ(test, renew_next(&l, 10 * SECOND - 1, 11 * SECOND), -ESTALE);
	KUNIT_EXPECT_EQ(test, renew_next(&l, 10 * SECOND, 12 * SECOND), -ESTALE);
	KUNIT_EXPECT_EQ(test, renew_next(&l, 10 * SECOND, 11 * SECOND), 0);
	KUNIT_EXPECT_EQ(test, renew_next(&l, 11 * SECOND, 11 * SECOND), 0);
	/* Over is over, however good the evidence; without a reset it is not. */
	KUNIT_EXPECT_EQ(test, renew_next(&l, 12 * SECOND, 12 * SECOND), -ESTALE);
	l = armed_lease(2 * SECOND, 0, 10 * SECOND);
	KUNIT_EXPECT_EQ(test, renew_next(&l, 60 * SECOND, 60 * SECOND), 0);
}

static void lease_frozen(struct kunit *test)
{
	struct vcs_lease l = armed_lease(2 * SECOND, SECOND, 10 * SECOND);

	l.freeze = 100 * SECOND;
	prolong(&l, l.valid_from);
	KUNIT_EXPECT_EQ(test, vcs_lease_next(&l, 100 * SECOND - 1), VCS_LEASE_ARMED);
	KUNIT_EXPECT_EQ(test, l.reset, 101 * SECOND);
	/* Evidence within it does not shorten it, and it falls back to evidence. */
	prolong(&l, 50 * SECOND);
	KUNIT_EXPECT_EQ(test, l.end, 100 * SECOND);
	prolong(&l, 99 * SECOND);
	KUNIT_EXPECT_EQ(test, l.end, 101 * SECOND);
}

/*
 * One life of a provider which renews, and at some time is killed or frozen, or is
 * starved, or goes on with stale evidence. True when the reset came at its time.
 */
static bool one_reset(struct rnd_state *rnd)
{
	u64 lease_ns = 2 * SECOND + prandom_u32_state(rnd) % (10 * SECOND);
	u64 grace_ns = SECOND / 2 + prandom_u32_state(rnd) % (2 * SECOND);
	u64 now = SECOND * 1000, best = now, evidence, dies, due;
	struct vcs_lease l = armed_lease(lease_ns, grace_ns, now);
	unsigned int mode = prandom_u32_state(rnd) % 3;
	bool over;

	dies = now + prandom_u32_state(rnd);
	while (vcs_lease_next(&l, now) != VCS_LEASE_RESET) {
		now += 1 + prandom_u32_state(rnd) % (700 * MS);
		due = best + lease_ns + grace_ns;
		over = now >= due;
		if (over != (vcs_lease_next(&l, now) == VCS_LEASE_RESET))
			return false;
		if (now < dies)
			evidence = now - prandom_u32_state(rnd) % (300 * MS);
		else if (mode == 0)
			continue;
		else
			evidence = mode == 1 ? best : now - lease_ns;
		if (renew_next(&l, evidence, now))
			continue;
		/* What is accepted is no older than the last, has not run out, and is not late. */
		if (evidence < best || now >= evidence + lease_ns || now >= best + lease_ns)
			return false;
		best = evidence;
		prolong(&l, evidence);
	}
	return l.reset == best + lease_ns + grace_ns &&
	       vcs_lease_next(&l, l.reset - 1) == VCS_LEASE_EXPIRED;
}

static void lease_a_thousand_resets(struct kunit *test)
{
	struct rnd_state rnd;
	unsigned int n;

	prandom_seed_state(&rnd, 7);
	for (n = 0; n < 1000; n++)
		KUNIT_ASSERT_TRUE_MSG(test, one_reset(&rnd), "life %u", n);
}

static struct kunit_case lease_cases[] = {
	KUNIT_CASE(lease_states),
	KUNIT_CASE(lease_evidence),
	KUNIT_CASE(lease_frozen),
	KUNIT_CASE(lease_a_thousand_resets),
	{}
};

static struct kunit_suite lease_suite = { .name = "vcs_lease", .test_cases = lease_cases };

kunit_test_suite(lease_suite);
