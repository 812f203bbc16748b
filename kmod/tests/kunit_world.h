/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For kunit_group.c: the sources of a group's life, compiled in, and what surrounds
 * them, made up: a cluster without netlink and files in sysfs; a provider and a
 * consumer that count what they are told.
 */
#ifndef _VCS_KUNIT_WORLD_H
#define _VCS_KUNIT_WORLD_H

#define NOTRACE
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/slab.h>

#include "kunit_here.h"
#include "../internal.h"

/* vcs.ko has them for everybody; here a name is but a name. */
#undef EXPORT_SYMBOL_GPL
#define EXPORT_SYMBOL_GPL(symbol)	static_assert(true, #symbol)

#include "../view.c"
#include "../event.c"
#include "../group.c"

#define THIS_NODE	1

/* --- the surroundings --------------------------------------------------------- */

struct workqueue_struct *vcs_wq;
DEFINE_MUTEX(vcs_lock);		/* vcs_clusters, which lease.c walks before a suspend */
LIST_HEAD(vcs_clusters);
u64 vcs_incarnation = 77;

static struct kobject *root;
static unsigned int groups_released;

/* Members of the provider type that was attached, and of the consumer. */
static struct {
	unsigned int joins, leaves, acks;
	unsigned int calls, lefts, losts;
	int left_err;
	u64 last_event;
	bool nested, backwards, after_left;
	atomic_t inside;
} seen;

void vcs_hint(u8 cmd, struct vcs_cluster *c, const struct vcs_group *g)
{
	WRITE_ONCE(c->change_seq, c->change_seq + 1);
}

int __vcs_refuse(const struct vcs_from *from, int attr, int err, const char *msg)
{
	return err;
}

int vcs_from_members_count(const struct vcs_from *from)
{
	return 0;
}

int vcs_from_members(const struct vcs_from *from, struct vcs_member *m)
{
	return 0;
}

u64 vcs_random_id(void)
{
	return 1;
}

bool vcs_text_ok(const char *text)
{
	return true;
}

bool vcs_name_ok(const char *name)
{
	return *name;
}

int vcs_from_admit(struct vcs_from *from)
{
	return 0;
}

void vcs_cluster_reap(struct vcs_cluster *c)
{
}

/* The lease's end, which lease.c (in kunit_lease.c) has told. */
static void reap_work(struct work_struct *work)
{
}

static void cluster_release(struct kobject *kobj)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	vcs_lease_exit(c);
	flush_work(&c->reap_work);
	vcs_view_put(rcu_dereference_protected(c->view, true));
	kfree(c);
}

static const struct kobj_type cluster_ktype = { .release = cluster_release };

static void group_release(struct kobject *kobj)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	vcs_event_put(g->event);
	vcs_event_put(g->finished);
	vcs_event_put(g->ran);
	kobject_put(&g->c->kobj);
	kfree(g);
	groups_released++;
}

const struct kobj_type vcs_group_ktype = {
	.sysfs_ops = &kobj_sysfs_ops, .release = group_release,
};

/* --- provider and consumer ------------------------------------------------------ */

static int told_join(struct vcs_group *g)
{
	seen.joins++;
	return 0;
}

static int told_leave(struct vcs_group *g)
{
	seen.leaves++;
	return 0;
}

static void told_ack(struct vcs_group *g, u64 event, enum vcs_phase phase)
{
	seen.acks++;
}

static const struct vcs_provider_ops provider_ops = {
	.join = told_join, .leave = told_leave, .acked = told_ack,
};

static struct vcs_provider_type provider = {
	.name = "kunit", .caps = VCS_CAP_AGREED | VCS_CAP_GROUPS, .ops = &provider_ops,
};

static void called(u64 event)
{
	if (atomic_inc_return(&seen.inside) != 1)
		seen.nested = true;
	seen.backwards |= event && event < seen.last_event;
	seen.after_left |= seen.lefts > 0;
	if (event)
		seen.last_event = event;
	seen.calls++;
	cond_resched();
	atomic_dec(&seen.inside);
}

static void on_event(struct vcs_group *g, const struct vcs_event *e)
{
	called(e->id);
}

static void on_lost(struct vcs_group *g)
{
	called(0);
	seen.losts++;
}

static void on_left(struct vcs_group *g, int err)
{
	called(0);
	seen.lefts++;
	seen.left_err = err;
}

static const struct vcs_group_ops consumer_ops = {
	.stop = on_event, .start = on_event, .finish = on_event, .lost = on_lost, .left = on_left,
};

static struct vcs_view *a_view(u32 others, u32 flags)
{
	struct vcs_view *v = vcs_view_alloc(1 + others, GFP_KERNEL);
	u32 i;

	for (i = 0; v && i <= others; i++)
		v->member[i] = (struct vcs_member){
			.nodeid = THIS_NODE + i, .votes = 1, .incarnation = vcs_incarnation + i,
		};
	if (v)
		v->flags = flags;
	return v;
}

static struct vcs_event *an_event(u64 id, u32 nr)
{
	struct vcs_event *e = vcs_event_alloc(id, nr, GFP_KERNEL);
	u32 i;

	for (i = 0; e && i < nr; i++)
		e->member[i] = (struct vcs_member){
			.nodeid = THIS_NODE + i, .votes = 1, .incarnation = vcs_incarnation + i,
		};
	return e;
}

/* An attached cluster whose view of this node and another one is quorate. */
static struct vcs_cluster *a_cluster(void)
{
	struct vcs_cluster *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		return NULL;
	mutex_init(&c->config);
	spin_lock_init(&c->lock);
	INIT_LIST_HEAD(&c->groups);
	INIT_LIST_HEAD(&c->dying);
	INIT_WORK(&c->view_work, vcs_view_work);
	INIT_WORK(&c->reap_work, reap_work);
	BLOCKING_INIT_NOTIFIER_HEAD(&c->view_chain);
	kobject_init(&c->kobj, &cluster_ktype);
	vcs_lease_init(c);
	c->groups_dir = root;
	c->nodeid = THIS_NODE;
	c->type = &provider;
	c->state = VCS_PROVIDER_ATTACHED;
	RCU_INIT_POINTER(c->view, a_view(0, 0));
	vcs_up_view(c, a_view(1, VCS_VIEW_QUORATE));
	return c;
}

#endif /* _VCS_KUNIT_WORLD_H */
