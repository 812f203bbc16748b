// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/vcs, read only: changes go through netlink. The show functions
 * take no lock, so that kobject_del() can wait for them anywhere; a value that
 * changes meanwhile is shown old or new.
 */
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "internal.h"

static struct kobject *vcs_kobj;
static struct kobject *providers_kobj;

#define ATTR(_id, _file)						\
static struct kobj_attribute attr_##_id = {				\
	.attr = { .name = _file, .mode = 0444 }, .show = show_##_id }

#define CLUSTER_ATTR(_id, _file, _fmt, _value)				\
static ssize_t show_##_id(struct kobject *kobj,				\
			  struct kobj_attribute *attr, char *buf)	\
{									\
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);\
									\
	return sysfs_emit(buf, _fmt "\n", _value);			\
}									\
ATTR(_id, _file)

/* The same for every cluster. */
#define CONST_ATTR(_id, _file, _fmt, _value)				\
static ssize_t show_##_id(struct kobject *kobj,				\
			  struct kobj_attribute *attr, char *buf)	\
{									\
	return sysfs_emit(buf, _fmt "\n", _value);			\
}									\
ATTR(_id, _file)

#define VIEW_ATTR(_id, _file, _fmt, _value)				\
static ssize_t show_##_id(struct kobject *kobj,				\
			  struct kobj_attribute *attr, char *buf)	\
{									\
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);\
	const struct vcs_view *v;					\
	ssize_t n;							\
									\
	rcu_read_lock();						\
	v = rcu_dereference(c->view);					\
	n = sysfs_emit(buf, _fmt "\n", _value);				\
	rcu_read_unlock();						\
	return n;							\
}									\
ATTR(_id, _file)

#define GROUP_ATTR(_id, _fmt, _value)					\
static ssize_t show_g_##_id(struct kobject *kobj,			\
			    struct kobj_attribute *attr, char *buf)	\
{									\
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);\
									\
	return sysfs_emit(buf, _fmt "\n", _value);			\
}									\
ATTR(g_##_id, #_id)

/* One text per value; an unknown value shows as "?". */
static const char *text(const char *const *texts, unsigned int n, unsigned int i)
{
	return i < n && texts[i] ? texts[i] : "?";
}

#define TEXT(_texts, _i) text(_texts, ARRAY_SIZE(_texts), READ_ONCE(_i))

static const char *const provider_states[] = { "none", "attached", "orphan", "lost" };
static const char *const lease_states[] = { "none", "idle", "armed", "expired" };
static const char *const phases[] = { "none", "stop", "start", "finish" };
static const char *const group_states[] = { NULL, "joining", "member", "leaving", "lost" };
static const char *const levels[] = {
	NULL, "fencing", "lock-manager", "file-system", "user"
};

static u64 ms_since(u64 ns)
{
	return ns ? div_u64(ktime_get_boottime_ns() - ns, NSEC_PER_MSEC) : 0;
}

static bool attached(const struct vcs_cluster *c)
{
	return READ_ONCE(c->state) == VCS_PROVIDER_ATTACHED;
}

CLUSTER_ATTR(cluster_name, "cluster_name", "%s", c->name);
CLUSTER_ATTR(nodeid, "nodeid", "%u", c->nodeid);
CONST_ATTR(incarnation, "incarnation", "%llu", vcs_incarnation);
CLUSTER_ATTR(change_seq, "change_seq", "%llu", READ_ONCE(c->change_seq));

CLUSTER_ATTR(p_type, "type", "%s", c->provider);
CLUSTER_ATTR(p_state, "state", "%s", TEXT(provider_states, c->state));
CLUSTER_ATTR(p_age, "session_age_ms", "%llu",
	     attached(c) ? ms_since(READ_ONCE(c->attached_ns)) : 0ULL);
CLUSTER_ATTR(p_upcalls, "upcalls", "%llu", READ_ONCE(c->upcalls));
CLUSTER_ATTR(p_stale, "stale_acks", "%llu", READ_ONCE(c->stale));
CLUSTER_ATTR(p_dropped, "dropped_hints", "%llu", READ_ONCE(c->dropped_hints));

VIEW_ATTR(v_generation, "generation", "%llu", v->generation);
VIEW_ATTR(v_quorate, "quorate", "%u", !!(v->flags & VCS_VIEW_QUORATE));
CLUSTER_ATTR(v_agreed, "agreed", "%u", attached(c));
VIEW_ATTR(v_nr, "nr_members", "%u", v->nr);

static ssize_t show_v_ring(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);
	const struct vcs_view *v;
	ssize_t n;

	rcu_read_lock();
	v = rcu_dereference(c->view);
	n = sysfs_emit(buf, "%llu.%u\n", v->ring_seq, v->ring_rep);
	rcu_read_unlock();
	return n;
}
ATTR(v_ring, "ring");

