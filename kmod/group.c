// SPDX-License-Identifier: GPL-2.0
/*
 * Groups: one current event each, ordered by the provider in phases, answered
 * by the consumer's acknowledgements. Consumers on a socket and consumers in
 * the kernel share all of it; the difference is who is told: the former get a
 * hint and read, the latter are called from the group's work item.
 */
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "internal.h"
#include "trace.h"

/* With no reference; valid under c->lock. */
struct vcs_group *vcs_group_find(struct vcs_cluster *c, const char *name)
{
	struct vcs_group *g;

	lockdep_assert_held(&c->lock);
	list_for_each_entry(g, &c->groups, node)
		if (!strcmp(g->name, name))
			return g;
	return NULL;
}

/* A queued work item holds the group. */
static void group_queue(struct vcs_group *g)
{
	kobject_get(&g->kobj);
	if (!queue_work(vcs_wq, &g->work))
		kobject_put(&g->kobj);
}

/* Something that readers see has changed: a hint, and the callbacks. */
void vcs_group_changed(struct vcs_group *g)
{
	vcs_hint_group(g);
	if (g->ops)
		group_queue(g);
}

/* What the provider is to be told; the work item does it. */
void vcs_group_tell(struct vcs_group *g, unsigned int what)
{
	g->tell |= what;
	group_queue(g);
}

/* --- the provider orders ---------------------------------------------------------- */

static int start_check(struct vcs_group *g, const struct vcs_event *e,
		       const struct vcs_from *from)
{
	struct vcs_cluster *c = g->c;
	const struct vcs_view *v = vcs_view_locked(c);
	const struct vcs_member *m;
	u32 i;

	if (g->state == VCS_GROUP_STATE_LOST)
		return vcs_refuse(from, VCS_A_GROUP, -EPROTO,
				  "the group is lost: it starts no more until it was left");
	if (e->id != g->event_id || g->phase != VCS_PHASE_STOP ||
	    g->acked_event != e->id || g->acked_phase != VCS_PHASE_STOP)
		return vcs_refuse(from, VCS_A_EVENT, -EPROTO,
				  "this node did not acknowledge the stop of the event");
	if (!e->nr || vcs_members_check(e->member, e->nr))
		return vcs_refuse(from, VCS_A_MEMBER, -EINVAL,
				  "no members, or a nodeid is named twice");
	if (!(v->flags & VCS_VIEW_QUORATE))
		return vcs_refuse(from, VCS_A_EVENT, -EPROTO,
				  "the current view is not quorate");
	for (i = 0; i < e->nr; i++) {
		m = vcs_member_find(v->member, v->nr, e->member[i].nodeid);
		if (!m || m->incarnation != e->member[i].incarnation)
			return vcs_refuse(from, VCS_A_MEMBER, -EPROTO,
					  "a member is not in the current view");
	}
	if (!vcs_member_find(e->member, e->nr, c->nodeid))
		return vcs_refuse(from, VCS_A_MEMBER, -EPROTO, "a start names this node");
	if ((g->flags & VCS_GROUP_NEEDS_FENCE) &&
	    !vcs_lease_covers(&c->lease, ktime_get_boottime_ns()))
		return vcs_refuse(from, VCS_A_EVENT, -EPROTO,
				  "the lease has run out: renew it first");
	return 0;
}

static int order_check(struct vcs_group *g, const struct vcs_event *e,
		       enum vcs_phase phase, const struct vcs_from *from)
{
	u64 current_id = g->event_id;
	bool stale;

	if (phase == VCS_PHASE_STOP)
		stale = e->id <= current_id || e->id <= g->c->event_floor;
	else if (phase == VCS_PHASE_START)
		stale = e->id < current_id;
	else
		stale = e->id != current_id;
	if (stale) {
		g->c->stale++;
		trace_vcs_group_ack_stale(g, e->id, phase);
		return vcs_refuse(from, VCS_A_EVENT, -ESTALE,
				  "the event is not newer than what the group has seen, or not its current one");
	}
	if (phase == VCS_PHASE_START)
		return start_check(g, e, from);
	if (phase == VCS_PHASE_FINISH &&
	    (g->state == VCS_GROUP_STATE_LOST || g->phase != VCS_PHASE_START ||
	     g->acked_event != e->id || g->acked_phase != VCS_PHASE_START))
		return vcs_refuse(from, VCS_A_EVENT, -EPROTO,
				  "this node did not acknowledge the start of the event");
	return 0;
}

