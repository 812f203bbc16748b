// SPDX-License-Identifier: GPL-2.0
/* Views, events and their members: allocation, publishing, the view notifier. */
#include <linux/bsearch.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "internal.h"
#include "trace.h"

static struct vcs_view *view_new(u32 nr, gfp_t gfp)
{
	struct vcs_view *v = kvzalloc(struct_size(v, member, nr), gfp);

	if (!v)
		return NULL;
	refcount_set(&v->ref, 1);
	v->nr = nr;
	return v;
}

struct vcs_view *vcs_view_alloc(u32 nr, gfp_t gfp)
{
	struct vcs_view *v = nr <= VCS_MEMBERS_MAX ? view_new(nr, gfp) : NULL;

	if (!v)
		return NULL;
	v->spare = view_new(nr, gfp);
	if (v->spare)
		return v;
	kvfree(v);
	return NULL;
}
EXPORT_SYMBOL_GPL(vcs_view_alloc);

void vcs_view_put(const struct vcs_view *view)
{
	struct vcs_view *v = (struct vcs_view *)view;

	if (!v || !refcount_dec_and_test(&v->ref))
		return;
	if (v->spare)
		kvfree_rcu(v->spare, rcu);
	kvfree_rcu(v, rcu);
}
EXPORT_SYMBOL_GPL(vcs_view_put);

struct vcs_event *vcs_event_alloc(u64 id, u32 nr, gfp_t gfp)
{
	struct vcs_event *e;

	if (nr > VCS_MEMBERS_MAX)
		return NULL;
	e = kvzalloc(struct_size(e, member, nr), gfp);
	if (!e)
		return NULL;
	refcount_set(&e->ref, 1);
	e->id = id;
	e->nr = nr;
	return e;
}
EXPORT_SYMBOL_GPL(vcs_event_alloc);

void vcs_event_put(const struct vcs_event *event)
{
	struct vcs_event *e = (struct vcs_event *)event;

	if (e && refcount_dec_and_test(&e->ref))
		kvfree_rcu(e, rcu);
}
EXPORT_SYMBOL_GPL(vcs_event_put);

/* Sorted by nodeid, nobody twice, nobody without an identity. */
int vcs_members_check(const struct vcs_member *m, u32 nr)
{
	u32 i;

	for (i = 0; i < nr; i++)
		if (!m[i].nodeid || !m[i].incarnation ||
		    (i && m[i].nodeid <= m[i - 1].nodeid))
			return -EINVAL;
	return 0;
}

/* For sort() and bsearch(). */
int vcs_member_compare(const void *a, const void *b)
{
	u32 x = ((const struct vcs_member *)a)->nodeid;
	u32 y = ((const struct vcs_member *)b)->nodeid;

	return x < y ? -1 : x > y;
}

const struct vcs_member *vcs_member_find(const struct vcs_member *m, u32 nr, u32 nodeid)
{
	struct vcs_member key = { .nodeid = nodeid };

	return bsearch(&key, m, nr, sizeof(*m), vcs_member_compare);
}

struct vcs_view *vcs_view_locked(struct vcs_cluster *c)
{
	return rcu_dereference_protected(c->view, lockdep_is_held(&c->lock));
}

/* With a reference. */
struct vcs_view *vcs_view_get(struct vcs_cluster *c)
{
	struct vcs_view *v;

	guard(vcs_cluster)(c);
	v = vcs_view_locked(c);
	refcount_inc(&v->ref);
	return v;
}

const struct vcs_view *vcs_view_rcu(struct vcs_cluster *c)
{
	return rcu_dereference(c->view);
}
EXPORT_SYMBOL_GPL(vcs_view_rcu);

static void view_publish(struct vcs_cluster *c, struct vcs_view *v)
{
	struct vcs_view *old = vcs_view_locked(c);

	v->generation = old->generation + 1;
	rcu_assign_pointer(c->view, v);
	vcs_view_put(old);
	trace_vcs_view_install(c, v);
	vcs_hint(VCS_CMD_VIEW_HINT, c, NULL);
	queue_work(vcs_wq, &c->view_work);
}

