// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit: the life of a group. The rules are written down a second time, as simply
 * as can be, and a long random course must be answered as they say.
 */
#include "kunit_world.h"

#define LIVES		100
#define STEPS		1000	/* of a life, at most */

/* --- the rules, once more ---------------------------------------------------------- */

struct model {
	u64 event, floor, acked_event;
	unsigned int phase, acked_phase;
	bool quorate, covered, lost, dead;
};

static bool m_acked(const struct model *m, unsigned int phase)
{
	return m->acked_event == m->event && m->acked_phase == phase;
}

static int m_start(const struct model *m, u64 id, u32 nr)
{
	if (id < m->event)
		return -ESTALE;
	if (m->lost || id != m->event || m->phase != VCS_PHASE_STOP || !m_acked(m, VCS_PHASE_STOP))
		return -EPROTO;
	if (!nr)
		return -EINVAL;
	return m->quorate && m->covered && nr <= 2 ? 0 : -EPROTO;
}

static int m_order(struct model *m, unsigned int phase, u64 id, u32 nr)
{
	int err = 0;

	if (m->dead)
		return -ENOTCONN;
	if (phase == VCS_PHASE_STOP)
		err = id <= m->event || id <= m->floor ? -ESTALE : 0;
	else if (phase == VCS_PHASE_START)
		err = m_start(m, id, nr);
	else if (id != m->event)
		err = -ESTALE;
	else if (m->lost || m->phase != VCS_PHASE_START || !m_acked(m, VCS_PHASE_START))
		err = -EPROTO;
	if (err)
		return err;
	m->event = id;
	m->phase = phase;
	return 0;
}

static int m_ack(struct model *m, u64 id, unsigned int phase)
{
	unsigned int last = m->acked_event == id ? m->acked_phase : VCS_PHASE_NONE;

	if (phase != VCS_PHASE_STOP && phase != VCS_PHASE_START)
		return -EINVAL;
	if (m->dead || id != m->event)
		return -ESTALE;
	if (phase > m->phase || phase < last || phase > last + 1)
		return -EPROTO;
	m->acked_event = id;
	m->acked_phase = phase;
	return 0;
}

/* --- random courses ------------------------------------------------------------------ */

struct course {
	struct kunit *test;
	struct vcs_cluster *c;
	struct vcs_group *g;
	struct model m;
	struct rnd_state rnd;
	unsigned int done[4];	/* stops, starts, finishes, refusals */
};

static u32 below(struct course *k, u32 n)
{
	return prandom_u32_state(&k->rnd) % n;
}

/* Mostly what comes next, so that courses get anywhere. */
static void order_something(struct course *k)
{
	unsigned int phase = below(k, 4) ? k->m.phase % VCS_PHASE_FINISH + 1 : 1 + below(k, 3);
	u64 id = phase == VCS_PHASE_STOP ? max(k->m.event, k->m.floor) + 1 : k->m.event;
	u32 nr = phase == VCS_PHASE_START ? below(k, 8) ? 1 + below(k, 2) : below(k, 4) : 0;
	int want, got;

	if (!below(k, 6))
		id += below(k, 4) - 1;
	want = m_order(&k->m, phase, id, nr);
	got = vcs_up_order(k->g, an_event(id, nr), phase);
	KUNIT_ASSERT_EQ_MSG(k->test, got, want, "phase %u of event %llu with %u members",
			    phase, id, nr);
	k->done[want ? 3 : phase - 1]++;
}

static void ack_something(struct course *k)
{
	unsigned int phase = below(k, 8) ? k->m.phase : below(k, 5);
	u64 id = k->m.event - !below(k, 8);
	int want = m_ack(&k->m, id, phase), got = vcs_group_ack(k->g, id, phase);

	KUNIT_ASSERT_EQ_MSG(k->test, got, want, "acknowledging phase %u of event %llu", phase, id);
}

static void change_something(struct course *k)
{
	switch (below(k, 4)) {
	case 0:
		k->m.quorate = below(k, 4);
		vcs_up_view(k->c, a_view(1, k->m.quorate ? VCS_VIEW_QUORATE : 0));
		break;
	case 1:
		k->m.covered = below(k, 4);
		k->c->lease.end = k->m.covered ? 0 : 1;
		break;
	case 2:
		/* Another provider took the seat: its events are above all before. */
		k->m.floor = k->c->highest_event;
		k->c->event_floor = k->m.floor;
		break;
	default:
		if (!below(k, 20)) {
			k->m.lost = true;
			guard(vcs_cluster)(k->c);
			vcs_group_lose(k->g, true);
		}
	}
}

