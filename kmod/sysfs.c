// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/vcs, read only: changes go through netlink. The show functions
 * take no lock, so that kobject_del() can wait for them anywhere; a value that
 * changes meanwhile is shown old or new. The files are in spec/observe.yaml.
 */
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "internal.h"

static struct kobject *vcs_kobj;
static struct kobject *providers_kobj;

struct type_kobj {
	struct kobject kobj;
	const struct vcs_provider_type *type;
};

static u64 ms_since(u64 ns)
{
	return ns ? div_u64(ktime_get_boottime_ns() - ns, NSEC_PER_MSEC) : 0;
}

static bool attached(const struct vcs_cluster *c)
{
	return READ_ONCE(c->state) == VCS_PROVIDER_ATTACHED;
}

static ssize_t show_flags(const struct vcs_group *g, char *buf)
{
	bool persistent = g->flags & VCS_GROUP_PERSISTENT;
	bool needs_fence = g->flags & VCS_GROUP_NEEDS_FENCE;

	return sysfs_emit(buf, "%s%s%s\n", persistent ? "persistent" : needs_fence ? "" : "none",
			  persistent && needs_fence ? "," : "", needs_fence ? "needs-fence" : "");
}

/* As 1-3,7. What does not fit into a page is cut: netlink has it all. */
static ssize_t show_members(const struct vcs_view *v, char *buf)
{
	const struct vcs_member *m = v->member;
	u32 i, end;
	int n = 0;

	for (i = 0; i < v->nr; i = end + 1) {
		for (end = i; end + 1 < v->nr && m[end + 1].nodeid == m[end].nodeid + 1;)
			end++;
		n += sysfs_emit_at(buf, n, i ? ",%u" : "%u", m[i].nodeid);
		if (end > i)
			n += sysfs_emit_at(buf, n, "-%u", m[end].nodeid);
	}
	return n + sysfs_emit_at(buf, n, "\n");
}

#include "sysfs_files.h"

/* --- clusters and groups ------------------------------------------------------------------ */

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
	vcs_event_put(g->ran);
	kobject_put(&g->c->kobj);
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

	if (!err) {
		c->groups_dir = kobject_create_and_add("groups", &c->kobj);
		if (c->groups_dir)
			return 0;
		kobject_del(&c->kobj);
		err = -ENOMEM;
	}
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

static const struct attribute_group *type_dirs[] = { &type_dir, NULL };

static void type_release(struct kobject *kobj)
{
	kfree(container_of(kobj, struct type_kobj, kobj));
}

static const struct kobj_type type_ktype = {
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = type_dirs,
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

int vcs_sysfs_init(void)
{
	vcs_kobj = kobject_create_and_add("vcs", kernel_kobj);
	if (!vcs_kobj)
		return -ENOMEM;
	providers_kobj = kobject_create_and_add("providers", vcs_kobj);
	if (!providers_kobj || sysfs_create_group(vcs_kobj, &top_dir)) {
		vcs_sysfs_exit();
		return -ENOMEM;
	}
	return 0;
}

void vcs_sysfs_exit(void)
{
	kobject_del(providers_kobj);
	kobject_put(providers_kobj);
	kobject_del(vcs_kobj);
	kobject_put(vcs_kobj);
}
