// SPDX-License-Identifier: GPL-2.0
/* Clusters: their list, the provider's seat, and what the death of a socket means. */
#include <linux/module.h>
#include <linux/slab.h>

#include "internal.h"
#include "trace.h"

LIST_HEAD(vcs_clusters);		/* vcs_lock */
static unsigned int vcs_nr_clusters;	/* vcs_lock; with those being deleted */
static u32 vcs_last_id;			/* vcs_lock */
u32 vcs_clusters_seq = 1;		/* vcs_lock; for dumps */

static struct vcs_cluster *find(const char *handle)
{
	struct vcs_cluster *c;

	lockdep_assert_held(&vcs_lock);
	list_for_each_entry(c, &vcs_clusters, node)
		if (!strcmp(c->handle, handle))
			return c;
	return NULL;
}

/* With a reference. */
struct vcs_cluster *vcs_cluster_find(const char *handle)
{
	struct vcs_cluster *c;

	guard(mutex)(&vcs_lock);
	c = find(handle);
	if (!c || READ_ONCE(c->dead))
		return NULL;
	kobject_get(&c->kobj);
	return c;
}

struct vcs_cluster *vcs_cluster_get(const char *handle)
{
	struct vcs_cluster *c = vcs_cluster_find(handle);

	if (!c)
		return NULL;
	scoped_guard(vcs_cluster, c) {
		if (!c->dead) {
			c->pins++;
			return c;
		}
	}
	kobject_put(&c->kobj);
	return NULL;
}
EXPORT_SYMBOL_GPL(vcs_cluster_get);

void vcs_cluster_put(struct vcs_cluster *c)
{
	scoped_guard(vcs_cluster, c)
		c->pins--;
	kobject_put(&c->kobj);
}
EXPORT_SYMBOL_GPL(vcs_cluster_put);

void vcs_cluster_set_priv(struct vcs_cluster *c, void *priv)
{
	c->priv = priv;
}
EXPORT_SYMBOL_GPL(vcs_cluster_set_priv);

void *vcs_cluster_priv(struct vcs_cluster *c)
{
	return c->priv;
}
EXPORT_SYMBOL_GPL(vcs_cluster_priv);

static void reap_work(struct work_struct *work)
{
	vcs_cluster_reap(container_of(work, struct vcs_cluster, reap_work));
}

static struct vcs_cluster *cluster_new(const char *handle, const char *name, u32 nodeid)
{
	struct vcs_view *v __free(vcs_view) = vcs_view_alloc(0, GFP_KERNEL);
	struct vcs_cluster *c = v ? kzalloc(sizeof(*c), GFP_KERNEL) : NULL;

	if (!c)
		return NULL;
	strscpy(c->handle, handle, sizeof(c->handle));
	strscpy(c->name, name, sizeof(c->name));
	c->nodeid = nodeid;
	c->id = ++vcs_last_id;
	mutex_init(&c->config);
	spin_lock_init(&c->lock);
	INIT_LIST_HEAD(&c->groups);
	INIT_LIST_HEAD(&c->dying);
	INIT_WORK(&c->reap_work, reap_work);
	INIT_WORK(&c->view_work, vcs_view_work);
	BLOCKING_INIT_NOTIFIER_HEAD(&c->view_chain);
	RCU_INIT_POINTER(c->view, no_free_ptr(v));
	vcs_lease_init(c);
	return c;
}

int vcs_nl_cluster_add(struct vcs_from *from)
{
	const char *handle = vcs_from_text(from, VCS_A_HANDLE, "");
	const char *name = vcs_from_text(from, VCS_A_NAME, "");
	struct vcs_cluster *c;
	int err;

	/* Directories beside the clusters' own. */
	if (!vcs_name_ok(handle) || !strcmp(handle, "providers") ||
	    !strcmp(handle, "api_version"))
		return vcs_refuse(from, VCS_A_HANDLE, -EINVAL, "not a name for a cluster");
	if (!*name || !vcs_text_ok(name))
		return vcs_refuse(from, VCS_A_NAME, -EINVAL, "not a name for a cluster");
	guard(mutex)(&vcs_lock);
	if (find(handle))
		return vcs_refuse(from, VCS_A_HANDLE, -EEXIST, "the handle is taken");
	if (vcs_nr_clusters >= VCS_CLUSTERS_MAX)
		return vcs_refuse(from, VCS_A_HANDLE, -ENOSPC, "too many clusters");
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	c = cluster_new(handle, name, vcs_from_u32(from, VCS_A_NODEID, 0));
	err = c ? vcs_sysfs_cluster_add(c) : -ENOMEM;
	if (err) {
		module_put(THIS_MODULE);
		return err;
	}
	list_add_tail(&c->node, &vcs_clusters);
	vcs_nr_clusters++;
	vcs_clusters_seq++;
	trace_vcs_cluster_add(c);
	vcs_hint(VCS_CMD_CLUSTER_HINT, c, NULL);
	return 0;
}

