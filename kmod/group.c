// SPDX-License-Identifier: GPL-2.0
/*
 * The life of a group: joined, lost, orphaned, taken over, left. Consumers on a
 * socket and consumers in the kernel share all of it; the difference is who is
 * told: the former get a hint and read, the latter are called from the group's
 * work item.
 */
#include <linux/module.h>
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
	vcs_hint(VCS_CMD_GROUP_HINT, g->c, g);
	if (g->ops)
		group_queue(g);
}

/* What the provider is to be told; the work item does it. */
void vcs_group_tell(struct vcs_group *g, unsigned int what)
{
	g->tell |= what;
	group_queue(g);
}

/* --- leaving, and what ends a membership ------------------------------------------- */

/* It is gone for readers at once; the work item does the rest. Under c->lock. */
static void group_left(struct vcs_group *g, int err)
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
	vcs_hint(VCS_CMD_GROUP_HINT, c, g);
	group_queue(g);
}

void vcs_up_left(struct vcs_group *g, int err)
{
	guard(vcs_cluster)(g->c);
	WRITE_ONCE(g->c->upcalls, g->c->upcalls + 1);
	group_left(g, err);
}
EXPORT_SYMBOL_GPL(vcs_up_left);

int vcs_nl_group_left(struct vcs_from *from)
{
	u32 error = vcs_from_u32(from, VCS_A_ERROR, 0);

	if (!error && from->g->state != VCS_GROUP_STATE_LEAVING)
		return vcs_refuse(from, VCS_A_GROUP, -EPROTO, "the group does not leave");
	group_left(from->g, -error);
	return 0;
}

/* Leaving needs nobody when there is nobody (SAFETY S21). Under c->lock. */
static void want_leave(struct vcs_group *g)
{
	lockdep_assert_held(&g->c->lock);
	if (g->dead || g->state == VCS_GROUP_STATE_LEAVING)
		return;
	if (g->state == VCS_GROUP_STATE_LOST || g->c->state != VCS_PROVIDER_ATTACHED) {
		group_left(g, 0);
		return;
	}
	WRITE_ONCE(g->state, VCS_GROUP_STATE_LEAVING);
	trace_vcs_group_leave(g);
	vcs_group_tell(g, VCS_TELL_LEAVE);
	vcs_group_changed(g);
}

void vcs_group_leave(struct vcs_group *g)
{
	guard(vcs_cluster)(g->c);
	want_leave(g);
}
EXPORT_SYMBOL_GPL(vcs_group_leave);

int vcs_nl_group_leave(struct vcs_from *from)
{
	want_leave(from->g);
	return 0;
}

/*
 * There is no provider any more: who was leaving, has left (SAFETY S21). If it is
 * @lost, the group stays stopped until it is left.
 */
void vcs_group_lose(struct vcs_group *g, bool lost)
{
	lockdep_assert_held(&g->c->lock);
	if (g->state == VCS_GROUP_STATE_LEAVING) {
		group_left(g, 0);
	} else if (lost && g->state != VCS_GROUP_STATE_LOST) {
		WRITE_ONCE(g->state, VCS_GROUP_STATE_LOST);
		trace_vcs_group_lost(g);
		vcs_group_changed(g);
	}
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
		vcs_group_acknowledge(g, VCS_PHASE_STOP);
	want_leave(g);
	if (!g->dead)
		vcs_group_changed(g);
}

/* --- the work item: what must not run in the caller's context ------------------------- */

/* The callbacks: those of the phases by their number, and two more. */
enum call {
	CALL_NOTHING,
	CALL_STOP = VCS_PHASE_STOP,
	CALL_START = VCS_PHASE_START,
	CALL_FINISH = VCS_PHASE_FINISH,
	CALL_LOST,
	CALL_LEFT,
};

/* The next callback, and its event with a reference. Newest wins. */
static enum call next_call(struct vcs_group *g, struct vcs_event **e)
{
	guard(vcs_cluster)(g->c);
	*e = NULL;
	if (g->told_left)
		return CALL_NOTHING;
	if (g->dead) {
		g->told_left = true;
		return CALL_LEFT;
	}
	if (g->state == VCS_GROUP_STATE_LOST && !g->told_lost) {
		g->told_lost = true;
		return CALL_LOST;
	}
	if (!g->event || (g->told_event == g->event_id && g->told_phase == g->phase))
		return CALL_NOTHING;
	g->told_event = g->event_id;
	g->told_phase = g->phase;
	*e = g->event;
	refcount_inc(&(*e)->ref);
	return (enum call)g->phase;
}

