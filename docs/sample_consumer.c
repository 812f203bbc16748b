// SPDX-License-Identifier: GPL-2.0
/* A consumer, whole: one group of one cluster. The tests build and run it. */
#include <linux/module.h>
#include <linux/vcs.h>

static char *cluster = "demo";
module_param(cluster, charp, 0444);
static struct vcs_cluster *the_cluster;
static struct vcs_group *group;

static void sample_stop(struct vcs_group *g, const struct vcs_event *e)
{
	/* Take no new cluster lock. Who needs time acknowledges later. */
	vcs_group_ack(g, e->id, VCS_PHASE_STOP);
}

static void sample_start(struct vcs_group *g, const struct vcs_event *e)
{
	/* Here: recover what those held who are no members any more. */
	vcs_group_ack(g, e->id, VCS_PHASE_START);
}

static void sample_finish(struct vcs_group *g, const struct vcs_event *e)
{
	/* Here: everybody has recovered, grant locks again. */
}

static void sample_lost(struct vcs_group *g)
{
	pr_warn("sample: nobody vouches for the membership any more\n");
}

static void sample_left(struct vcs_group *g, int err)
{
	pr_info("sample: left (%d)\n", err);
}

static const struct vcs_group_ops ops = { .stop = sample_stop, .start = sample_start,
	.finish = sample_finish, .lost = sample_lost, .left = sample_left };
static int __init sample_init(void)
{
	the_cluster = vcs_cluster_get(cluster);
	if (!the_cluster)
		return -ENOENT;
	group = vcs_group_join(the_cluster, "sample", VCS_LEVEL_USER, 0, &ops, NULL);
	if (IS_ERR(group))
		vcs_cluster_put(the_cluster);
	return PTR_ERR_OR_ZERO(group);
}

static void __exit sample_exit(void)
{
	vcs_group_leave_sync(group);
	vcs_group_put(group);
	vcs_cluster_put(the_cluster);
}
module_init(sample_init);
module_exit(sample_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Virtual Cluster Switch: the sample of a consumer");
