// SPDX-License-Identifier: GPL-2.0
/*
 * The provider type `user`: a daemon on a netlink socket. It pulls what it has
 * to know (GROUP_GET after a hint) and orders by commands, so there is nothing
 * to do in the ops; that a hint is lost does no harm.
 */
#include <linux/module.h>

#include "internal.h"

static int user_attach(struct vcs_cluster *c, const struct vcs_attach *how,
		       struct netlink_ext_ack *extack)
{
	if (!how->config)
		return 0;
	NL_SET_ERR_MSG_ATTR(extack, how->config, "the type user takes no configuration");
	return -EINVAL;
}

static void user_detach(struct vcs_cluster *c)
{
}

static int user_group(struct vcs_group *g)
{
	return 0;
}

static void user_acked(struct vcs_group *g, u64 event, enum vcs_phase phase)
{
}

static const struct vcs_provider_ops user_ops = {
	.attach = user_attach,
	.detach = user_detach,
	.join = user_group,
	.leave = user_group,
	.acked = user_acked,
};

struct vcs_provider_type vcs_user_type = {
	.name = "user",
	.owner = THIS_MODULE,
	.caps = VCS_CAP_AGREED | VCS_CAP_GROUPS | VCS_CAP_FENCE | VCS_CAP_LEASE,
	.ops = &user_ops,
};
