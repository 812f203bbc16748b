// SPDX-License-Identifier: GPL-2.0
/*
 * A consumer in the kernel, for tests: a view notifier and one group, through
 * the C API alone. What it saw is in debugfs, vcs_test_consumer/state, one
 * "key value" a line; writing an event id to vcs_test_consumer/ack acknowledges
 * by hand what ack=0 or ack_delay_ms left open.
 */
#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/workqueue.h>
#include <linux/vcs.h>

static char *cluster = "test";
module_param(cluster, charp, 0444);
MODULE_PARM_DESC(cluster, "handle of the cluster");
static char *group = "kernel";
module_param(group, charp, 0444);
MODULE_PARM_DESC(group, "name of the group; empty: no group, the view notifier alone");
static bool ack = true;
module_param(ack, bool, 0644);
MODULE_PARM_DESC(ack, "acknowledge stop and start");
static uint ack_delay_ms;
module_param(ack_delay_ms, uint, 0644);
MODULE_PARM_DESC(ack_delay_ms, "acknowledge this much later, from another context");
static uint flags;
module_param(flags, uint, 0444);
MODULE_PARM_DESC(flags, "flags of the group");
static bool leave_in_lost;
module_param(leave_in_lost, bool, 0644);
MODULE_PARM_DESC(leave_in_lost, "leave from within lost()");
static bool wait_in_lost;
module_param(wait_in_lost, bool, 0644);
MODULE_PARM_DESC(wait_in_lost, "leave from within lost(), and wait for the end there, which is a mistake");

static bool hang;
module_param(hang, bool, 0444);
MODULE_PARM_DESC(hang, "stop() and left() wait until debugfs' go is written");

static struct vcs_cluster *the_cluster;
static struct vcs_group *the_group;
static struct dentry *dir;

/* What was seen; each written from one context, read by tests when quiet. */
static struct {
	u64 view_generation;
	u32 view_members;
	u32 views;
	u32 view_older;		/* a callback with a view older than its event */
	u32 nested;		/* a notifier, or a callback, within another */
	u32 reclaim_fs;		/* a callback that may enter a file system's reclaim */
	u32 after_left;		/* a callback after the last one */
	u32 stops, starts, finishes, lost, left;
	int left_err, ack_err;
	u64 event;
	enum vcs_phase phase;
	u32 event_members;
} seen;

static atomic_t in_notifier = ATOMIC_INIT(0);
static atomic_t in_callback = ATOMIC_INIT(0);

static struct vcs_group *acking;	/* the_group may not be set yet */

static void ack_work(struct work_struct *work)
{
	seen.ack_err = vcs_group_ack(acking, seen.event, seen.phase);
}

static DECLARE_DELAYED_WORK(delayed_ack, ack_work);

static DECLARE_COMPLETION(go);

/* What holds for every callback; some of them wait for the test here. */
static void called(bool may_hang)
{
	if (!(current->flags & PF_MEMALLOC_NOFS))
		seen.reclaim_fs++;
	if (seen.left)
		seen.after_left++;
	if (hang && may_hang)
		wait_for_completion(&go);
}

static void enter(struct vcs_group *g, const struct vcs_event *e, enum vcs_phase phase)
{
	u64 generation;

	if (atomic_inc_return(&in_callback) != 1)
		seen.nested++;
	rcu_read_lock();
	generation = vcs_view_rcu(vcs_group_cluster(g))->generation;
	rcu_read_unlock();
	if (generation < e->view_generation)
		seen.view_older++;
	seen.event = e->id;
	seen.phase = phase;
	seen.event_members = e->nr;
	if (phase == VCS_PHASE_FINISH || !ack)
		return;
	acking = g;
	if (ack_delay_ms)
		mod_delayed_work(system_wq, &delayed_ack, msecs_to_jiffies(ack_delay_ms));
	else
		seen.ack_err = vcs_group_ack(g, e->id, phase);
}

static void leave(void)
{
	atomic_dec(&in_callback);
}

static void test_stop(struct vcs_group *g, const struct vcs_event *e)
{
	seen.stops++;
	called(true);
	enter(g, e, VCS_PHASE_STOP);
	leave();
}