/*
 * It is dead, so nobody finds it, but its handle stays taken until its directory
 * is gone. No lock is held: kobject_del() waits for readers in sysfs.
 */
static void cluster_destroy(struct vcs_cluster *c)
{
	vcs_lease_exit(c);
	vcs_sysfs_cluster_del(c);
	trace_vcs_cluster_del(c);
	vcs_hint(VCS_CMD_CLUSTER_HINT, c, NULL);
	scoped_guard(mutex, &vcs_lock) {
		list_del(&c->node);
		vcs_nr_clusters--;
		vcs_clusters_seq++;
	}
	/* Nobody queues them any more; on a dead cluster they find nothing to do. */
	cancel_work_sync(&c->reap_work);
	cancel_work_sync(&c->view_work);
	kobject_put(&c->kobj);
	/* The family's exit waits for the command that this is. */
	module_put(THIS_MODULE);
}

int vcs_nl_cluster_del(struct vcs_from *from)
{
	struct vcs_cluster *c = from->c;

	scoped_guard(mutex, &c->config) {
		guard(vcs_cluster)(c);
		if (c->dead)
			return vcs_refuse(from, VCS_A_HANDLE, -ENOENT, "no such cluster");
		if (c->state == VCS_PROVIDER_ATTACHED || c->gone)
			return vcs_refuse(from, VCS_A_HANDLE, -EBUSY, "a provider is attached");
		if (c->nr_groups)
			return vcs_refuse(from, VCS_A_HANDLE, -EBUSY, "the cluster has groups");
		if (c->pins)
			return vcs_refuse(from, VCS_A_HANDLE, -EBUSY, "a kernel consumer uses it");
		WRITE_ONCE(c->dead, true);
	}
	cluster_destroy(c);
	return 0;
}

/* --- the seat ------------------------------------------------------------------- */

/*
 * Under c->lock: does @from hold the seat? That of a provider in the kernel has no
 * session, and the policy lets no session of 0 in.
 */
int vcs_cluster_seated(struct vcs_cluster *c, const struct vcs_from *from)
{
	lockdep_assert_held(&c->lock);
	if (c->state == VCS_PROVIDER_ATTACHED && c->seat.id == from->session)
		return 0;
	WRITE_ONCE(c->stale, c->stale + 1);
	return vcs_refuse(from, VCS_A_SESSION, -ESTALE,
			  "the session does not hold the provider's seat");
}

/* Nobody vouches for anything any more. Under c->lock; the socket stays held. */
static void seat_leave(struct vcs_cluster *c, enum vcs_provider_state state)
{
	WRITE_ONCE(c->state, state);
	c->seat.id = 0;
	c->type = NULL;
	if (state == VCS_PROVIDER_LOST)
		trace_vcs_provider_lost(c);
	else if (state == VCS_PROVIDER_ORPHAN)
		trace_vcs_provider_orphan(c);
	else
		trace_vcs_provider_detach(c);
	vcs_view_unquorate(c);
	vcs_lease_update(c);
	vcs_hint(VCS_CMD_PROVIDER_HINT, c, NULL);
}

/*
 * The provider is gone without a detach, which is owed. Under c->lock. An orphan's
 * groups stay, with their events and acknowledgements: a daemon that is started
 * again goes on with them, and what the others make of its absence is theirs to
 * decide (SAFETY S16). Those of a lost one are lost.
 */
