// SPDX-License-Identifier: GPL-2.0
/* Clusters: their list, the provider's seat, and what the death of a socket means. */
#include <linux/module.h>
#include <linux/slab.h>

#include "internal.h"
#include "trace.h"

static LIST_HEAD(vcs_clusters);		/* vcs_lock */
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

	mutex_lock(&vcs_lock);
	c = find(handle);
	if (c && !c->dead)
		kobject_get(&c->kobj);
	else
		c = NULL;
	mutex_unlock(&vcs_lock);
	return c;
}

/* The @n-th, for dumps, with a reference. Under vcs_lock. */
struct vcs_cluster *vcs_cluster_nth(unsigned int n)
{
	struct vcs_cluster *c;

	lockdep_assert_held(&vcs_lock);
	list_for_each_entry(c, &vcs_clusters, node)
		if (!c->dead && !n--) {
			kobject_get(&c->kobj);
			return c;
		}
	return NULL;
}

struct vcs_cluster *vcs_cluster_get(const char *handle)
{
	struct vcs_cluster *c;

	if (!try_module_get(THIS_MODULE))
		return NULL;
	c = vcs_cluster_find(handle);
	if (!c)
		goto err_put;
	spin_lock_bh(&c->lock);
	if (c->dead) {
		spin_unlock_bh(&c->lock);
		vcs_cluster_unref(c);
		goto err_put;
	}
	c->pins++;
	spin_unlock_bh(&c->lock);
	return c;

err_put:
	module_put(THIS_MODULE);
	return NULL;
}
EXPORT_SYMBOL_GPL(vcs_cluster_get);