/* As 1-3,7. What does not fit into a page is cut: netlink has it all. */
static ssize_t show_v_members(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);
	const struct vcs_member *m;
	const struct vcs_view *v;
	u32 i, end;
	int n = 0;

	rcu_read_lock();
	v = rcu_dereference(c->view);
	m = v->member;
	for (i = 0; i < v->nr; i = end + 1) {
		for (end = i; end + 1 < v->nr && m[end + 1].nodeid == m[end].nodeid + 1;)
			end++;
		n += sysfs_emit_at(buf, n, i ? ",%u" : "%u", m[i].nodeid);
		if (end > i)
			n += sysfs_emit_at(buf, n, "-%u", m[end].nodeid);
	}
	rcu_read_unlock();
	n += sysfs_emit_at(buf, n, "\n");
	return n;
}
ATTR(v_members, "members");

CLUSTER_ATTR(l_state, "state", "%s",
	     text(lease_states, ARRAY_SIZE(lease_states),
		  vcs_lease_next(&c->lease, ktime_get_boottime_ns())));
CLUSTER_ATTR(l_ms, "lease_ms", "%llu", div_u64(READ_ONCE(c->lease.lease_ns), NSEC_PER_MSEC));
CLUSTER_ATTR(l_remaining, "remaining_ms", "%llu",
	     attached(c) ? vcs_lease_remaining_ms(&c->lease, ktime_get_boottime_ns()) : 0ULL);
CLUSTER_ATTR(l_renewals, "renewals", "%llu", READ_ONCE(c->lease.renewals));
CLUSTER_ATTR(l_late, "late_renewals", "%llu", READ_ONCE(c->lease.late));
/* No reset in this version: no grace before one, never armed, nothing to run dry. */
CONST_ATTR(l_grace, "grace_ms", "%u", 0);
CONST_ATTR(l_reset, "reset_armed", "%u", 0);
CONST_ATTR(l_dry, "dry_run", "%u", 0);

GROUP_ATTR(level, "%s", TEXT(levels, g->level));
GROUP_ATTR(flags, "%s", g->flags == 3 ? "persistent,needs-fence" :
			g->flags == VCS_GROUP_PERSISTENT ? "persistent" :
			g->flags == VCS_GROUP_NEEDS_FENCE ? "needs-fence" : "none");
GROUP_ATTR(state, "%s", TEXT(group_states, g->state));
GROUP_ATTR(event, "%llu", READ_ONCE(g->event_id));
GROUP_ATTR(phase, "%s", TEXT(phases, g->phase));
GROUP_ATTR(acked_event, "%llu", READ_ONCE(g->acked_event));
GROUP_ATTR(nr_members, "%u", READ_ONCE(g->nr_members));
GROUP_ATTR(owner, "%s", g->owner);
GROUP_ATTR(orphan_since_ms, "%llu", ms_since(READ_ONCE(g->orphan_ns)));
GROUP_ATTR(age_ms, "%llu", ms_since(READ_ONCE(g->phase_ns)));

#define FILES(_name, ...) static struct attribute *_name[] = { __VA_ARGS__, NULL }
#define A(_id) (&attr_##_id.attr)

FILES(cluster_files, A(cluster_name), A(nodeid), A(incarnation), A(change_seq));
FILES(provider_files, A(p_type), A(p_state), A(p_age), A(p_upcalls), A(p_stale), A(p_dropped));
FILES(view_files, A(v_generation), A(v_ring), A(v_quorate), A(v_agreed), A(v_nr), A(v_members));
FILES(lease_files, A(l_state), A(l_ms), A(l_grace), A(l_remaining), A(l_renewals), A(l_late),
      A(l_reset), A(l_dry));
FILES(group_files, A(g_level), A(g_flags), A(g_state), A(g_event), A(g_phase),
      A(g_acked_event), A(g_nr_members), A(g_owner), A(g_orphan_since_ms), A(g_age_ms));