static void acknowledge(struct vcs_group *g, enum vcs_phase phase)
{
	WRITE_ONCE(g->acked_event, g->event_id);
	g->acked_phase = phase;
	trace_vcs_group_ack(g);
	vcs_group_tell(g, VCS_TELL_ACK);
}

static void trace_order(const struct vcs_group *g)
{
	if (g->phase == VCS_PHASE_STOP)
		trace_vcs_group_stop(g);
	else if (g->phase == VCS_PHASE_START)
		trace_vcs_group_start(g);
	else
		trace_vcs_group_finish(g);
}

/*
 * Consumes @e. Under c->lock, the caller holds the seat. With VCS_PHASE_FINISH
 * only the id of @e counts.
 */
int vcs_group_order(struct vcs_group *g, struct vcs_event *e,
		    enum vcs_phase phase, const struct vcs_from *from)
{
	struct vcs_cluster *c = g->c;
	int err;

	lockdep_assert_held(&c->lock);
	c->upcalls++;
	err = order_check(g, e, phase, from);
	if (err) {
		vcs_event_put(e);
		return err;
	}
	if (phase == VCS_PHASE_FINISH) {
		vcs_event_put(e);
		vcs_event_put(g->finished);
		g->finished = g->event;
		refcount_inc(&g->finished->ref);
		if (g->state == VCS_GROUP_STATE_JOINING)
			WRITE_ONCE(g->state, VCS_GROUP_STATE_MEMBER);
	} else {
		e->view_generation = vcs_view_locked(c)->generation;
		vcs_event_put(g->event);
		g->event = e;
		WRITE_ONCE(g->event_id, e->id);
		WRITE_ONCE(g->nr_members, e->nr);
		c->highest_event = max(c->highest_event, e->id);
	}
	WRITE_ONCE(g->phase, phase);
	WRITE_ONCE(g->phase_ns, ktime_get_boottime_ns());
	trace_order(g);
	if (phase == VCS_PHASE_START) {
		g->started = true;
		vcs_lease_update(c);
	}
	/* Its consumer died and nobody can take it over: nothing goes on. */
	if (phase == VCS_PHASE_STOP && !g->ops && !g->holder.id &&
	    !(g->flags & VCS_GROUP_PERSISTENT))
		acknowledge(g, VCS_PHASE_STOP);
	vcs_group_changed(g);
	return 0;
}

static int up_order(struct vcs_group *g, struct vcs_event *e, enum vcs_phase phase)
{
	struct vcs_cluster *c = g->c;
	int err;

	spin_lock_bh(&c->lock);
	if (c->state == VCS_PROVIDER_ATTACHED && !g->dead) {
		err = vcs_group_order(g, e, phase, NULL);
	} else {
		vcs_event_put(e);
		err = -ENOTCONN;
	}
	spin_unlock_bh(&c->lock);
	return err;
}

int vcs_up_stop(struct vcs_group *g, struct vcs_event *e)
{
	return up_order(g, e, VCS_PHASE_STOP);
}
EXPORT_SYMBOL_GPL(vcs_up_stop);

int vcs_up_start(struct vcs_group *g, struct vcs_event *e)
{
	return up_order(g, e, VCS_PHASE_START);
}
EXPORT_SYMBOL_GPL(vcs_up_start);

int vcs_up_finish(struct vcs_group *g, u64 event)
{
	struct vcs_event e = { .ref = REFCOUNT_INIT(2), .id = event };

	return up_order(g, &e, VCS_PHASE_FINISH);
}
EXPORT_SYMBOL_GPL(vcs_up_finish);

