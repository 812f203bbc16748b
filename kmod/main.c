// SPDX-License-Identifier: GPL-2.0
/* Init and exit of vcs.ko, nothing else. */
#include <linux/module.h>
#include <linux/random.h>

#include "internal.h"

struct workqueue_struct *vcs_wq;
u64 vcs_incarnation;

/* Boot incarnations and sessions: > 0, and positive also as a signed number. */
u64 vcs_random_id(void)
{
	u64 id;

	do
		id = get_random_u64() & S64_MAX;
	while (!id);
	return id;
}

static int __init vcs_init(void)
{
	int err;

	vcs_incarnation = vcs_random_id();
	vcs_wq = alloc_workqueue("vcs", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!vcs_wq)
		return -ENOMEM;
	err = vcs_sysfs_init();
	if (err)
		goto err_sysfs;
	err = vcs_user_init();
	if (err)
		goto err_user;
	err = vcs_lease_pm_init();
	if (err)
		goto err_pm;
	err = vcs_netlink_init();
	if (err)
		goto err_netlink;
	return 0;

err_netlink:
	vcs_lease_pm_exit();
err_pm:
	vcs_user_exit();
err_user:
	vcs_sysfs_exit();
err_sysfs:
	destroy_workqueue(vcs_wq);
	return err;
}

/*
 * Every group and every attached provider holds the module, so what is left is
 * clusters without either, and claims.
 */
static void __exit vcs_exit(void)
{
	vcs_netlink_exit();
	vcs_lease_pm_exit();
	vcs_claims_exit();
	vcs_clusters_exit();
	vcs_user_exit();
	destroy_workqueue(vcs_wq);
	rcu_barrier();
	vcs_sysfs_exit();
}

module_init(vcs_init);
module_exit(vcs_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Virtual Cluster Switch");
