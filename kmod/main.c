// SPDX-License-Identifier: GPL-2.0
/* Init and exit of vcs.ko, nothing else. */
#include <linux/module.h>
#include <linux/random.h>
#include <linux/suspend.h>

#include "internal.h"

struct workqueue_struct *vcs_wq;
u64 vcs_incarnation;

/* Boot incarnations and sessions: > 0, and positive also as a signed number. */
u64 vcs_random_id(void)
{
	return (get_random_u64() & S64_MAX) ?: 1;
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
	err = vcs_provider_register(&vcs_user_type);
	if (err)
		goto err_user;
	err = register_pm_notifier(&vcs_lease_pm);
	if (err)
		goto err_pm;
	err = vcs_netlink_init();
	if (err)
		goto err_netlink;
	return 0;

err_netlink:
	unregister_pm_notifier(&vcs_lease_pm);
err_pm:
	vcs_provider_unregister(&vcs_user_type);
err_user:
	vcs_sysfs_exit();
err_sysfs:
	destroy_workqueue(vcs_wq);
	return err;
}

/* Every cluster holds the module, so none is left. */
static void __exit vcs_exit(void)
{
	vcs_netlink_exit();
	unregister_pm_notifier(&vcs_lease_pm);
	vcs_claims_exit();
	destroy_workqueue(vcs_wq);
	vcs_provider_unregister(&vcs_user_type);
	rcu_barrier();
	vcs_sysfs_exit();
}

module_init(vcs_init);
module_exit(vcs_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Virtual Cluster Switch");