static void cluster_lose(struct vcs_cluster *c, enum vcs_provider_state state)
{
	struct vcs_group *g, *next;

	lockdep_assert_held(&c->lock);
	if (c->state != VCS_PROVIDER_ATTACHED &&
	    (c->state != VCS_PROVIDER_ORPHAN || state == VCS_PROVIDER_ORPHAN))
		return;
	pr_warn("vcs: %s: provider %s is %s%s\n", c->handle, c->provider,
		state == VCS_PROVIDER_LOST ? "lost" : "gone",
		c->lease.armed && c->lease.reset ?
		", and the machine is reset at the end of its lease and grace" : "");
	if (c->type)
		c->gone = c->type;
	seat_leave(c, state);
	list_for_each_entry_safe(g, next, &c->groups, node)
		vcs_group_lose(g, state == VCS_PROVIDER_LOST);
	queue_work(vcs_wq, &c->reap_work);
}

void vcs_up_lost(struct vcs_cluster *c)
{
	guard(vcs_cluster)(c);
	cluster_lose(c, VCS_PROVIDER_LOST);
}
EXPORT_SYMBOL_GPL(vcs_up_lost);

/* The seat is empty: tell the provider, let go what it held. Under c->config. */
static void detach(struct vcs_cluster *c, struct vcs_provider_type *t)
{
	struct sock *sk __free(vcs_sock) = NULL;

	guard(vcs_nofs)();
	t->ops->detach(c);
	scoped_guard(vcs_cluster, c) {
		swap(sk, c->seat.sk);
		c->gone = NULL;
	}
	vcs_type_put(t);
}

/* One dead consumer's socket, for the caller to put; NULL when there is no more. */
static struct sock *reap_one(struct vcs_cluster *c)
{
	struct sock *sk = NULL;
	struct vcs_group *g;

	guard(vcs_cluster)(c);
	list_for_each_entry(g, &c->groups, node) {
		if (!vcs_session_dead(&g->holder))
			continue;
		swap(sk, g->holder.sk);
		g->holder.id = 0;
		vcs_group_abandon(g);
		break;
	}
	return sk;
}

/* The lease has run out: said once; who would be reset has lost the provider. Under c->lock. */
static void expire(struct vcs_cluster *c)
{
	u64 now = ktime_get_boottime_ns();

	if (c->lease.told || vcs_lease_next(&c->lease, now) < VCS_LEASE_EXPIRED)
		return;
	c->lease.told = true;
	trace_vcs_lease_expire(c);
	if (vcs_lease_over(&c->lease, now))
		cluster_lose(c, VCS_PROVIDER_LOST);
	else
		vcs_hint(VCS_CMD_PROVIDER_HINT, c, NULL);
}

static void reap_locked(struct vcs_cluster *c)
{
	struct vcs_provider_type *gone;
	struct sock *sk;

	lockdep_assert_held(&c->config);
	/* Consumers first: one socket may be provider and consumer. */
	while ((sk = reap_one(c)))
		sock_put(sk);
	scoped_guard(vcs_cluster, c) {
		expire(c);
		if (vcs_session_dead(&c->seat))
			cluster_lose(c, VCS_PROVIDER_ORPHAN);
		gone = c->gone;
	}
	if (gone)
		detach(c, gone);
}

/* Carry out what dead sockets and the lease mean. */
void vcs_cluster_reap(struct vcs_cluster *c)
{
	guard(mutex)(&c->config);
	reap_locked(c);
}

void vcs_clusters_reap(struct work_struct *work)
{
	struct vcs_cluster *c;

	guard(mutex)(&vcs_lock);
	list_for_each_entry(c, &vcs_clusters, node)
		queue_work(vcs_wq, &c->reap_work);
}

static int seat_take(struct vcs_cluster *c, struct vcs_provider_type *t,
		     const struct vcs_from *from)
{
	struct vcs_group *g;
	int err;

	guard(vcs_cluster)(c);
	if (c->dead)
		return vcs_refuse(from, VCS_A_HANDLE, -ENOENT, "no such cluster");
	if (c->state == VCS_PROVIDER_ATTACHED)
		return vcs_refuse(from, VCS_A_HANDLE, -EBUSY, "a provider is attached");
	if (c->nr_groups && !(t->caps & VCS_CAP_GROUPS))
		return vcs_refuse(from, VCS_A_PROVIDER, -EOPNOTSUPP,
				  "the cluster has groups, the provider type has none");
	err = vcs_lease_attach(c, t->caps, from);
	if (err)
		return err;
	c->type = t;
	strscpy(c->provider, t->name, sizeof(c->provider));
	WRITE_ONCE(c->caps, t->caps);
	WRITE_ONCE(c->state, VCS_PROVIDER_ATTACHED);
	if (from->session)
		vcs_session_take(&c->seat, from);
	WRITE_ONCE(c->attached_ns, ktime_get_boottime_ns());
	c->event_floor = c->highest_event;
	list_for_each_entry(g, &c->groups, node)
		if (g->state == VCS_GROUP_STATE_JOINING)
			vcs_group_tell(g, VCS_TELL_JOIN);
	trace_vcs_provider_attach(c);
	vcs_hint(VCS_CMD_PROVIDER_HINT, c, NULL);
	return 0;
}

