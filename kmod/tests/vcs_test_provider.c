// SPDX-License-Identifier: GPL-2.0
/*
 * A provider in the kernel, for tests. Loading it registers the type "test",
 * after every way in which a type must be refused has been tried; a wrong answer
 * is in the log, and the module is not loaded. It has no groups and no lease.
 * Writing a number to the parameter nodes installs a view of so many members, in
 * the cluster that attached last: more than vcs_view_alloc() gives, so that dumps
 * are seen to be ready for them.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/vcs.h>

static int attach_err;
module_param(attach_err, int, 0644);
MODULE_PARM_DESC(attach_err, "errno with which an attach is refused; 0: it is not");

static int attached;
module_param(attached, int, 0444);
MODULE_PARM_DESC(attached, "attaches without their detach; a second of either would show");

static DEFINE_MUTEX(seat_lock);
static struct vcs_cluster *seat;	/* seat_lock */
static u64 ring;			/* seat_lock */

static int test_attach(struct vcs_cluster *c, const struct vcs_attach *how,
		       struct netlink_ext_ack *extack)
{
	if (attach_err)
		return -attach_err;
	attached++;
	mutex_lock(&seat_lock);
	seat = c;
	mutex_unlock(&seat_lock);
	return 0;
}

static void test_detach(struct vcs_cluster *c)
{
	attached--;
	mutex_lock(&seat_lock);
	if (seat == c)
		seat = NULL;
	mutex_unlock(&seat_lock);
}

static struct vcs_view *view_of(u32 nr)
{
	struct vcs_view *v = kvzalloc(struct_size(v, member, nr), GFP_KERNEL);
	u32 i;

	if (!v)
		return NULL;
	refcount_set(&v->ref, 1);
	v->nr = nr;
	v->ring_rep = 1;
	for (i = 0; i < nr; i++)
		v->member[i] = (struct vcs_member) {
			.nodeid = i + 1, .votes = 1, .incarnation = i + 1,
		};
	return v;
}

static int nodes_set(const char *text, const struct kernel_param *unused)
{
	struct vcs_view *v;
	unsigned int nr;
	int err = kstrtouint(text, 0, &nr);

	if (err)
		return err;
	if (nr > 100000)
		return -ERANGE;
	v = view_of(nr);
	if (!v)
		return -ENOMEM;
	mutex_lock(&seat_lock);
	v->ring_seq = ++ring;
	if (seat) {
		err = vcs_up_view(seat, v);
	} else {
		vcs_view_put(v);
		err = -ENOTCONN;
	}
	mutex_unlock(&seat_lock);
	return err;
}

static const struct kernel_param_ops nodes_ops = { .set = nodes_set };
module_param_cb(nodes, &nodes_ops, NULL, 0200);
MODULE_PARM_DESC(nodes, "install a view of so many members");

static int test_group(struct vcs_group *g)
{
	return 0;
}

static const struct vcs_provider_ops plain = {
	.attach = test_attach, .detach = test_detach,
};

static const struct vcs_provider_ops incomplete = {
	.attach = test_attach, .detach = test_detach, .join = test_group,
};

static const struct vcs_provider_ops no_detach = {
	.attach = test_attach,
};

static struct vcs_provider_type test_type = {
	.name = "test", .owner = THIS_MODULE, .ops = &plain,
};

static struct vcs_provider_type bad_types[] = {
	{ .name = NULL, .ops = &plain },
	{ .name = "", .ops = &plain },
	{ .name = "a/b", .ops = &plain },
	{ .name = "bad", .ops = NULL },
	{ .name = "bad", .ops = &no_detach },
	{ .name = "bad", .ops = &incomplete },
	{ .name = "bad", .ops = &plain, .caps = VCS_CAP_GROUPS },
	{ .name = "bad", .ops = &incomplete, .caps = VCS_CAP_GROUPS },
	{ .name = "bad", .ops = &plain, .caps = VCS_CAP_RESET },
	{ .name = "bad", .ops = &plain, .caps = VCS_CAP_LEASE },
};

static int refused(const char *what, int want, int got)
{
	if (got == want)
		return 0;
	pr_err("vcs_test_provider: %s: %d, not %d\n", what, got, want);
	return -EPROTO;
}

static int try_bad_types(void)
{
	struct vcs_provider_type twice = test_type, user = test_type;
	int i, err = 0;

	user.name = "user";
	for (i = 0; i < ARRAY_SIZE(bad_types) && !err; i++)
		err = refused("a bad type", -EINVAL, vcs_provider_register(&bad_types[i]));
	if (!err)
		err = refused("another version", -EINVAL,
			      __vcs_provider_register(&twice, VCS_API_VERSION + 1, sizeof(twice)));
	if (!err)
		err = refused("another size", -EINVAL,
			      __vcs_provider_register(&twice, VCS_API_VERSION, sizeof(twice) - 8));
	return err ?: refused("a taken name", -EEXIST, vcs_provider_register(&user));
}

static int __init test_init(void)
{
	return try_bad_types() ?: vcs_provider_register(&test_type);
}

static void __exit test_exit(void)
{
	vcs_provider_unregister(&test_type);
}

module_init(test_init);
module_exit(test_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Virtual Cluster Switch: a provider for tests");