/* It is gone for readers at once; the work item does the rest. Under c->lock. */
void vcs_group_left(struct vcs_group *g, int err)
{
	struct vcs_cluster *c = g->c;

	lockdep_assert_held(&c->lock);
	if (g->dead)
		return;
	g->dead = true;
	g->err = err;
	list_move_tail(&g->node, &c->dying);
	c->nr_groups--;
	trace_vcs_group_left(g);
	vcs_lease_update(c);
	WRITE_ONCE(g->phase, VCS_PHASE_NONE);
	vcs_hint_group(g);
	if (!g->ops)
		module_put(THIS_MODULE);
	group_queue(g);
}

void vcs_up_left(struct vcs_group *g, int err)
{
	spin_lock_bh(&g->c->lock);
	g->c->upcalls++;
	vcs_group_left(g, err);
	spin_unlock_bh(&g->c->lock);
}
EXPORT_SYMBOL_GPL(vcs_up_left);

/* --- the consumer answers ------------------------------------------------------------ */

/* Under c->lock: does @from hold the group? */
int vcs_group_held(struct vcs_group *g, const struct vcs_from *from)
{
	if (g->holder.id && g->holder.id == from->session)
		return 0;
	g->c->stale++;
	return vcs_refuse(from, VCS_A_SESSION, -ESTALE, "the session does not hold the group");
}

/* Under c->lock. */
int vcs_group_acked(struct vcs_group *g, u64 event, enum vcs_phase phase,
		    const struct vcs_from *from)
{
	enum vcs_phase acked = VCS_PHASE_NONE;

	lockdep_assert_held(&g->c->lock);
	if (phase != VCS_PHASE_STOP && phase != VCS_PHASE_START)
		return vcs_refuse(from, VCS_A_PHASE, -EINVAL, "the phase is not acknowledged");
	if (g->dead || event != g->event_id) {
		g->c->stale++;
		trace_vcs_group_ack_stale(g, event, phase);
		return vcs_refuse(from, VCS_A_EVENT, -ESTALE, "the event is not the current one");
	}
	if (g->acked_event == event)
		acked = g->acked_phase;
	if (phase > g->phase || phase < acked || phase > acked + 1)
		return vcs_refuse(from, VCS_A_PHASE, -EPROTO, "the phase is not what is waited for");
	if (phase == acked)
		return 0;
	acknowledge(g, phase);
	vcs_group_changed(g);
	return 0;
}

int vcs_group_ack(struct vcs_group *g, u64 event, enum vcs_phase phase)
{
	int err;

	spin_lock_bh(&g->c->lock);
	err = vcs_group_acked(g, event, phase, NULL);
	spin_unlock_bh(&g->c->lock);
	return err;
}
EXPORT_SYMBOL_GPL(vcs_group_ack);

/* Leaving needs nobody when there is nobody (SAFETY S21). Under c->lock. */
void vcs_group_want_leave(struct vcs_group *g)
{
	lockdep_assert_held(&g->c->lock);
	if (g->dead || g->state == VCS_GROUP_STATE_LEAVING)
		return;
	if (g->state == VCS_GROUP_STATE_LOST || g->c->state != VCS_PROVIDER_ATTACHED) {
		vcs_group_left(g, 0);
		return;
	}
	WRITE_ONCE(g->state, VCS_GROUP_STATE_LEAVING);
	trace_vcs_group_leave(g);
	vcs_group_tell(g, VCS_TELL_LEAVE);
	vcs_group_changed(g);
}

/* The provider is lost: stopped until it is left; who was leaving, has left. */
void vcs_group_lose(struct vcs_group *g)
{
	lockdep_assert_held(&g->c->lock);
	if (g->state == VCS_GROUP_STATE_LEAVING) {
		vcs_group_left(g, 0);
		return;
	}
	if (g->state == VCS_GROUP_STATE_LOST)
		return;
	WRITE_ONCE(g->state, VCS_GROUP_STATE_LOST);
	trace_vcs_group_lost(g);
	vcs_group_changed(g);
}