static void call_consumer(struct vcs_group *g)
{
	struct vcs_event *e;
	enum call call;

	while ((call = next_call(g, &e)) != CALL_NOTHING) {
		trace_vcs_group_call_enter(g, g->told_event, call);
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
		trace_vcs_group_call_exit(g, g->told_event, call);
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

	/* While config is held the provider cannot be detached. */
	guard(mutex)(&c->config);
	scoped_guard(vcs_cluster, c) {
		tell = g->tell;
		g->tell = 0;
		event = g->acked_event;
		phase = g->acked_phase;
		if (c->type && !g->dead && (c->type->caps & VCS_CAP_GROUPS))
			ops = c->type->ops;
	}
	if (ops && (tell & VCS_TELL_JOIN))
		ops->join(g);
	if (ops && (tell & VCS_TELL_ACK))
		ops->acked(g, event, phase);
	if (ops && (tell & VCS_TELL_LEAVE))
		ops->leave(g);
}

/*
 * Take a dead group out of sysfs and the list, once; who comes second waits until
 * that is done. No lock is held: kobject_del() waits for readers in sysfs.
 */
static void group_hide(struct vcs_group *g)
{
	if (test_and_set_bit(0, &g->hidden)) {
		wait_for_completion(&g->hidden_done);
		return;
	}
	kobject_del(&g->kobj);
	scoped_guard(vcs_cluster, g->c)
		list_del_init(&g->node);
	complete_all(&g->hidden_done);
}

/* Once it is dead, and its consumer has been told: the end. */
static void group_bury(struct vcs_group *g)
{
	struct sock *sk __free(vcs_sock) = NULL;

	scoped_guard(vcs_cluster, g->c) {
		/* Once: a work item is never run twice at the same time. */
		if (!g->dead || completion_done(&g->left_done) || (g->ops && !g->told_left))
			return;
		swap(sk, g->holder.sk);
	}
	group_hide(g);
	complete_all(&g->left_done);
	kobject_put(&g->kobj);		/* the list's */
}

static void group_work(struct work_struct *work)
{
	struct vcs_group *g = container_of(work, struct vcs_group, work);

	guard(vcs_nofs)();
	if (READ_ONCE(g->tell))
		tell_provider(g);
	if (g->ops)
		call_consumer(g);
	group_bury(g);
	kobject_put(&g->kobj);		/* the queue's */
}

void vcs_group_leave_sync(struct vcs_group *g)
{
	struct work_struct *work = current_work();

	vcs_group_leave(g);
	if (!WARN_ON_ONCE(work && work->func == group_work))
		wait_for_completion(&g->left_done);
}
EXPORT_SYMBOL_GPL(vcs_group_leave_sync);

/* --- joining ---------------------------------------------------------------------------- */

/* What wants to join, in no list yet. An ERR_PTR; the names are checked. */
static struct vcs_group *group_new(struct vcs_cluster *c, const char *name, const char *owner,
				   u32 level, u32 flags, const struct vcs_from *from)
{
	struct vcs_group *g;

	if (!vcs_name_ok(name))
		return ERR_PTR(vcs_refuse(from, VCS_A_GROUP, -EINVAL, "not a name for a group"));
	if (!vcs_text_ok(owner))
		return ERR_PTR(vcs_refuse(from, VCS_A_OWNER, -EINVAL, "not a tag for an owner"));
	g = kzalloc(sizeof(*g), GFP_KERNEL);
	if (!g)
		return ERR_PTR(-ENOMEM);
	strscpy(g->name, name, sizeof(g->name));
	strscpy(g->owner, owner, sizeof(g->owner));
	g->level = level;
	g->flags = flags;
	g->state = VCS_GROUP_STATE_JOINING;
	g->phase_ns = ktime_get_boottime_ns();
	g->epoch = 1;
	INIT_WORK(&g->work, group_work);
	init_completion(&g->hidden_done);
	init_completion(&g->left_done);
	kobject_get(&c->kobj);
	g->c = c;
	kobject_init(&g->kobj, &vcs_group_ktype);
	return g;
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

/* A new consumer for an orphan: the event, its phase and its acknowledgements stay. */
static int take_over(struct vcs_group *g, const char *owner, const struct vcs_from *from)
{
	if (!from || !g->orphan_ns || strcmp(g->owner, owner))
		return vcs_refuse(from, VCS_A_GROUP, -EBUSY,
				  "the group is held, or has another owner tag");
	vcs_session_take(&g->holder, from);
	WRITE_ONCE(g->orphan_ns, 0);
	WRITE_ONCE(g->epoch, g->epoch + 1);
	kobject_get(&g->kobj);		/* the caller's */
	trace_vcs_group_takeover(g);
	vcs_group_changed(g);
	return 0;
}

/* Put a new group into sysfs and the list. Under c->config. */
static int publish(struct vcs_group *g, const struct vcs_from *from)
{
	struct vcs_cluster *c = g->c;
	int err = kobject_add(&g->kobj, c->groups_dir, "%s", g->name);

	if (err)
		return err;
	kobject_get(&g->kobj);		/* the caller's */
	if (from)
		vcs_session_take(&g->holder, from);
	guard(vcs_cluster)(c);
	list_add_tail(&g->node, &c->groups);
	c->nr_groups++;
	trace_vcs_group_join(g);
	vcs_group_tell(g, VCS_TELL_JOIN);
	vcs_group_changed(g);
	return 0;
}

/* A dead group of this name whose directory is still there, with a reference. */
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

/* The group, @new or taken over, with a reference; NULL when @dying must go first. */
static struct vcs_group *try_join(struct vcs_group *new, const struct vcs_from *from,
				  struct vcs_group **dying)
{
	struct vcs_cluster *c = new->c;
	struct vcs_group *g;
	int err;

	guard(mutex)(&c->config);
	scoped_guard(vcs_cluster, c) {
		g = vcs_group_find(c, new->name);
		err = g ? take_over(g, new->owner, from) : join_check(c, from);
		if (g || err)
			return err ? ERR_PTR(err) : g;
		*dying = dying_find(c, new->name);
		if (*dying)
			return NULL;
	}
	err = publish(new, from);
	return err ? ERR_PTR(err) : new;
}

/* Gives @new back unless it is the answer. */
static struct vcs_group *do_join(struct vcs_group *new, const struct vcs_from *from)
{
	struct vcs_group *g, *dying;

	vcs_cluster_reap(new->c);
	while (!(g = try_join(new, from, &dying))) {
		group_hide(dying);
		kobject_put(&dying->kobj);
	}
	if (g != new)
		kobject_put(&new->kobj);
	return g;
}

struct vcs_group *vcs_group_join(struct vcs_cluster *c, const char *name, u32 level, u32 flags,
				 const struct vcs_group_ops *ops, void *priv)
{
	struct vcs_group *new;

	if (level < VCS_LEVEL_FENCING || level > VCS_LEVEL_USER ||
	    (flags & ~VCS_GROUP_NEEDS_FENCE))
		return ERR_PTR(-EINVAL);
	if (!ops || !ops->stop || !ops->start || !ops->finish || !ops->lost || !ops->left)
		return ERR_PTR(-EINVAL);
	new = group_new(c, name, "kernel", level, flags, NULL);
	if (IS_ERR(new))
		return new;
	new->ops = ops;
	new->priv = priv;
	return do_join(new, NULL);
}
EXPORT_SYMBOL_GPL(vcs_group_join);

int vcs_nl_group_join(struct vcs_from *from)
{
	struct vcs_group *g;
	u32 epoch;

	g = group_new(from->c, vcs_from_text(from, VCS_A_GROUP, ""),
		      vcs_from_text(from, VCS_A_OWNER, ""),
		      vcs_from_u32(from, VCS_A_LEVEL, VCS_LEVEL_USER),
		      vcs_from_u32(from, VCS_A_GROUP_FLAGS, 0), from);
	if (IS_ERR(g))
		return PTR_ERR(g);
	from->session = vcs_random_id();
	g = do_join(g, from);
	if (IS_ERR(g))
		return PTR_ERR(g);
	epoch = READ_ONCE(g->epoch);
	vcs_group_put(g);
	return vcs_put_u64(from->reply, VCS_A_SESSION, from->session) ?:
	       nla_put_u32(from->reply, VCS_A_OWNER_EPOCH, epoch) ?:
	       nla_put_u32(from->reply, VCS_A_TAKEN_OVER, epoch > 1);
}

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

struct vcs_cluster *vcs_group_cluster(const struct vcs_group *g)
{
	return g->c;
}
EXPORT_SYMBOL_GPL(vcs_group_cluster);