/* The provider's word on it; refused, the seat is as empty as it was @before. Under c->config. */
static int attach(struct vcs_cluster *c, struct vcs_provider_type *t,
		  const struct vcs_from *from, enum vcs_provider_state before)
{
	struct vcs_attach how = {
		.handle = c->handle, .name = c->name, .nodeid = c->nodeid,
		.incarnation = vcs_incarnation, .config = from->info->attrs[VCS_A_CONFIG],
	};
	struct sock *sk __free(vcs_sock) = NULL;
	int err;

	guard(vcs_nofs)();
	err = t->ops->attach(c, &how, from->info->extack);
	if (!err)
		return 0;
	scoped_guard(vcs_cluster, c) {
		seat_leave(c, before);
		swap(sk, c->seat.sk);
	}
	return err;
}

int vcs_nl_provider_attach(struct vcs_from *from)
{
	struct vcs_provider_type *t __free(vcs_type) = NULL;
	struct vcs_cluster *c = from->c;
	enum vcs_provider_state before;
	int err;

	t = vcs_type_get(vcs_from_text(from, VCS_A_PROVIDER, "user"));
	if (!t)
		return vcs_refuse(from, VCS_A_PROVIDER, -ENOENT, "no such provider type");
	from->session = t->caps & VCS_CAP_KERNEL ? 0 : vcs_random_id();
	guard(mutex)(&c->config);
	reap_locked(c);
	before = READ_ONCE(c->state);
	err = seat_take(c, t, from) ?: attach(c, t, from, before);
	if (err)
		return err;
	t = NULL;			/* the seat's */
	guard(vcs_cluster)(c);
	return (from->session ? vcs_put_u64(from->reply, VCS_A_SESSION, from->session) : 0) ?:
	       vcs_put_u64(from->reply, VCS_A_INCARNATION, vcs_incarnation) ?:
	       vcs_put_u64(from->reply, VCS_A_HIGHEST_EVENT, c->highest_event) ?:
	       vcs_put_u64(from->reply, VCS_A_GENERATION, vcs_view_locked(c)->generation);
}

int vcs_nl_provider_detach(struct vcs_from *from)
{
	struct vcs_cluster *c = from->c;
	struct vcs_provider_type *t;
	int err;

	/* Without one it is 0, as is that of a seat which no socket holds. */
	if (from->info->attrs[VCS_A_SESSION])
		from->session = vcs_from_u64(from, VCS_A_SESSION);
	guard(mutex)(&c->config);
	scoped_guard(vcs_cluster, c) {
		err = vcs_cluster_seated(c, from);
		if (err)
			return err;
		if (c->nr_groups)
			return vcs_refuse(from, VCS_A_HANDLE, -EBUSY, "the cluster has groups");
		t = c->type;
		seat_leave(c, VCS_PROVIDER_NONE);
	}
	detach(c, t);
	return 0;
}

/* --- fencing -------------------------------------------------------------------- */

static void fenced(struct vcs_cluster *c, u32 nodeid, u64 incarnation, int err)
{
	WRITE_ONCE(c->upcalls, c->upcalls + 1);
	trace_vcs_fence_result(c, nodeid, incarnation, err);
	vcs_hint(VCS_CMD_PROVIDER_HINT, c, NULL);
	if (!err && nodeid == c->nodeid && incarnation == vcs_incarnation)
		vcs_lease_fenced(c);
}

void vcs_up_fenced(struct vcs_cluster *c, u32 nodeid, u64 incarnation, int err)
{
	guard(vcs_cluster)(c);
	fenced(c, nodeid, incarnation, err);
}
EXPORT_SYMBOL_GPL(vcs_up_fenced);

int vcs_nl_fenced(struct vcs_from *from)
{
	fenced(from->c, vcs_from_u32(from, VCS_A_NODEID, 0), vcs_from_u64(from, VCS_A_INCARNATION),
	       -(int)vcs_from_u32(from, VCS_A_ERROR, 0));
	return 0;
}