/* The consumer's socket is dead. Under c->lock. */
void vcs_group_abandon(struct vcs_group *g)
{
	lockdep_assert_held(&g->c->lock);
	if (g->flags & VCS_GROUP_PERSISTENT) {
		WRITE_ONCE(g->orphan_ns, ktime_get_boottime_ns());
		trace_vcs_group_orphan(g);
		vcs_group_changed(g);
		return;
	}
	if (g->phase == VCS_PHASE_STOP && g->acked_event != g->event_id)
		acknowledge(g, VCS_PHASE_STOP);
	vcs_group_want_leave(g);
	if (!g->dead)
		vcs_group_changed(g);
}

void vcs_group_leave(struct vcs_group *g)
{
	spin_lock_bh(&g->c->lock);
	vcs_group_want_leave(g);
	spin_unlock_bh(&g->c->lock);
}
EXPORT_SYMBOL_GPL(vcs_group_leave);

/* --- the work item: what must not run in the caller's context ------------------------- */

enum call { CALL_NOTHING, CALL_STOP, CALL_START, CALL_FINISH, CALL_LOST, CALL_LEFT };

/* The next callback, and its event with a reference. Newest wins. */
static enum call next_call(struct vcs_group *g, struct vcs_event **e)
{
	enum call call = CALL_NOTHING;

	*e = NULL;
	spin_lock_bh(&g->c->lock);
	if (g->dead) {
		call = g->told_left ? CALL_NOTHING : CALL_LEFT;
		g->told_left = true;
	} else if (g->state == VCS_GROUP_STATE_LOST && !g->told_lost) {
		g->told_lost = true;
		call = CALL_LOST;
	} else if (g->event && (g->told_event != g->event_id || g->told_phase != g->phase)) {
		g->told_event = g->event_id;
		g->told_phase = g->phase;
		*e = g->event;
		refcount_inc(&(*e)->ref);
		call = g->phase == VCS_PHASE_STOP ? CALL_STOP :
		       g->phase == VCS_PHASE_START ? CALL_START : CALL_FINISH;
	}
	spin_unlock_bh(&g->c->lock);
	return call;
}

static void call_consumer(struct vcs_group *g)
{
	struct vcs_event *e;
	enum call call;

	while ((call = next_call(g, &e)) != CALL_NOTHING) {
		trace_vcs_group_call_enter(g, call);
		switch (call) {
		case CALL_STOP:
			g->ops->stop(g, e);
			break;
		case CALL_START:
			g->ops->start(g, e);
			break;
		case CALL_FINISH:
			g->ops->finish(g, e);
			break;
		case CALL_LOST:
			g->ops->lost(g);
			break;
		default:
			g->ops->left(g, g->err);
			break;
		}
		trace_vcs_group_call_exit(g, call);
		vcs_event_put(e);
	}
}

static void tell_provider(struct vcs_group *g)
{
	const struct vcs_provider_ops *ops = NULL;
	struct vcs_cluster *c = g->c;
	enum vcs_phase phase;
	unsigned int tell;
	u64 event;

	mutex_lock(&c->config);
	spin_lock_bh(&c->lock);
	tell = g->tell;
	g->tell = 0;
	event = g->acked_event;
	phase = g->acked_phase;
	if (c->type && !g->dead && (c->type->caps & VCS_CAP_GROUPS))
		ops = c->type->ops;
	spin_unlock_bh(&c->lock);
	/* config is held, so the provider cannot be detached meanwhile. */
	if (ops && (tell & VCS_TELL_JOIN))
		ops->join(g);
	if (ops && (tell & VCS_TELL_ACK))
		ops->acked(g, event, phase);
	if (ops && (tell & VCS_TELL_LEAVE))
		ops->leave(g);
	mutex_unlock(&c->config);
}

/* Take it out of sysfs, once; who comes second waits until that is done. */
static void group_hide(struct vcs_group *g)
{
	if (test_and_set_bit(0, &g->hidden)) {
		wait_for_completion(&g->hidden_done);
		return;
	}
	kobject_del(&g->kobj);
	complete_all(&g->hidden_done);
}