static const struct attribute_group cluster_dir = { .attrs = cluster_files };
static const struct attribute_group provider_dir = { .name = "provider", .attrs = provider_files };
static const struct attribute_group view_dir = { .name = "view", .attrs = view_files };
static const struct attribute_group lease_dir = { .name = "lease", .attrs = lease_files };
static const struct attribute_group group_dir = { .attrs = group_files };
static const struct attribute_group *cluster_dirs[] = {
	&cluster_dir, &provider_dir, &view_dir, &lease_dir, NULL
};
static const struct attribute_group *group_dirs[] = { &group_dir, NULL };

static void cluster_release(struct kobject *kobj)
{
	struct vcs_cluster *c = container_of(kobj, struct vcs_cluster, kobj);

	vcs_view_put(rcu_dereference_protected(c->view, true));
	kfree(c);
}

static void group_release(struct kobject *kobj)
{
	struct vcs_group *g = container_of(kobj, struct vcs_group, kobj);

	vcs_event_put(g->event);
	vcs_event_put(g->finished);
	vcs_cluster_unref(g->c);
	kfree(g);
}

const struct kobj_type vcs_cluster_ktype = {
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = cluster_dirs,
	.release = cluster_release,
};

const struct kobj_type vcs_group_ktype = {
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = group_dirs,
	.release = group_release,
};

/* On failure the reference is given back. */
int vcs_sysfs_cluster_add(struct vcs_cluster *c)
{
	int err = kobject_init_and_add(&c->kobj, &vcs_cluster_ktype, vcs_kobj, "%s", c->handle);

	if (err)
		goto err_put;
	c->groups_dir = kobject_create_and_add("groups", &c->kobj);
	if (!c->groups_dir) {
		err = -ENOMEM;
		kobject_del(&c->kobj);
		goto err_put;
	}
	return 0;

err_put:
	kobject_put(&c->kobj);
	return err;
}

void vcs_sysfs_cluster_del(struct vcs_cluster *c)
{
	kobject_del(c->groups_dir);
	kobject_put(c->groups_dir);
	kobject_del(&c->kobj);
}

/* --- provider types ------------------------------------------------------------------- */

struct type_kobj {
	struct kobject kobj;
	const struct vcs_provider_type *type;
};

static ssize_t show_t_caps(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "0x%llx\n", container_of(kobj, struct type_kobj, kobj)->type->caps);
}
ATTR(t_caps, "caps");

static ssize_t show_t_refcount(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n",
			  atomic_read(&container_of(kobj, struct type_kobj, kobj)->type->users));
}
ATTR(t_refcount, "refcount");

FILES(type_attrs, A(t_caps), A(t_refcount));
ATTRIBUTE_GROUPS(type);

static void type_release(struct kobject *kobj)
{
	kfree(container_of(kobj, struct type_kobj, kobj));
}

static const struct kobj_type type_ktype = {
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = type_groups,
	.release = type_release,
};

int vcs_sysfs_type_add(struct vcs_provider_type *t)
{
	struct type_kobj *k = kzalloc(sizeof(*k), GFP_KERNEL);
	int err;

	if (!k)
		return -ENOMEM;
	k->type = t;
	err = kobject_init_and_add(&k->kobj, &type_ktype, providers_kobj, "%s", t->name);
	if (err)
		kobject_put(&k->kobj);
	else
		t->kobj = &k->kobj;
	return err;
}

void vcs_sysfs_type_del(struct vcs_provider_type *t)
{
	kobject_del(t->kobj);
	kobject_put(t->kobj);
	t->kobj = NULL;
}

/* --- the top ------------------------------------------------------------------------------ */

CONST_ATTR(api_version, "api_version", "%u", VCS_API_VERSION);

int vcs_sysfs_init(void)
{
	vcs_kobj = kobject_create_and_add("vcs", kernel_kobj);
	if (!vcs_kobj)
		return -ENOMEM;
	providers_kobj = kobject_create_and_add("providers", vcs_kobj);
	if (!providers_kobj || sysfs_create_file(vcs_kobj, A(api_version))) {
		vcs_sysfs_exit();
		return -ENOMEM;
	}
	return 0;
}

void vcs_sysfs_exit(void)
{
	if (providers_kobj)
		kobject_del(providers_kobj);
	kobject_put(providers_kobj);
	kobject_del(vcs_kobj);
	kobject_put(vcs_kobj);
}