void vcs_cluster_put(struct vcs_cluster *c)
{
	spin_lock_bh(&c->lock);
	c->pins--;
	spin_unlock_bh(&c->lock);
	vcs_cluster_unref(c);
	module_put(THIS_MODULE);
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

static struct vcs_cluster *cluster_new(const char *handle, const char *name,
				       u32 nodeid)
{
	struct vcs_cluster *c = kzalloc(sizeof(*c), GFP_KERNEL);
	struct vcs_view *v = vcs_view_alloc(0, GFP_KERNEL);

	if (!c || !v) {
		kfree(c);
		vcs_view_put(v);
		return NULL;
	}
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
	RCU_INIT_POINTER(c->view, v);
	vcs_lease_init(c);
	return c;
}

int vcs_cluster_add(const char *handle, const char *name, u32 nodeid,
		    const struct vcs_from *from)
{
	struct vcs_cluster *c;
	int err;

	/* Directories beside the clusters' own. */
	if (!vcs_name_ok(handle) || !strcmp(handle, "providers") ||
	    !strcmp(handle, "api_version"))
		return vcs_refuse(from, VCS_A_HANDLE, -EINVAL, "not a name for a cluster");
	if (!*name || !vcs_text_ok(name))
		return vcs_refuse(from, VCS_A_NAME, -EINVAL, "not a name for a cluster");
	mutex_lock(&vcs_lock);
	if (find(handle)) {
		err = vcs_refuse(from, VCS_A_HANDLE, -EEXIST, "the handle is taken");
		goto out;
	}
	if (vcs_nr_clusters >= VCS_CLUSTERS_MAX) {
		err = vcs_refuse(from, VCS_A_HANDLE, -ENOSPC, "too many clusters");
		goto out;
	}
	c = cluster_new(handle, name, nodeid);
	err = c ? vcs_sysfs_cluster_add(c) : -ENOMEM;
	if (err)
		goto out;
	list_add_tail(&c->node, &vcs_clusters);
	vcs_nr_clusters++;
	vcs_clusters_seq++;
	trace_vcs_cluster_add(c);
	vcs_hint_cluster(c);
out:
	mutex_unlock(&vcs_lock);
	return err;
}

/*
 * It is dead, so nobody finds it, but its handle stays taken until its directory
 * is gone. No lock is held: kobject_del() waits for readers in sysfs.
 */
static void cluster_destroy(struct vcs_cluster *c)
{
	hrtimer_cancel(&c->lease_timer);
	cancel_work_sync(&c->reap_work);
	cancel_work_sync(&c->view_work);
	vcs_sysfs_cluster_del(c);
	trace_vcs_cluster_del(c);
	vcs_hint_cluster(c);
	mutex_lock(&vcs_lock);
	list_del(&c->node);
	vcs_nr_clusters--;
	vcs_clusters_seq++;
	mutex_unlock(&vcs_lock);
	vcs_cluster_unref(c);
}

int vcs_cluster_del(const char *handle, const struct vcs_from *from)
{
	struct vcs_cluster *c;
	int err = 0;

	mutex_lock(&vcs_lock);
	c = find(handle);
	if (!c || c->dead) {
		err = vcs_refuse(from, VCS_A_HANDLE, -ENOENT, "no such cluster");
		goto out;
	}
	mutex_lock(&c->config);
	spin_lock_bh(&c->lock);
	if (c->state == VCS_PROVIDER_ATTACHED || c->gone)
		err = vcs_refuse(from, VCS_A_HANDLE, -EBUSY, "a provider is attached");
	else if (c->nr_groups)
		err = vcs_refuse(from, VCS_A_HANDLE, -EBUSY, "the cluster has groups");
	else if (c->pins)
		err = vcs_refuse(from, VCS_A_HANDLE, -EBUSY, "a kernel consumer uses it");
	else
		c->dead = true;
	spin_unlock_bh(&c->lock);
	mutex_unlock(&c->config);
out:
	mutex_unlock(&vcs_lock);
	if (!err)
		cluster_destroy(c);
	return err;
}

/* At exit: none has groups, pins or a provider, and nobody can come any more. */
void vcs_clusters_exit(void)
{
	struct vcs_cluster *c, *next;

	list_for_each_entry_safe(c, next, &vcs_clusters, node)
		cluster_destroy(c);
}

/* --- the seat ------------------------------------------------------------------- */

/* Under c->lock: does @from hold the seat? */
int vcs_cluster_seated(struct vcs_cluster *c, const struct vcs_from *from)
{
	lockdep_assert_held(&c->lock);
	if (c->state == VCS_PROVIDER_ATTACHED && c->seat.id == from->session)
		return 0;
	c->stale++;
	return vcs_refuse(from, VCS_A_SESSION, -ESTALE,
			  "the session does not hold the provider's seat");
}

/* The provider is gone without a detach. Under c->lock; the socket stays held. */
void vcs_cluster_lose(struct vcs_cluster *c)
{
	struct vcs_group *g, *next;

	lockdep_assert_held(&c->lock);
	if (c->state != VCS_PROVIDER_ATTACHED)
		return;
	WRITE_ONCE(c->state, VCS_PROVIDER_LOST);
	c->seat.id = 0;
	c->gone = c->type;
	c->type = NULL;
	trace_vcs_provider_lost(c);
	vcs_view_unquorate(c);
	list_for_each_entry_safe(g, next, &c->groups, node)
		vcs_group_lose(g);
	vcs_lease_update(c);
	vcs_hint_provider(c);
	queue_work(vcs_wq, &c->reap_work);
}

/* The detach that a loss still owes. Under c->config. */
static void detach_lost(struct vcs_cluster *c)
{
	struct vcs_provider_type *t;
	struct sock *sk = NULL;

	spin_lock_bh(&c->lock);
	t = c->gone;
	if (t)
		swap(sk, c->seat.sk);
	spin_unlock_bh(&c->lock);
	if (!t)
		return;
	t->ops->detach(c);
	spin_lock_bh(&c->lock);
	c->gone = NULL;
	spin_unlock_bh(&c->lock);
	vcs_type_put(t);
	if (sk)
		sock_put(sk);
	module_put(THIS_MODULE);
}

/* One dead consumer's socket, for the caller to put; NULL when there is no more. */
static struct sock *reap_one(struct vcs_cluster *c)
{
	struct sock *sk = NULL;
	struct vcs_group *g;

	spin_lock_bh(&c->lock);
	list_for_each_entry(g, &c->groups, node) {
		if (!vcs_session_dead(&g->holder))
			continue;
		swap(sk, g->holder.sk);
		g->holder.id = 0;
		vcs_group_abandon(g);
		break;
	}
	spin_unlock_bh(&c->lock);
	return sk;
}

static void reap_locked(struct vcs_cluster *c)
{
	struct sock *sk;

	lockdep_assert_held(&c->config);
	/* Consumers first: one socket may be provider and consumer. */
	while ((sk = reap_one(c)))
		sock_put(sk);
	spin_lock_bh(&c->lock);
	if (vcs_session_dead(&c->seat)) {
		vcs_cluster_lose(c);
	} else if (c->state == VCS_PROVIDER_ATTACHED &&
		   vcs_lease_next(&c->lease, ktime_get_boottime_ns()) == VCS_LEASE_EXPIRED) {
		trace_vcs_lease_expire(c);
		pr_warn("vcs: %s: the lease has run out, provider %s is lost\n",
			c->handle, c->provider);
		vcs_cluster_lose(c);
	}
	spin_unlock_bh(&c->lock);
	detach_lost(c);
}

/* Carry out what dead sockets and the lease mean. */
void vcs_cluster_reap(struct vcs_cluster *c)
{
	mutex_lock(&c->config);
	reap_locked(c);
	mutex_unlock(&c->config);
}

void vcs_clusters_reap(void)
{
	struct vcs_cluster *all[VCS_CLUSTERS_MAX], *c;
	unsigned int n = 0;

	mutex_lock(&vcs_lock);
	while (n < VCS_CLUSTERS_MAX && (c = vcs_cluster_nth(n)))
		all[n++] = c;
	mutex_unlock(&vcs_lock);
	while (n--) {
		vcs_cluster_reap(all[n]);
		vcs_cluster_unref(all[n]);
	}
}

static int seat_take(struct vcs_cluster *c, struct vcs_provider_type *t, u32 lease_ms,
		     const struct vcs_from *from)
{
	struct vcs_group *g;

	if (c->dead)
		return vcs_refuse(from, VCS_A_HANDLE, -ENOENT, "no such cluster");
	if (c->state == VCS_PROVIDER_ATTACHED)
		return vcs_refuse(from, VCS_A_HANDLE, -EBUSY, "a provider is attached");
	c->type = t;
	strscpy(c->provider, t->name, sizeof(c->provider));
	WRITE_ONCE(c->state, VCS_PROVIDER_ATTACHED);
	c->seat.id = from->session;
	sock_hold(from->sk);
	c->seat.sk = from->sk;
	WRITE_ONCE(c->attached_ns, ktime_get_boottime_ns());
	c->event_floor = c->highest_event;
	/*
	 * The first lease runs from now, but nothing is armed by it: that takes a
	 * start in a quorate view of this session.
	 */
	c->lease = (struct vcs_lease) {
		.lease_ns = (u64)lease_ms * NSEC_PER_MSEC,
		.valid_from = c->attached_ns,
	};
	vcs_lease_update(c);
	list_for_each_entry(g, &c->groups, node)
		if (g->state == VCS_GROUP_STATE_JOINING)
			vcs_group_tell(g, VCS_TELL_JOIN);
	trace_vcs_provider_attach(c);
	vcs_hint_provider(c);
	return 0;
}

static void seat_leave(struct vcs_cluster *c)
{
	WRITE_ONCE(c->state, VCS_PROVIDER_NONE);
	c->type = NULL;
	c->seat.id = 0;
	trace_vcs_provider_detach(c);
	vcs_view_unquorate(c);
	vcs_lease_update(c);
	vcs_hint_provider(c);
}

/* from->session is the session to give. */
int vcs_cluster_attach(struct vcs_cluster *c, const char *type, u32 lease_ms,
		       const struct vcs_from *from, u64 *generation, u64 *highest)
{
	struct vcs_provider_type *t;
	int err;

	if (lease_ms > VCS_LEASE_MS_MAX)
		return vcs_refuse(from, VCS_A_LEASE_MS, -EINVAL, "a lease of over an hour");
	mutex_lock(&vcs_lock);
	t = vcs_type_get(type);
	mutex_unlock(&vcs_lock);
	if (!t)
		return vcs_refuse(from, VCS_A_PROVIDER, -ENOENT, "no such provider type");
	if (!try_module_get(THIS_MODULE)) {
		err = -ENODEV;
		goto err_type;
	}
	if (lease_ms && !(t->caps & VCS_CAP_LEASE)) {
		err = vcs_refuse(from, VCS_A_LEASE_MS, -EOPNOTSUPP, "the provider type has no lease");
		goto err_module;
	}
	mutex_lock(&c->config);
	reap_locked(c);
	spin_lock_bh(&c->lock);
	err = seat_take(c, t, lease_ms, from);
	*generation = vcs_view_locked(c)->generation;
	*highest = c->highest_event;
	spin_unlock_bh(&c->lock);
	if (!err)
		err = t->ops->attach(c, from->info->extack);
	else
		goto err_config;
	if (err) {
		spin_lock_bh(&c->lock);
		seat_leave(c);
		c->seat.sk = NULL;
		spin_unlock_bh(&c->lock);
		sock_put(from->sk);
		goto err_config;
	}
	mutex_unlock(&c->config);
	return 0;

err_config:
	mutex_unlock(&c->config);
err_module:
	module_put(THIS_MODULE);
err_type:
	vcs_type_put(t);
	return err;
}

int vcs_cluster_detach(struct vcs_cluster *c, const struct vcs_from *from)
{
	struct vcs_provider_type *t = NULL;
	struct sock *sk = NULL;
	int err;

	mutex_lock(&c->config);
	spin_lock_bh(&c->lock);
	err = vcs_cluster_seated(c, from);
	if (!err && c->nr_groups)
		err = vcs_refuse(from, VCS_A_HANDLE, -EBUSY, "the cluster has groups");
	if (!err) {
		t = c->type;
		swap(sk, c->seat.sk);
		seat_leave(c);
	}
	spin_unlock_bh(&c->lock);
	if (!err) {
		t->ops->detach(c);
		vcs_type_put(t);
		sock_put(sk);
		module_put(THIS_MODULE);
	}
	mutex_unlock(&c->config);
	return err;
}

void vcs_up_lost(struct vcs_cluster *c)
{
	spin_lock_bh(&c->lock);
	vcs_cluster_lose(c);
	spin_unlock_bh(&c->lock);
}
EXPORT_SYMBOL_GPL(vcs_up_lost);

/* Under c->lock. */
void vcs_cluster_fenced(struct vcs_cluster *c, u32 nodeid, u64 incarnation, int err)
{
	lockdep_assert_held(&c->lock);
	c->upcalls++;
	trace_vcs_fence_result(c, nodeid, incarnation, err);
	vcs_hint_provider(c);
}

void vcs_up_fenced(struct vcs_cluster *c, u32 nodeid, u64 incarnation, int err)
{
	spin_lock_bh(&c->lock);
	vcs_cluster_fenced(c, nodeid, incarnation, err);
	spin_unlock_bh(&c->lock);
}
EXPORT_SYMBOL_GPL(vcs_up_fenced);