static void group_work(struct work_struct *work)
{
	struct vcs_group *g = container_of(work, struct vcs_group, work);
	unsigned int flags = memalloc_nofs_save();
	struct sock *sk = NULL;
	bool last;

	if (READ_ONCE(g->tell))
		tell_provider(g);
	if (g->ops)
		call_consumer(g);
	spin_lock_bh(&g->c->lock);
	last = g->dead && !g->buried && (g->told_left || !g->ops);
	if (last) {
		g->buried = true;
		swap(sk, g->holder.sk);
	}
	spin_unlock_bh(&g->c->lock);
	if (last) {
		group_hide(g);
		spin_lock_bh(&g->c->lock);
		list_del_init(&g->node);
		spin_unlock_bh(&g->c->lock);
		if (sk)
			sock_put(sk);
		complete_all(&g->left_done);
		if (g->ops)
			module_put(THIS_MODULE);
		kobject_put(&g->kobj);	/* the list's */
	}
	memalloc_nofs_restore(flags);
	kobject_put(&g->kobj);		/* the queue's */
}

void vcs_group_leave_sync(struct vcs_group *g)
{
	struct work_struct *work = current_work();

	vcs_group_leave(g);
	if (WARN_ON_ONCE(work && work->func == group_work))
		return;
	wait_for_completion(&g->left_done);
}
EXPORT_SYMBOL_GPL(vcs_group_leave_sync);

/* --- joining ---------------------------------------------------------------------------- */

/* A new consumer for an orphan: the event, its phase and its acknowledgements stay. */
static int take_over(struct vcs_group *g, const char *owner, const struct vcs_from *from)
{
	if (!from || !g->orphan_ns || strcmp(g->owner, owner))
		return vcs_refuse(from, VCS_A_GROUP, -EBUSY,
				  "the group is held, or has another owner tag");
	sock_hold(from->sk);
	g->holder.sk = from->sk;
	g->holder.id = from->session;
	WRITE_ONCE(g->orphan_ns, 0);
	WRITE_ONCE(g->epoch, g->epoch + 1);
	kobject_get(&g->kobj);		/* the caller's */
	trace_vcs_group_takeover(g);
	vcs_group_changed(g);
	return 0;
}

static struct vcs_group *group_new(struct vcs_cluster *c, const char *name,
				   u32 level, u32 flags, const char *owner,
				   const struct vcs_group_ops *ops, void *priv)
{
	struct vcs_group *g = kzalloc(sizeof(*g), GFP_KERNEL);

	if (!g)
		return NULL;
	strscpy(g->name, name, sizeof(g->name));
	strscpy(g->owner, owner, sizeof(g->owner));
	g->level = level;
	g->flags = flags;
	g->state = VCS_GROUP_STATE_JOINING;
	g->phase_ns = ktime_get_boottime_ns();
	g->epoch = 1;
	g->ops = ops;
	g->priv = priv;
	INIT_WORK(&g->work, group_work);
	init_completion(&g->hidden_done);
	init_completion(&g->left_done);
	kobject_get(&c->kobj);
	g->c = c;
	kobject_init(&g->kobj, &vcs_group_ktype);
	return g;
}

/* Under c->config: put a new group into sysfs and the list. */
static int group_publish(struct vcs_group *g, const struct vcs_from *from)
{
	struct vcs_cluster *c = g->c;
	int err;

	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	err = kobject_add(&g->kobj, c->groups_dir, "%s", g->name);
	if (err) {
		module_put(THIS_MODULE);
		return err;
	}
	kobject_get(&g->kobj);		/* the caller's */
	if (from) {
		sock_hold(from->sk);
		g->holder.sk = from->sk;
		g->holder.id = from->session;
	}
	spin_lock_bh(&c->lock);
	list_add_tail(&g->node, &c->groups);
	c->nr_groups++;
	trace_vcs_group_join(g);
	vcs_group_tell(g, VCS_TELL_JOIN);
	vcs_group_changed(g);
	spin_unlock_bh(&c->lock);
	return 0;
}