static void compare(struct course *k)
{
	const struct vcs_group *g = k->g;
	u64 generation;

	rcu_read_lock();
	generation = vcs_view_rcu(k->c)->generation;
	rcu_read_unlock();
	KUNIT_ASSERT_EQ(k->test, g->event_id, k->m.event);
	KUNIT_ASSERT_EQ(k->test, (unsigned int)g->phase, k->m.phase);
	KUNIT_ASSERT_EQ(k->test, g->acked_event, k->m.acked_event);
	KUNIT_ASSERT_EQ(k->test, (unsigned int)g->acked_phase, k->m.acked_phase);
	KUNIT_ASSERT_EQ(k->test, g->state == VCS_GROUP_STATE_LOST, k->m.lost);
	KUNIT_ASSERT_LE(k->test, g->event ? g->event->view_generation : 0, generation);
}

static void end_life(struct course *k)
{
	int err = below(k, 3) ? 0 : -EPERM;

	vcs_group_leave(k->g);
	vcs_group_leave(k->g);
	if (!k->m.lost) {
		KUNIT_ASSERT_EQ(k->test, k->g->state, VCS_GROUP_STATE_LEAVING);
		vcs_up_left(k->g, err);
	}
	k->m.dead = true;
	KUNIT_EXPECT_EQ(k->test, vcs_group_ack(k->g, k->m.event, VCS_PHASE_STOP), -ESTALE);
	KUNIT_EXPECT_EQ(k->test, vcs_up_order(k->g, an_event(U64_MAX, 0), VCS_PHASE_STOP),
			-ENOTCONN);
	vcs_group_leave_sync(k->g);
	flush_workqueue(vcs_wq);
	KUNIT_EXPECT_EQ(k->test, seen.lefts, 1U);
	KUNIT_EXPECT_EQ(k->test, seen.left_err, k->m.lost ? 0 : err);
	/* Superseded by the end, when that came at once. */
	KUNIT_EXPECT_LE(k->test, seen.losts, (unsigned int)k->m.lost);
	KUNIT_EXPECT_LE(k->test, seen.joins, 1U);
	KUNIT_EXPECT_FALSE(k->test, seen.nested || seen.backwards || seen.after_left);
	vcs_group_put(k->g);
}

static void live(struct course *k, unsigned int life)
{
	unsigned int steps = 1 + below(k, STEPS);

	memset(&seen, 0, sizeof(seen));
	vcs_up_view(k->c, a_view(1, VCS_VIEW_QUORATE));
	k->c->lease.end = 0;
	k->m = (struct model){ .quorate = true, .covered = true, .floor = k->c->event_floor };
	k->g = vcs_group_join(k->c, "g", VCS_LEVEL_USER, VCS_GROUP_NEEDS_FENCE, &consumer_ops,
			      NULL);
	KUNIT_ASSERT_FALSE(k->test, IS_ERR(k->g));
	KUNIT_EXPECT_EQ(k->test, PTR_ERR(vcs_group_join(k->c, "g", VCS_LEVEL_USER, 0,
							&consumer_ops, NULL)), (long)-EBUSY);
	while (steps--) {
		if (!below(k, 12))
			change_something(k);
		else if (below(k, 2))
			order_something(k);
		else
			ack_something(k);
		compare(k);
	}
	end_life(k);
	/* That which was refused, too. */
	KUNIT_EXPECT_EQ(k->test, groups_released, 2 * (life + 1));
}

static void group_lives(struct kunit *test)
{
	struct course k = { .test = test, .c = a_cluster() };
	unsigned int life;

	KUNIT_ASSERT_NOT_NULL(test, k.c);
	prandom_seed_state(&k.rnd, 11);
	groups_released = 0;
	for (life = 0; life < LIVES; life++)
		live(&k, life);
	/* It was no course of refusals. */
	KUNIT_EXPECT_GT(test, k.done[0], 1000U);
	KUNIT_EXPECT_GT(test, k.done[1], 500U);
	KUNIT_EXPECT_GT(test, k.done[2], 300U);
	KUNIT_EXPECT_GT(test, k.done[3], 1000U);
	kunit_info(test, "%u stops, %u starts, %u finishes, %u refusals\n",
		   k.done[0], k.done[1], k.done[2], k.done[3]);
	KUNIT_EXPECT_EQ(test, k.c->nr_groups, 0U);
	KUNIT_EXPECT_TRUE(test, list_empty(&k.c->groups) && list_empty(&k.c->dying));
	kobject_put(&k.c->kobj);
}

/* --- what a course of one group does not reach ------------------------------------- */

/* One whose consumer is a socket, with its list's reference and one of the caller. */
static struct vcs_group *socket_group(struct vcs_cluster *c, const char *name, u32 flags)
{
	struct vcs_group *g = group_new(c, name, "kunit", VCS_LEVEL_USER, flags, NULL);

	if (IS_ERR(g))
		return g;
	g->holder.id = 1;
	return publish(g, NULL) ? NULL : g;
}

static void abandon(struct vcs_group *g)
{
	guard(vcs_cluster)(g->c);
	g->holder.id = 0;
	vcs_group_abandon(g);
}

