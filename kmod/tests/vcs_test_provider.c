// SPDX-License-Identifier: GPL-2.0
/*
 * A provider in the kernel, for tests. Loading it registers the type "test",
 * after every way in which a type must be refused has been tried; a wrong answer
 * is in the log, and the module is not loaded. It has no groups and no lease.
 */
#include <linux/module.h>
#include <linux/vcs.h>

static int attach_err;
module_param(attach_err, int, 0644);
MODULE_PARM_DESC(attach_err, "errno with which an attach is refused; 0: it is not");

static int attached;
module_param(attached, int, 0444);
MODULE_PARM_DESC(attached, "attaches without their detach; a second of either would show");

static int test_attach(struct vcs_cluster *c, const struct vcs_attach *how,
		       struct netlink_ext_ack *extack)
{
	if (attach_err)
		return -attach_err;
	attached++;
	return 0;
}

static void test_detach(struct vcs_cluster *c)
{
	attached--;
}

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
