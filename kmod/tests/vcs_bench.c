// SPDX-License-Identifier: GPL-2.0
/*
 * Measures the switch from inside, for bench/kernel.py: what a read of the view
 * costs beside an empty RCU section, and when callbacks are called. It joins so
 * many groups and acknowledges at once. In debugfs, vcs_bench/:
 *
 * reads: reading it measures, and shows "empty" and "view", in ps a section;
 * views: generation and time of the last call of the view notifier;
 * finishes: how many finish callbacks there were, and the time of the last.
 *
 * Times are CLOCK_MONOTONIC, ns.
 */
#include <linux/debugfs.h>
#include <linux/irqflags.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/vcs.h>

#define SECTIONS	20000
#define RUNS		20

static char *cluster = "bench";
module_param(cluster, charp, 0444);
MODULE_PARM_DESC(cluster, "handle of the cluster");
static uint groups;
module_param(groups, uint, 0444);
MODULE_PARM_DESC(groups, "how many to join");

static struct vcs_cluster *the_cluster;
static struct vcs_group **joined;
static struct dentry *dir;

static u64 view_generation, view_ns;
static atomic_t finishes = ATOMIC_INIT(0);
static atomic64_t finish_ns = ATOMIC64_INIT(0);

/* --- reading a view -------------------------------------------------------------- */

static noinline u64 empty_sections(unsigned int n)
{
	u64 begun = ktime_get_ns();

	while (n--) {
		rcu_read_lock();
		rcu_read_unlock();
	}
	return ktime_get_ns() - begun;
}

static noinline u64 view_sections(unsigned int n)
{
	u64 begun = ktime_get_ns();

	while (n--) {
		rcu_read_lock();
		READ_ONCE(vcs_view_rcu(the_cluster)->generation);
		rcu_read_unlock();
	}
	return ktime_get_ns() - begun;
}

/* The best of some runs, in ps a section; nothing else runs here meanwhile. */
static u64 best(u64 (*sections)(unsigned int n))
{
	unsigned long flags;
	u64 took, least = U64_MAX;
	int i;

	for (i = 0; i < RUNS; i++) {
		local_irq_save(flags);
		took = sections(SECTIONS);
		local_irq_restore(flags);
		least = min(least, took);
		cond_resched();
	}
	return div_u64(least * 1000, SECTIONS);
}

static int reads_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "empty %llu\nview %llu\n", best(empty_sections), best(view_sections));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(reads);

/* --- callbacks ---------------------------------------------------------------------- */

static int bench_view(struct notifier_block *nb, unsigned long generation, void *data)
{
	const struct vcs_view *v = data;

	WRITE_ONCE(view_ns, ktime_get_ns());
	/* Pairs with views_show(): the time is there before the generation. */
	smp_store_release(&view_generation, v->generation);
	return NOTIFY_OK;
}

static struct notifier_block bench_nb = { .notifier_call = bench_view };

static int views_show(struct seq_file *m, void *unused)
{
	/* Pairs with bench_view(). */
	u64 generation = smp_load_acquire(&view_generation);

	seq_printf(m, "%llu %llu\n", generation, READ_ONCE(view_ns));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(views);

static void bench_stop(struct vcs_group *g, const struct vcs_event *e)
{
	vcs_group_ack(g, e->id, VCS_PHASE_STOP);
}

static void bench_start(struct vcs_group *g, const struct vcs_event *e)
{
	vcs_group_ack(g, e->id, VCS_PHASE_START);
}

static void bench_finish(struct vcs_group *g, const struct vcs_event *e)
{
	atomic64_set(&finish_ns, ktime_get_ns());
	atomic_inc(&finishes);
}

static void bench_lost(struct vcs_group *g)
{
}

static void bench_left(struct vcs_group *g, int err)
{
}

static const struct vcs_group_ops bench_ops = {
	.stop = bench_stop,
	.start = bench_start,
	.finish = bench_finish,
	.lost = bench_lost,
	.left = bench_left,
};

static int finishes_show(struct seq_file *m, void *unused)
{
	int n = atomic_read(&finishes);

	seq_printf(m, "%d %lld\n", n, atomic64_read(&finish_ns));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(finishes);

/* --- the module --------------------------------------------------------------------- */

static void leave_all(unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		vcs_group_leave(joined[i]);
	for (i = 0; i < n; i++) {
		vcs_group_leave_sync(joined[i]);
		vcs_group_put(joined[i]);
	}
	kvfree(joined);
}

static int join_all(void)
{
	char name[16];
	unsigned int i;

	joined = kvcalloc(groups, sizeof(*joined), GFP_KERNEL);
	if (!joined)
		return -ENOMEM;
	for (i = 0; i < groups; i++) {
		snprintf(name, sizeof(name), "g%04u", i);
		joined[i] = vcs_group_join(the_cluster, name, VCS_LEVEL_USER, 0, &bench_ops, NULL);
		if (IS_ERR(joined[i])) {
			int err = PTR_ERR(joined[i]);

			leave_all(i);
			return err;
		}
	}
	return 0;
}

static int __init bench_init(void)
{
	int err;

	the_cluster = vcs_cluster_get(cluster);
	if (!the_cluster)
		return -ENOENT;
	err = vcs_view_notifier_register(the_cluster, &bench_nb);
	if (err)
		goto err_notifier;
	err = join_all();
	if (err)
		goto err_join;
	dir = debugfs_create_dir("vcs_bench", NULL);
	debugfs_create_file("reads", 0444, dir, NULL, &reads_fops);
	debugfs_create_file("views", 0444, dir, NULL, &views_fops);
	debugfs_create_file("finishes", 0444, dir, NULL, &finishes_fops);
	return 0;

err_join:
	vcs_view_notifier_unregister(the_cluster, &bench_nb);
err_notifier:
	vcs_cluster_put(the_cluster);
	return err;
}

static void __exit bench_exit(void)
{
	debugfs_remove(dir);
	leave_all(groups);
	vcs_view_notifier_unregister(the_cluster, &bench_nb);
	vcs_cluster_put(the_cluster);
}

module_init(bench_init);
module_exit(bench_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Virtual Cluster Switch: measurements from inside");
