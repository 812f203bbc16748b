// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit: who is up by heartbeat, by the source that is compiled in here.
 */
#include <linux/module.h>

#include "kunit_here.h"
#include "../heartbeat/peer.c"

#define SECOND	((u64)NSEC_PER_SEC)
#define MS	((u64)NSEC_PER_MSEC)

/* Two nodes, each with what it knows of the other one, and a wire. */
struct pair {
	struct vcs_hb_self self[2];
	struct vcs_hb_peer peer[2];
	struct vcs_hb_packet last[2];	/* that each has sent */
	bool cut[2];			/* what each sends gets lost */
	u64 now;
};

#define BEAT	(100 * MS)

static void pair_init(struct pair *p)
{
	int i;

	*p = (struct pair){ .now = SECOND };
	for (i = 0; i < 2; i++) {
		p->self[i] = (struct vcs_hb_self){
			.nodeid = i + 1, .interval_ms = 100, .boot = 50 + i, .life = 70 + i,
		};
		p->peer[i].nodeid = 2 - i;
	}
}

/* One interval: both beat, and hear what is not cut. */
static void beat(struct pair *p)
{
	int i;

	p->now += BEAT;
	for (i = 0; i < 2; i++)
		if (vcs_hb_beat(&p->self[i], p->now))
			vcs_hb_say(&p->self[i], &p->peer[i], 0, &p->last[i]);
	for (i = 0; i < 2; i++)
		if (!p->cut[i])
			vcs_hb_hear(&p->self[!i], &p->peer[!i], &p->last[i], p->now);
}

static bool is_up(const struct pair *p, int i, u64 now)
{
	return vcs_hb_until(&p->self[i], &p->peer[i]) > now;
}

static void beats(struct pair *p, int n)
{
	while (n--)
		beat(p);
}

static void heartbeat_up_and_silent(struct kunit *test)
{
	struct pair p;

	pair_init(&p);
	beat(&p);
	KUNIT_EXPECT_FALSE(test, is_up(&p, 0, p.now) || is_up(&p, 1, p.now));
	beats(&p, 2);
	KUNIT_EXPECT_TRUE(test, is_up(&p, 0, p.now) && is_up(&p, 1, p.now));
	KUNIT_EXPECT_TRUE(test, is_up(&p, 0, p.now + VCS_HB_MISSED * BEAT - 1));
	KUNIT_EXPECT_FALSE(test, is_up(&p, 0, p.now + VCS_HB_MISSED * BEAT));
}

static void heartbeat_one_way(struct kunit *test)
{
	struct pair p;
	u64 cut;

	pair_init(&p);
	beats(&p, 5);
	cut = p.now;
	p.cut[0] = true;
	beats(&p, VCS_HB_MISSED);
	KUNIT_EXPECT_FALSE(test, is_up(&p, 1, p.now));
	beat(&p);
	KUNIT_EXPECT_FALSE(test, is_up(&p, 0, p.now));
	KUNIT_EXPECT_EQ(test, p.now, cut + (VCS_HB_MISSED + 1) * BEAT);
	beats(&p, 20);
	KUNIT_EXPECT_FALSE(test, is_up(&p, 0, p.now) || is_up(&p, 1, p.now));
	p.cut[0] = false;
	beats(&p, 2);
	KUNIT_EXPECT_TRUE(test, is_up(&p, 0, p.now) && is_up(&p, 1, p.now));
}

static void heartbeat_replay(struct kunit *test)
{
	struct vcs_hb_packet old;
	struct pair p;

	pair_init(&p);
	beats(&p, 5);
	old = p.last[1];
	KUNIT_EXPECT_EQ(test, vcs_hb_hear(&p.self[0], &p.peer[0], &old, p.now),
			VCS_HB_REPLAYED);
	p.cut[0] = true;
	p.cut[1] = true;
	beats(&p, 10);
	KUNIT_EXPECT_EQ(test, vcs_hb_hear(&p.self[0], &p.peer[0], &old, p.now),
			VCS_HB_REPLAYED);
	/* Held back until now, and so never heard: what it echoes is past. */
	old.seq = cpu_to_be64(p.peer[0].seq + 1);
	KUNIT_EXPECT_EQ(test, vcs_hb_hear(&p.self[0], &p.peer[0], &old, p.now), VCS_HB_HEARD);
	KUNIT_EXPECT_FALSE(test, is_up(&p, 0, p.now));
	/* Nor does a life of this node which knows nothing believe it. */
	p.self[0].life++;
	p.self[0].seq = 0;
	p.peer[0] = (struct vcs_hb_peer){ .nodeid = 2 };
	KUNIT_EXPECT_EQ(test, vcs_hb_hear(&p.self[0], &p.peer[0], &old, p.now), VCS_HB_HEARD);
	KUNIT_EXPECT_FALSE(test, is_up(&p, 0, p.now));
}

static void heartbeat_new_boot(struct kunit *test)
{
	struct vcs_member m[2];
	struct pair p;

	pair_init(&p);
	beats(&p, 5);
	p.self[1] = (struct vcs_hb_self){
		.nodeid = 2, .interval_ms = 100, .boot = 99, .life = 71 + SECOND,
	};
	p.peer[1] = (struct vcs_hb_peer){ .nodeid = 1 };
	beats(&p, 3);
	KUNIT_ASSERT_TRUE(test, is_up(&p, 0, p.now));
	KUNIT_ASSERT_EQ(test, vcs_hb_members(&p.self[0], &p.peer[0], 1, p.now, m), 1U);
	KUNIT_EXPECT_EQ(test, m[0].incarnation, 99ULL);
}

static struct kunit_case heartbeat_cases[] = {
	KUNIT_CASE(heartbeat_up_and_silent),
	KUNIT_CASE(heartbeat_one_way),
	KUNIT_CASE(heartbeat_replay),
	KUNIT_CASE(heartbeat_new_boot),
	{}
};

static struct kunit_suite heartbeat_suite = {
	.name = "vcs_heartbeat", .test_cases = heartbeat_cases,
};

kunit_test_suite(heartbeat_suite);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Virtual Cluster Switch: KUnit");
