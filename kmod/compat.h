/* SPDX-License-Identifier: GPL-2.0 */
/* The only place that knows kernel versions: Debian's 6.1 and 6.12. */
#ifndef _VCS_COMPAT_H
#define _VCS_COMPAT_H

#include <linux/version.h>
#include <net/genetlink.h>

/*
 * The attributes of a dump request moved into struct genl_info:
 * "genetlink: use attrs from struct genl_info" (in v6.6).
 * Goes with 6.1.
 */
static inline struct nlattr **vcs_dump_attrs(struct netlink_callback *cb)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
	return genl_dumpit_info(cb)->attrs;
#else
	return genl_info_dump(cb)->attrs;
#endif
}

#endif /* _VCS_COMPAT_H */