static void test_start(struct vcs_group *g, const struct vcs_event *e)
{
	seen.starts++;
	called(false);
	enter(g, e, VCS_PHASE_START);
	leave();
}

static void test_finish(struct vcs_group *g, const struct vcs_event *e)
{
	seen.finishes++;
	called(false);
	enter(g, e, VCS_PHASE_FINISH);
	leave();
}

static void test_lost(struct vcs_group *g)
{
	seen.lost++;
	called(false);
	if (leave_in_lost)
		vcs_group_leave(g);
	if (wait_in_lost)
		vcs_group_leave_sync(g);
}

static void test_left(struct vcs_group *g, int err)
{
	called(true);
	seen.left++;
	seen.left_err = err;
}

static const struct vcs_group_ops test_ops = {
	.stop = test_stop,
	.start = test_start,
	.finish = test_finish,
	.lost = test_lost,
	.left = test_left,
};

static int test_view(struct notifier_block *nb, unsigned long generation, void *data)
{
	const struct vcs_view *v = data;

	if (atomic_inc_return(&in_notifier) != 1)
		seen.nested++;
	if (v->generation < seen.view_generation)
		seen.view_older++;
	seen.views++;
	seen.view_generation = v->generation;
	seen.view_members = v->nr;
	atomic_dec(&in_notifier);
	return NOTIFY_OK;
}

static struct notifier_block test_nb = { .notifier_call = test_view };

static int state_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "view_generation %llu\nview_members %u\nviews %u\n",
		   seen.view_generation, seen.view_members, seen.views);
	seq_printf(m, "view_older %u\nnested %u\nreclaim_fs %u\nafter_left %u\n",
		   seen.view_older, seen.nested, seen.reclaim_fs, seen.after_left);
	seq_printf(m, "stops %u\nstarts %u\nfinishes %u\nlost %u\nleft %u\n",
		   seen.stops, seen.starts, seen.finishes, seen.lost, seen.left);
	seq_printf(m, "left_err %d\nack_err %d\nevent %llu\nphase %u\nevent_members %u\n",
		   seen.left_err, seen.ack_err, seen.event, seen.phase, seen.event_members);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(state);

/* The phase that was seen last, of the event that is written. */
static int ack_set(void *data, u64 event)
{
	if (!the_group)
		return -ENOENT;
	seen.ack_err = vcs_group_ack(the_group, event, seen.phase);
	return seen.ack_err;
}
DEFINE_DEBUGFS_ATTRIBUTE(ack_fops, NULL, ack_set, "%llu\n");

static int go_set(void *data, u64 unused)
{
	complete_all(&go);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(go_fops, NULL, go_set, "%llu\n");

static int __init test_init(void)
{
	int err;

	the_cluster = vcs_cluster_get(cluster);
	if (!the_cluster)
		return -ENOENT;
	err = vcs_view_notifier_register(the_cluster, &test_nb);
	if (err)
		goto err_notifier;
	if (*group) {
		the_group = vcs_group_join(the_cluster, group, VCS_LEVEL_USER, flags,
					   &test_ops, NULL);
		if (IS_ERR(the_group)) {
			err = PTR_ERR(the_group);
			goto err_join;
		}
	}
	dir = debugfs_create_dir("vcs_test_consumer", NULL);
	debugfs_create_file("state", 0444, dir, NULL, &state_fops);
	debugfs_create_file_unsafe("ack", 0200, dir, NULL, &ack_fops);
	debugfs_create_file_unsafe("go", 0200, dir, NULL, &go_fops);
	return 0;

err_join:
	vcs_view_notifier_unregister(the_cluster, &test_nb);
err_notifier:
	vcs_cluster_put(the_cluster);
	return err;
}

static void __exit test_exit(void)
{
	debugfs_remove(dir);
	if (the_group) {
		vcs_group_leave_sync(the_group);
		cancel_delayed_work_sync(&delayed_ack);
		vcs_group_put(the_group);
	}
	vcs_view_notifier_unregister(the_cluster, &test_nb);
	vcs_cluster_put(the_cluster);
}

module_init(test_init);
module_exit(test_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Virtual Cluster Switch: a consumer for tests");