static struct vcs_group *dying_find(struct vcs_cluster *c, const char *name)
{
	struct vcs_group *g;

	list_for_each_entry(g, &c->dying, node)
		if (!strcmp(g->name, name)) {
			kobject_get(&g->kobj);
			return g;
		}
	return NULL;
}

static int join_check(struct vcs_cluster *c, const struct vcs_from *from)
{
	if (c->dead)
		return vcs_refuse(from, VCS_A_HANDLE, -ENOENT, "no such cluster");
	if (c->type && !(c->type->caps & VCS_CAP_GROUPS))
		return vcs_refuse(from, VCS_A_HANDLE, -EOPNOTSUPP, "the provider has no groups");
	if (c->nr_groups >= VCS_GROUPS_MAX)
		return vcs_refuse(from, VCS_A_GROUP, -ENOSPC, "too many groups");
	return 0;
}

/* Join, or take over. Returns the group with a reference, or an ERR_PTR. */
struct vcs_group *vcs_group_create(struct vcs_cluster *c, const char *name,
				   u32 level, u32 flags, const char *owner,
				   const struct vcs_group_ops *ops, void *priv,
				   const struct vcs_from *from)
{
	struct vcs_group *g, *old = NULL, *new;
	int err;

	if (!vcs_name_ok(name))
		return ERR_PTR(vcs_refuse(from, VCS_A_GROUP, -EINVAL, "not a name for a group"));
	if (!vcs_text_ok(owner))
		return ERR_PTR(vcs_refuse(from, VCS_A_OWNER, -EINVAL, "not a tag for an owner"));
	vcs_cluster_reap(c);
	new = group_new(c, name, level, flags, owner, ops, priv);
	if (!new)
		return ERR_PTR(-ENOMEM);
	for (;;) {
		mutex_lock(&c->config);
		spin_lock_bh(&c->lock);
		g = vcs_group_find(c, name);
		if (g)
			err = take_over(g, owner, from);
		else
			err = join_check(c, from);
		old = g ? NULL : dying_find(c, name);
		spin_unlock_bh(&c->lock);
		if (err || g || !old)
			break;
		/* The name's directory is still there: no lock while it goes. */
		mutex_unlock(&c->config);
		group_hide(old);
		spin_lock_bh(&c->lock);
		list_del_init(&old->node);
		spin_unlock_bh(&c->lock);
		kobject_put(&old->kobj);
	}
	if (!err && !g) {
		g = new;
		err = group_publish(new, from);
	}
	mutex_unlock(&c->config);
	if (old)
		kobject_put(&old->kobj);
	if (err || g != new)
		kobject_put(&new->kobj);
	return err ? ERR_PTR(err) : g;
}

struct vcs_group *vcs_group_join(struct vcs_cluster *c, const char *name,
				 u32 level, u32 flags,
				 const struct vcs_group_ops *ops, void *priv)
{
	if (level < VCS_LEVEL_FENCING || level > VCS_LEVEL_USER ||
	    (flags & ~VCS_GROUP_NEEDS_FENCE))
		return ERR_PTR(-EINVAL);
	if (!ops || !ops->stop || !ops->start || !ops->finish || !ops->lost || !ops->left)
		return ERR_PTR(-EINVAL);
	return vcs_group_create(c, name, level, flags, "kernel", ops, priv, NULL);
}
EXPORT_SYMBOL_GPL(vcs_group_join);

void vcs_group_put(struct vcs_group *g)
{
	kobject_put(&g->kobj);
}
EXPORT_SYMBOL_GPL(vcs_group_put);

void *vcs_group_priv(const struct vcs_group *g)
{
	return g->priv;
}
EXPORT_SYMBOL_GPL(vcs_group_priv);

const char *vcs_group_name(const struct vcs_group *g)
{
	return g->name;
}
EXPORT_SYMBOL_GPL(vcs_group_name);

struct vcs_cluster *vcs_group_cluster(const struct vcs_group *g)
{
	return g->c;
}
EXPORT_SYMBOL_GPL(vcs_group_cluster);