static int view_check(const struct vcs_cluster *c, const struct vcs_view *v,
		      const struct vcs_from *from)
{
	const struct vcs_member *me = vcs_member_find(v->member, v->nr, c->nodeid);

	if (!v->nr)
		return vcs_refuse(from, VCS_A_MEMBER, -EINVAL, "a view has members");
	if (vcs_members_check(v->member, v->nr))
		return vcs_refuse(from, VCS_A_MEMBER, -EINVAL, "a nodeid is named twice");
	if ((v->flags & VCS_VIEW_QUORATE) && (!me || me->incarnation != vcs_incarnation))
		return vcs_refuse(from, VCS_A_MEMBER, -EPROTO,
				  "a quorate view holds this node with its boot incarnation");
	return 0;
}

/* Consumes @view. Under c->lock, the caller holds the seat. */
static int view_install(struct vcs_cluster *c, struct vcs_view *view, const struct vcs_from *from)
{
	struct vcs_view *v __free(vcs_view) = view;
	int err = view_check(c, v, from);

	lockdep_assert_held(&c->lock);
	if (err)
		return err;
	WRITE_ONCE(c->upcalls, c->upcalls + 1);
	view_publish(c, no_free_ptr(v));
	return 0;
}

/*
 * The seat is empty: the last view stays readable, but nobody vouches for its
 * quorum. Its spare was allocated with it, so this cannot fail.
 */
void vcs_view_unquorate(struct vcs_cluster *c)
{
	struct vcs_view *old = vcs_view_locked(c), *v = old->spare;

	if (!(old->flags & VCS_VIEW_QUORATE) || WARN_ON_ONCE(!v))
		return;
	old->spare = NULL;
	v->ring_seq = old->ring_seq;
	v->ring_rep = old->ring_rep;
	v->flags = old->flags & ~VCS_VIEW_QUORATE;
	memcpy(v->member, old->member, flex_array_size(v, member, old->nr));
	view_publish(c, v);
}

int vcs_up_view(struct vcs_cluster *c, struct vcs_view *v)
{
	guard(vcs_cluster)(c);
	if (c->state == VCS_PROVIDER_ATTACHED)
		return view_install(c, v, NULL);
	vcs_view_put(v);
	return -ENOTCONN;
}
EXPORT_SYMBOL_GPL(vcs_up_view);

int vcs_nl_view_set(struct vcs_from *from)
{
	struct vcs_view *v __free(vcs_view) = NULL;
	int err = vcs_from_members_count(from);

	if (err < 0)
		return err;
	v = vcs_view_alloc(err, GFP_KERNEL);
	if (!v)
		return -ENOMEM;
	err = vcs_from_members(from, v->member);
	if (err)
		return err;
	v->ring_seq = vcs_from_u64(from, VCS_A_RING_SEQ);
	v->ring_rep = vcs_from_u32(from, VCS_A_RING_REP, 0);
	v->flags = vcs_from_u32(from, VCS_A_VIEW_FLAGS, 0);
	guard(vcs_cluster)(from->c);
	err = vcs_from_admit(from);
	if (!err)
		err = view_install(from->c, no_free_ptr(v), from);
	return err ?: vcs_put_u64(from->reply, VCS_A_GENERATION,
				  vcs_view_locked(from->c)->generation);
}

/* The work item never runs twice at once, so the notifier never nests. */
void vcs_view_work(struct work_struct *work)
{
	struct vcs_cluster *c = container_of(work, struct vcs_cluster, view_work);
	struct vcs_view *v = vcs_view_get(c);

	guard(vcs_nofs)();
	blocking_notifier_call_chain(&c->view_chain, v->generation, v);
	trace_vcs_view_notified(c, v);
	vcs_view_put(v);
}

int vcs_view_notifier_register(struct vcs_cluster *c, struct notifier_block *nb)
{
	return blocking_notifier_chain_register(&c->view_chain, nb);
}
EXPORT_SYMBOL_GPL(vcs_view_notifier_register);

int vcs_view_notifier_unregister(struct vcs_cluster *c, struct notifier_block *nb)
{
	return blocking_notifier_chain_unregister(&c->view_chain, nb);
}
EXPORT_SYMBOL_GPL(vcs_view_notifier_unregister);