static void lose_seat(struct vcs_cluster *c, struct vcs_group *g, bool lost)
{
	guard(vcs_cluster)(c);
	c->state = lost ? VCS_PROVIDER_LOST : VCS_PROVIDER_ORPHAN;
	c->type = NULL;
	vcs_group_lose(g, lost);
}

static void end_group(struct kunit *test, struct vcs_group *g)
{
	flush_workqueue(vcs_wq);
	KUNIT_EXPECT_TRUE(test, g->dead && completion_done(&g->left_done));
	vcs_group_put(g);
}

/* Its consumer dies in a stop: the stop is answered for it, and it leaves. */
static void group_abandoned(struct kunit *test)
{
	struct vcs_cluster *c = a_cluster();
	struct vcs_group *g = socket_group(c, "a", 0);

	KUNIT_ASSERT_FALSE(test, IS_ERR_OR_NULL(g));
	KUNIT_EXPECT_EQ(test, vcs_up_order(g, an_event(5, 0), VCS_PHASE_STOP), 0);
	abandon(g);
	KUNIT_EXPECT_EQ(test, g->acked_event, 5ULL);
	KUNIT_EXPECT_EQ(test, g->state, VCS_GROUP_STATE_LEAVING);
	/* So is a later one, while the provider has not said that it left. */
	KUNIT_EXPECT_EQ(test, vcs_up_order(g, an_event(6, 0), VCS_PHASE_STOP), 0);
	KUNIT_EXPECT_EQ(test, g->acked_event, 6ULL);
	vcs_up_left(g, 0);
	end_group(test, g);
	kobject_put(&c->kobj);
}

/* A persistent one is an orphan, and answers nothing by itself. */
static void group_orphaned(struct kunit *test)
{
	struct vcs_cluster *c = a_cluster();
	struct vcs_group *g = socket_group(c, "o", VCS_GROUP_PERSISTENT);

	KUNIT_ASSERT_FALSE(test, IS_ERR_OR_NULL(g));
	KUNIT_EXPECT_EQ(test, vcs_up_order(g, an_event(5, 0), VCS_PHASE_STOP), 0);
	abandon(g);
	KUNIT_EXPECT_NE(test, g->orphan_ns, 0ULL);
	KUNIT_EXPECT_EQ(test, vcs_up_order(g, an_event(6, 0), VCS_PHASE_STOP), 0);
	KUNIT_EXPECT_EQ(test, g->acked_event, 0ULL);
	KUNIT_EXPECT_EQ(test, g->state, VCS_GROUP_STATE_JOINING);
	KUNIT_EXPECT_EQ(test, vcs_up_order(g, an_event(6, 1), VCS_PHASE_START), -EPROTO);
	vcs_group_leave(g);
	vcs_up_left(g, 0);
	end_group(test, g);
	kobject_put(&c->kobj);
}

/* While its provider is away it stays as it is; when that is lost, so is it. */
static void group_without_provider(struct kunit *test)
{
	struct vcs_cluster *c = a_cluster();
	struct vcs_group *g = socket_group(c, "p", 0), *leaving = socket_group(c, "l", 0);

	KUNIT_ASSERT_FALSE(test, IS_ERR_OR_NULL(g) || IS_ERR_OR_NULL(leaving));
	vcs_group_leave(leaving);
	KUNIT_EXPECT_EQ(test, leaving->state, VCS_GROUP_STATE_LEAVING);
	lose_seat(c, leaving, false);
	end_group(test, leaving);
	lose_seat(c, g, false);
	KUNIT_EXPECT_EQ(test, g->state, VCS_GROUP_STATE_JOINING);
	KUNIT_EXPECT_EQ(test, vcs_up_order(g, an_event(5, 0), VCS_PHASE_STOP), -ENOTCONN);
	lose_seat(c, g, true);
	KUNIT_EXPECT_EQ(test, g->state, VCS_GROUP_STATE_LOST);
	/* And needs nobody to leave. */
	vcs_group_leave(g);
	end_group(test, g);
	kobject_put(&c->kobj);
}

static int group_init(struct kunit *test)
{
	memset(&seen, 0, sizeof(seen));
	return 0;
}

static int suite_init(struct kunit_suite *suite)
{
	vcs_wq = alloc_workqueue("vcs_kunit", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	root = kobject_create_and_add("vcs_kunit", kernel_kobj);
	return vcs_wq && root ? 0 : -ENOMEM;
}

static void suite_exit(struct kunit_suite *suite)
{
	if (vcs_wq)
		destroy_workqueue(vcs_wq);
	kobject_del(root);
	kobject_put(root);
}

static struct kunit_case group_cases[] = {
	KUNIT_CASE_SLOW(group_lives),
	KUNIT_CASE(group_abandoned),
	KUNIT_CASE(group_orphaned),
	KUNIT_CASE(group_without_provider),
	{}
};

static struct kunit_suite group_suite = {
	.name = "vcs_group",
	.suite_init = suite_init,
	.suite_exit = suite_exit,
	.init = group_init,
	.test_cases = group_cases,
};

kunit_test_suite(group_suite);
